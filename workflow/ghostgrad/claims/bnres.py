"""The claims of the BN-ResNet paper (004), one function each.

The statements, the runs and the corrected forms are in workflow/claims/bnres.yaml. The formulas of
the paper, as printed, as restored and as corrected, are in `ghostgrad.theory.residual`;
a = beta/gamma is the offset of a BN, y = relu(z + a) its output after ReLU, and c_1 and c_2 are
those of equations 15 and 16. C = pi/(pi-1) is RELU_GROWTH_RATE.

Where a "1 -" is restored in equation 16, the comparison with the formula as printed is an
extension: the "1 -" may be missing in our copy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ghostgrad.analysis.statistics import FloatArray, jackknife, mean_estimate, split_block_ratios
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import (
    Comparison,
    average,
    between_seeds,
    from_estimate,
    growth,
    over_seeds,
)
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import residual
from ghostgrad.theory.activations import ACTIVATIONS, RELU_GROWTH_RATE, Activation

OFFSETS = (0.0, 0.5, 1.0)  # values of a
BLOCKS = (2, 5, 10)  # of the ten blocks of preact_init/blocks-10
WIDTH = 256  # of that net

# The formulas are exact for independent signals and an infinite batch. At width 256 and batch 128
# E(1/X) E(X) of a row sum of squares is n/(n-2), 0.8 % above 1, and the correlations between
# features add about as much again per layer.
FINITE_NET = 0.03


# --- section 3: one layer ---


def eq4(_: Evidence) -> Iterator[Comparison]:
    """Eq. 4, the gradient through BN, against its derivative."""
    x, z, dy, dx = layers.differentiate_batch_norm()
    formula = layers.GAMMA / x.std() * ((dy - dy.mean()) - z * (dy * z).mean())
    difference, largest = float(np.abs(dx - formula).max()), float(np.abs(formula).max())
    yield Comparison("largest difference of dx from the formula", difference, 0.0, tolerance=1e-12)
    yield Comparison("largest |dx|", float(np.abs(dx).max()), largest, tolerance=1e-12)


def eq5(_: Evidence) -> Iterator[Comparison]:
    """Eq. 5, mean and variance of the gradient through BN."""
    x, z, dy, dx = layers.differentiate_batch_norm()
    yield Comparison("E dx", float(dx.mean()), 0.0, tolerance=1e-12)
    formula = layers.GAMMA**2 / x.var() * (dy.var() - (dy * z).mean() ** 2)
    yield Comparison("Var dx", float(dx.var()), float(formula), tolerance=1e-12)


def _compare_at_offsets(
    quantity: str,
    ours: Callable[[Activation], float],
    paper: Callable[[float], float],
    corrected: Callable[[float], float],
) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    for a in OFFSETS:
        name = f"{quantity} at a = {a:g}"
        yield Comparison(name, ours(relu.with_input(mean=a)), paper(a), corrected(a))


def eq8(_: Evidence) -> Iterator[Comparison]:
    """Eq. 8 (and 27), E(y), by quadrature against the printed and the corrected formula."""
    yield from _compare_at_offsets(
        "E(y)", lambda relu: relu.mean, residual.mean_printed, residual.mean_corrected
    )


def eq9(_: Evidence) -> Iterator[Comparison]:
    """Eq. 9 (and 30), E(y^2), by quadrature against the restored and the corrected formula."""
    formulas = (residual.second_moment_restored, residual.second_moment_corrected)
    yield from _compare_at_offsets("E(y^2)", lambda relu: relu.second_moment, *formulas)
    relu, printed = ACTIVATIONS["ReLU"], residual.second_moment_printed(0.0)
    name = "E(y^2) as printed, at a = 0"
    yield Comparison(name, relu.second_moment, printed, extension=True)


def _compare_each_row(name: str, ratios: FloatArray) -> Iterator[Comparison]:
    """The ratios of a fixed W, (repeats, rows): their mean is 1, and so is each of them.

    A mean of 1 alone would also hold for dependent elements. For independent ones each row's ratio
    leaves 1 only by the sampling error of a variance over the batch, whose square is 2/(B - 1).
    """
    yield average(name, ratios.mean(1), 1.0)
    squares = ((ratios - 1) ** 2).mean(1) * (layers.LINEAR_BATCH - 1) / 2
    yield average(f"{name}: its square over rows, over 2/(B-1)", squares, 1.0)


def _compare_in_a_net(equation: str) -> Comparison:
    """The equation in a net, whose signals and gradients are not drawn independently."""
    ratios = layers.measure_cascade()[equation]
    name = "in a net of BN, ReLU and weights"
    return average(name, ratios, 1.0, tolerance=FINITE_NET, extension=True)


def eq10(_: Evidence) -> Iterator[Comparison]:
    """Eq. 10, the variance through a linear layer, by Monte Carlo."""
    ratios = layers.linear_variance_ratios(60, 80)
    yield from _compare_each_row("Var(W y) over W^2 Var(y)", ratios)
    yield _compare_in_a_net("eq10")


def eq11(_: Evidence) -> Iterator[Comparison]:
    """Eq. 11, the same for the gradient: W^T has inputs and outputs exchanged."""
    ratios = layers.linear_variance_ratios(80, 60)
    yield from _compare_each_row("Var(W^T dy) over (W^T)^2 Var(dy)", ratios)
    yield _compare_in_a_net("eq11")


def relu_derivative(x: FloatArray) -> NDArray[np.bool_]:
    """The derivative of ReLU, in the shape of x."""
    return x > 0


def eq12(_: Evidence) -> Iterator[Comparison]:
    """Eq. 12, the gradient's variance through ReLU, by Monte Carlo."""
    rng = np.random.default_rng(0)
    for a in OFFSETS:
        z, dy = rng.normal(size=(200, 5000)), rng.normal(size=(200, 5000))
        factor = (dy * relu_derivative(z + a)).var(1) / dy.var(1)
        yield average(f"factor at a = {a:g}", factor, 0.5 + residual.p(a))
    yield _compare_in_a_net("eq12")


