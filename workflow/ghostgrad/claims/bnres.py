"""The claims of the BN-ResNet paper (004), each a function of the evidence; see workflow/claims/bnres.yaml."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.measures import block_ratios_by_scale
from ghostgrad.claims.comparison import Comparison, average, between_seeds, over_seeds
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import residual
from ghostgrad.theory.activations import ACTIVATIONS

C = math.pi / (math.pi - 1)
SHIFTS = (0.0, 0.5, 1.0)


def _bn(x: np.ndarray, gamma: float) -> np.ndarray:
    """Batch normalization of a batch (B,); complex numbers pass, for the derivative by a complex step."""
    centred = x - x.mean()
    return gamma * centred / np.sqrt((centred * centred).mean())


def _through_bn(batch: int = 16, gamma: float = 1.7) -> tuple[np.ndarray, ...]:
    """A batch x, its standard normal variate z, dl/dy, and dl/dx from the complex-step Jacobian, exact to rounding."""
    rng = np.random.default_rng(0)
    x, dy, step = rng.normal(2, 3, batch), rng.normal(1, 1, batch), 1e-30
    jacobian = np.array([_bn(x + 1j * step * unit, gamma).imag / step for unit in np.eye(batch)])
    return x, _bn(x, 1.0), dy, jacobian @ dy


def eq4(_: Evidence) -> Iterator[Comparison]:
    x, z, dy, dx = _through_bn()
    formula = 1.7 / x.std() * ((dy - dy.mean()) - z * (dy * z).mean())
    yield Comparison(
        "largest difference of dx from the formula", float(np.abs(dx - formula).max()), 0.0, tolerance=1e-12
    )
    yield Comparison("largest |dx|", float(np.abs(dx).max()), float(np.abs(formula).max()), tolerance=1e-12)


def eq5(_: Evidence) -> Iterator[Comparison]:
    x, z, dy, dx = _through_bn()
    yield Comparison("E dx", float(dx.mean()), 0.0, tolerance=1e-12)
    formula = 1.7**2 / x.var() * (dy.var() - (dy * z).mean() ** 2)
    yield Comparison("Var dx", float(dx.var()), float(formula), tolerance=1e-12)


def _at_shifts(what: str, ours: Callable, paper: Callable, corrected: Callable) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    for a in SHIFTS:
        yield Comparison(f"{what} at a = {a:g}", ours(relu.at(mean=a)), paper(a), corrected(a))


def eq8(_: Evidence) -> Iterator[Comparison]:
    yield from _at_shifts("E(y)", lambda relu: relu.mean, residual.mean_printed, residual.mean_true)


def eq9(_: Evidence) -> Iterator[Comparison]:
    numbers = (residual.second_moment_printed, residual.second_moment_true)
    yield from _at_shifts("E(y^2)", lambda relu: relu.second_moment, *numbers)


def elements(rng: np.random.Generator, batch: int, count: int) -> np.ndarray:
    """Independent elements, N(0, 1), (batch, count)."""
    return rng.normal(size=(batch, count))


def linear(into: int, out: int, seed: int = 0, repeats: int = 64, batch: int = 500) -> np.ndarray:
    """Measured Var(W y) over W^2 Var(y), for y with elements of unequal variance, (repeats, rows)."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(repeats):
        weight, deviation = rng.normal(size=(out, into)), rng.uniform(0.5, 2, into)
        y = elements(rng, batch, into) * deviation
        found.append((y @ weight.T).var(0, ddof=1) / (weight**2 @ deviation**2))
    return np.array(found)


def _of_each_row(name: str, ratios: np.ndarray, batch: int = 500) -> Iterator[Comparison]:
    """Over rows of one fixed W the ratio leaves 1 by no more than the batch's sampling, 2/(B - 1) in square."""
    yield average(name, ratios.mean(1), 1.0)
    yield average(f"{name}: its square over rows, over 2/(B-1)", ((ratios - 1) ** 2).mean(1) * (batch - 1) / 2, 1.0)


def eq10(_: Evidence) -> Iterator[Comparison]:
    yield from _of_each_row("Var(W y) over W^2 Var(y)", linear(60, 80))


def eq11(_: Evidence) -> Iterator[Comparison]:
    yield from _of_each_row("Var(W^T dy) over (W^T)^2 Var(dy)", linear(80, 60))


def passes(x: np.ndarray) -> np.ndarray:
    """The derivative of ReLU."""
    return x > 0


def eq12(_: Evidence) -> Iterator[Comparison]:
    rng = np.random.default_rng(0)
    for a in SHIFTS:
        z, dy = rng.normal(size=(200, 5000)), rng.normal(size=(200, 5000))
        factor = (dy * passes(z + a)).var(1) / dy.var(1)
        yield average(f"factor at a = {a:g}", factor, 0.5 + residual.p(a))


