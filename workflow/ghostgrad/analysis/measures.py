"""What a table reports of its runs: each function takes Results and yields Measured cells.

Standard errors: over seeds std/sqrt(n); for statistics of pooled repeats the grouped jackknife, because the layers of
one repeat are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np

from ghostgrad.analysis.results import Results
from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Cell
from ghostgrad.theory.activations import ACTIVATIONS, maxpool_backward, maxpool_forward

GROUPS = 64  # of the jackknife

TableFunction = TypeVar("TableFunction", bound=Callable[..., "Iterator[Measured]"])


@dataclass(frozen=True)
class Measured:
    """One number of ours: its place, value, spread over seeds or repeats, standard error and count."""

    row: str
    column: str
    metric: str
    ours: float
    std: float = np.nan
    se: float = np.nan
    n: int | None = None
    n_diverged: int = 0
    unit: str = ""
    of: tuple[tuple[str, str], ...] = ()  # the cells (row, column) that it is made of, where not its own
    quadrature: bool = False  # computed from a formula, so no run and no scale has a part in it


def reports(*_metrics: str, rows: tuple[str, ...] = ()) -> Callable[[TableFunction], TableFunction]:
    """Declare the metrics that a table function reports, and its rows where these are not the cells.

    The registry reads the arguments, which have to be literals, from the syntax tree
    (`registry/signatures.py`), and refuses reference numbers for anything else.
    """
    return lambda function: function


def jackknife(values: np.ndarray, statistic: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """`statistic` of the mean over the rows of `values` (n, …), and its standard error by the grouped jackknife."""
    n, groups = len(values), min(GROUPS, len(values))
    total, parts = values.sum(0), np.array_split(np.arange(n), groups)
    left_out = np.array([statistic((total - values[part].sum(0)) / (n - len(part))) for part in parts])
    spread = (groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum()
    return statistic(values.mean(0)), float(np.sqrt(spread))


def fitted_rate(curve: np.ndarray) -> float:
    """Factor per index toward the input of a curve (layers,), from least squares on its logarithm."""
    return float(np.exp(-np.polyfit(np.arange(len(curve)), np.log(curve), 1)[0]))


def explained(curve: np.ndarray, logarithmic: bool) -> float:
    """R^2 of a straight line through the curve or through its logarithm."""
    x, y = np.arange(len(curve)), np.log(curve) if logarithmic else curve
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - residual.var() / y.var())


CURVE_STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "rate": fitted_rate,
    "growth": lambda curve: float(curve[0] / curve[-1]),
    "R2_exponential": lambda curve: explained(curve, logarithmic=True),
    "R2_linear": lambda curve: explained(curve, logarithmic=False),
}


@reports("{metrics}")
def growth_rates(
    results: Results, metrics: list[Literal["rate", "growth", "R2_exponential", "R2_linear"]]
) -> Iterator[Measured]:
    """Of the mean gradient norm over layers 1..L: `rate`, the fitted factor per layer toward the input; `growth`, the
    norm at layer 1 over that at layer L; R^2 of an exponential and of a linear fit."""
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]
        for metric in metrics:
            value, se = jackknife(norms, CURVE_STATISTICS[metric])
            yield Measured(cell.row, cell.column, metric, value, se=se, n=len(norms))


@reports("{metrics}", "alpha", "largest_deviation")
def predicted_rates(
    results: Results,
    activation: Literal["ReLU", "SELU", "Tanh"],
    metrics: list[Literal["rate", "growth", "R2_exponential", "R2_linear"]],
) -> Iterator[Measured]:
    """growth_rates beside the asymptotic prediction alpha = sqrt(r) and how far the curve leaves g_L alpha^(L-k)."""
    alpha = ACTIVATIONS[activation].rate ** 0.5
    yield from growth_rates(results, metrics)
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]

        def deviation(curve: np.ndarray) -> float:
            prediction = curve[-1] * alpha ** np.arange(len(curve) - 1, -1, -1)
            return float(100 * np.abs(curve / prediction - 1).max())

        value, se = jackknife(norms, deviation)
        yield Measured(cell.row, cell.column, "alpha", alpha, quadrature=True)
        yield Measured(cell.row, cell.column, "largest_deviation", value, se=se, n=len(norms), unit="%")


@reports(
    "R_f(block)",
    "1+R_f(F)/L",
    "R_f(block)-(1+R_f(F)/L)",
    "R_b(block)",
    "1+R_b(F)/L",
    "R_b(block)-(1+R_b(F)/L)",
    "R_f(net)",
    "R_b(net)",
)
def block_ratios(results: Results) -> Iterator[Measured]:
    """Prop. 3.17: R_f and R_b of a scaled residual block against 1 + R(F)/L, averaged over blocks, and of the net."""
    for cell in results.measured_cells:
        values = {
            name: results.layers(cell, name)[:, 2::2]
            for name in ("block_forward", "block_backward", "branch_forward", "branch_backward")
        }
        blocks = values["block_forward"].shape[1]
        for direction, symbol in (("forward", "R_f"), ("backward", "R_b")):
            block = values[f"block_{direction}"].mean(1)
            formula = 1 + values[f"branch_{direction}"].mean(1) / blocks
            yield _over_repeats(cell, f"{symbol}(block)", block)
            yield _over_repeats(cell, f"1+{symbol}(F)/L", formula)
            yield _over_repeats(cell, f"{symbol}(block)-(1+{symbol}(F)/L)", block - formula)
        forward, backward = results.layers(cell, "forward_variance"), results.layers(cell, "backward_variance")
        yield _over_repeats(cell, "R_f(net)", forward[:, -1] / forward[:, 0])
        yield _over_repeats(cell, "R_b(net)", backward[:, 0] / backward[:, -1])


def _over_repeats(cell: Cell, metric: str, values: np.ndarray) -> Measured:
    std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return Measured(cell.row, cell.column, metric, float(values.mean()), std, std / len(values) ** 0.5, len(values))


@reports("variance_rate", "norm_rate")
def module_rates(results: Results) -> Iterator[Measured]:
    """Of a stack of SeqNet modules: the fitted factor per module of the gradient's variance at the module boundaries
    (BN holds the forward variance at 1, so this is R_b/R_f), and of the first weight's gradient norm."""
    for cell in results.measured_cells:
        boundaries = results.layers(cell, "backward_variance")[:, ::2]
        value, se = jackknife(boundaries, fitted_rate)
        yield Measured(cell.row, cell.column, "variance_rate", value, se=se, n=len(boundaries))
        norms = results.layers(cell, "gradient_norm")[:, 1::2]
        value, se = jackknife(norms, fitted_rate)
        yield Measured(cell.row, cell.column, "norm_rate", value, se=se, n=len(norms))


