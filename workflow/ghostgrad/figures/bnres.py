"""Figures of "Analysis on gradient propagation in batch normalized residual networks"."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ghostgrad.analysis.results import Results
from ghostgrad.figures import diagram, style
from ghostgrad.figures.style import DATA_COLUMNS


def training_accuracy(results: Results):
    """Accuracy on the augmented training batches since the row before, against the step (fig. 8); a mean is over the
    seeds that have come so far, and a name says how many diverged."""
    figure, (axes,) = style.panels()
    frames, places = [], []
    for index, cell in enumerate(results.measured_cells):
        frame = style.over_seeds(results.frame(cell, "series.csv"), "step", "train_accuracy", "", cell.label)
        style.curve(axes, frame, cell.label, index, marker="." if len(frame) < 3 else None)
        frames.append(frame)
        seeds = results.rows(cell)
        ended = int((seeds["status"] == "diverged").sum())
        name = f"{cell.label} ({ended} of {len(seeds)} diverged)" if ended else cell.label
        places.append((name, frame["x"].iloc[-1], frame["mean"].iloc[-1]))
    axes.set_xlim(0, max(frame["x"].max() for frame in frames))
    axes.set_ylim(0, 102)
    axes.set(xlabel="step", ylabel="training accuracy (%)")
    style.direct_labels(axes, places, left=False)
    return figure, pd.concat(frames, ignore_index=True)


TITLES = {"gradient_variance": "variance of the gradient", "gradient_norm": "norm of the gradient"}


def _mark_scales(panel: Axes, blocks: int) -> None:
    for boundary in (blocks / 3 + 0.5, 2 * blocks / 3 + 0.5):
        panel.axvline(boundary, color="#cccccc", linewidth=0.6, zorder=0)


def block_curves(results: Results, quantity: Literal["gradient_variance", "gradient_norm"], at: list[float]):
    """A probed quantity against the block, read from right to left: a panel per model and position; lines mark the
    three scales (fig. 5-7, 9-12, 14, 15)."""
    chosen = [(cell, position) for position in at for cell in results.measured_cells]
    figure, axes = style.panels(len(chosen))
    frames = []
    for panel, (cell, position) in zip(axes, chosen, strict=True):
        found = results.probe(cell, quantity, position)
        panel.set_title(f"{cell.label}, {style.step(position, found)}")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_xlabel("block (0 is the stem)")
        if found.empty:
            panel.text(0.5, 0.5, "ended before", ha="center", color=style.GREY, transform=panel.transAxes)
            continue
        name = f"{cell.label} at {position:g}"
        frame = style.over_seeds(found, "index", "value", name, cell.label)
        style.curve(panel, frame, cell.label, marker="o")
        frames.append(frame)
        _mark_scales(panel, int(frame["x"].max()))
    style.log_y(axes[0])
    axes[0].set_ylabel(TITLES[quantity])
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=DATA_COLUMNS)
    return figure, data


def initial_curves(results: Results):
    """Variance over the batch of the gradient at each block's output, mean over features, at initialization: a panel
    per model, a curve per initialization; mean over networks with their range."""
    models = groupby(results.measured_cells, lambda cell: cell.row.partition(", ")[0])
    chosen = [(name, list(cells)) for name, cells in models]
    figure, axes = style.panels(len(chosen))
    frames = []
    for panel, (name, cells) in zip(axes, chosen, strict=True):
        places = []
        for cell in cells:
            kind = cell.row.partition(", ")[2]
            values = results.layers(cell, "feature_variance")[:, 1:]
            frame = style.band(kind, np.arange(values.shape[1]), values, levels=(0, 1))
            style.curve(panel, frame, kind)
            frames.append(frame.assign(panel=name))
            places.append((kind, 0, frame["mean"].iloc[0]))
        panel.set_title(name)
        panel.set_xlabel("block (0 is the stem)")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _mark_scales(panel, values.shape[1] - 1)
        style.direct_labels(panel, places, left=True)
    style.log_y(axes[0])
    axes[0].set_ylabel(TITLES["gradient_variance"])
    return figure, pd.concat(frames, ignore_index=True)


BN_CURVES = {
    "first BN, mean": (0, "bn_offset_mean", style.BLUE, style.SOLID),
    "first BN, median": (0, "bn_offset_median", style.BLUE, style.DOTTED),
    "second BN, mean": (1, "bn_offset_mean", style.VERMILION, style.SOLID),
    "second BN, median": (1, "bn_offset_median", style.VERMILION, style.DOTTED),
}


def bn_offsets(results: Results, at: list[float]):
    """Mean and median over channels of |beta/gamma| of each block's two BN layers, a panel per position (fig. 13). The
    last BN, before the classifier, belongs to no block and is left out; where gamma is near 0 the mean is large."""
    cell = results.measured_cells[0]
    figure, axes = style.panels(len(at))
    frames = []
    for panel, position in zip(axes, at, strict=True):
        probed = results.probe(cell, "bn_offset_mean", position)
        panel.set_title(f"{cell.label}, {style.step(position, probed)}")
        panel.set_xlabel("block")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if probed.empty:
            panel.text(0.5, 0.5, "ended before", ha="center", color=style.GREY, transform=panel.transAxes)
            continue
        for label, (place, quantity, colour, dash) in BN_CURVES.items():
            found = results.probe(cell, quantity, position)
            found = found[(found["index"] % 2 == place) & (found["index"] < found["index"].max())]
            found = found.assign(index=found["index"] // 2 + 1)
            frame = style.over_seeds(found, "index", "value", f"{cell.label} at {position:g}", label)
            panel.fill_between(frame["x"], frame["low"], frame["high"], color=colour, alpha=0.15, linewidth=0)
            panel.plot(frame["x"], frame["mean"], color=colour, linestyle=dash, label=label)
            frames.append(frame)
        blocks = frame["x"].to_numpy()
        for bound in results.paper_values(cell, f"largest at step {position:,.0f}"):
            at_bound = np.full(len(blocks), bound)
            style.hollow(panel, blocks, at_bound, legend="the paper's upper bound")
            bounds = pd.DataFrame({"panel": f"{cell.label} at {position:g}", "x": blocks, "mean": at_bound})
            frames.append(bounds.assign(label="the paper's upper bound"))
        _mark_scales(panel, int(blocks.max()))
        last = panel
    axes[0].set_ylabel("|β/γ|")
    if not frames:
        return figure, pd.DataFrame(columns=DATA_COLUMNS)
    last.legend(frameon=False, fontsize=6.5)
    return figure, pd.concat(frames, ignore_index=True)[DATA_COLUMNS]


def bn_schematic(results: Results):
    """A BN layer forward and backward (fig. 1)."""
    forward, arrows = diagram.chain(["x", "BN", "x̃"])
    backward, _ = diagram.chain(["Δx", "BN", "Δx̃"], y=-1, prefix="b")
    back = [("b2", "b1"), ("b1", "b0")]
    return diagram.figure(("", {**forward, **backward}, [*arrows, *back]), height=1.5)


def cascade_schematic(results: Results):
    """BN, ReLU and CONV in cascade, forward and backward (fig. 2)."""
    forward, arrows = diagram.chain(["y(L-1)", "BN", "ỹ(L-1)", "ReLU", "ŷ(L-1)", "CONV W_L", "y(L)"])
    backward, _ = diagram.chain(["Δy(L-1)", "BN", "Δỹ(L-1)", "ReLU", "Δŷ(L-1)", "CONV W_Lᵀ", "Δy(L)"], y=-1, prefix="b")
    back = [(f"b{i + 1}", f"b{i}") for i in range(6)]
    figure, data = diagram.figure(("", {**forward, **backward}, [*arrows, *back]), height=1.6)
    figure.set_figwidth(8)
    return figure, data


def _block(shortcut: str, delta: str, backward: bool) -> tuple[dict, list]:
    names = {
        "_in": ((0, 0), f"{delta}y(L-1)"),
        "first": ((2, 0.5), "BN, ReLU, CONV W̃_L"),
        "_middle": ((4, 0.5), f"{delta}ỹ(L)"),
        "second": ((6, 0.5), "BN, ReLU, CONV Ŵ_L"),
        "sum": ((8, 0), "+"),
        "_out": ((9.5, 0), f"{delta}y(L)"),
    }
    arrows = [("_in", "first"), ("first", "_middle"), ("_middle", "second"), ("second", "sum"), ("sum", "_out")]
    if shortcut:
        names["shortcut"] = ((4, -0.5), shortcut)
        arrows += [("_in", "shortcut"), ("shortcut", "sum")]
    else:
        arrows.append(("_in", "sum", 0.25))
    return names, [(arrow[1], arrow[0], *(-bend for bend in arrow[2:])) if backward else arrow for arrow in arrows]


def block_schematic(results: Results, backward: bool = False):
    """A residual block, the first of a scale and another, forward (fig. 3) or with the gradient (fig. 4)."""
    delta = "Δ" if backward else ""
    first = ("first block of a scale", *_block("BN, ReLU, CONV W̄_1", delta, backward))
    figure, data = diagram.figure(first, ("another block", *_block("", delta, backward)), height=1.9)
    figure.set_figwidth(12)
    return figure, data
