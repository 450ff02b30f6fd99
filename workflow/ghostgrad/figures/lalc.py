"""Figures of "Training instability and disharmony between ReLU and batch normalization"."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pandas as pd

from ghostgrad.analysis.measures import fitted_rate
from ghostgrad.analysis.results import Results
from ghostgrad.figures import style
from ghostgrad.figures.style import DATA_COLUMNS


def explosion(results: Results):
    """sqrt(Var(g_n)/Var(g_N)) against the depth n from the input, mean over networks with their range (fig. 1)."""
    figure, (axes,) = style.panels(height=3.2)
    frames = []
    for index, cell in enumerate(results.measured_cells):
        variance = results.layers(cell, "gradient_variance")[:, 1:]
        values = np.sqrt(variance / variance[:, -1:])
        frame = style.band(cell.label, np.arange(1, values.shape[1] + 1), values, levels=(0, 1))
        style.curve(axes, frame, cell.label, index)
        frames.append(frame)
    style.log_y(axes)
    axes.set(xlabel="depth n from the input", ylabel="√(Var(gₙ) / Var(g_N))")
    places = [(frame["label"].iloc[0], frame["x"].iloc[0], frame["mean"].iloc[0]) for frame in frames]
    style.direct_labels(axes, places, left=True)
    last = int(max(frame["x"].max() for frame in frames))
    axes.set_xticks([1, *range(10, last + 1, 10 if last <= 60 else 20)])
    return figure, pd.concat(frames, ignore_index=True)


PANELS = {"input": "N(0, 1)", "dropped": "random half dropped", "relu": "ReLU"}


def histograms(results: Results):
    """Densities of a Gaussian sample, of one with a random half set to 0, and of its positive part (fig. 2). What is 0
    for half the sample is cut off at the top; the variance stands beside the title."""
    cell = results.measured_cells[0]
    figure, axes = style.panels(3, height=2.2)
    frames = []
    for panel, (name, title) in zip(axes, PANELS.items(), strict=True):
        density = results.layers(cell, f"{name}_density")[:, 1:].mean(0)
        variance = results.layers(cell, f"{name}_variance")[:, 0].mean()
        edges = np.linspace(-4, 4, len(density) + 1)
        panel.bar((edges[:-1] + edges[1:]) / 2, density, width=edges[1] - edges[0], color=style.BLUE)
        panel.set_title(f"{title}, variance {variance:.4f}", fontsize=7)
        panel.set_ylim(0, 0.6)
        panel.set_xlabel("value")
        data = {"panel": title, "label": name, "x": (edges[:-1] + edges[1:]) / 2, "mean": density}
        frames.append(pd.DataFrame(data, columns=DATA_COLUMNS))
    axes[0].set_ylabel("density")
    return figure, pd.concat(frames, ignore_index=True)


STATISTICS = {
    "activation_variance": "variance",
    "gradient_variance": "variance of the gradient",
    "activation_offset": "|mean|/std",
    "gradient_offset": "|mean|/std of the gradient",
    "activation_gradient_correlation": "|Corr(xᵢ, gᵢ)|",
    "activation_correlation": "|Corr(xᵢ, xⱼ)|",
}
ROWS = {"conv": "convolution", "norm": "BN", "act": "ReLU"}


def layer_statistics(results: Results, at: list[float]):
    """Statistics of signals and gradients behind each convolution, BN and ReLU, and of the weights, against the layer
    counted from the output, a curve per step; mean and range over seeds (fig. 3)."""
    cell = results.measured_cells[0]
    figure, grid = style.sheet(len(ROWS) + 1, len(STATISTICS), width=12, height=6.4)
    frames = []
    table = itertools.product(enumerate(ROWS), enumerate(STATISTICS))
    places = [(row, column, f"{place}_{name}") for (row, place), (column, name) in table]
    places += [(len(ROWS), 0, "weight_variance"), (len(ROWS), 2, "weight_offset")]
    drawn = {(row, column) for row, column, _ in places}
    for row, column, quantity in places:
        axes = grid[row, column]
        for index, position in enumerate(at):
            found = results.probe(cell, quantity, position)
            if found.empty:
                continue
            label = style.step(position, found)
            found = found.assign(index=found["index"].max() + 1 - found["index"])
            frame = style.over_seeds(found, "index", "value", quantity, label)
            colour, dash = style.SHADES[index % len(style.SHADES)]
            axes.plot(frame["x"], frame["mean"], color=colour, linestyle=dash, label=label)
            axes.fill_between(frame["x"], frame["low"], frame["high"], color=colour, alpha=0.15, linewidth=0)
            frames.append(frame)
        if quantity.endswith("variance"):
            style.log_y(axes)
        else:
            axes.set_ylim(bottom=0)
        if row in (0, len(ROWS)):
            axes.set_title(list(STATISTICS.values())[column])
        if row >= len(ROWS) - 1:
            axes.set_xlabel("layer, from the output")
        if column == 0:
            axes.set_ylabel([*ROWS.values(), "weights"][row])
    for row, column in np.ndindex(grid.shape):
        if (row, column) not in drawn:
            grid[row, column].axis("off")
    grid[len(ROWS), 1].legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="center left")
    return figure, pd.concat(frames, ignore_index=True)


def accuracy_by_batch(results: Results):
    """Test accuracy at the end against the batch size, a curve per method; mean and range over seeds (fig. 4a)."""
    columns = list(dict.fromkeys(cell.column for cell in results.artifact.cells))
    figure, (axes,) = style.panels(width=6.0, height=3.6)
    frames, places = [], []
    rows = list(dict.fromkeys(cell.row for cell in results.measured_cells))
    for index, row in enumerate(rows):
        cells = [cell for cell in results.measured_cells if cell.row == row]
        found = [results.rows(cell).assign(x=columns.index(cell.column)) for cell in cells]
        frame = style.over_seeds(pd.concat(found), "x", "test_accuracy", "", row)
        style.curve(axes, frame, row, index, marker="o")
        frames.append(frame)
        places.append((row, frame["x"].iloc[-1], frame["mean"].iloc[-1]))
    axes.set_xticks(range(len(columns)), columns)
    axes.set(xlabel="batch size in the paper", ylabel="test accuracy (%)")
    style.direct_labels(axes, places, left=False)
    return figure, pd.concat(frames, ignore_index=True)


TIMED = {"clipped_fraction": "fraction of tensors clipped", "explosion_rate": "factor per layer"}


def over_time(results: Results, quantity: Literal["clipped_fraction", "explosion_rate"]):
    """A probed quantity against the paper's position, a curve per cell; mean and range over seeds. The rate is fitted
    to the standard deviations of the gradient over layers."""
    figure, (axes,) = style.panels(height=3.2)
    frames, places = [], []
    for index, cell in enumerate(results.measured_cells):
        probes = results.frame(cell, "probes.csv")
        if quantity == "clipped_fraction":
            found = probes[probes["probe"] == quantity]
        else:
            curves = probes[probes["probe"] == "gradient_variance"].groupby(["seed", "at"])["value"]
            found = curves.apply(lambda values: fitted_rate(np.sqrt(values.to_numpy()))).reset_index()
        frame = style.over_seeds(found, "at", "value", "", cell.label)
        style.curve(axes, frame, cell.label, index, marker="o")
        frames.append(frame)
        places.append((cell.label, frame["x"].iloc[-1], frame["mean"].iloc[-1]))
    unit = results.registry.cell_runs(results.scale, results.measured_cells[0])[0].spec.unit
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel=f"{unit} in the paper", ylabel=TIMED[quantity], xlim=(0, None))
    axes.axhline(0.0 if quantity == "clipped_fraction" else 1.0, color="#cccccc", linewidth=0.6, zorder=0)
    style.direct_labels(axes, places, left=False)
    return figure, pd.concat(frames, ignore_index=True)


def training_curves(results: Results):
    """Training loss and test accuracy against the epoch (fig. 4b, 5)."""
    parts = {"train_loss": "training loss", "test_accuracy": "test accuracy (%)"}
    return style.by_epoch(results, parts, logarithmic="train_loss")
