"""Figures of "Revisiting Exploding Gradient: A Ghost That Never Leaves" (both versions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ghostgrad.analysis import statistics
from ghostgrad.analysis.results import Results
from ghostgrad.figures import style
from ghostgrad.figures.curves import (
    DATA_COLUMNS,
    Drawing,
    concatenate,
    curve_start,
    draw_by_epoch,
    draw_curve,
    draw_reference_values,
    over_repeats,
    over_seeds,
)
from ghostgrad.figures.diagram import Arrow, Box, Diagram, chain, connect, draw_diagrams
from ghostgrad.figures.labels import label_curves
from ghostgrad.figures.panels import new_panels, set_log_y
from ghostgrad.theory.activations import ACTIVATIONS

LAYER_LABEL = "layer (input 1, output L)"
NORM_LABEL = "gradient norm of the layer's weight"
# The paper (fig. 1 right) names the layers after a max-pool, whose sigma is to decrease.
BEHIND_MAX_POOL = (5, 9, 13)


def _draw_layer_curves(
    results: Results, frames: list[pd.DataFrame], metric: str, xlabel: str, ylabel: str
) -> Drawing:
    """One curve per cell over the layers, with its name at the input's end, where curves differ
    most. Where a factor per layer, `metric`, stands beside a curve in the table, hollow circles
    grow by it from our value at the output, and the title says whose factor it is."""
    figure, (axes,) = new_panels()
    first, last = frames[0]["x"].iloc[0], max(frame["x"].max() for frame in frames)
    tick_distance = 5 * max(1, round(last / 25))
    ticks = np.array([first, *range(tick_distance, int(last) + 1, tick_distance)])
    predictions = []
    provenance: dict[str, None] = {}
    for index, (cell, frame) in enumerate(zip(results.measured_cells, frames, strict=True)):
        output = frame.iloc[-1]
        draw_curve(axes, frame, cell.label, index)
        for number in results.references_of(cell, metric):
            x = ticks[ticks <= output["x"]]
            y = output["mean"] * number.value ** (output["x"] - x)
            draw_reference_values(axes, x, y, style.line_look(cell.label, index))
            provenance[number.provenance] = None
            panel = f"{number.provenance} rate"
            columns = {"panel": panel, "label": cell.label, "x": x, "mean": y}
            predictions.append(pd.DataFrame(columns))
    set_log_y(axes)
    axes.set_xlim(first, last * 1.01)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    starts = [curve_start(frame, frame["label"].iloc[0]) for frame in frames]
    label_curves(axes, starts, left=True)
    axes.set_xticks(ticks)
    if predictions:
        kinds = " or ".join(provenance)
        legend = f"○ asymptotic rate ({kinds}), from our value at the output"
        axes.set_title(legend, fontsize=6.5, color=style.GREY)
    return figure, concatenate([*frames, *predictions])


def gradient_norms(results: Results) -> Drawing:
    """Mean Frobenius norm of each weight's gradient against its layer, to be read from right to
    left; bands hold 90 % of the repeats (fig. 1 left, 5, 10)."""
    frames = []
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]  # index 0 is the input, without weight
        frames.append(over_repeats(cell.label, np.arange(1, norms.shape[1] + 1), norms))
    return _draw_layer_curves(results, frames, "rate", LAYER_LABEL, NORM_LABEL)


def prediction(results: Results, activation: Literal["ReLU", "SELU", "Tanh"]) -> Drawing:
    """The measured curve, the exponential g_L alpha^(L-k) that eq. 1 predicts (hollow circles), and
    the fitted exponential (fig. 6)."""
    cell = results.measured_cells[0]
    norms = results.layers(cell, "gradient_norm")[:, 1:]
    layers = np.arange(1, norms.shape[1] + 1)
    measured = over_repeats(cell.label, layers, norms)
    alpha = ACTIVATIONS[activation].growth_rate ** 0.5  # eq. 1's r is the factor of the variance
    predicted = measured["mean"].iloc[-1] * alpha ** (layers[-1] - layers)
    growth_rate = statistics.fit_growth_rate(norms.mean(0))
    # A line fitted by least squares passes through the mean of its points.
    intercept = np.log(norms.mean(0)).mean()
    fitted = np.exp(intercept) * growth_rate ** (layers.mean() - layers)

    figure, (axes,) = new_panels()
    draw_curve(axes, measured, cell.label)
    axes.plot(layers, fitted, color=style.BLACK, linewidth=0.7, linestyle=style.DASHED)
    draw_reference_values(axes, layers, predicted)
    set_log_y(axes)
    axes.set_xlim(0, layers[-1] + 0.5)
    axes.set_xticks([1, *range(5, layers[-1] + 1, 5)])
    axes.set(xlabel=LAYER_LABEL, ylabel=NORM_LABEL)
    color = style.line_look(cell.label)[0]
    closed_form = "√(π/(π−1))" if activation == "ReLU" else "√r"
    _write_legend_line(axes, 1.0, f"○ predicted, α = {closed_form} = {alpha:.4f}")
    _write_legend_line(axes, 0.92, f"-- fitted, {growth_rate:.4f} a layer")
    _write_legend_line(axes, 0.84, f"— measured, {cell.label}", color)
    exponentials = [
        pd.DataFrame({"label": "predicted", "x": layers, "mean": predicted}),
        pd.DataFrame({"label": "fitted", "x": layers, "mean": fitted}),
    ]
    return figure, concatenate([measured, *exponentials])


def _write_legend_line(axes: Axes, y: float, text: str, color: str = "black") -> None:
    """A line of text in the upper right corner; `y` is in fractions of the axes."""
    axes.annotate(text, (1, y), xycoords="axes fraction", ha="right", va="top", color=color)


def module_variances(results: Results) -> Drawing:
    """Variance of the derivative at the boundaries of stacked SeqNet modules (sec. 4.1, 4.2)."""
    frames = []
    for cell in results.measured_cells:
        # A module has two layers; every second value is at a boundary.
        values = results.layers(cell, "backward_variance")[:, ::2]
        frames.append(over_repeats(cell.label, np.arange(values.shape[1]), values))
    xlabel, ylabel = "module boundary (input 0)", "variance of the derivative"
    return _draw_layer_curves(results, frames, "variance_rate", xlabel, ylabel)


def weights_schematic(results: Results) -> Drawing:
    """Two layers with independent weights, and two of which the second has the transposed weight of
    the first (fig. 2)."""
    independent = chain(["x", "W₁", "W₂", "y"])
    tied = chain(["x", "W", "Wᵀ", "y"])
    return draw_diagrams(
        Diagram("independent: W₁, W₂", independent, connect(independent)),
        Diagram("tied: W, Wᵀ (SeqNet)", tied, connect(tied)),
        height=1.3,
    )


def blocks_schematic(results: Results) -> Drawing:
    """Residual blocks and their SeqNet counterparts (fig. 3). In a residual block, BN and ReLU
    follow each convolution, and ReLU follows the sum. In a SeqNet block, ReLU is inside each pair
    of convolutions and BN after it."""
    seq_basic = ["3x3: 64 → 128", "ReLU", "1x1: 128 → 64"]
    return draw_diagrams(
        _residual_block("BasicBlock", ["3x3: 64 → 64", "3x3: 64 → 64"]),
        _seq_block("SeqBasic", seq_basic),
        _residual_block("BottleNeck", ["1x1: 256 → 64", "3x3: 64 → 64", "1x1: 64 → 256"]),
        _seq_block("SeqBottle", [*seq_basic, "BN", "1x1: 64 → 256", "ReLU", "1x1: 256 → 64"]),
        height=4.2,
    )


def _column(texts: Sequence[str]) -> dict[str, Box]:
    """Boxes below the input x, named by their place: `in`, `0`, `1`, …"""
    boxes = {"in": Box(0, 0, "x", framed=False)}
    return boxes | {str(i): Box(0, -(i + 1), text) for i, text in enumerate(texts)}


def _residual_block(title: str, texts: Sequence[str]) -> Diagram:
    boxes = _column(texts) | {"sum": Box(0, -(len(texts) + 1), "+")}
    return Diagram(title, boxes, [*connect(boxes), Arrow("in", "sum", -0.9)])


def _seq_block(title: str, texts: Sequence[str]) -> Diagram:
    boxes = _column(texts) | {"out": Box(0, -(len(texts) + 1), "BN", framed=False)}
    return Diagram(title, boxes, connect(boxes))


def running_variance(results: Results) -> Drawing:
    """sigma, the root of the mean running variance, of each BN layer of a trained VGG19-BN, to be
    read from right to left (fig. 1 right). Hollow circles mark the layers after a max-pool that
    the paper names, where sigma is to decrease."""
    cell = results.measured_cells[0]
    layers = results.frame(cell, "series.csv")
    columns = {"label": cell.label, "x": layers["layer"], "mean": layers["sigma"]}
    data = pd.DataFrame(columns, columns=DATA_COLUMNS)
    figure, (axes,) = new_panels()
    axes.plot(data["x"], data["mean"], "-", marker=".", color=style.BLUE)
    marked = data[data["x"].isin(BEHIND_MAX_POOL)]
    axes.plot(
        marked["x"], marked["mean"], "o", color=style.GREEN, markerfacecolor="none", markersize=9
    )
    set_log_y(axes)
    axes.set_xticks(range(1, len(data) + 1))
    axes.set(xlabel="BN layer (input 1)", ylabel="σ, root of the mean running variance")
    return figure, data


def weight_gradients(results: Results, at: float) -> Drawing:
    """Norm of the gradient of each convolution's weight at the position `at` of the paper's
    training, against the convolution counted from the input; mean and range over seeds (fig. 4)."""
    frames = []
    for cell in results.measured_cells:
        probed = results.probe(cell, "weight_gradient", at)
        probed = probed.assign(index=probed["index"] + 1)  # probes count from 0, the paper from 1
        frames.append(over_seeds(probed, "index", "value", "", cell.label))
    xlabel, ylabel = "convolution, from the input", "gradient norm of the weights"
    return _draw_layer_curves(results, frames, "rate", xlabel, ylabel)


def accuracy_curves(results: Results) -> Drawing:
    """Training accuracy on augmented batches and validation accuracy against the epoch
    (fig. 7-9)."""
    return draw_by_epoch(
        results,
        {"train_accuracy": "training accuracy (%)", "test_accuracy": "validation accuracy (%)"},
    )