def eq13(e: Evidence) -> Iterator[Comparison]:
    value, se = e.rate("plainnet_init/relu-bn", "backward_variance")
    numbers = (residual.layer_factor_printed(0.0), residual.layer_factor_true(0.0))
    yield Comparison("factor of the gradient's variance per layer, a = 0", value, *numbers, se=se, tolerance=0.01 * C)


def _scale(paper: float, corrected: float | None = None) -> Comparison:
    """Row sums of squared weights of a scale of one block whose width doubles, in units of n Var(W): the shortcut's n x
    n/2 gives 1/2 (it holds the 1/k already), the branch's last n x n gives 1."""
    rng, n, found = np.random.default_rng(0), 128, []
    for _ in range(64):
        shortcut, branch = (rng.normal(size=(n, into)) for into in (n // 2, n))
        y = elements(rng, 500, n // 2) @ shortcut.T + elements(rng, 500, n) @ branch.T
        found.append(y.var(0, ddof=1).mean() / n)
    return average("Var(y_1)/(c_2 n Var(W)), k = 2", np.array(found), paper, corrected)


def eq19(_: Evidence) -> Iterator[Comparison]:
    yield _scale((0.5 + 1) / 2, 1.5)


def eq37(_: Evidence) -> Iterator[Comparison]:
    yield _scale(1.5)


def _branch_share(e: Evidence) -> np.ndarray:
    """(R_b(block) - 1) L of blocks 2 to 10, averaged: what the branch adds to the gradient's variance, times L."""
    ratios = e.layers("preact_init/blocks-10", "block_backward")[:, 4::2]
    return ((ratios - 1) * np.arange(2, 2 + ratios.shape[1])).mean(1)


def eq21(e: Evidence) -> Iterator[Comparison]:
    yield average("L (ratio - 1)", _branch_share(e), C, C**2, tolerance=0.03 * C**2)


def eq40(e: Evidence) -> Iterator[Comparison]:
    yield average("L (ratio - 1)", _branch_share(e), C**2, tolerance=0.03 * C**2)


def eq22(e: Evidence) -> Iterator[Comparison]:
    ratios = e.layers("preact_init/blocks-10", "block_backward")
    for block in (2, 5, 10):
        numbers = (residual.block_ratio_printed(block), residual.block_ratio_true(block))
        # 3 % of the branch's term, which is a product of two layers of width 256
        tolerance = 0.03 * (numbers[1] - 1)
        yield average(f"ratio of block {block}", ratios[:, 2 * block], *numbers, tolerance=tolerance)


def eq22_conv(e: Evidence) -> Iterator[Comparison]:
    for init, shortcut in (("He", 1 / 2), ("Xavier", 2 / 3)):
        variances = e.layers(f"preact_conv_init/{init.lower()}", "gradient_variance")
        for scale, ratios in enumerate(block_ratios_by_scale(variances), 1):
            if scale == 1:
                continue  # the stem's 16 channels are mixtures of three, far from independent
            for block in (2, 5):
                numbers = (residual.block_ratio_printed(block), residual.block_ratio_true(block, shortcut))
                tolerance = 0.03 * (numbers[1] - 1)
                name = f"ratio of block {block} of scale {scale}, {init}"
                yield average(name, ratios[:, block - 1], *numbers, tolerance=tolerance)


def appE(_: Evidence) -> Iterator[Comparison]:
    rng = np.random.default_rng(0)
    quotients = [np.divide(*residual.kantorovich(list(rng.uniform(0.1, 5, 7)))) for _ in range(200)]
    yield Comparison("largest E(1/X) E(X) over its bound", float(max(quotients)), 1.0, relation="<=")
    yield Comparison(
        "the same of two equal points at the ends", float(np.divide(*residual.kantorovich([0.3, 2.0]))), 1.0
    )


def disc(_: Evidence) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    for a, paper, truth in ((0.0, 1.0, C), (1.0, 0.33, residual.layer_factor_true(1.0))):
        at = relu.at(mean=a)
        yield Comparison(f"constant at a = {a:g}", at.slope / at.variance, paper, truth, tolerance=0.005)


def indep(e: Evidence) -> Iterator[Comparison]:
    for way, name in (("forward", "eq. 18"), ("backward", "eq. 20")):
        block, branch = (e.layers("preact_init/blocks-10", f"{part}_{way}")[:, 4::2] for part in ("block", "branch"))
        covariance = ((block - 1 - branch) / block).mean(1)
        yield average(f"2 cov over the variance of the sum, {name}", covariance, 0.0, tolerance=0.02)


def squared_sums(repeats: int, rows: int, count: int) -> np.ndarray:
    """Of `count` Gaussian weights each, (repeats, rows)."""
    return (np.random.default_rng(0).normal(size=(repeats, rows, count)) ** 2).sum(2)


def K(_: Evidence) -> Iterator[Comparison]:
    sums = squared_sums(64, 500, 16 * 9)
    quotient = (1 / sums).mean(1) * sums.mean(1)
    low, high = sums.min(1), sums.max(1)
    over = quotient / ((low + high) ** 2 / (4 * low * high))
    yield average("E(1/X) E(X) over K, rows of 16 3x3 kernels", over, 1.0, relation="<=")
    yield average("E(1/X) E(X), rows of 16 3x3 kernels", quotient, 144 / 142, tolerance=0.001)


# --- errata ---


def order(e: Evidence) -> Iterator[Comparison]:
    models = [e.final(f"resnet15_cifar/model{n}", "test_accuracy") for n in (1, 2, 3)]
    for n, (better, worse) in enumerate(pairwise(models), 1):
        yield between_seeds(f"test accuracy of Model-{n} less Model-{n + 1}'s, %", better, worse, relation=">")
    yield between_seeds("Model-2 close behind: the first difference", models[0], models[1], 5.0, relation="<")
    yield over_seeds("test accuracy of Model-3, %", models[2], 10.0, tolerance=1.0)


def _variances(e: Evidence, variant: str, at: float) -> np.ndarray:
    """Logarithm of the gradient's variance at each residual block's output, (seeds, blocks)."""
    return np.log(e.probe(f"resnet15_cifar/{variant}", "gradient_variance", at)[:, 1:])


def trend(e: Evidence) -> Iterator[Comparison]:
    for at in (25000, 50000):
        for scale, blocks in enumerate(np.split(_variances(e, "model1", at), 3, axis=1), 1):
            rise = blocks[:, 0] - blocks[:, -1]
            yield over_seeds(f"rise within scale {scale} at step {at:,}", rise, 0.0, relation=">")


def gradient_range(e: Evidence) -> Iterator[Comparison]:
    for at in (25000, 75000):
        decades = np.ptp(_variances(e, "model2", at), axis=1) / math.log(10)
        yield over_seeds(f"decades at step {at:,}", decades, 2.0, relation="<")


def _same_shape(e: Evidence, *variants: str) -> Iterator[Comparison]:
    ours = _variances(e, "model1", 25000).mean(0)
    for variant in variants:
        found = np.array([np.corrcoef(ours, curve)[0, 1] for curve in _variances(e, variant, 25000)])
        yield over_seeds(f"correlation, {variant}", found, 0.5, relation=">")


def batch_shape(e: Evidence) -> Iterator[Comparison]:
    yield from _same_shape(e, "model1-b256", "model1-b512")


def init_shape(e: Evidence) -> Iterator[Comparison]:
    yield from _same_shape(e, "model1-std0.01", "model1-std0.1")


def e_b2(_: Evidence) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    yield Comparison(
        "E(y^2) at a = 0", relu.second_moment, residual.second_moment_printed(0.0), residual.second_moment_restored(0.0)
    )
    restored = residual.second_moment_restored(1.0)
    yield Comparison(
        "E(y^2) at a = 1 against the restored formula",
        relu.at(mean=1.0).second_moment,
        None,
        restored - 0.1,
        corrected_relation="<",
    )


def e_b7(e: Evidence) -> Iterator[Comparison]:
    for block in (2, 5, 10):
        share = e.layers("preact_init/blocks-10", "branch_backward")[:, 2 * block]
        truth = C**2 / block
        yield average(
            f"gradient variance in the branch over the shortcut, block {block}",
            share,
            1.0,
            truth,
            tolerance=0.03 * truth,
        )


def e_b9(_: Evidence) -> Iterator[Comparison]:
    x = 0.5
    left = (1 / x + x / x**2) ** 2
    numbers = (4 * (1 / x * x / x**2) ** 2, 4 * (1 / x * x / x**2))
    more = {"relation": ">=", "corrected_relation": ">="}
    yield Comparison("left side for X = c = d = 1/2", left, *numbers, **more)


def e_b12(_: Evidence) -> Iterator[Comparison]:
    nearest = min((100 * n / 5000 for n in range(5001)), key=lambda accuracy: abs(accuracy - 9.09))
    labels = np.repeat(np.arange(10), 1000)  # of CIFAR-10's test set
    constant = 100 * float((labels == 0).mean())
    yield Comparison("accuracy of a constant prediction on ten balanced classes", constant, 9.09, 10.0, tolerance=0.005)
    yield Comparison("nearest accuracy of a count out of 5,000", nearest, 9.09, 9.08, tolerance=0.005)


def e_b13(e: Evidence) -> Iterator[Comparison]:
    ratios = block_ratios_by_scale(e.layers("resnet15_init/model2-xavier", "feature_variance"))
    growth = np.exp(np.mean([np.log(scale[:, 1:]) for scale in ratios], axis=(0, 2)))
    yield average("factor per block at initialization, Model-2", growth, 1.0, 1.5, corrected_relation=">")


def e_b14(e: Evidence) -> Iterator[Comparison]:
    variances = e.layers("resnet15_init/model3-xavier", "feature_variance")
    growth = np.log10(variances[:, 1] / variances[:, -1])
    signs = {"relation": ">", "corrected_relation": "<"}
    yield average("log10 of the growth over the net at the first step, Model-3, Xavier", growth, 2.0, 0.5, **signs)
