"""Figures of "Analysis on gradient propagation in batch normalized residual networks"."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ghostgrad.analysis.results import Results
from ghostgrad.figures import style
from ghostgrad.figures.curves import (
    Drawing,
    concatenate,
    curve_end,
    curve_start,
    draw_band,
    draw_curve,
    draw_reference_values,
    no_data,
    over_repeats,
    over_seeds,
    step_title,
)
from ghostgrad.figures.diagram import Arrow, Box, Diagram, chain, connect, draw_diagrams
from ghostgrad.figures.labels import label_curves
from ghostgrad.figures.panels import LIGHT_GREY, new_panels, set_log_y, write_in_panel
from ghostgrad.registry.artifact import Cell

QUANTITIES = {
    "gradient_variance": "variance of the gradient",
    "gradient_norm": "norm of the gradient",
}
RUN_ENDED = "the run ended before"

# Curve -> which of a block's two BN layers, the probe, color and dash.
BN_CURVES = {
    "first BN, mean": (0, "bn_offset_mean", style.BLUE, style.SOLID),
    "first BN, median": (0, "bn_offset_median", style.BLUE, style.DOTTED),
    "second BN, mean": (1, "bn_offset_mean", style.VERMILION, style.SOLID),
    "second BN, median": (1, "bn_offset_median", style.VERMILION, style.DOTTED),
}


def training_accuracy(results: Results) -> Drawing:
    """Accuracy on the augmented training batches since the previous row, against the step (fig. 8).
    A mean is over the seeds that reached the step; the name says how many diverged."""
    figure, (axes,) = new_panels()
    frames, ends = [], []
    for index, cell in enumerate(results.measured_cells):
        series = results.frame(cell, "series.csv")
        frame = over_seeds(series, "step", "train_accuracy", "", cell.label)
        # One or two points make no visible line.
        draw_curve(axes, frame, cell.label, index, marker="." if len(frame) < 3 else None)
        frames.append(frame)
        runs = results.rows(cell)
        diverged = int((runs["status"] == "diverged").sum())
        name = f"{cell.label} ({diverged} of {len(runs)} diverged)" if diverged else cell.label
        ends.append(curve_end(frame, name))
    axes.set_xlim(0, max(frame["x"].max() for frame in frames))
    axes.set_ylim(0, 102)
    axes.set(xlabel="step", ylabel="training accuracy (%)")
    label_curves(axes, ends, left=False)
    return figure, concatenate(frames)


def _set_block_axis(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel(label)


def _mark_scales(axes: Axes, blocks: int) -> None:
    """Lines between the three scales of the network, which have a third of its blocks each."""
    for boundary in (blocks / 3 + 0.5, 2 * blocks / 3 + 0.5):
        axes.axvline(boundary, color=LIGHT_GREY, linewidth=0.6, zorder=0)


def block_curves(
    results: Results, quantity: Literal["gradient_variance", "gradient_norm"], at: list[float]
) -> Drawing:
    """A probed quantity against the block, to be read from right to left: a panel per model and
    position of `at`; lines mark the three scales (fig. 5-7, 9-12, 14, 15)."""
    chosen = [(cell, position) for position in at for cell in results.measured_cells]
    figure, panels = new_panels(len(chosen))
    frames = []
    for axes, (cell, position) in zip(panels, chosen, strict=True):
        probed = results.probe(cell, quantity, position)
        axes.set_title(f"{cell.label}, {step_title(position, probed)}")
        _set_block_axis(axes, "block (0 is the stem)")
        if probed.empty:
            write_in_panel(axes, RUN_ENDED)
            continue
        name = f"{cell.label} at {position:g}"
        frame = over_seeds(probed, "index", "value", name, cell.label)
        draw_curve(axes, frame, cell.label, marker="o")
        frames.append(frame)
        _mark_scales(axes, int(frame["x"].max()))
    set_log_y(panels[0])  # the panels share their y axis
    panels[0].set_ylabel(QUANTITIES[quantity])
    return figure, concatenate(frames)


def initial_curves(results: Results) -> Drawing:
    """Variance over the batch of the gradient at each block's output, averaged over features, at
    initialization: a panel per model, a curve per initialization, which is the mean over networks
    with their range."""
    # The rows of the artifact are named "<model>, <initialization>".
    models = groupby(results.measured_cells, lambda cell: cell.row.partition(", ")[0])
    chosen = [(model, list(cells)) for model, cells in models]
    figure, panels = new_panels(len(chosen))
    frames = []
    for axes, (model, cells) in zip(panels, chosen, strict=True):
        starts = []
        for cell in cells:
            initialization = cell.row.partition(", ")[2]
            values = results.layers(cell, "feature_variance")[:, 1:]
            blocks = np.arange(values.shape[1])
            frame = over_repeats(initialization, blocks, values, levels=(0, 1))
            draw_curve(axes, frame, initialization)
            frames.append(frame.assign(panel=model))
            starts.append(curve_start(frame, initialization))
        axes.set_title(model)
        _set_block_axis(axes, "block (0 is the stem)")
        _mark_scales(axes, values.shape[1] - 1)
        label_curves(axes, starts, left=True)
    set_log_y(panels[0])
    panels[0].set_ylabel(QUANTITIES["gradient_variance"])
    return figure, concatenate(frames)


def bn_offsets(results: Results, at: list[float]) -> Drawing:
    """Mean and median over channels of |beta/gamma| of each block's two BN layers, a panel per
    position of `at` (fig. 13). Where a gamma is near 0 the mean is large."""
    cell = results.measured_cells[0]
    figure, panels = new_panels(len(at))
    frames = []
    last_drawn = None
    for axes, position in zip(panels, at, strict=True):
        probed = results.probe(cell, "bn_offset_mean", position)
        axes.set_title(f"{cell.label}, {step_title(position, probed)}")
        _set_block_axis(axes, "block")
        if probed.empty:
            write_in_panel(axes, RUN_ENDED)
            continue
        curves = _draw_bn_curves(axes, results, cell, position)
        blocks = curves[-1]["x"].to_numpy()
        frames += [*curves, *_draw_upper_bound(axes, results, cell, position, blocks)]
        _mark_scales(axes, int(blocks.max()))
        last_drawn = axes
    panels[0].set_ylabel("|β/γ|")
    if last_drawn is None:
        return figure, no_data()
    last_drawn.legend(frameon=False, fontsize=6.5)
    return figure, concatenate(frames)


def _draw_bn_curves(
    axes: Axes, results: Results, cell: Cell, position: float
) -> list[pd.DataFrame]:
    panel = f"{cell.label} at {position:g}"
    frames = []
    for label, (layer, probe, color, dash) in BN_CURVES.items():
        probed = results.probe(cell, probe, position)
        index = probed["index"]  # of the BN layer: 0 and 1 are those of the first block, and so on
        # The last BN, before the classifier, belongs to no block and is left out.
        probed = probed[(index % 2 == layer) & (index < index.max())]
        probed = probed.assign(index=probed["index"] // 2 + 1)
        frame = over_seeds(probed, "index", "value", panel, label)
        draw_band(axes, frame, color)
        axes.plot(frame["x"], frame["mean"], color=color, linestyle=dash, label=label)
        frames.append(frame)
    return frames


def _draw_upper_bound(
    axes: Axes, results: Results, cell: Cell, position: float, blocks: np.ndarray
) -> list[pd.DataFrame]:
    """The upper bound that stands beside this position in the table, if there is one."""
    frames = []
    for number in results.references_of(cell, f"largest at step {position:,.0f}"):
        y = np.full(len(blocks), number.value)
        legend = f"upper bound ({number.provenance})"
        draw_reference_values(axes, blocks, y, legend=legend)
        panel = f"{cell.label} at {position:g}"
        columns = {"panel": panel, "x": blocks, "mean": y, "label": legend}
        frames.append(pd.DataFrame(columns))
    return frames


def bn_schematic(results: Results) -> Drawing:
    """A BN layer forward and backward (fig. 1)."""
    forward = chain(["x", "BN", "x̃"])
    backward = chain(["Δx", "BN", "Δx̃"], y=-1, prefix="b")
    arrows = [*connect(forward), *connect(reversed(backward))]
    return draw_diagrams(Diagram("", forward | backward, arrows), height=1.5)


def cascade_schematic(results: Results) -> Drawing:
    """BN, ReLU and CONV in cascade, forward and backward (fig. 2)."""
    texts = ["y(L-1)", "BN", "ỹ(L-1)", "ReLU", "ŷ(L-1)", "CONV W_L", "y(L)"]
    gradients = ["Δy(L-1)", "BN", "Δỹ(L-1)", "ReLU", "Δŷ(L-1)", "CONV W_Lᵀ", "Δy(L)"]
    forward = chain(texts)
    backward = chain(gradients, y=-1, prefix="b")
    arrows = [*connect(forward), *connect(reversed(backward))]
    figure, data = draw_diagrams(Diagram("", forward | backward, arrows), height=1.6)
    figure.set_figwidth(8)
    return figure, data


def _residual_block(title: str, shortcut: str, backward: bool) -> Diagram:
    """A residual block; `shortcut` is the text of a box on its skip connection, "" for none. The
    backward form has gradients in place of signals, and its arrows are reversed."""
    delta = "Δ" if backward else ""
    boxes = {
        "in": Box(0, 0, f"{delta}y(L-1)", framed=False),
        "first": Box(2, 0.5, "BN, ReLU, CONV W̃_L"),
        "middle": Box(4, 0.5, f"{delta}ỹ(L)", framed=False),
        "second": Box(6, 0.5, "BN, ReLU, CONV Ŵ_L"),
        "sum": Box(8, 0, "+"),
        "out": Box(9.5, 0, f"{delta}y(L)", framed=False),
    }
    arrows = connect(boxes)
    if shortcut:
        boxes["shortcut"] = Box(4, -0.5, shortcut)
        arrows += connect(["in", "shortcut", "sum"])
    else:
        arrows.append(Arrow("in", "sum", bend=0.25))
    if backward:
        arrows = [Arrow(arrow.end, arrow.start, -arrow.bend) for arrow in arrows]
    return Diagram(title, boxes, arrows)


def block_schematic(results: Results, backward: bool = False) -> Drawing:
    """A residual block, the first of a scale and another, forward (fig. 3) or with the gradient
    (fig. 4)."""
    first = _residual_block("first block of a scale", "BN, ReLU, CONV W̄_1", backward)
    another = _residual_block("another block", "", backward)
    figure, data = draw_diagrams(first, another, height=1.9)
    figure.set_figwidth(12)
    return figure, data