@reports("growth", "first_block_rate", "first_block_formula", "last_block_rate", "last_block_formula")
@reports("exponent", rows=("{row} to {other_row}",))
def vanilla_growth(results: Results) -> Iterator[Measured]:
    """App. C.3: a residual net's growth of the gradient norm, its blocks' R_b/R_f against the formula
    (1 + R_b(F))/(1 + R_f(F)), and how growth depends on depth: the exponent p of growth ~ L^p between two depths, over
    the repeats that both have, because a repeat draws the shallower net's weights in the deeper one too."""
    curves: list[tuple[str, np.ndarray, np.ndarray]] = []
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]
        value, se = jackknife(norms, CURVE_STATISTICS["growth"])
        yield Measured(cell.row, cell.column, "growth", value, se=se, n=len(norms))
        curves.append((cell.row, results.repeats(cell), norms))
        block, branch = (
            [results.layers(cell, f"{what}_{way}")[:, 2::2] for way in ("backward", "forward")]
            for what in ("block", "branch")
        )
        measured, formula = block[0] / block[1], (1 + branch[0]) / (1 + branch[1])
        for name, index in (("first", 0), ("last", -1)):
            yield _over_repeats(cell, f"{name}_block_rate", measured[:, index])
            yield _over_repeats(cell, f"{name}_block_formula", formula[:, index])
    for (low, low_repeats, low_norms), (high, high_repeats, high_norms) in pairwise(curves):
        _, of_low, of_high = np.intersect1d(low_repeats, high_repeats, return_indices=True)
        depth = low_norms.shape[1]

        def exponent(both: np.ndarray, depth: int = depth) -> float:
            growths = [CURVE_STATISTICS["growth"](curve) for curve in np.split(both, [depth])]
            return float(np.log(growths[1] / growths[0]) / np.log((len(both) - depth) / depth))

        if len(of_low):
            value, se = jackknife(np.hstack([low_norms[of_low], high_norms[of_high]]), exponent)
            yield Measured(f"{low} to {high}", "", "exponent", value, se=se, n=len(of_low))


