"""Block diagrams: boxes on a grid and the arrows between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from ghostgrad.figures import style
from ghostgrad.figures.curves import DATA_COLUMNS, Drawing
from ghostgrad.figures.panels import new_panels

FRAMED = {
    "boxstyle": "round,pad=0.35",
    "linewidth": 0.8,
    "edgecolor": style.BLACK,
    "facecolor": "white",
}
UNFRAMED = {"boxstyle": "round,pad=0.15", "linewidth": 0, "edgecolor": "none", "facecolor": "white"}


class Box(NamedTuple):
    """A text centered at (x, y) in units of the grid."""

    x: float
    y: float
    text: str
    framed: bool = True


class Arrow(NamedTuple):
    """An arrow between two boxes, named by their keys; `bend` is its curvature, 0 for straight."""

    start: str
    end: str
    bend: float = 0.0


class Diagram(NamedTuple):
    """One panel: its boxes by name, and the arrows between them."""

    title: str
    boxes: Mapping[str, Box]
    arrows: Sequence[Arrow]


def draw_diagrams(*diagrams: Diagram, height: float = 2.2) -> Drawing:
    """Diagrams side by side; the drawn data are the texts of the boxes and where they are."""
    figure, panels = new_panels(len(diagrams), width=4.6, height=height)
    rows = []
    for axes, diagram in zip(panels, diagrams, strict=True):
        axes.set_title(diagram.title)
        _draw_diagram(axes, diagram)
        for box in diagram.boxes.values():
            rows.append({"panel": diagram.title, "label": box.text, "x": box.x, "mean": box.y})
    return figure, pd.DataFrame(rows, columns=DATA_COLUMNS)


def _draw_diagram(axes: Axes, diagram: Diagram) -> None:
    texts = {}
    for name, box in diagram.boxes.items():
        frame: dict[str, Any] = FRAMED if box.framed else UNFRAMED
        texts[name] = axes.text(
            box.x, box.y, box.text, ha="center", va="center", fontsize=7.5, bbox=frame, zorder=3
        )
    for arrow in diagram.arrows:
        start, end = diagram.boxes[arrow.start], diagram.boxes[arrow.end]
        axes.annotate(
            "",
            (end.x, end.y),
            (start.x, start.y),
            arrowprops={
                "arrowstyle": "-|>",
                "linewidth": 0.8,
                "color": style.GREY,
                # The arrow begins and ends at the outline of the boxes, not at their centers.
                "shrinkA": 0,
                "shrinkB": 0,
                "patchA": texts[arrow.start].get_bbox_patch(),
                "patchB": texts[arrow.end].get_bbox_patch(),
                "connectionstyle": f"arc3,rad={arrow.bend}",
            },
        )
    xs = [box.x for box in diagram.boxes.values()]
    ys = [box.y for box in diagram.boxes.values()]
    axes.set_xlim(min(xs) - 1, max(xs) + 1)
    axes.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    axes.axis("off")


def chain(texts: Iterable[str], y: float = 0.0, prefix: str = "") -> dict[str, Box]:
    """Boxes from left to right, named `<prefix>0`, `<prefix>1`, …"""
    return {f"{prefix}{i}": Box(i * 1.6, y, text) for i, text in enumerate(texts)}


def connect(names: Iterable[str]) -> list[Arrow]:
    """Arrows from each box to the next."""
    return [Arrow(start, end) for start, end in pairwise(names)]
