"""The claims of the LALC paper (001), each a function of the evidence; see workflow/claims/lalc.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.measures import fitted_rate
from ghostgrad.claims.comparison import Comparison, average, between_seeds, over_seeds
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import ACTIVATIONS

PI = math.pi
C = PI / (PI - 1)


def amplification(weights: np.ndarray, means: np.ndarray, stds: np.ndarray, shares: np.ndarray) -> float:
    """S = sum_i Var(x_i) Var(g_i) / sum_j Var(x'_j) Var(g'_j) of BN(W relu(x)), x_i ~ N(mean_i, std_i^2) independent,
    with the probability that ReLU passes and its variance from quadrature (Thm. 1, Cor. 2)."""
    relu = ACTIVATIONS["ReLU"]
    at = [relu.at(float(m), float(s)) for m, s in zip(means, stds, strict=True)]
    passed = np.array([one.slope for one in at])
    after = np.array([one.variance for one in at])
    squares = weights**2
    return float((shares * (squares @ (passed * stds**2)) / (squares @ after)).sum() / shares.sum())


def _layers(rng: np.random.Generator, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Weights, deviations of the inputs and variances of the outputs' gradients of layers 5 -> 6: heavy-tailed weights
    and unequal variances, so that the variances before the BN differ."""
    for _ in range(count):
        yield rng.standard_t(3, size=(6, 5)), rng.uniform(0.5, 2, 5), rng.uniform(0.1, 10, 6)


def _random_layers(means: float = 0.0) -> Iterator[float]:
    """S of such layers; `means` of the inputs, in units of their deviations."""
    for weights, stds, shares in _layers(np.random.default_rng(0), 8):
        yield amplification(weights, means * stds, stds, shares)


