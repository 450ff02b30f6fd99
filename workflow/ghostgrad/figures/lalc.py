"""Figures of "Training instability and disharmony between ReLU and batch normalization"."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ghostgrad.analysis.results import Results
from ghostgrad.analysis.statistics import fit_growth_rate
from ghostgrad.figures import style
from ghostgrad.figures.curves import (
    DATA_COLUMNS,
    Drawing,
    concatenate,
    curve_end,
    curve_start,
    draw_band,
    draw_by_epoch,
    draw_curve,
    over_repeats,
    over_seeds,
    step_title,
)
from ghostgrad.figures.labels import label_curves
from ghostgrad.figures.panels import LIGHT_GREY, new_grid, new_panels, set_log_y
from ghostgrad.registry.artifact import Cell

SAMPLES = {"input": "N(0, 1)", "dropped": "random half dropped", "relu": "ReLU"}

# The grid of figure 3: a row per kind of layer and one for the weights, a column per statistic.
STATISTICS = {
    "activation_variance": "variance",
    "gradient_variance": "variance of the gradient",
    "activation_offset": "|mean|/std",
    "gradient_offset": "|mean|/std of the gradient",
    "activation_gradient_correlation": "|Corr(xᵢ, gᵢ)|",
    "activation_correlation": "|Corr(xᵢ, xⱼ)|",
}
LAYER_KINDS = {"conv": "convolution", "norm": "BN", "act": "ReLU"}
WEIGHT_ROW = len(LAYER_KINDS)

Y_LABELS = {
    "clipped_fraction": "fraction of tensors clipped",
    "explosion_rate": "factor per layer",
}


def explosion(results: Results) -> Drawing:
    """sqrt(Var(g_n)/Var(g_N)) against the depth n from the input, mean over networks with their
    range (fig. 1)."""
    figure, (axes,) = new_panels(height=3.2)
    frames = []
    for index, cell in enumerate(results.measured_cells):
        # index 0 is the network's input, which is no layer
        variance = results.layers(cell, "gradient_variance")[:, 1:]
        values = np.sqrt(variance / variance[:, -1:])
        depths = np.arange(1, values.shape[1] + 1)
        frame = over_repeats(cell.label, depths, values, levels=(0, 1))
        draw_curve(axes, frame, cell.label, index)
        frames.append(frame)
    set_log_y(axes)
    axes.set(xlabel="depth n from the input", ylabel="√(Var(gₙ) / Var(g_N))")
    starts = [curve_start(frame, frame["label"].iloc[0]) for frame in frames]
    label_curves(axes, starts, left=True)
    last = int(max(frame["x"].max() for frame in frames))
    axes.set_xticks([1, *range(10, last + 1, 10 if last <= 60 else 20)])
    return figure, concatenate(frames)


def histograms(results: Results) -> Drawing:
    """Densities of a Gaussian sample, of the sample with a random half set to 0, and of its
    positive part, with the variance in the title (fig. 2). The bar at 0, which holds half of a
    sample, is cut off at the top."""
    cell = results.measured_cells[0]
    figure, panels = new_panels(len(SAMPLES), height=2.2)
    frames = []
    for axes, (name, title) in zip(panels, SAMPLES.items(), strict=True):
        density = results.layers(cell, f"{name}_density")[:, 1:].mean(0)
        variance = results.layers(cell, f"{name}_variance")[:, 0].mean()
        edges = np.linspace(-4, 4, len(density) + 1)
        centers = (edges[:-1] + edges[1:]) / 2
        axes.bar(centers, density, width=edges[1] - edges[0], color=style.BLUE)
        axes.set_title(f"{title}, variance {variance:.4f}", fontsize=7)
        axes.set_ylim(0, 0.6)
        axes.set_xlabel("value")
        columns = {"panel": title, "label": name, "x": centers, "mean": density}
        frames.append(pd.DataFrame(columns, columns=DATA_COLUMNS))
    panels[0].set_ylabel("density")
    return figure, concatenate(frames)


def layer_statistics(results: Results, at: list[float]) -> Drawing:
    """Statistics of signals and gradients after each convolution, BN and ReLU, and of the weights,
    against the layer counted from the output; a curve per position of `at`, mean and range over
    seeds (fig. 3)."""
    cell = results.measured_cells[0]
    figure, grid = new_grid(len(LAYER_KINDS) + 1, len(STATISTICS), width=12, height=6.4)
    places = {
        (row, column): f"{kind}_{statistic}"
        for row, kind in enumerate(LAYER_KINDS)
        for column, statistic in enumerate(STATISTICS)
    }
    # The paper shows only these two statistics of the weights.
    places |= {(WEIGHT_ROW, 0): "weight_variance", (WEIGHT_ROW, 2): "weight_offset"}
    frames = []
    for (row, column), quantity in places.items():
        frames += _draw_positions(grid[row, column], results, cell, quantity, at)
        _label_statistic(grid[row, column], row, column)
    for place in itertools.product(*map(range, grid.shape)):
        if place not in places:
            grid[place].axis("off")
    # The legend takes one of the places that are left free beside the weights.
    handles, labels = grid[0, 0].get_legend_handles_labels()
    grid[WEIGHT_ROW, 1].legend(handles, labels, frameon=False, loc="center left")
    return figure, concatenate(frames)


def _draw_positions(
    axes: Axes, results: Results, cell: Cell, quantity: str, positions: Sequence[float]
) -> list[pd.DataFrame]:
    """A curve per position at which the quantity was probed; a training that ended earlier has no
    curve there."""
    frames = []
    for index, position in enumerate(positions):
        probed = results.probe(cell, quantity, position)
        if probed.empty:
            continue
        label = step_title(position, probed)
        probed = probed.assign(index=probed["index"].max() + 1 - probed["index"])
        frame = over_seeds(probed, "index", "value", quantity, label)
        color, dash = style.SHADES[index % len(style.SHADES)]
        axes.plot(frame["x"], frame["mean"], color=color, linestyle=dash, label=label)
        draw_band(axes, frame, color)
        frames.append(frame)
    if quantity.endswith("variance"):
        set_log_y(axes)
    else:
        axes.set_ylim(bottom=0)
    return frames


def _label_statistic(axes: Axes, row: int, column: int) -> None:
    """Titles above the first row and above the weights, axis labels at the edges of the grid."""
    if row in (0, WEIGHT_ROW):
        axes.set_title(list(STATISTICS.values())[column])
    if row >= WEIGHT_ROW - 1:
        axes.set_xlabel("layer, from the output")
    if column == 0:
        axes.set_ylabel([*LAYER_KINDS.values(), "weights"][row])


def accuracy_by_batch(results: Results) -> Drawing:
    """Test accuracy at the end of training against the batch size, a curve per method with the mean
    and range over seeds (fig. 4a)."""
    batch_sizes = list(dict.fromkeys(cell.column for cell in results.artifact.cells))
    methods = list(dict.fromkeys(cell.row for cell in results.measured_cells))
    figure, (axes,) = new_panels(width=6.0, height=3.6)
    frames, ends = [], []
    for index, method in enumerate(methods):
        cells = [cell for cell in results.measured_cells if cell.row == method]
        runs = [results.rows(cell).assign(x=batch_sizes.index(cell.column)) for cell in cells]
        frame = over_seeds(pd.concat(runs), "x", "test_accuracy", "", method)
        draw_curve(axes, frame, method, index, marker="o")
        frames.append(frame)
        ends.append(curve_end(frame, method))
    axes.set_xticks(range(len(batch_sizes)), batch_sizes)
    axes.set(xlabel="batch size in the paper", ylabel="test accuracy (%)")
    label_curves(axes, ends, left=False)
    return figure, concatenate(frames)


def over_time(results: Results, quantity: Literal["clipped_fraction", "explosion_rate"]) -> Drawing:
    """A quantity against the position in the paper's training, a curve per cell with the mean and
    range over seeds. The rate of explosion is fitted to the standard deviation of the gradient over
    the layers."""
    figure, (axes,) = new_panels(height=3.2)
    frames, ends = [], []
    for index, cell in enumerate(results.measured_cells):
        probes = results.frame(cell, "probes.csv")
        frame = over_seeds(_values_over_time(probes, quantity), "at", "value", "", cell.label)
        draw_curve(axes, frame, cell.label, index, marker="o")
        frames.append(frame)
        ends.append(curve_end(frame, cell.label))
    # Both quantities are probes of training.
    spec = results.registry.cell_runs(results.scale, results.measured_cells[0])[0].training
    axes.set_xscale("symlog", linthresh=1)  # the first position is 0
    axes.set(xlabel=f"{spec.unit} in the paper", ylabel=Y_LABELS[quantity], xlim=(0, None))
    # Nothing is clipped at 0, nothing explodes at 1.
    neutral = 0.0 if quantity == "clipped_fraction" else 1.0
    axes.axhline(neutral, color=LIGHT_GREY, linewidth=0.6, zorder=0)
    label_curves(axes, ends, left=False)
    return figure, concatenate(frames)


def _values_over_time(probes: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The quantity of each seed at each position, in columns seed, at and value."""
    if quantity == "clipped_fraction":
        return probes[probes["probe"] == quantity]
    # One value per layer was probed; the rate is the factor per layer fitted to all of them.
    variances = probes[probes["probe"] == "gradient_variance"].groupby(["seed", "at"])["value"]
    rates = variances.apply(lambda values: fit_growth_rate(np.sqrt(values.to_numpy())))
    return rates.reset_index()


def training_curves(results: Results) -> Drawing:
    """Training loss and test accuracy against the epoch (fig. 4b, 5)."""
    columns = {"train_loss": "training loss", "test_accuracy": "test accuracy (%)"}
    return draw_by_epoch(results, columns, logarithmic="train_loss")