def eq13(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 13, the factor per layer at a = 0, measured in a plain net with BN."""
    factor = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    corrected = residual.layer_factor_corrected(0.0)
    # A tenth of the growth. Section 3.3 has the gradients maintained: any growth that adds up over
    # layers refutes it.
    yield growth("factor per layer, a = 0", factor, 1.0, corrected, fraction=0.1)
    printed = residual.layer_factor_printed(0.0)
    yield from_estimate("factor per layer by (16) as printed", factor, printed, extension=True)


def eq14(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 14, the lower and the upper bound of the factor per layer at a = 0."""
    factor = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    constant, corrected = bound_constant(WIDTH, WIDTH), residual.layer_factor_corrected(0.0)
    yield from_estimate("lower bound, factor per layer", factor, 1.0, relation=">=")
    yield from_estimate(
        "upper bound, factor per layer",
        factor,
        constant,
        constant * corrected,
        relation="<=",
        corrected_relation="<=",
    )


def disc(_: Evidence) -> Iterator[Comparison]:
    """Sec. 3.3, the constant of eq. 13 at a = 0 and a = 1, by quadrature."""
    relu = ACTIVATIONS["ReLU"]
    numbers = ((0.0, 1.0, RELU_GROWTH_RATE), (1.0, 0.33, residual.layer_factor_corrected(1.0)))
    for a, paper, corrected in numbers:
        shifted = relu.with_input(mean=a)
        constant = shifted.mean_squared_derivative / shifted.variance
        yield Comparison(
            f"constant at a = {a:g}", constant, paper, corrected, relation="~", tolerance=0.005
        )
    for a, paper, _corrected in numbers:
        restored = residual.layer_factor_restored(a)
        name = f"c1/c2 with the restored 1 -, at a = {a:g}"
        yield Comparison(name, restored, paper, relation="~", tolerance=0.005, extension=True)


def eq32(_: Evidence) -> Iterator[Comparison]:
    """Eq. 32, the gradient's variance through BN for a gradient that is independent of z."""
    rng = np.random.default_rng(0)
    x = 3 * layers.draw_elements(rng, 500, 200) + 2
    dy = rng.normal(size=x.shape)
    ratios = layers.differentiate_normalize(x, dy).var(0) * x.var(0) / dy.var(0)
    # The projection of the gradient on z, 1/B of its variance for independent ones, is left out.
    name = "Var(dx) over gamma^2/Var(x) Var(dy)"
    yield average(name, ratios, 1.0, tolerance=0.01)
    yield _compare_in_a_net("eq32")


# --- section 4: residual blocks ---


def bound_constant(rows: int, count: int) -> float:
    """K of eq. 14 as app. E bounds it, for `rows` row sums of `count` squared Gaussian weights.

    A mean over drawn matrices. It is larger than E(1/X) E(X), the least K that eq. 14 needs, and
    so in the paper's favour.
    """
    sums = draw_squared_sums(16, rows, count)
    return float(_constants(sums).mean())


def _constants(sums: FloatArray) -> FloatArray:
    """K of app. E for each repeat of row sums (repeats, rows), (repeats,)."""
    ends = zip(sums.min(1), sums.max(1), strict=True)
    return np.array([residual.kantorovich_constant(low, high) for low, high in ends])


def eq33(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 33, the gradient's variance over a layer in terms of the variance that its BN sees."""
    variances = evidence.layers("preact_init/blocks-10", "forward_variance")
    gradients = evidence.layers("preact_init/blocks-10", "backward_variance")
    for block in BLOCKS:
        # The second layer of the branch. Its row sums of squares are 2, which P(y > 0) = 1/2
        # cancels.
        hidden = 2 * block - 1
        ratios = gradients[:, hidden] * variances[:, hidden] / gradients[:, hidden + 1]
        yield average(f"over the formula, block {block}", ratios, 1.0, tolerance=FINITE_NET)


def _forward(name: str, values: FloatArray, offset: float) -> Iterator[Comparison]:
    """A forward variance over its row sums of squares: c_2 in the paper, Var(y) in truth."""
    restored = residual.second_moment_restored(offset)
    corrected = residual.variance_corrected(offset)
    name = f"{name}, a = {offset:g}"
    yield average(name, values, restored, corrected, tolerance=0.02 * corrected)
    if offset == 0:
        printed = residual.second_moment_printed(offset)
        yield average(f"{name}, c2 as printed", values, printed, extension=True)


def eq34(_: Evidence) -> Iterator[Comparison]:
    """Eq. 34, the variance of the first block's shortcut, whose row sums are 1/2 for k = 2."""
    for offset in (0.0, 1.0):
        shortcut = layers.measure_widening_scale(offset=offset)[:, 0]
        yield from _forward("Var over the row sums of the shortcut", 2 * shortcut, offset)


def eq35(_: Evidence) -> Iterator[Comparison]:
    """Eq. 35, the variance of the first block's output, whose row sums are 1 + 1/2 for k = 2."""
    for offset in (0.0, 1.0):
        first = layers.measure_widening_scale(offset=offset)[:, 1]
        yield from _forward("Var(y_1) over the row sums", first / 1.5, offset)


def eq36(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 36, what a block adds to the variance; the row sums of its branch are 2."""
    variances = evidence.layers("preact_init/blocks-10", "forward_variance")
    for block in BLOCKS:
        added = variances[:, 2 * block] - variances[:, 2 * block - 2]
        yield from _forward(
            f"Var(y_N) - Var(y_(N-1)) over the row sums, N = {block}", added / 2, 0.0
        )


def eq37(_: Evidence) -> Iterator[Comparison]:
    """Eq. 37, the variance of a scale's output over the sum of all row sums, N + 1/2 for k = 2."""
    for offset in (0.0, 1.0):
        variances = layers.measure_widening_scale(offset=offset)
        yield from _forward("Var(y_3) over the row sums", variances[:, 3] / 3.5, offset)


def eq19(_: Evidence) -> Iterator[Comparison]:
    """Eq. 19, the same with 1/k on both terms of the first block: N - 1/4 for k = 2."""
    variances = layers.measure_widening_scale()[:, 3]
    restored, corrected = 0.5 * 2.75, 3.5 * residual.variance_corrected(0.0)
    name = "Var(y_3)/(n Var(W)), k = 2, a = 0"
    yield average(name, variances, restored, corrected, tolerance=0.02 * corrected)
    name = "Var(y_3)/(n Var(W)), c2 as printed"
    yield average(name, variances, 1.5 * 2.75, extension=True)


def e_b5(_: Evidence) -> Iterator[Comparison]:
    """E-B5: the first block against what a further block adds, from which c_2 cancels."""
    variances = layers.measure_widening_scale()
    ratios = variances[:, 1] / (variances[:, 2] - variances[:, 1])
    name = "variance of block 1 over that which block 2 adds, k = 2"
    yield average(name, ratios, (0.5 + 1) / 2, 1.5, tolerance=0.02 * 1.5)


def _gradient_steps(evidence: Evidence, block: int) -> tuple[FloatArray, FloatArray]:
    """The gradient's variance over the second and over the first layer of a branch, (repeats,)."""
    gradients = evidence.layers("preact_init/blocks-10", "backward_variance")
    branch = evidence.layers("preact_init/blocks-10", "branch_backward")[:, 2 * block]
    second = gradients[:, 2 * block - 1] / gradients[:, 2 * block]
    return second, branch / second


def eq38(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 38, the upper bound for the second layer of a branch."""
    constant = bound_constant(WIDTH, WIDTH)
    for block in BLOCKS:
        second, _ = _gradient_steps(evidence, block)
        yield average(
            f"second layer of block {block}",
            second,
            constant,
            RELU_GROWTH_RATE,
            relation="<=",
            tolerance=FINITE_NET * RELU_GROWTH_RATE,
        )


def eq39(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 39, the upper bound for the first layer, which sees the variance of L blocks."""
    constant = bound_constant(WIDTH, WIDTH)
    for block in BLOCKS:
        _, first = _gradient_steps(evidence, block)
        yield average(
            f"first layer of block {block}, times L",
            block * first,
            constant,
            RELU_GROWTH_RATE,
            relation="<=",
            tolerance=FINITE_NET * RELU_GROWTH_RATE,
        )


def _block_bound(evidence: Evidence, power: int) -> Iterator[Comparison]:
    """The upper bound of a block's factor, with (c_1/c_2)^power, in a scale that does not widen."""
    constant = bound_constant(WIDTH, WIDTH) ** 2
    ratios = evidence.layers("preact_init/blocks-10", "block_backward")
    for block in BLOCKS:
        factor = mean_estimate(ratios[:, 2 * block])
        bound = constant * residual.block_factor(residual.layer_factor_restored(0) ** power, block)
        corrected = residual.block_ratio_corrected(block)
        tolerance = 2 * FINITE_NET * (corrected - 1)  # of the branch's term: two layers
        yield from_estimate(
            f"factor of block {block}", factor, bound, corrected, relation="<=", tolerance=tolerance
        )
    printed = constant * residual.block_factor(residual.layer_factor_printed(0) ** power, 2)
    name, factor = "factor of block 2, c2 as printed", mean_estimate(ratios[:, 4])
    yield from_estimate(name, factor, printed, relation="<=", extension=True)


def eq21(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 21, which has c_1/c_2."""
    yield from _block_bound(evidence, 1)


def eq40(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 40, which has (c_1/c_2)^2."""
    yield from _block_bound(evidence, 2)


def _conv_ratios(evidence: Evidence) -> Iterator[tuple[str, int, FloatArray]]:
    """(initialization, scale, ratios (repeats, blocks)) of Model-1's scales that widen.

    The first scale is left out: it does not widen, and the 16 channels of the stem, its input, are
    mixtures of three, which is far from independent.
    """
    for init in ("He", "Xavier"):
        variances = evidence.layers(f"preact_conv_init/{init.lower()}", "gradient_variance")
        for scale, ratios in enumerate(split_block_ratios(variances), 1):
            if scale > 1:
                yield init, scale, ratios


def eq22(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 22, an upper bound proportional to L/(L-1), whose growth falls with L."""
    for init, scale, ratios in _conv_ratios(evidence):
        place = f"scale {scale}, {init}"
        for block in (2, 5):
            quotient = ratios[:, block - 1] / residual.block_ratio_printed(block)
            name = f"block {block} of {place}: factor over L/(L-1)"
            yield average(name, quotient, RELU_GROWTH_RATE**2, relation="<=")
        quotients = jackknife(ratios, lambda means: float((means[1] - 1) / (means[4] - 1)))
        name = f"growth of block 2 over block 5, {place}"
        yield from_estimate(name, quotients, 2.0, relation=">")


def eq22_conv(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 21 at k = 2 in Model-1's convolutional blocks, with He's and with Xavier's weights."""
    for init, scale, ratios in _conv_ratios(evidence):
        channels = 16 * 2 ** (scale - 1)
        constant = bound_constant(channels, 9 * channels) ** 2
        for block in (2, 5):
            corrected = residual.block_ratio_corrected(block, 1 / 2 if init == "He" else 2 / 3)
            yield average(
                f"ratio of block {block} of scale {scale}, {init}",
                ratios[:, block - 1],
                constant * residual.block_ratio_printed(block),
                corrected,
                relation="<=",
                # A tenth of the growth, for as few as 32 channels.
                tolerance=0.1 * (corrected - 1),
            )


def indep(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 18 and 20, independence of branch and shortcut.

    Var(x + F) = Var(x) + Var(F) + 2 Cov(x, F), so that R(block) - 1 - R(F) is the covariance term.
    """
    for direction, name in (("forward", "eq. 18"), ("backward", "eq. 20")):
        block, branch = (
            # Layers 4, 6, ..., 20 end the blocks 2, 3, ..., 10. The shortcut of block 1 is itself a
            # layer.
            evidence.layers("preact_init/blocks-10", f"{part}_{direction}")[:, 4::2]
            for part in ("block", "branch")
        )
        covariance = ((block - 1 - branch) / block).mean(1)
        label = f"2 cov over the variance of the sum, {name}"
        yield average(label, covariance, 0.0, tolerance=0.02)


# --- appendix E ---


def appE(_: Evidence) -> Iterator[Comparison]:
    """App. E, Kantorovich's inequality: random laws, and the two points that attain the bound."""
    rng = np.random.default_rng(0)
    quotients = [
        np.divide(*residual.kantorovich_bound(list(rng.uniform(0.1, 5, 7)))) for _ in range(200)
    ]
    largest = float(max(quotients))
    yield Comparison("largest E(1/X) E(X) over its bound", largest, 1.0, relation="<=")
    attained = float(np.divide(*residual.kantorovich_bound([0.3, 2.0])))
    yield Comparison("the same of two equal points at the ends", attained, 1.0)


def draw_squared_sums(repeats: int, rows: int, count: int) -> FloatArray:
    """Sums of `count` squared Gaussian weights, (repeats, rows)."""
    sums: FloatArray = (np.random.default_rng(0).normal(size=(repeats, rows, count)) ** 2).sum(2)
    return sums


def K(_: Evidence) -> Iterator[Comparison]:
    """E(1/X) E(X) between 1 and K for the row sums of 16 kernels of 3x3, by Monte Carlo."""
    sums = draw_squared_sums(64, 500, 16 * 9)
    product = (1 / sums).mean(1) * sums.mean(1)
    over_bound = product / _constants(sums)
    name = "rows of 16 3x3 kernels"
    yield average(f"E(1/X) E(X), {name}", product, 1.0, relation=">=")
    yield average(f"E(1/X) E(X) over K, {name}", over_bound, 1.0, relation="<=")
    # n/(n - 2) for sums of n squared Gaussians.
    label = f"least K of Gaussian weights, {name}"
    yield average(label, product, 144 / 142, tolerance=0.001, extension=True)


# --- section 5: training ---


STEPS = (0, 25000, 50000)  # of fig. 5 to 7
LATE_STEPS = (25000, 50000, 75000)  # of fig. 9 to 11
DECADES_OF_EXPLOSION = 2.0  # of the gradient's variance over a net


def order(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and tab. 1, the order of the three models by test accuracy."""
    models = [evidence.final(f"resnet15_cifar/model{n}", "test_accuracy") for n in (1, 2, 3)]
    for n, (better, worse) in enumerate(pairwise(models), 1):
        name = f"test accuracy of Model-{n} less Model-{n + 1}'s, %"
        yield between_seeds(name, better, worse, relation=">")
    name = "Model-2 close behind: the first difference"
    yield between_seeds(name, models[0], models[1], 5.0, relation="<")
    yield over_seeds("test accuracy of Model-3, %", models[2], 10.0, tolerance=1.0)


def faster(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 8, training accuracy over the first quarter of training."""
    first, *others = (evidence.early_accuracy(f"resnet15_cifar/model{n}") for n in (1, 2, 3))
    for n, other in enumerate(others, 2):
        name = f"early training accuracy of Model-1 less Model-{n}'s, %"
        yield between_seeds(name, first, other, relation=">")


def _log_variances(evidence: Evidence, variant: str, position: float) -> FloatArray:
    """Logarithm of the gradient's variance at the output of each residual block, (seeds, blocks).

    Index 0 of the probe is the stem and is left out.
    """
    variances = evidence.probe(f"resnet15_cifar/{variant}", "gradient_variance", position)
    logarithms: FloatArray = np.log(variances[:, 1:])
    return logarithms


def _scales(evidence: Evidence, variant: str, step: int) -> list[FloatArray]:
    """The same for each of the three scales, (seeds, blocks of the scale)."""
    return np.split(_log_variances(evidence, variant, step), 3, axis=1)


def _rises(evidence: Evidence, variant: str) -> Iterator[Comparison]:
    for step in STEPS:
        for scale, blocks in enumerate(_scales(evidence, variant, step), 1):
            rise = blocks[:, 0] - blocks[:, -1]
            name = f"rise within scale {scale} at step {step:,}"
            yield over_seeds(name, rise, 0.0, relation=">")


def _dips(evidence: Evidence, variant: str) -> Iterator[Comparison]:
    for step in STEPS:
        for scale, (before, behind) in enumerate(pairwise(_scales(evidence, variant, step)), 1):
            dip = behind[:, 0] - before[:, -1]
            name = f"dip from scale {scale + 1} to scale {scale} at step {step:,}"
            yield over_seeds(name, dip, 0.0, relation=">")


def trend(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.4 and fig. 5, the rise toward the input within each scale of Model-1."""
    yield from _rises(evidence, "model1")


def dip(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.4 and fig. 5, the fall from the first block of a scale to the scale before."""
    yield from _dips(evidence, "model1")


def resnet99(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.4 and fig. 7, the same two observations in Resnet-99."""
    yield from _rises(evidence, "resnet99")
    yield from _dips(evidence, "resnet99")


def distance(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.4, the increase over a block falls as 1/(L - 1), so that L - 1 times it is constant.

    The two nearest blocks of a scale against the two farthest, as means over the three scales.
    """
    for step in STEPS:
        curves = np.stack(_scales(evidence, "model1", step), 1)  # (seeds, scales, blocks)
        increases = np.exp(curves[:, :, :-1] - curves[:, :, 1:]) - 1  # of blocks L = 2 to 5
        scaled = (increases * np.arange(1, 5)).mean(1)
        quotient = scaled[:, 2:].mean(1) / scaled[:, :2].mean(1)
        name = f"distance times increase, far blocks over near ones, step {step:,}"
        yield over_seeds(name, quotient, 1.0, relation="~", tolerance=0.5)


def gradient_range(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 9 to 11, the range of the variance over the blocks of Model-2."""
    for step in LATE_STEPS:
        decades = np.ptp(_log_variances(evidence, "model2", step), axis=1) / math.log(10)
        name = f"decades at step {step:,}"
        yield over_seeds(name, decades, DECADES_OF_EXPLOSION, relation="<")


def _agreement(evidence: Evidence, variant: str) -> FloatArray:
    """How alike the curves within a scale are over the three scales and three steps, (seeds,).

    The mean correlation over blocks of all pairs of these nine curves.
    """
    curves = np.concatenate(
        [np.stack(_scales(evidence, variant, step), 1) for step in LATE_STEPS], axis=1
    )
    agreements = []
    for of_seed in curves:
        correlations = np.corrcoef(of_seed)
        agreements.append(correlations[np.triu_indices(len(of_seed), 1)].mean())
    return np.array(agreements)


def no_pattern(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 9 to 11, a pattern within scales in Model-1 and none in Model-2."""
    first, second = (_agreement(evidence, f"model{n}") for n in (1, 2))
    name = "correlation between scales and steps, Model-1 less Model-2"
    yield between_seeds(name, first, second, relation=">")


def _compare_shapes(evidence: Evidence, *variants: str) -> Iterator[Comparison]:
    """Correlation over blocks of each seed's curve with the mean curve of Model-1."""
    reference = _log_variances(evidence, "model1", 25000).mean(0)
    for variant in variants:
        curves = _log_variances(evidence, variant, 25000)
        correlations = np.array([np.corrcoef(reference, curve)[0, 1] for curve in curves])
        yield over_seeds(f"correlation, {variant}", correlations, 0.5, relation=">")


def batch_shape(evidence: Evidence) -> Iterator[Comparison]:
    """App. G and fig. 14, the shape of the curve at other batch sizes."""
    yield from _compare_shapes(evidence, "model1-b256", "model1-b512")


def init_shape(evidence: Evidence) -> Iterator[Comparison]:
    """App. G and fig. 15, the shape of the curve with other initializations."""
    yield from _compare_shapes(evidence, "model1-std0.01", "model1-std0.1")


# --- errata of a net at initialization ---


def e_b13(evidence: Evidence) -> Iterator[Comparison]:
    """E-B13: the gradient of Model-2 grows at initialization."""
    ratios = split_block_ratios(evidence.layers("resnet15_init/model2-xavier", "feature_variance"))
    # The first block of each scale changes the width. Geometric mean over the other blocks.
    factors = np.exp(np.mean([np.log(scale[:, 1:]) for scale in ratios], axis=(0, 2)))
    name = "factor per block at initialization, Model-2"
    # Images and borders shift the factor. 1.5 is far from 1 and below C^2 = 2.15.
    yield average(name, factors, 1.0, 1.5, corrected_relation=">", tolerance=0.1)


def e_b14(evidence: Evidence) -> Iterator[Comparison]:
    """E-B14: Model-3 with Xavier's weights does not explode at the first step."""
    variances = evidence.layers("resnet15_init/model3-xavier", "feature_variance")
    decades = np.log10(variances[:, 1] / variances[:, -1])
    yield average(
        "decades over the net at the first step, Model-3, Xavier",
        decades,
        DECADES_OF_EXPLOSION,
        0.5,
        relation=">",
        corrected_relation="<",
    )