def rectified(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ReLU and its derivative."""
    return np.maximum(x, 0.0), (x > 0).astype(float)


def _simulated_layers(second_moments: bool, repeats: int = 256, batch: int = 2048) -> np.ndarray:
    """Thm. 1's ratio, or Cor. 1's, of such layers with a batch through BN, forward and backward: (repeats,)."""
    rng, ratios = np.random.default_rng(1), []
    for weights, stds, shares in _layers(rng, repeats):
        x = rng.normal(size=(batch, 5)) * stds
        of_y = rng.normal(size=(batch, 6)) * np.sqrt(shares)
        after, slope = rectified(x)
        z = after @ weights.T
        y = (z - z.mean(0)) / z.std(0)
        of_z = (of_y - of_y.mean(0) - y * (of_y * y).mean(0)) / z.std(0)
        of_x = of_z @ weights * slope
        if second_moments:
            ratios.append((x**2 * of_x**2).mean(0).sum() / (y**2 * of_y**2).mean(0).sum())
        else:
            ratios.append((x.var(0) * of_x.var(0)).sum() / (y.var(0) * of_y.var(0)).sum())
    return np.array(ratios)


def prop1(_: Evidence) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    for mean, std in ((0.0, 1.0), (1.0, 2.0), (-0.7, 0.5)):
        at = relu.at(mean, std)
        yield Comparison(f"E(X), N({mean:g}, {std:g}^2)", at.mean, propositions.relu_mean(mean, std))
        yield Comparison(f"Var(X), N({mean:g}, {std:g}^2)", at.variance, propositions.relu_variance(mean, std))


def thm1(_: Evidence) -> Iterator[Comparison]:
    yield Comparison("smallest S of random layers", min(_random_layers()), C, relation=">=")
    yield average("mean S of simulated layers", _simulated_layers(False), C, tolerance=0.01 * C, relation=">=")


def cor1(_: Evidence) -> Iterator[Comparison]:
    yield average("mean ratio of simulated layers", _simulated_layers(True), C, tolerance=0.01 * C, relation=">=")


def cor2(_: Evidence) -> Iterator[Comparison]:
    yield Comparison("smallest S at mu/sigma = 30", min(_random_layers(means=30.0)), 1.0, relation=">=")


def thm2(e: Evidence) -> Iterator[Comparison]:
    yield truncated(e, PI / (PI + 2))


def truncated(e: Evidence, paper: float, relation: str = "=") -> Comparison:
    """E of min(S, 100) over W, from below a bound of E[S], which diverges for Gaussian W."""
    values = np.minimum(e.samples("rectified/correlated", "S"), 100.0)
    more = {"relation": relation, "corrected_relation": ">", "tolerance": 1e-6}
    return average("E of min(S, 100) over W", values, paper, C, **more)


def rate(e: Evidence) -> Iterator[Comparison]:
    value, se = e.rate("plainnet_init/relu-bn", "backward_variance")
    yield Comparison("factor of the gradient's variance per layer", value, 1.21, C, se=se, tolerance=0.01 * C)


def _norm_rate(e: Evidence, net: str, places: slice = slice(1, None)) -> tuple[float, float]:
    """The fitted factor of the gradient's standard deviation per layer, over the layers of a network."""
    variances = e.layers(f"networks_init/{net}", "gradient_variance")[:, places]
    rates = np.array([fitted_rate(np.sqrt(row)) for row in variances])
    return float(rates.mean()), float(rates.std(ddof=1) / len(rates) ** 0.5)


def claims(e: Evidence) -> Iterator[Comparison]:
    (mlp, a), (vgg, b) = (_norm_rate(e, net) for net in ("mlp", "vgg"))
    yield Comparison("VGG-like less MLP, factor per layer", vgg - mlp, 0.0, se=math.hypot(a, b), relation="<")
    for name, net in (("LayerNorm and ReLU", "mlp-layernorm-relu"), ("DropOut", "vgg-dropout")):
        value, se = _norm_rate(e, net)
        # max-pools take a little back, so that without an explosion the factor may lie below 1
        yield Comparison(f"factor per layer, {name}", value, 1.0, se=se, tolerance=0.01, relation="<=")


def clars_cost(e: Evidence) -> Iterator[Comparison]:
    rules = [f"cifar_sweep/{rule}_1e2-128" for rule in ("clars", "lars")]
    gpu = e.costs(rules[1], "gpu_s").sum() > 0
    for name, key in (("time", "gpu_s" if gpu else "cpu_s"), ("peak memory", "gpu_peak_mb" if gpu else "peak_mb")):
        clars, lars = (e.costs(rule, key).mean() for rule in rules)
        more = {"corrected_relation": "<", "relation": ">=", "tolerance": 0.0}
        yield Comparison(f"{name} of CLARS over LARS's", float(clars / lars), 2.0, 2.0, **more)


def self_disable(e: Evidence) -> Iterator[Comparison]:
    for batch in ("128", "4k"):
        first, last = (e.probe(f"cifar_sweep/lalc-{batch}", "clipped_fraction", at)[:, 0] for at in (0, 190))
        yield over_seeds(f"fraction clipped at epoch 190 less at the first update, {batch}", last - first, 0.0, **BELOW)
        yield over_seeds(f"fraction clipped at epoch 190, {batch}", last, 0.1, **BELOW)


HALF_PERCENT = {"tolerance": 0.5}
ABOVE, BELOW = {"relation": ">", "tolerance": 0.0}, {"relation": "<", "tolerance": 0.0}


def _accuracies(e: Evidence, *pairs: tuple[str, str], **more) -> Iterator[Comparison]:
    """Test accuracy of the first of each pair of variants of the sweep less that of the second."""
    for first, second in pairs:
        values = (e.final(f"cifar_sweep/{variant}", "test_accuracy") for variant in (first, second))
        yield between_seeds(f"{first} less {second}, %", *values, **more)


def abl_norm(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc-128", "lalc_raw-128"), ("lalc-4k", "lalc_raw-4k"), **ABOVE)


def accum(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc-1k", "lalc_accumulated-1k"), **HALF_PERCENT)


def small_batch(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc-128", "warmup-128"), **HALF_PERCENT)


def large_batch(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc-4k", "sgd-4k"), ("lalc-4k", "warmup-4k"), **ABOVE)


def _best(e: Evidence, rule: str, batch: str) -> str:
    """The variant of LARS or CLARS with the decade of eta that is best at a batch size."""
    names = [f"{rule}_{eta}-{batch}" for eta in ("1e2", "1e3", "1e4")]
    return max(names, key=lambda name: e.final(f"cifar_sweep/{name}", "test_accuracy").mean())


def large_scaling(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, *(("lalc-4k", _best(e, rule, "4k")) for rule in ("lars", "clars")), **ABOVE)


def warmup(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc_warmup-128", "lalc-128"), ("lalc_warmup-4k", "lalc-4k"), **HALF_PERCENT)


def scaling(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, *(("lalc-128", _best(e, rule, "128")) for rule in ("lars", "clars")), **ABOVE)


def nesterov(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("nesterov-128", "sgd-128"), ("lalc_nesterov-128", "lalc-128"), **ABOVE)


def too_large(e: Evidence) -> Iterator[Comparison]:
    yield from _accuracies(e, ("lalc-16k", "lalc-4k"), ("warmup-16k", "warmup-4k"), **BELOW)


def instability(e: Evidence) -> Iterator[Comparison]:
    sgd, lalc, lars = (e.early_accuracy(f"cifar_sweep/{name}-4k") for name in ("sgd", "lalc", "lars_1e3"))
    for name, values in (("LALC", lalc), ("LARS", lars)):
        yield between_seeds(f"early training accuracy of {name} less SGD's, %", values, sgd, **ABOVE)


def decay(e: Evidence) -> Iterator[Comparison]:
    first, later = (
        np.array([np.log(fitted_rate(np.sqrt(row))) for row in e.probe("vgg_statistics/sgd", "gradient_variance", at)])
        for at in (0, 390)
    )
    yield over_seeds(
        "growth per layer after 390 steps over that at first, of the logarithm", later / first, 0.5, **BELOW
    )


def e_l1(_: Evidence) -> Iterator[Comparison]:
    yield Comparison("pi/(pi-1)", C, 1.21, 1.46694, tolerance=0.005)


def e_l3(_: Evidence) -> Iterator[Comparison]:
    values = np.array(list(_random_layers()))
    yield Comparison("largest S of random layers with unequal variances", values.max(), 1.01 * C, C, relation=">")


def e_l4(e: Evidence) -> Iterator[Comparison]:
    values = e.samples("rectified/correlated", "spread")
    yield average(
        "E of the variance before BN over sigma_w^2 sum t^2", values, (PI + 2) / (2 * PI), (PI - 1) / (2 * PI)
    )


GAMMA, MU, ETA = 0.1, 0.9, 0.01


def _descent(
    clip_whole_step: bool, weight: float, gradient: float = 5.0, steps: int = 200, guarded: bool = False
) -> np.ndarray:
    """Steps of Algorithm 3 at a fixed w and g, over eta |w|, or as they are where w is 0: m <- mu m + g, then
    min(gamma, eta |w|/|m|) m, `guarded` with gamma where w is 0; or LARC's, which clips g by eta |w|/|g| before the
    buffer."""
    bound, buffer, taken = ETA * abs(weight), 0.0, []
    for _ in range(steps):
        if clip_whole_step:
            buffer = MU * buffer + gradient
            step = (GAMMA if guarded and not weight else min(GAMMA, bound / abs(buffer))) * buffer
        else:
            buffer = MU * buffer + min(GAMMA, bound / abs(gradient)) * gradient
            step = buffer
        taken.append(step / bound if bound else step)
    return np.array(taken)


def e_l6(_: Evidence) -> Iterator[Comparison]:
    for name, guarded in (("as printed", False), ("with gamma where ||w|| is 0", True)):
        way = float(np.abs(_descent(True, weight=0.0, guarded=guarded)).sum())
        corrected = {} if guarded else {"corrected": 0.0}
        yield Comparison(f"way of a BN beta that starts at 0, {name}", way, 0.0, relation=">", **corrected)


def e_l7(_: Evidence) -> Iterator[Comparison]:
    for name, whole, truth in (("LALC", True, 1.0), ("LARC", False, 1 / (1 - MU))):
        steps = _descent(whole, weight=1e6, gradient=1e9)
        yield Comparison(f"largest step over eta |w|, {name}", float(steps.max()), truth, tolerance=0.05)


def e_l9(e: Evidence) -> Iterator[Comparison]:
    for name, key in (("ReLU", "relu"), ("GELU", "gelu")):
        value, se = _norm_rate(e, f"mlp-layernorm-{key}")
        truth = math.sqrt(ACTIVATIONS[name].layernorm_rate)
        yield Comparison(f"factor per layer, LayerNorm and {name}", value, 1.0, truth, se=se, tolerance=0.01)
    signs = {"relation": "<=", "corrected_relation": ">"}
    value, se = _norm_rate(e, "vit")
    yield Comparison("factor per block, ViT-B/16", value, 1.0, 1.0, se=se, tolerance=0.01, **signs)
    value, se = _norm_rate(e, "swin", slice(5, 11))
    yield Comparison("factor per block of the third stage, Swin-T", value, 1.0, 1.0, se=se, tolerance=0.01, **signs)
