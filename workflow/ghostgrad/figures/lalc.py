"""Figures of "Training instability and disharmony between ReLU and batch normalization"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ghostgrad.figures import style
from ghostgrad.figures.style import DATA_COLUMNS
from ghostgrad.results import Results


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
