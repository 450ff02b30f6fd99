"""The claims of the BN-ResNet paper (004), one function each.

The statements, the runs and the corrected forms are in workflow/claims/bnres.yaml. The formulas of
the paper, as printed, as restored and as corrected, are in `ghostgrad.theory.residual`;
a = beta/gamma is the offset of a BN, y = relu(z + a) its output after ReLU, and c_1 and c_2 are
those of equations 15 and 16. C = pi/(pi-1) is RELU_GROWTH_RATE.

Where a "1 -" is restored in equation 16, the comparison with the formula as printed is an
extension: the "1 -" may be missing in our copy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ghostgrad.analysis.statistics import FloatArray, mean_estimate
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import Comparison, average, from_estimate, growth
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


def e_b18(_: Evidence) -> Iterator[Comparison]:
    """E-B18: eq. 8 and 9 at a negative offset, by quadrature."""
    a = -2.0
    relu = ACTIVATIONS["ReLU"].with_input(mean=a)
    mean = residual.mean_printed(a), residual.mean_corrected(a)
    yield Comparison(f"E(y) at a = {a:g}", relu.mean, *mean)
    square = residual.second_moment_restored(a), residual.second_moment_corrected(a)
    yield Comparison(f"E(y^2) at a = {a:g}", relu.second_moment, *square)


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
    # As in X1: 5 % of the excess over 1, for the width of 256 and the batch of 128.
    yield growth("factor per layer, a = 0", factor, 1.0, corrected)
    printed = residual.layer_factor_printed(0.0)
    yield from_estimate("factor per layer by (16) as printed", factor, printed, extension=True)


def eq14(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 14, the lower and the upper bound of the factor per layer at a = 0."""
    factor = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    constant, corrected = layers.bound_constant(WIDTH, WIDTH), residual.layer_factor_corrected(0.0)
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
        name = f"Var(y_N) - Var(y_(N-1)) over the row sums, N = {block}"
        yield from _forward(name, added / 2, 0.0)


def eq37(_: Evidence) -> Iterator[Comparison]:
    """Eq. 37, the variance of a scale's output over the sum of all row sums, N + 1/2 for k = 2."""
    for offset in (0.0, 1.0):
        variances = layers.measure_widening_scale(offset=offset)
        yield from _forward("Var(y_3) over the row sums", variances[:, 3] / 3.5, offset)


def eq19(_: Evidence) -> Iterator[Comparison]:
    """Eq. 19, the same with 1/k on both terms of block 1, read as in eq. 21: N for k = 2."""
    variances = layers.measure_widening_scale()[:, 3]
    restored, corrected = 0.5 * 3, 3.5 * residual.variance_corrected(0.0)
    name = "Var(y_3)/(n Var(W)), k = 2, a = 0"
    yield average(name, variances, restored, corrected, tolerance=0.02 * corrected)
    name = "Var(y_3)/(n Var(W)), c2 as printed"
    yield average(name, variances, 1.5 * 3, extension=True)


def e_b5(_: Evidence) -> Iterator[Comparison]:
    """E-B5: the first block against what a further block adds, from which c_2 cancels."""
    variances = layers.measure_widening_scale()
    ratios = variances[:, 1] / (variances[:, 2] - variances[:, 1])
    name = "variance of block 1 over that which block 2 adds, k = 2"
    yield average(name, ratios, 1.0, 1.5, tolerance=0.02 * 1.5)


def _gradient_steps(evidence: Evidence, block: int) -> tuple[FloatArray, FloatArray]:
    """The gradient's factors over the first layer, times L, and the second, (repeats,) each."""
    gradients = evidence.layers("preact_init/blocks-10", "backward_variance")
    branch = evidence.layers("preact_init/blocks-10", "branch_backward")[:, 2 * block]
    second = gradients[:, 2 * block - 1] / gradients[:, 2 * block]
    return block * branch / second, second


def _layer_bounds(evidence: Evidence, layer: int, label: str) -> Iterator[Comparison]:
    """K c_1/c_2 = K, the upper bound for a layer of the branch, in the blocks 2, 5 and 10."""
    constant, c = layers.bound_constant(WIDTH, WIDTH), RELU_GROWTH_RATE
    for block in BLOCKS:
        factors = _gradient_steps(evidence, block)[layer]
        name, tolerance = label.format(block), FINITE_NET * c
        yield average(name, factors, constant, c, relation="<=", tolerance=tolerance)


def eq38(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 38, the upper bound for the second layer of a branch."""
    yield from _layer_bounds(evidence, 1, "second layer of block {}")


def eq39(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 39, that for the first layer, times L: its BN sees the variance of L blocks."""
    yield from _layer_bounds(evidence, 0, "first layer of block {}, times L")


def _block_bound(evidence: Evidence, power: int) -> Iterator[Comparison]:
    """The upper bound of a block's factor, with (c_1/c_2)^power, in a scale that does not widen."""
    constant = layers.bound_constant(WIDTH, WIDTH) ** 2
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


def K(_: Evidence) -> Iterator[Comparison]:
    """E(1/X) E(X) between 1 and K for the row sums of 16 kernels of 3x3, by Monte Carlo."""
    sums = layers.draw_squared_sums(64, 500, 16 * 9)
    product = (1 / sums).mean(1) * sums.mean(1)
    over_bound = product / layers.bound_constants(sums)
    name = "rows of 16 3x3 kernels"
    yield average(f"E(1/X) E(X), {name}", product, 1.0, relation=">=")
    yield average(f"E(1/X) E(X) over K, {name}", over_bound, 1.0, relation="<=")
    # n/(n - 2) for sums of n squared Gaussians.
    label = f"least K of Gaussian weights, {name}"
    yield average(label, product, 144 / 142, tolerance=0.001, extension=True)
