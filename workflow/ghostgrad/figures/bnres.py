"""Figures of "Analysis on gradient propagation in batch normalized residual networks"."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ghostgrad.figures import style
from ghostgrad.figures.style import DATA_COLUMNS
from ghostgrad.registry import Cell
from ghostgrad.results import Results


def _over_seeds(frame: pd.DataFrame, x: str, y: str, panel: str, label: str) -> pd.DataFrame:
    """Mean over seeds with the range of the seeds as its band."""
    groups = frame.groupby(x)[y]
    data = groups.agg(["mean", "min", "max", "count"]).reset_index()
    data.columns = ["x", "mean", "low", "high", "n"]
    return data.assign(panel=panel, label=label)[DATA_COLUMNS]


def training_accuracy(results: Results, numbers: pd.DataFrame):
    """Accuracy on the augmented training batches since the row before, against the step (fig. 8)."""
    figure, (axes,) = style.panels()
    frames, places = [], []
    for index, cell in enumerate(results.measured_cells):
        frame = _over_seeds(results.frame(cell, "series.csv"), "step", "train_accuracy", "", cell.label)
        style.curve(axes, frame, cell.label, index, marker="." if len(frame) < 3 else None)
        frames.append(frame)
        places.append((cell.label, frame["x"].iloc[-1], frame["mean"].iloc[-1]))
    axes.set_xlim(0, max(frame["x"].max() for frame in frames))
    axes.set_ylim(0, 102)
    axes.set(xlabel="step", ylabel="training accuracy (%)")
    style.direct_labels(axes, places, left=False)
    return figure, pd.concat(frames, ignore_index=True)


def _probe(results: Results, cell: Cell, quantity: str, at: float) -> pd.DataFrame:
    frame = results.frame(cell, "probes.csv")
    return frame[(frame["probe"] == quantity) & (frame["at"] == at)]


TITLES = {
    "gradient_variance": "variance of the gradient",
    "gradient_norm": "norm of the gradient",
    "bn_offset_mean": "mean |β/γ|",
}


def block_curves(results: Results, numbers: pd.DataFrame, quantity: str, at: list[float]):
    """A probed quantity against the block, read from right to left: a panel per model and position; lines mark the
    three scales (fig. 5-7, 9-14)."""
    chosen = [(cell, position) for position in at for cell in results.measured_cells]
    figure, axes = style.panels(len(chosen))
    frames = []
    for panel, (cell, position) in zip(axes, chosen, strict=True):
        found = _probe(results, cell, quantity, position)
        panel.set_title(f"{cell.label}, step {position:,.0f}")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_xlabel("BN layer" if quantity.startswith("bn_") else "block")
        if found.empty:
            panel.text(0.5, 0.5, "diverged before", ha="center", color=style.GREY, transform=panel.transAxes)
            continue
        name = f"{cell.label} at {position:g}"
        frame = _over_seeds(found, "index", "value", name, cell.label)
        style.curve(panel, frame, cell.label, marker="o")
        frames.append(frame)
        if not quantity.startswith("bn_"):
            blocks = int(frame["x"].max())
            for boundary in (blocks / 3 + 0.5, 2 * blocks / 3 + 0.5):
                panel.axvline(boundary, color="#cccccc", linewidth=0.6, zorder=0)
    if quantity != "bn_offset_mean":
        style.log_y(axes[0])
    axes[0].set_ylabel(TITLES[quantity])
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=DATA_COLUMNS)
    return figure, data
