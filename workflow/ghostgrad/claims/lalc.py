"""The claims of the LALC paper (001), one function each.

The statements, the runs and the corrected forms are in workflow/claims/lalc.yaml. The paper's
exploding rate pi/(pi-1) is RELU_GROWTH_RATE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, fit_growth_rate, standard_error
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import (
    Comparison,
    Criteria,
    Relation,
    average,
    between_seeds,
    over_seeds,
)
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import ACTIVATIONS, RELU_GROWTH_RATE

# --- propositions and theorems (sec. 2) ---


def prop1(_: Evidence) -> Iterator[Comparison]:
    """Prop. 1, mean and variance of ReLU of a Gaussian, closed form against quadrature."""
    relu = ACTIVATIONS["ReLU"]
    for mean, std in ((0.0, 1.0), (1.0, 2.0), (-0.7, 0.5)):
        shifted, law = relu.with_input(mean, std), f"N({mean:g}, {std:g}^2)"
        yield Comparison(f"E(X), {law}", shifted.mean, propositions.relu_mean(mean, std))
        variance = propositions.relu_variance(mean, std)
        yield Comparison(f"Var(X), {law}", shifted.variance, variance)


def thm1(_: Evidence) -> Iterator[Comparison]:
    """Thm. 1, the lower bound of S."""
    c = RELU_GROWTH_RATE
    smallest = min(layers.amplify_random_layers())
    yield Comparison("smallest S of random layers", smallest, c, relation=">=")
    simulated = layers.simulate_layers(second_moments=False)
    name = "mean S of simulated layers"
    yield average(name, simulated, c, tolerance=0.01 * c, relation=">=")


def cor1(_: Evidence) -> Iterator[Comparison]:
    """Cor. 1, the same with second moments."""
    c = RELU_GROWTH_RATE
    simulated = layers.simulate_layers(second_moments=True)
    name = "mean ratio of simulated layers"
    yield average(name, simulated, c, tolerance=0.01 * c, relation=">=")


def cor2(_: Evidence) -> Iterator[Comparison]:
    """Cor. 2, the limit in which ReLU passes everything."""
    smallest = min(layers.amplify_random_layers(means=30.0))
    yield Comparison("smallest S at mu/sigma = 30", smallest, 1.0, relation=">=")


def thm2(evidence: Evidence) -> Iterator[Comparison]:
    """Thm. 2, S of perfectly correlated inputs."""
    yield compare_correlated_amplification(evidence, math.pi / (math.pi + 2))


def compare_correlated_amplification(
    evidence: Evidence, paper: float, relation: Relation = "="
) -> Comparison:
    """E of min(S, 100) over W, for perfectly correlated inputs.

    E[S] diverges for Gaussian W, so that its sample mean would have no standard error. The mean of
    min(S, 100) bounds it from below.
    """
    values = np.minimum(evidence.samples("rectified/correlated", "S"), 100.0)
    return average(
        "E of min(S, 100) over W",
        values,
        paper,
        RELU_GROWTH_RATE,
        relation=relation,
        corrected_relation=">",
        tolerance=1e-6,
    )


def rate(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and 2, the exploding rate: pi/(pi-1) is that of the variance, 1.21 its root."""
    value, se = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    c = RELU_GROWTH_RATE
    name = "factor of the gradient's variance per layer"
    yield Comparison(name, value, 1.21, c, se=se, tolerance=0.01 * c)


def _deviation_rate(
    evidence: Evidence, net: str, places: slice = slice(1, None)
) -> tuple[float, float]:
    """The fitted factor per layer of the gradient's standard deviation in a network.

    Mean over repeats and its standard error.
    """
    variances = evidence.layers(f"networks_init/{net}", "gradient_variance")[:, places]
    rates = np.array([fit_growth_rate(np.sqrt(curve)) for curve in variances])
    return float(rates.mean()), standard_error(rates)