@reports("r", "sqrt_r", "as_printed", rows=("SELU", "Tanh", "ReLU"))
def activation_rates(_: Results) -> Iterator[Measured]:
    """Eq. 1 by quadrature: r = E[s'^2]/Var[s], its root, and the formula as it is printed, E[s']^2/Var[s]."""
    for name in ("SELU", "Tanh", "ReLU"):
        activation = ACTIVATIONS[name]
        yield Measured(name, "", "r", activation.rate, quadrature=True)
        yield Measured(name, "", "sqrt_r", activation.rate**0.5, quadrature=True)
        yield Measured(name, "", "as_printed", activation.mean_slope**2 / activation.variance, quadrature=True)


@reports("R_f", "R_b", rows=("2x2 max-pool",))
def maxpool_ratios(_: Results) -> Iterator[Measured]:
    """App. C.1: R_f and R_b of 2x2 max-pooling of independent N(0, 1), by quadrature over the order statistic."""
    yield Measured("2x2 max-pool", "", "R_f", maxpool_forward(), quadrature=True)
    yield Measured("2x2 max-pool", "", "R_b", maxpool_backward(), quadrature=True)


@reports("R_f", "R_b", rows=("ReLU",))
def relu_ratios(_: Results) -> Iterator[Measured]:
    """R_f and R_b of ReLU for a unit Gaussian, by quadrature."""
    relu = ACTIVATIONS["ReLU"]
    yield Measured("ReLU", "", "R_f", relu.variance, quadrature=True)
    yield Measured("ReLU", "", "R_b", relu.slope, quadrature=True)


@reports("{metrics}")
def final_metrics(results: Results, metrics: list[str], unit: str = "") -> Iterator[Measured]:
    """Mean, standard deviation and count over seeds of columns of metrics.csv."""
    for cell in results.measured_cells:
        frame, mine = results.tidy, results.rows(cell)
        diverged = int((mine["status"] == "diverged").sum())
        for metric in metrics:
            if metric not in frame:
                place = f"artifact {results.artifact.id}: options.table.metrics"
                raise InputError(f"{place}: no run has '{metric}'{nearest(metric, frame.columns)}")
            values = mine[metric].dropna().astype(float)
            if values.empty and not diverged:
                continue
            std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
            se = std / len(values) ** 0.5 if len(values) else np.nan
            mean = float(values.mean())  # NaN where every seed diverged before there was a value
            yield Measured(cell.row, cell.column, metric, mean, std, se, len(mine), diverged, unit)


@reports("top1")
def top1(results: Results) -> Iterator[Measured]:
    """ImageNet's top-1 accuracy at the end: final_metrics of the test accuracy under its own name."""
    for measured in final_metrics(results, ["test_accuracy"], "%"):
        yield replace(measured, metric="top1")


@reports("APb", "APb50", "APb75", "APm", "APm50", "APm75")
def coco_precisions(results: Results) -> Iterator[Measured]:
    """COCO's average precisions of boxes and masks, under the paper's names."""
    names = {f"{kind}_ap{iou}": f"AP{kind[0]}{iou}" for kind in ("box", "mask") for iou in ("", "50", "75")}
    for measured in final_metrics(results, list(names)):
        yield replace(measured, metric=names[measured.metric])


@reports("largest at step {at:,.0f}")
def largest_bn_offset(results: Results, at: list[float]) -> Iterator[Measured]:
    """The largest mean |beta/gamma| of a BN layer inside a block (the last BN, before the classifier, belongs to none),
    of the mean over seeds, at each of the paper's positions (BN-ResNet paper app. F)."""
    for cell in results.measured_cells:
        for position in at:
            found = results.probe(cell, "bn_offset_mean", position)
            place = (cell.row, cell.column, f"largest at step {position:,.0f}")
            if found.empty:
                rows = results.rows(cell)
                diverged = int((rows["status"] == "diverged").sum())
                if diverged:
                    yield Measured(*place, np.nan, n=len(rows), n_diverged=diverged)
                continue
            inside = found[found["index"] < found["index"].max()]
            layers = inside.groupby("index")["value"].agg(["mean", "std", "count"])
            top = layers.loc[layers["mean"].idxmax()]
            n = int(top["count"])
            yield Measured(*place, float(top["mean"]), float(top["std"]), float(top["std"]) / n**0.5, n)


@reports("sample_gradient_variance")
def sample_gradient_variance(results: Results, at: float) -> Iterator[Measured]:
    """B^2 times the gradient's variance at a position, that of an image's own loss: geometric mean over the residual
    blocks, mean over seeds with its spread."""
    for cell in results.measured_cells:
        found = results.probe(cell, "gradient_variance", at)
        found = found[found["index"] > 0]
        if found.empty:
            continue
        batch = results.registry.cell_runs(results.scale, cell)[0].spec.batch
        values = batch**2 * np.exp(np.log(found["value"]).groupby(found["seed"]).mean().to_numpy())
        yield _over_repeats(cell, "sample_gradient_variance", values)


