"""Block diagrams: boxes on a grid and the arrows between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes

from ghostgrad.figures import style

Place = tuple[float, float]
BOX = {"boxstyle": "round,pad=0.35", "linewidth": 0.8, "edgecolor": style.BLACK, "facecolor": "white"}
PLAIN = {"boxstyle": "round,pad=0.15", "linewidth": 0, "edgecolor": "none", "facecolor": "white"}


def draw(axes: Axes, boxes: Mapping[str, tuple[Place, str]], arrows: Iterable[tuple[str, str]]) -> None:
    """`boxes` are name -> ((x, y), text), in units of the grid; a name that begins with _ is text without a frame.
    `arrows` are (from, to), or (from, to, bend)."""
    drawn = {}
    for name, ((x, y), text) in boxes.items():
        frame = PLAIN if name.startswith("_") else BOX
        drawn[name] = axes.text(x, y, text, ha="center", va="center", fontsize=7.5, bbox=frame, zorder=3)
    for start, end, *bend in arrows:
        axes.annotate(
            "",
            boxes[end][0],
            boxes[start][0],
            arrowprops={
                "arrowstyle": "-|>",
                "linewidth": 0.8,
                "color": style.GREY,
                "shrinkA": 0,
                "shrinkB": 0,
                "patchA": drawn[start].get_bbox_patch(),
                "patchB": drawn[end].get_bbox_patch(),
                "connectionstyle": f"arc3,rad={bend[0] if bend else 0}",
            },
        )
    xs, ys = zip(*(place for place, _ in boxes.values()), strict=True)
    axes.set_xlim(min(xs) - 1, max(xs) + 1)
    axes.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    axes.axis("off")


def figure(*panels: tuple[str, Mapping[str, tuple[Place, str]], Iterable[tuple]], height: float = 2.2):
    """A diagram beside another, each (title, boxes, arrows), and the boxes as drawn data."""
    fig, axes = style.panels(len(panels), width=4.6, height=height)
    rows = []
    for axis, (title, boxes, arrows) in zip(axes, panels, strict=True):
        axis.set_title(title)
        draw(axis, boxes, arrows)
        rows += [{"panel": title, "label": text, "x": x, "mean": y} for (x, y), text in boxes.values()]
    return fig, pd.DataFrame(rows, columns=style.DATA_COLUMNS)


def chain(texts: Sequence[str], y: float = 0.0, prefix: str = "") -> tuple[dict, list]:
    """Boxes from left to right, and the arrows between neighbours."""
    boxes = {f"{prefix}{index}": ((index * 1.6, y), text) for index, text in enumerate(texts)}
    return boxes, list(pairwise(boxes))
