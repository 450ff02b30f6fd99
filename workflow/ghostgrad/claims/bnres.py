"""The claims of the BN-ResNet paper (004), one function each.

The statements, the runs and the corrected forms are in workflow/claims/bnres.yaml. The formulas of
the paper, as printed and as corrected, are in `ghostgrad.theory.residual`; a = beta/gamma is the
offset of a BN, y = relu(z + a) its output after ReLU. C = pi/(pi-1) is RELU_GROWTH_RATE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ghostgrad.analysis.statistics import FloatArray, split_block_ratios
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import Comparison, average, between_seeds, over_seeds
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import residual
from ghostgrad.theory.activations import ACTIVATIONS, RELU_GROWTH_RATE, Activation

OFFSETS = (0.0, 0.5, 1.0)  # values of a


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
    """Eq. 9 (and 30), E(y^2), by quadrature against the printed and the corrected formula."""
    formulas = (residual.second_moment_printed, residual.second_moment_corrected)
    yield from _compare_at_offsets("E(y^2)", lambda relu: relu.second_moment, *formulas)


def _compare_each_row(name: str, ratios: FloatArray) -> Iterator[Comparison]:
    """The ratios of a fixed W, (repeats, rows): their mean is 1, and so is each of them.

    A mean of 1 alone would also hold for dependent elements. For independent ones each row's ratio
    leaves 1 only by the sampling error of a variance over the batch, whose square is 2/(B - 1).
    """
    yield average(name, ratios.mean(1), 1.0)
    squares = ((ratios - 1) ** 2).mean(1) * (layers.LINEAR_BATCH - 1) / 2
    yield average(f"{name}: its square over rows, over 2/(B-1)", squares, 1.0)


def eq10(_: Evidence) -> Iterator[Comparison]:
    """Eq. 10, the variance through a linear layer, by Monte Carlo."""
    ratios = layers.linear_variance_ratios(60, 80)
    yield from _compare_each_row("Var(W y) over W^2 Var(y)", ratios)


def eq11(_: Evidence) -> Iterator[Comparison]:
    """Eq. 11, the same for the gradient: W^T has inputs and outputs exchanged."""
    ratios = layers.linear_variance_ratios(80, 60)
    yield from _compare_each_row("Var(W^T dy) over (W^T)^2 Var(dy)", ratios)


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


def eq13(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 13 (and 14), the factor per layer at a = 0, measured in a plain net with BN."""
    value, se = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    printed, corrected = residual.layer_factor_printed(0.0), residual.layer_factor_corrected(0.0)
    yield Comparison(
        "factor of the gradient's variance per layer, a = 0",
        value,
        printed,
        corrected,
        se=se,
        tolerance=0.01 * RELU_GROWTH_RATE,
    )


def disc(_: Evidence) -> Iterator[Comparison]:
    """Sec. 3.3, the constant of eq. 13 at a = 0 and a = 1, by quadrature."""
    relu = ACTIVATIONS["ReLU"]
    numbers = ((0.0, 1.0, RELU_GROWTH_RATE), (1.0, 0.33, residual.layer_factor_corrected(1.0)))
    for a, paper, corrected in numbers:
        shifted = relu.with_input(mean=a)
        constant = shifted.mean_squared_derivative / shifted.variance
        yield Comparison(f"constant at a = {a:g}", constant, paper, corrected, tolerance=0.005)


# --- section 4: residual blocks ---


def eq19(_: Evidence) -> Iterator[Comparison]:
    """Eq. 19, output variance of a scale that widens k-fold.

    It has a factor 1/k on both terms, which the row sums of the shortcut hold already.
    """
    variances = layers.measure_widening_scale()
    yield average("Var(y_1)/(c_2 n Var(W)), k = 2", variances, (0.5 + 1) / 2, 1.5)


def eq37(_: Evidence) -> Iterator[Comparison]:
    """Eq. 37, the same without that factor."""
    variances = layers.measure_widening_scale()
    yield average("Var(y_1)/(c_2 n Var(W)), k = 2", variances, 1.5)