@reports("rate", "growth")
def explosion_rates(results: Results) -> Iterator[Measured]:
    """Of networks at initialization: the fitted factor per layer toward the input of the standard deviation of the
    gradient at each watched place, and the whole growth sqrt(Var(g_1)/Var(g_N)) (LALC fig. 1)."""
    for cell in results.measured_cells:
        deviations = np.sqrt(results.layers(cell, "gradient_variance")[:, 1:])
        yield _over_repeats(cell, "rate", np.array([fitted_rate(curve) for curve in deviations]))
        yield _over_repeats(cell, "growth", deviations[:, 0] / deviations[:, -1])


def block_ratios_by_scale(variances: np.ndarray) -> list[np.ndarray]:
    """Of a pre-activation net of three scales: variance of the gradient at a block's input over that at its output,
    (repeats, blocks of the scale) for each scale, from `variances` (repeats, places) at the image, stem and blocks."""
    return np.split(variances[:, 1:-1] / variances[:, 2:], 3, axis=1)


@reports(
    "factor per block, scale 1", "factor per block, scale 2", "factor per block, scale 3", "growth over the net"
)
def initial_growth(results: Results) -> Iterator[Measured]:
    """BN-ResNet sec. 5 at initialization: the gradient variance's geometric mean factor per block in each scale, its
    first block, which changes the width, left out; and that over the whole net."""
    for cell in results.measured_cells:
        variances = results.layers(cell, "feature_variance")
        for scale, ratios in enumerate(block_ratios_by_scale(variances), 1):
            factor = np.exp(np.log(ratios[:, 1:]).mean(1))
            yield _over_repeats(cell, f"factor per block, scale {scale}", factor)
        yield _over_repeats(cell, "growth over the net", variances[:, 1] / variances[:, -1])


@reports("input_variance", "dropped_variance", "relu_variance")
def rectified_variances(results: Results) -> Iterator[Measured]:
    """Variances of a Gaussian sample, of one with a random half dropped, and of its positive part (LALC fig. 2)."""
    for cell in results.measured_cells:
        for name in ("input", "dropped", "relu"):
            yield _over_repeats(cell, f"{name}_variance", results.layers(cell, f"{name}_variance")[:, 0])


STATISTICS = """conv_activation_variance norm_activation_variance act_activation_variance conv_gradient_variance
weight_variance act_activation_offset conv_gradient_offset weight_offset norm_activation_gradient_correlation
act_activation_correlation""".split()


@reports(
    "conv_activation_variance, step {at:,.0f}",
    "norm_activation_variance, step {at:,.0f}",
    "act_activation_variance, step {at:,.0f}",
    "conv_gradient_variance, step {at:,.0f}",
    "weight_variance, step {at:,.0f}",
    "act_activation_offset, step {at:,.0f}",
    "conv_gradient_offset, step {at:,.0f}",
    "weight_offset, step {at:,.0f}",
    "norm_activation_gradient_correlation, step {at:,.0f}",
    "act_activation_correlation, step {at:,.0f}",
)
def layer_statistics(results: Results, at: list[float]) -> Iterator[Measured]:
    """The probe `statistics` at each of the paper's positions, averaged over layers; mean and spread over seeds."""
    for cell in results.measured_cells:
        for position in at:
            for quantity in STATISTICS:
                found = results.probe(cell, quantity, position)
                if not found.empty:
                    values = found.groupby("seed")["value"].mean().to_numpy()
                    yield _over_repeats(cell, f"{quantity}, step {position:,.0f}", values)


@reports("test_accuracy")
@reports("eta", rows=("{method}, best",))
def coefficients(results: Results) -> Iterator[Measured]:
    """final_metrics of each method and eta (rows "<method> <eta>"), and per method and batch the eta of the highest
    mean accuracy among those that ran, where there are several."""
    tried: dict[tuple[str, str], list[Measured]] = {}
    for measured in final_metrics(results, ["test_accuracy"], "%"):
        yield measured
        if not np.isnan(measured.ours):
            tried.setdefault((measured.row.rpartition(" ")[0], measured.column), []).append(measured)
    for (method, column), found in tried.items():
        if len(found) > 1:
            best = max(found, key=lambda one: one.ours)
            of = tuple((one.row, one.column) for one in found)
            eta = float(best.row.rpartition(" ")[2])
            yield Measured(f"{method}, best", column, "eta", eta, of=of)
