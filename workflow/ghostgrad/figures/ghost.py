"""Figures of "Revisiting Exploding Gradient: A Ghost That Never Leaves" (both versions)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from ghostgrad.analysis import measures
from ghostgrad.analysis.results import Results
from ghostgrad.figures import diagram, style
from ghostgrad.figures.style import DATA_COLUMNS
from ghostgrad.theory.activations import ACTIVATIONS


def _draw(results: Results, frames: list[pd.DataFrame], metric: str, xlabel: str, ylabel: str):
    """Curves over layers with their names at the input's end, where they differ most. Where the paper gives a curve's
    factor per layer (`metric`), hollow circles grow by it from our value at the output."""
    figure, (axes,) = style.panels()
    first, last = frames[0]["x"].iloc[0], max(frame["x"].max() for frame in frames)
    step = 5 * max(1, round(last / 25))
    ticks = np.array([first, *range(step, int(last) + 1, step)])
    drawn = []
    for index, (cell, frame) in enumerate(zip(results.measured_cells, frames, strict=True)):
        end = frame.iloc[-1]
        style.curve(axes, frame, cell.label, index)
        for rate in results.paper_values(cell, metric):
            x = ticks[ticks <= end["x"]]
            y = end["mean"] * rate ** (end["x"] - x)
            style.hollow(axes, x, y, style.look(cell.label, index))
            drawn.append(pd.DataFrame({"panel": "the paper's rate", "label": cell.label, "x": x, "mean": y}))
    style.log_y(axes)
    axes.set_xlim(first, last * 1.01)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    style.direct_labels(axes, [(f["label"].iloc[0], f["x"].iloc[0], f["mean"].iloc[0]) for f in frames], left=True)
    axes.set_xticks(ticks)
    if drawn:
        axes.set_title("○ the paper's asymptotic rate, from our value at the output", fontsize=6.5, color=style.GREY)
    return figure, pd.concat([*frames, *drawn], ignore_index=True)[DATA_COLUMNS]


def gradient_norms(results: Results):
    """Mean Frobenius norm of each weight's gradient against its layer, read from right to left; bands hold 90 % of the
    repeats (Ghost fig. 1 left, 5, 10)."""
    frames = []
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]
        frames.append(style.band(cell.label, np.arange(1, norms.shape[1] + 1), norms))
    return _draw(results, frames, "rate", "layer (input 1, output L)", "gradient norm of the layer's weight")


def prediction(results: Results, activation: Literal["ReLU", "SELU", "Tanh"]):
    """The measured curve, the exponential g_L alpha^(L-k) that eq. 1 predicts (hollow), and the fitted one (fig. 6)."""
    cell = results.measured_cells[0]
    norms = results.layers(cell, "gradient_norm")[:, 1:]
    layers = np.arange(1, norms.shape[1] + 1)
    measured = style.band(cell.label, layers, norms)
    alpha = ACTIVATIONS[activation].rate ** 0.5
    predicted = measured["mean"].iloc[-1] * alpha ** (layers[-1] - layers)
    rate, intercept = measures.fitted_rate(norms.mean(0)), np.log(norms.mean(0)).mean()
    fitted = np.exp(intercept) * rate ** (layers.mean() - layers)

    figure, (axes,) = style.panels()
    style.curve(axes, measured, cell.label)
    axes.plot(layers, fitted, color=style.BLACK, linewidth=0.7, linestyle=style.DASHED)
    style.hollow(axes, layers, predicted)
    style.log_y(axes)
    axes.set_xlim(0, layers[-1] + 0.5)
    axes.set_xticks([1, *range(5, layers[-1] + 1, 5)])
    axes.set(xlabel="layer (input 1, output L)", ylabel="gradient norm of the layer's weight")
    place = {"xycoords": "axes fraction", "ha": "right", "va": "top"}
    axes.annotate(f"○ predicted, α = √(π/(π−1)) = {alpha:.4f}", (1, 1.0), **place)
    axes.annotate(f"-- fitted, {rate:.4f} a layer", (1, 0.92), **place)
    axes.annotate(f"— measured, {cell.label}", (1, 0.84), color=style.look(cell.label)[0], **place)
    more = [
        pd.DataFrame({"label": name, "x": layers, "mean": y})
        for name, y in [("predicted", predicted), ("fitted", fitted)]
    ]
    return figure, pd.concat([measured, *more], ignore_index=True)[DATA_COLUMNS]


def module_variances(results: Results):
    """Variance of the derivative at the boundaries of stacked SeqNet modules (sec. 4.1, 4.2)."""
    frames = []
    for cell in results.measured_cells:
        values = results.layers(cell, "backward_variance")[:, ::2]
        frames.append(style.band(cell.label, np.arange(values.shape[1]), values))
    return _draw(results, frames, "variance_rate", "module boundary (input 0)", "variance of the derivative")


def weights_schematic(results: Results):
    """Two layers with independent weights, and with the second the transpose of the first (fig. 2)."""
    independent, arrows = diagram.chain(["x", "W₁", "W₂", "y"])
    tied, _ = diagram.chain(["x", "W", "Wᵀ", "y"])
    return diagram.figure(
        ("independent: W₁, W₂", independent, arrows), ("tied: W, Wᵀ (SeqNet)", tied, arrows), height=1.3
    )


def blocks_schematic(results: Results):
    """The residual blocks and their SeqNet counterparts (fig. 3); every convolution of the left two is followed by BN
    and ReLU, the sum by ReLU; of the right two, ReLU stands inside each pair and BN behind it."""

    def column(texts: list[str], last: str, end: str, *skip: tuple) -> tuple[dict, list]:
        names = ["_in", *map(str, range(len(texts))), last]
        boxes = {name: ((0, -y), text) for y, (name, text) in enumerate(zip(names, ["x", *texts, end], strict=True))}
        return boxes, [*pairwise(names), *skip]

    def residual(texts: list[str]) -> tuple[dict, list]:
        return column(texts, "sum", "+", ("_in", "sum", -0.9))

    def plain(texts: list[str]) -> tuple[dict, list]:
        return column(texts, "_out", "BN")

    seq = ["3x3: 64 → 128", "ReLU", "1x1: 128 → 64"]
    return diagram.figure(
        ("BasicBlock", *residual(["3x3: 64 → 64", "3x3: 64 → 64"])),
        ("SeqBasic", *plain(seq)),
        ("BottleNeck", *residual(["1x1: 256 → 64", "3x3: 64 → 64", "1x1: 64 → 256"])),
        ("SeqBottle", *plain([*seq, "BN", "1x1: 64 → 256", "ReLU", "1x1: 256 → 64"])),
        height=4.2,
    )


def running_variance(results: Results):
    """sigma = sqrt(mean running variance) of each BN layer of a trained VGG19-BN, read from right to left (fig. 1
    right); hollow circles mark the layers behind a max-pool that the paper names, 5, 9 and 13, where sigma is to
    decrease."""
    cell = results.measured_cells[0]
    frame = results.frame(cell, "series.csv")
    data = pd.DataFrame({"label": cell.label, "x": frame["layer"], "mean": frame["sigma"]}, columns=DATA_COLUMNS)
    figure, (axes,) = style.panels()
    axes.plot(data["x"], data["mean"], "-", marker=".", color=style.BLUE)
    named = data[data["x"].isin((5, 9, 13))]
    axes.plot(named["x"], named["mean"], "o", color=style.GREEN, markerfacecolor="none", markersize=9)
    style.log_y(axes)
    axes.set_xticks(range(1, len(data) + 1))
    axes.set(xlabel="BN layer (input 1)", ylabel="σ, root of the mean running variance")
    return figure, data


def weight_gradients(results: Results, at: float):
    """Norm of the gradient of each convolution's weight at one of the paper's positions, against the convolution
    counted from the input; mean and range over seeds (fig. 4)."""
    frames = []
    for cell in results.measured_cells:
        found = results.probe(cell, "weight_gradient", at)
        frames.append(style.over_seeds(found.assign(index=found["index"] + 1), "index", "value", "", cell.label))
    return _draw(results, frames, "rate", "convolution, from the input", "gradient norm of the weights")


def accuracy_curves(results: Results):
    """Training accuracy on augmented batches and validation accuracy against the epoch (fig. 7-9)."""
    return style.by_epoch(
        results, {"train_accuracy": "training accuracy (%)", "test_accuracy": "validation accuracy (%)"}
    )
