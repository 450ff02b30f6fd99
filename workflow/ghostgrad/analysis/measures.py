"""What a table reports of its runs: each public function maps Results to Measured quantities.

Experiments name these functions and their options in workflow/experiments/*.yaml, and the names of
rows, columns and metrics appear in tables. Standard errors are those of the mean over independent
seeds or repeats, s/sqrt(n); a statistic of the mean over repeats, such as a fitted growth rate, has
that of the grouped jackknife (`statistics.jackknife`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from ghostgrad.analysis.measured import Measured, of_estimate, over_repeats, reports
from ghostgrad.analysis.results import Results, test_images
from ghostgrad.analysis.statistics import (
    CURVE_STATISTICS,
    FloatArray,
    RepeatedCurves,
    binomial_error,
    depth_exponent,
    fit_growth_rate,
    jackknife,
    join_common_repeats,
    split_block_ratios,
    total_growth,
)
from ghostgrad.checks import InputError, nearest
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    maxpool_backward_ratio,
    maxpool_forward_ratio,
)

# --- simulations and networks at initialization ---


@reports("{metrics}")
def growth_rates(
    results: Results, metrics: list[Literal["rate", "growth", "R2_exponential", "R2_linear"]]
) -> Iterator[Measured]:
    """Statistics of the gradient norm's mean over repeats, as a curve over layers 1..L.

    `rate` is the fitted factor per layer toward the input; `growth` the norm at layer 1 over that
    at layer L; the others are R^2 of an exponential and of a linear fit.
    """
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]  # layer 0 is the input: no weights
        for metric in metrics:
            estimate = jackknife(norms, CURVE_STATISTICS[metric])
            yield of_estimate((cell.row, cell.column), metric, estimate, len(norms))


@reports("{metrics}", "alpha", "largest_deviation")
def predicted_rates(
    results: Results,
    activation: Literal["ReLU", "SELU", "Tanh"],
    metrics: list[Literal["rate", "growth", "R2_exponential", "R2_linear"]],
) -> Iterator[Measured]:
    """`growth_rates` beside the asymptotic prediction of the gradient norm, alpha = sqrt(r).

    `largest_deviation` is how far the curve leaves g_L alpha^(L-k) at any layer k, in percent.
    """
    alpha = ACTIVATIONS[activation].growth_rate ** 0.5
    yield from growth_rates(results, metrics)
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]

        def largest_deviation(curve: FloatArray) -> float:
            prediction = curve[-1] * alpha ** np.arange(len(curve) - 1, -1, -1)
            return float(100 * np.abs(curve / prediction - 1).max())

        estimate = jackknife(norms, largest_deviation)
        yield Measured(cell.row, cell.column, "alpha", alpha, quadrature=True)
        place = (cell.row, cell.column)
        yield of_estimate(place, "largest_deviation", estimate, len(norms), "%")


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
    """R_f and R_b of a scaled residual block against 1 + R(F)/L, and of the net (Ghost Prop. 3.17).

    The ratios of blocks are averaged over the L blocks of each repeat; F is the branch.
    """
    for cell in results.measured_cells:
        # A block has two layers. Its ratios are in the row of its last layer: 2, 4, ...
        values = {
            name: results.layers(cell, name)[:, 2::2]
            for name in ("block_forward", "block_backward", "branch_forward", "branch_backward")
        }
        blocks = values["block_forward"].shape[1]
        for direction, symbol in (("forward", "R_f"), ("backward", "R_b")):
            block = values[f"block_{direction}"].mean(1)
            formula = 1 + values[f"branch_{direction}"].mean(1) / blocks
            yield over_repeats(cell, f"{symbol}(block)", block)
            yield over_repeats(cell, f"1+{symbol}(F)/L", formula)
            yield over_repeats(cell, f"{symbol}(block)-(1+{symbol}(F)/L)", block - formula)
        forward = results.layers(cell, "forward_variance")
        backward = results.layers(cell, "backward_variance")
        yield over_repeats(cell, "R_f(net)", forward[:, -1] / forward[:, 0])
        yield over_repeats(cell, "R_b(net)", backward[:, 0] / backward[:, -1])


@reports("variance_rate", "norm_rate")
def module_rates(results: Results) -> Iterator[Measured]:
    """Growth per module of a stack of SeqNet modules, two layers each (Ghost sec. 4).

    `variance_rate` is the fitted factor of the gradient's variance at the module boundaries. BN
    holds the forward variance at 1, so this is R_b/R_f. `norm_rate` is that of the gradient norm of
    each module's first weight.
    """
    for cell in results.measured_cells:
        boundaries = results.layers(cell, "backward_variance")[:, ::2]
        estimate = jackknife(boundaries, fit_growth_rate)
        yield of_estimate((cell.row, cell.column), "variance_rate", estimate, len(boundaries))
        norms = results.layers(cell, "gradient_norm")[:, 1::2]
        estimate = jackknife(norms, fit_growth_rate)
        yield of_estimate((cell.row, cell.column), "norm_rate", estimate, len(norms))


@reports(
    "growth", "first_block_rate", "first_block_formula", "last_block_rate", "last_block_formula"
)
@reports("exponent", rows=("{row} to {other_row}",))
def vanilla_growth(results: Results) -> Iterator[Measured]:
    """Growth of the gradient norm in vanilla residual nets of several depths (Ghost app. C.3).

    For each net: the growth, and R_b/R_f of its first and last block against the formula
    (1 + R_b(F))/(1 + R_f(F)). For each two successive depths: the exponent p of growth ~ L^p.
    """
    nets: list[RepeatedCurves] = []
    for cell in results.measured_cells:
        norms = results.layers(cell, "gradient_norm")[:, 1:]
        estimate = jackknife(norms, total_growth)
        yield of_estimate((cell.row, cell.column), "growth", estimate, len(norms))
        nets.append(RepeatedCurves(cell.row, results.repeats(cell), norms))
        block_backward, block_forward, branch_backward, branch_forward = (
            results.layers(cell, f"{part}_{direction}")[:, 2::2]
            for part in ("block", "branch")
            for direction in ("backward", "forward")
        )
        measured = block_backward / block_forward
        formula = (1 + branch_backward) / (1 + branch_forward)
        for name, index in (("first", 0), ("last", -1)):
            yield over_repeats(cell, f"{name}_block_rate", measured[:, index])
            yield over_repeats(cell, f"{name}_block_formula", formula[:, index])
    for shallow, deep in pairwise(nets):
        joined = join_common_repeats(shallow, deep)
        if len(joined):
            exponent = partial(depth_exponent, shallow_depth=shallow.norms.shape[1])
            estimate = jackknife(joined, exponent)
            label = f"{shallow.label} to {deep.label}"
            yield of_estimate((label, ""), "exponent", estimate, len(joined))


@reports("rate", "growth")
def explosion_rates(results: Results) -> Iterator[Measured]:
    """Growth of the gradient's standard deviation in networks at initialization (LALC fig. 1).

    `rate` is the fitted factor per layer toward the input over the watched places 1..N; `growth` is
    sqrt(Var(g_1)/Var(g_N)). Both are means over repeats.
    """
    for cell in results.measured_cells:
        deviations = np.sqrt(results.layers(cell, "gradient_variance")[:, 1:])
        rates = np.array([fit_growth_rate(curve) for curve in deviations])
        yield over_repeats(cell, "rate", rates)
        yield over_repeats(cell, "growth", deviations[:, 0] / deviations[:, -1])


@reports(
    "factor per block, scale 1",
    "factor per block, scale 2",
    "factor per block, scale 3",
    "growth over the net",
)
def initial_growth(results: Results) -> Iterator[Measured]:
    """Growth of the gradient's variance at initialization (BN-ResNet sec. 5).

    For each scale, the geometric mean factor per block without the first block, which changes the
    width; and the growth over the whole net.
    """
    for cell in results.measured_cells:
        variances = results.layers(cell, "feature_variance")
        for scale, ratios in enumerate(split_block_ratios(variances), 1):
            factor = np.exp(np.log(ratios[:, 1:]).mean(1))
            yield over_repeats(cell, f"factor per block, scale {scale}", factor)
        yield over_repeats(cell, "growth over the net", variances[:, 1] / variances[:, -1])


@reports("input_variance", "dropped_variance", "relu_variance")
def rectified_variances(results: Results) -> Iterator[Measured]:
    """Variances of a Gaussian sample, of it with a random half dropped, and of its positive part.

    Source: LALC fig. 2.
    """
    for cell in results.measured_cells:
        for name in ("input", "dropped", "relu"):
            values = results.layers(cell, f"{name}_variance")[:, 0]
            yield over_repeats(cell, f"{name}_variance", values)


# --- quadrature ---


@reports("r", "sqrt_r", "as_printed", rows=("SELU", "Tanh", "ReLU"))
def activation_rates(_: Results) -> Iterator[Measured]:
    """Equation 1 of the Ghost paper by quadrature: r = E[s'^2]/Var[s] and its root.

    Beside them, `as_printed` is the formula as the paper prints it, E[s']^2/Var[s] (E-G1).
    """
    for name in ("SELU", "Tanh", "ReLU"):
        activation = ACTIVATIONS[name]
        as_printed = activation.mean_derivative**2 / activation.variance
        yield Measured(name, "", "r", activation.growth_rate, quadrature=True)
        yield Measured(name, "", "sqrt_r", activation.growth_rate**0.5, quadrature=True)
        yield Measured(name, "", "as_printed", as_printed, quadrature=True)


@reports("R_f", "R_b", rows=("2x2 max-pool",))
def maxpool_ratios(_: Results) -> Iterator[Measured]:
    """R_f and R_b of 2x2 max-pooling of independent N(0, 1), by quadrature (Ghost app. C.1)."""
    yield Measured("2x2 max-pool", "", "R_f", maxpool_forward_ratio(), quadrature=True)
    yield Measured("2x2 max-pool", "", "R_b", maxpool_backward_ratio(), quadrature=True)


@reports("R_f", "R_b", rows=("ReLU",))
def relu_ratios(_: Results) -> Iterator[Measured]:
    """R_f and R_b of ReLU for a unit Gaussian, by quadrature (Ghost sec. 3.1)."""
    relu = ACTIVATIONS["ReLU"]
    yield Measured("ReLU", "", "R_f", relu.variance, quadrature=True)
    yield Measured("ReLU", "", "R_b", relu.mean_squared_derivative, quadrature=True)


# --- training ---


@reports("{metrics}")
def final_metrics(results: Results, metrics: list[str], unit: str = "") -> Iterator[Measured]:
    """Mean, standard deviation and count over seeds of columns of metrics.csv.

    Of a single seed, an accuracy in percent has the binomial error of its test images, which
    shows how many of its digits mean something. It says nothing of the spread over seeds, so that
    the number has no degrees of freedom and is not judged. Raises InputError if no run has such a
    column.
    """
    for cell in results.measured_cells:
        frame, rows = results.tidy, results.rows(cell)
        diverged = int((rows["status"] == "diverged").sum())
        for metric in metrics:
            if metric not in frame:
                place = f"artifact {results.artifact.id}: options.table.metrics"
                raise InputError(f"{place}: no run has '{metric}'{nearest(metric, frame.columns)}")
            values = rows[metric].dropna().astype(float)
            if values.empty and not diverged:
                continue  # this cell's task does not measure it
            if len(values) > 1:
                measured = over_repeats(cell, metric, np.array(values, dtype=np.float64))
            else:
                # NaN if every seed diverged before there was a value.
                mean = float(values.iloc[0]) if len(values) else np.nan
                se = binomial_error(mean, test_images(results, cell)) if unit == "%" else np.nan
                measured = Measured(cell.row, cell.column, metric, mean, se=se)
            yield replace(measured, n=len(rows), n_diverged=diverged, unit=unit)


@reports("top1")
def top1(results: Results) -> Iterator[Measured]:
    """The final top-1 accuracy on ImageNet, in percent: the test accuracy under its usual name."""
    for measured in final_metrics(results, ["test_accuracy"], "%"):
        yield replace(measured, metric="top1")


@reports("APb", "APb50", "APb75", "APm", "APm50", "APm75")
def coco_precisions(results: Results) -> Iterator[Measured]:
    """COCO's average precisions of boxes and masks, under the names of the paper (APb, APm50, ...).

    The suffix is the threshold of the intersection over union, in percent.
    """
    names = {
        f"{kind}_ap{iou}": f"AP{kind[0]}{iou}"
        for kind in ("box", "mask")
        for iou in ("", "50", "75")
    }
    for measured in final_metrics(results, list(names)):
        yield replace(measured, metric=names[measured.metric])


@reports("largest at step {at:,.0f}")
def largest_bn_offset(results: Results, at: list[float]) -> Iterator[Measured]:
    """The largest mean |beta/gamma| of a BN layer inside a block (BN-ResNet app. F).

    It is the largest over layers of the mean over seeds, at each of the paper's positions `at`.
    """
    for cell in results.measured_cells:
        for position in at:
            probed = results.probe(cell, "bn_offset_mean", position)
            place = (cell.row, cell.column, f"largest at step {position:,.0f}")
            if probed.empty:
                rows = results.rows(cell)
                diverged = int((rows["status"] == "diverged").sum())
                if diverged:
                    yield Measured(*place, np.nan, n=len(rows), n_diverged=diverged)
                continue
            # The last BN precedes the classifier and belongs to no block.
            inside = probed[probed["index"] < probed["index"].max()]
            layers = inside.groupby("index")["value"]
            largest = layers.get_group(layers.mean().idxmax()).to_numpy()
            yield over_repeats(cell, place[2], largest)


@reports("sample_gradient_variance")
def sample_gradient_variance(results: Results, at: float) -> Iterator[Measured]:
    """The gradient's variance as of an image's own loss, at the paper's position `at`.

    It is B^2 times that of the mean loss over a batch of B images: geometric mean over the residual
    blocks, then mean over seeds.
    """
    for cell in results.measured_cells:
        probed = results.probe(cell, "gradient_variance", at)
        probed = probed[probed["index"] > 0]  # index 0 is the stem
        if probed.empty:
            continue
        spec = results.registry.cell_runs(results.scale, cell)[0].training
        mean_logarithm = np.log(probed["value"]).groupby(probed["seed"]).mean()
        # The factor 1/B of the mean loss would make the variances of two batch sizes differ.
        values = spec.batch**2 * np.exp(mean_logarithm.to_numpy())
        yield over_repeats(cell, "sample_gradient_variance", values)


STATISTICS = """conv_activation_variance norm_activation_variance act_activation_variance
conv_gradient_variance weight_variance act_activation_offset conv_gradient_offset weight_offset
norm_activation_gradient_correlation act_activation_correlation""".split()


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
    """The probe `statistics` at each of the paper's positions `at`, averaged over layers.

    The spread is that over seeds.
    """
    for cell in results.measured_cells:
        for position in at:
            for quantity in STATISTICS:
                probed = results.probe(cell, quantity, position)
                if not probed.empty:
                    values = probed.groupby("seed")["value"].mean().to_numpy()
                    yield over_repeats(cell, f"{quantity}, step {position:,.0f}", values)


@reports("test_accuracy")
@reports("eta", rows=("{method}, best",))
def coefficients(results: Results) -> Iterator[Measured]:
    """The test accuracy of each method and coefficient eta, and the best eta of each method.

    Rows are "<method> <eta>", columns are batch sizes. The best eta is that of the highest mean
    accuracy among those that ran, for each method and batch size for which several ran.
    """
    groups: dict[tuple[str, str], list[Measured]] = {}
    for measured in final_metrics(results, ["test_accuracy"], "%"):
        yield measured
        if not np.isnan(measured.ours):
            method = measured.row.rpartition(" ")[0]
            groups.setdefault((method, measured.column), []).append(measured)
    for (method, column), accuracies in groups.items():
        if len(accuracies) > 1:
            best = max(accuracies, key=lambda accuracy: accuracy.ours)
            cells = tuple((accuracy.row, accuracy.column) for accuracy in accuracies)
            eta = float(best.row.rpartition(" ")[2])
            yield Measured(f"{method}, best", column, "eta", eta, source_cells=cells)