def claims(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1, 5 and fig. 1, which networks do not explode or explode less."""
    (mlp, mlp_se), (vgg, vgg_se) = (_deviation_rate(evidence, net) for net in ("mlp", "vgg"))
    name, se = "VGG-like less MLP, factor per layer", math.hypot(mlp_se, vgg_se)
    yield Comparison(name, vgg - mlp, 0.0, se=se, relation="<")
    for name, net in (("LayerNorm and ReLU", "mlp-layernorm-relu"), ("DropOut", "vgg-dropout")):
        value, se = _deviation_rate(evidence, net)
        # A bound and no equality: max-pools take a little back, so that without an explosion the
        # factor may lie below 1.
        label = f"factor per layer, {name}"
        yield Comparison(label, value, 1.0, se=se, tolerance=0.01, relation="<=")


# --- training (sec. 3 and 4) ---

HALF_PERCENT: Criteria = {"tolerance": 0.5}
ABOVE: Criteria = {"relation": ">", "tolerance": 0.0}
BELOW: Criteria = {"relation": "<", "tolerance": 0.0}


def _compare_accuracies(
    evidence: Evidence, criteria: Criteria, *pairs: tuple[str, str]
) -> Iterator[Comparison]:
    """Test accuracy of the first of each two variants of the sweep less that of the second."""
    for first, second in pairs:
        minuend, subtrahend = (
            evidence.final(f"cifar_sweep/{variant}", "test_accuracy") for variant in (first, second)
        )
        yield between_seeds(f"{first} less {second}, %", minuend, subtrahend, **criteria)


def _find_best_variant(evidence: Evidence, rule: str, batch: str) -> str:
    """The variant of LARS or CLARS with the best power of ten of eta at a batch size."""
    names = [f"{rule}_{eta}-{batch}" for eta in ("1e2", "1e3", "1e4")]
    return max(
        names, key=lambda name: evidence.final(f"cifar_sweep/{name}", "test_accuracy").mean()
    )


def clars_cost(evidence: Evidence) -> Iterator[Comparison]:
    """App. B, time and memory of CLARS over those of LARS."""
    clars_variant, lars_variant = (f"cifar_sweep/{rule}_1e2-128" for rule in ("clars", "lars"))
    # On a GPU its time and memory count, else those of the CPU.
    on_gpu = evidence.resource_use(lars_variant, "gpu_s").sum() > 0
    time_key, memory_key = ("gpu_s", "gpu_peak_mb") if on_gpu else ("cpu_s", "peak_mb")
    for name, key in (("time", time_key), ("peak memory", memory_key)):
        clars, lars = (evidence.resource_use(v, key).mean() for v in (clars_variant, lars_variant))
        yield Comparison(
            f"{name} of CLARS over LARS's",
            float(clars / lars),
            2.0,
            2.0,
            relation=">=",
            corrected_relation="<",
            tolerance=0.0,
        )


def self_disable(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 3, LALC clips ever fewer tensors."""
    for batch in ("128", "4k"):
        first, last = (
            evidence.probe(f"cifar_sweep/lalc-{batch}", "clipped_fraction", epoch)[:, 0]
            for epoch in (0, 190)
        )
        name = f"fraction clipped at epoch 190 less at the first update, {batch}"
        yield over_seeds(name, last - first, 0.0, **BELOW)
        yield over_seeds(f"fraction clipped at epoch 190, {batch}", last, 0.1, **BELOW)


def abl_norm(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 3, the norm of the whole step against that of the raw gradient."""
    pairs = (("lalc-128", "lalc_raw-128"), ("lalc-4k", "lalc_raw-4k"))
    yield from _compare_accuracies(evidence, ABOVE, *pairs)


def accum(evidence: Evidence) -> Iterator[Comparison]:
    """App. B, a batch of 1k accumulated from 8 micro-batches against a true one."""
    yield from _compare_accuracies(evidence, HALF_PERCENT, ("lalc-1k", "lalc_accumulated-1k"))


def small_batch(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, LALC against WarmUp at a small batch."""
    yield from _compare_accuracies(evidence, HALF_PERCENT, ("lalc-128", "warmup-128"))


def large_batch(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, LALC against SGD at a large batch."""
    yield from _compare_accuracies(evidence, ABOVE, ("lalc-4k", "sgd-4k"), ("lalc-4k", "warmup-4k"))


def large_scaling(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, LALC against LARS and CLARS at a large batch."""
    pairs = [("lalc-4k", _find_best_variant(evidence, rule, "4k")) for rule in ("lars", "clars")]
    yield from _compare_accuracies(evidence, ABOVE, *pairs)


def warmup(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4, fig. 4 and 5, what WarmUp adds to LALC."""
    pairs = (("lalc_warmup-128", "lalc-128"), ("lalc_warmup-4k", "lalc-4k"))
    yield from _compare_accuracies(evidence, HALF_PERCENT, *pairs)


def scaling(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, LALC against LARS and CLARS at a small batch."""
    pairs = [("lalc-128", _find_best_variant(evidence, rule, "128")) for rule in ("lars", "clars")]
    yield from _compare_accuracies(evidence, ABOVE, *pairs)


def nesterov(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, what Nesterov momentum gains."""
    pairs = (("nesterov-128", "sgd-128"), ("lalc_nesterov-128", "lalc-128"))
    yield from _compare_accuracies(evidence, ABOVE, *pairs)


def too_large(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, batches of 16k against 4k."""
    pairs = (("lalc-16k", "lalc-4k"), ("warmup-16k", "warmup-4k"))
    yield from _compare_accuracies(evidence, BELOW, *pairs)


def instability(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, training accuracy in the first quarter at a large batch."""
    sgd, lalc, lars = (
        evidence.early_accuracy(f"cifar_sweep/{name}-4k") for name in ("sgd", "lalc", "lars_1e3")
    )
    for name, values in (("LALC", lalc), ("LARS", lars)):
        label = f"early training accuracy of {name} less SGD's, %"
        yield between_seeds(label, values, sgd, **ABOVE)


def decay(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and 2.1, the explosion fades: growth per layer after one epoch and at first."""
    first, later = (
        np.array([np.log(fit_growth_rate(np.sqrt(curve))) for curve in variances])
        for variances in (
            evidence.probe("vgg_statistics/sgd", "gradient_variance", step) for step in (0, 390)
        )
    )
    name = "growth per layer after 390 steps over that at first, of the logarithm"
    yield over_seeds(name, later / first, 0.5, **BELOW)


# --- errata ---


def e_l1(_: Evidence) -> Iterator[Comparison]:
    """E-L1: pi/(pi-1) is 1.467 and not 1.21, its root."""
    yield Comparison("pi/(pi-1)", RELU_GROWTH_RATE, 1.21, 1.46694, tolerance=0.005)


def e_l3(_: Evidence) -> Iterator[Comparison]:
    """E-L3: Thm. 1 is an equality for every W.

    S is pi/(pi-1) also where the variances before the BN differ, because sum_i Var(x_i) W_ij^2
    cancels against the variance before the BN.
    """
    c, values = RELU_GROWTH_RATE, np.array(list(layers.amplify_random_layers()))
    name = "largest S of random layers with unequal variances"
    yield Comparison(name, values.max(), 1.01 * c, c, relation=">")


def e_l4(evidence: Evidence) -> Iterator[Comparison]:
    """E-L4: the cross term in the proof of Thm. 2 is not zero."""
    values = evidence.samples("rectified/correlated", "spread")
    printed, corrected = (math.pi + 2) / (2 * math.pi), (math.pi - 1) / (2 * math.pi)
    yield average("E of the variance before BN over sigma_w^2 sum t^2", values, printed, corrected)


LEARNING_RATE, MOMENTUM, TRUST_COEFFICIENT = 0.1, 0.9, 0.01  # gamma, mu and eta of Algorithm 3


def _lalc_steps(
    weight: float, gradient: float = 5.0, steps: int = 200, guarded: bool = False
) -> FloatArray:
    """The steps of Algorithm 3 for one weight w and a constant gradient g, (steps,).

    m <- mu m + g, then w <- w - min(gamma, eta |w|/|m|) m. w is held fixed. The steps are in units
    of eta |w|, or absolute where w is 0. `guarded` uses gamma where w is 0 (E-L6).
    """
    bound, momentum, taken = TRUST_COEFFICIENT * abs(weight), 0.0, []
    for _ in range(steps):
        momentum = MOMENTUM * momentum + gradient
        learning_rate = min(LEARNING_RATE, bound / abs(momentum))
        if guarded and not weight:
            learning_rate = LEARNING_RATE
        step = learning_rate * momentum
        taken.append(step / bound if bound else step)
    return np.array(taken)


def _larc_steps(weight: float, gradient: float, steps: int = 200) -> FloatArray:
    """The same of LARC, which clips the gradient by eta |w|/|g| before the momentum, (steps,)."""
    bound, momentum, taken = TRUST_COEFFICIENT * abs(weight), 0.0, []
    for _ in range(steps):
        momentum = MOMENTUM * momentum + min(LEARNING_RATE, bound / abs(gradient)) * gradient
        taken.append(momentum / bound)
    return np.array(taken)


def e_l6(_: Evidence) -> Iterator[Comparison]:
    """E-L6: with lambda = eta ||w||/||h|| a tensor that starts at 0 never moves."""
    for name, guarded in (("as printed", False), ("with gamma where ||w|| is 0", True)):
        distance = float(np.abs(_lalc_steps(weight=0.0, guarded=guarded)).sum())
        label = f"way of a BN beta that starts at 0, {name}"
        yield Comparison(label, distance, 0.0, None if guarded else 0.0, relation=">")


def e_l7(_: Evidence) -> Iterator[Comparison]:
    """E-L7: LALC bounds the whole step, LARC what enters the momentum.

    The gradient is so large that both clip, and constant, so that the momentum fills.
    """
    rules = (
        ("LALC", _lalc_steps(weight=1e6, gradient=1e9), 1.0),
        ("LARC", _larc_steps(weight=1e6, gradient=1e9), 1 / (1 - MOMENTUM)),
    )
    for name, steps, expected in rules:
        largest = float(steps.max())
        yield Comparison(f"largest step over eta |w|, {name}", largest, expected, tolerance=0.05)


def e_l9(evidence: Evidence) -> Iterator[Comparison]:
    """E-L9: with LayerNorm ReLU does not explode; GELU does, and transformers grow too."""
    for name, key in (("ReLU", "relu"), ("GELU", "gelu")):
        value, se = _deviation_rate(evidence, f"mlp-layernorm-{key}")
        corrected = math.sqrt(ACTIVATIONS[name].layernorm_growth_rate)
        label = f"factor per layer, LayerNorm and {name}"
        yield Comparison(label, value, 1.0, corrected, se=se, tolerance=0.01)
    third_stage = slice(5, 11)  # the places of its six blocks
    networks = (
        ("factor per block, ViT-B/16", "vit", slice(1, None)),
        ("factor per block of the third stage, Swin-T", "swin", third_stage),
    )
    for label, net, places in networks:
        value, se = _deviation_rate(evidence, net, places)
        yield Comparison(
            label,
            value,
            1.0,
            1.0,
            se=se,
            tolerance=0.01,
            relation="<=",
            corrected_relation=">",
        )