def _branch_share(evidence: Evidence) -> FloatArray:
    """(R_b(block) - 1) L, averaged over the blocks L = 2..10, (repeats,).

    R_b(block) - 1 is what the branch adds to the gradient's variance; the paper has it fall as 1/L.
    """
    # Layers 4, 6, ..., 20 end the blocks 2, 3, ..., 10. Block 1 is left out: its shortcut is itself
    # a layer.
    ratios = evidence.layers("preact_init/blocks-10", "block_backward")[:, 4::2]
    blocks = np.arange(2, 2 + ratios.shape[1])
    share: FloatArray = ((ratios - 1) * blocks).mean(1)
    return share


def eq21(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 21 has the factor c_1/c_2 of one layer; the branch has two."""
    c = RELU_GROWTH_RATE
    yield average("L (ratio - 1)", _branch_share(evidence), c, c**2, tolerance=0.03 * c**2)


def eq40(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 40 has the factor (c_1/c_2)^2."""
    c = RELU_GROWTH_RATE
    yield average("L (ratio - 1)", _branch_share(evidence), c**2, tolerance=0.03 * c**2)


def eq22(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 22, growth of the gradient's variance over blocks of a fully-connected net."""
    ratios = evidence.layers("preact_init/blocks-10", "block_backward")
    for block in (2, 5, 10):
        printed = residual.block_ratio_printed(block)
        corrected = residual.block_ratio_corrected(block)
        # 3 % of the branch's term, a product of two layers whose width is only 256.
        tolerance = 0.03 * (corrected - 1)
        values = ratios[:, 2 * block]
        yield average(f"ratio of block {block}", values, printed, corrected, tolerance=tolerance)


def eq22_conv(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 22 for the convolutional blocks of Model-1, with He's and with Xavier's weights."""
    for init, shortcut in (("He", 1 / 2), ("Xavier", 2 / 3)):
        variances = evidence.layers(f"preact_conv_init/{init.lower()}", "gradient_variance")
        for scale, ratios in enumerate(split_block_ratios(variances), 1):
            if scale == 1:
                continue  # the 16 channels of the stem are mixtures of three: far from independent
            for block in (2, 5):
                printed = residual.block_ratio_printed(block)
                corrected = residual.block_ratio_corrected(block, shortcut)
                yield average(
                    f"ratio of block {block} of scale {scale}, {init}",
                    ratios[:, block - 1],
                    printed,
                    corrected,
                    tolerance=0.03 * (corrected - 1),
                )


def indep(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 18 and 20, independence of branch and shortcut.

    Var(x + F) = Var(x) + Var(F) + 2 Cov(x, F), so that R(block) - 1 - R(F) is the covariance term.
    """
    for direction, name in (("forward", "eq. 18"), ("backward", "eq. 20")):
        block, branch = (
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
    """The constant K of eq. 14 for the row sums of 16 kernels of 3x3, by Monte Carlo.

    For sums of n squared Gaussians E(1/X) E(X) is n/(n - 2).
    """
    sums = draw_squared_sums(64, 500, 16 * 9)
    product = (1 / sums).mean(1) * sums.mean(1)
    low, high = sums.min(1), sums.max(1)
    over_bound = product / ((low + high) ** 2 / (4 * low * high))
    yield average("E(1/X) E(X) over K, rows of 16 3x3 kernels", over_bound, 1.0, relation="<=")
    yield average("E(1/X) E(X), rows of 16 3x3 kernels", product, 144 / 142, tolerance=0.001)


# --- section 5: training ---


def order(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and tab. 1, the order of the three models by test accuracy."""
    models = [evidence.final(f"resnet15_cifar/model{n}", "test_accuracy") for n in (1, 2, 3)]
    for n, (better, worse) in enumerate(pairwise(models), 1):
        name = f"test accuracy of Model-{n} less Model-{n + 1}'s, %"
        yield between_seeds(name, better, worse, relation=">")
    name = "Model-2 close behind: the first difference"
    yield between_seeds(name, models[0], models[1], 5.0, relation="<")
    yield over_seeds("test accuracy of Model-3, %", models[2], 10.0, tolerance=1.0)


def _log_variances(evidence: Evidence, variant: str, position: float) -> FloatArray:
    """Logarithm of the gradient's variance at the output of each residual block, (seeds, blocks).

    Index 0 of the probe is the stem and is left out.
    """
    variances = evidence.probe(f"resnet15_cifar/{variant}", "gradient_variance", position)
    logarithms: FloatArray = np.log(variances[:, 1:])
    return logarithms


def trend(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.4 and fig. 5, the rise toward the input within each scale of a trained Model-1."""
    for step in (25000, 50000):
        for scale, blocks in enumerate(
            np.split(_log_variances(evidence, "model1", step), 3, axis=1), 1
        ):
            rise = blocks[:, 0] - blocks[:, -1]
            name = f"rise within scale {scale} at step {step:,}"
            yield over_seeds(name, rise, 0.0, relation=">")


def gradient_range(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 9 to 11, the range of the variance over the blocks of Model-2."""
    for step in (25000, 75000):
        decades = np.ptp(_log_variances(evidence, "model2", step), axis=1) / math.log(10)
        yield over_seeds(f"decades at step {step:,}", decades, 2.0, relation="<")


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


# --- errata ---


def e_b2(_: Evidence) -> Iterator[Comparison]:
    """E-B2: restoring a lost "1 -" repairs eq. 9 at a = 0 and nowhere else."""
    relu = ACTIVATIONS["ReLU"]
    printed, restored = residual.second_moment_printed(0.0), residual.second_moment_restored(0.0)
    yield Comparison("E(y^2) at a = 0", relu.second_moment, printed, restored)
    # At a = 1 the restored formula is too large by more than 0.1.
    yield Comparison(
        "E(y^2) at a = 1 against the restored formula",
        relu.with_input(mean=1.0).second_moment,
        None,
        residual.second_moment_restored(1.0) - 0.1,
        corrected_relation="<",
    )


def e_b7(evidence: Evidence) -> Iterator[Comparison]:
    """E-B7: the branch carries C^2/L of the gradient variance that the shortcut carries."""
    for block in (2, 5, 10):
        share = evidence.layers("preact_init/blocks-10", "branch_backward")[:, 2 * block]
        corrected = RELU_GROWTH_RATE**2 / block
        yield average(
            f"gradient variance in the branch over the shortcut, block {block}",
            share,
            1.0,
            corrected,
            tolerance=0.03 * corrected,
        )


def e_b9(_: Evidence) -> Iterator[Comparison]:
    """E-B9: the printed inequality of app. E has a square too many; X = c = d = 1/2 refutes it."""
    x = 0.5
    left = (1 / x + x / x**2) ** 2
    printed, corrected = 4 * (1 / x * x / x**2) ** 2, 4 * (1 / x * x / x**2)
    yield Comparison(
        "left side for X = c = d = 1/2",
        left,
        printed,
        corrected,
        relation=">=",
        corrected_relation=">=",
    )


def e_b12(_: Evidence) -> Iterator[Comparison]:
    """E-B12: 9.09 % is neither a constant prediction nor a count of 5,000 test images."""
    nearest = min((100 * n / 5000 for n in range(5001)), key=lambda accuracy: abs(accuracy - 9.09))
    labels = np.repeat(np.arange(10), 1000)  # CIFAR-10's test set has 1,000 images per class
    constant = 100 * float((labels == 0).mean())
    name = "accuracy of a constant prediction on ten balanced classes"
    yield Comparison(name, constant, 9.09, 10.0, tolerance=0.005)
    name = "nearest accuracy of a count out of 5,000"
    yield Comparison(name, nearest, 9.09, 9.08, tolerance=0.005)


def e_b13(evidence: Evidence) -> Iterator[Comparison]:
    """E-B13: Model-2 explodes at initialization."""
    ratios = split_block_ratios(evidence.layers("resnet15_init/model2-xavier", "feature_variance"))
    # The first block of each scale changes the width. Geometric mean over the other blocks.
    growth = np.exp(np.mean([np.log(scale[:, 1:]) for scale in ratios], axis=(0, 2)))
    name = "factor per block at initialization, Model-2"
    yield average(name, growth, 1.0, 1.5, corrected_relation=">")


def e_b14(evidence: Evidence) -> Iterator[Comparison]:
    """E-B14: Model-3 with Xavier's weights does not explode at the first step."""
    variances = evidence.layers("resnet15_init/model3-xavier", "feature_variance")
    growth = np.log10(variances[:, 1] / variances[:, -1])
    yield average(
        "log10 of the growth over the net at the first step, Model-3, Xavier",
        growth,
        2.0,
        0.5,
        relation=">",
        corrected_relation="<",
    )
