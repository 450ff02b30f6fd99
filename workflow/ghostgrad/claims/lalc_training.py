"""The claims of the LALC paper (001) on training, one function each.

The statements, their conditions and the runs are in workflow/claims/lalc_training.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, fit_growth_rate, mean_estimate
from ghostgrad.claims.comparison import (
    Comparison,
    Criteria,
    between_seeds,
    from_estimate,
    over_seeds,
)
from ghostgrad.claims.evidence import Evidence, MissingEvidence

HALF_PERCENT: Criteria = {"relation": "~", "tolerance": 0.5}
ABOVE: Criteria = {"relation": ">", "tolerance": 0.0}
TENSORS = 161  # parameters of ResNet50, a fraction of which LALC clips
BELOW: Criteria = {"relation": "<", "tolerance": 0.0}

# --- update rules on CIFAR-10 and ImageNet (sec. 3 and 4) ---


def _compare_accuracies(
    evidence: Evidence, criteria: Criteria, *pairs: tuple[str, str]
) -> Iterator[Comparison]:
    """Test accuracy of the first of each two variants of the sweep less that of the second."""
    for first, second in pairs:
        minuend, subtrahend = (
            evidence.final(f"cifar_sweep/{variant}", "test_accuracy") for variant in (first, second)
        )
        yield between_seeds(f"{first} less {second}, %", minuend, subtrahend, **criteria)


def _compare_early_accuracies(
    evidence: Evidence, lalc: str, lars: str, sgd: str
) -> Iterator[Comparison]:
    """Training accuracy in the first quarter, of LALC and of LARS less that of SGD."""
    baseline = evidence.early_accuracy(sgd)
    for name, variant in (("LALC", lalc), ("LARS", lars)):
        label = f"early training accuracy of {name} less SGD's, %"
        yield between_seeds(label, evidence.early_accuracy(variant), baseline, **ABOVE)


def _find_best_variant(evidence: Evidence, rule: str, batch: str) -> str:
    """The variant of LARS or CLARS with the best power of ten of eta at a batch size."""
    names = [f"{rule}_{eta}-{batch}" for eta in ("1e2", "1e3", "1e4")]
    return max(
        names, key=lambda name: evidence.final(f"cifar_sweep/{name}", "test_accuracy").mean()
    )


def clars_cost(evidence: Evidence) -> Iterator[Comparison]:
    """App. B, time and memory of CLARS over those of LARS.

    The paper speaks of per-sample gradients by a module of Opacus. Ours computes their norms
    without the gradients, which is cheaper, so it does not test that sentence.
    """
    clars_variant, lars_variant = (f"cifar_sweep/{rule}_1e2-128" for rule in ("clars", "lars"))
    # On a GPU its time and memory count, else those of the CPU.
    on_gpu = evidence.resource_use(lars_variant, "gpu_s").sum() > 0
    time_key, memory_key = ("gpu_s", "gpu_peak_mb") if on_gpu else ("cpu_s", "peak_mb")
    for name, key in (("time", time_key), ("peak memory", memory_key)):
        clars, lars = (
            mean_estimate(evidence.resource_use(v, key)) for v in (clars_variant, lars_variant)
        )
        yield from_estimate(
            f"{name} of CLARS over LARS's",
            clars.over(lars),
            2.0,
            relation="~",
            tolerance=0.2,
            extension=True,
        )


def self_disable(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 3, LALC clips ever fewer tensors."""
    for batch in ("128", "4k"):
        first, last = (
            evidence.probe(f"cifar_sweep/lalc-{batch}", "clipped_fraction", epoch)[:, 0]
            for epoch in (0, 190)
        )
        name = f"fraction clipped at epoch 190 less at the first update, {batch}"
        yield over_seeds(name, last - first, 0.0, quantum=1 / TENSORS, **BELOW)
        name = f"fraction clipped at epoch 190, {batch}"
        yield over_seeds(name, last, 0.1, quantum=1 / TENSORS, **BELOW)


def abl_norm(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 3, the norm of the whole step against that of the raw gradient."""
    pairs = (("lalc-128", "lalc_raw-128"), ("lalc-4k", "lalc_raw-4k"))
    yield from _compare_accuracies(evidence, ABOVE, *pairs)


def inverse_norm(_: Evidence) -> Iterator[Comparison]:
    """Sec. 3, the bound of LARS's learning rate against the inverse of the gradient's norm."""
    raise MissingEvidence("no update rule here bounds the learning rate by the inverse of a norm")


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
    """Sec. 4 and fig. 4, what WarmUp adds to LALC."""
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
    """Fig. 4, batches of 16k against 4k."""
    pairs = (
        ("lalc-16k", "lalc-4k"),
        ("sgd-16k", "sgd-4k"),
        ("warmup-16k", "warmup-4k"),
        ("lars_1e4-16k", "lars_1e3-4k"),
        ("clars_1e4-16k", "clars_1e3-4k"),
    )
    yield from _compare_accuracies(evidence, BELOW, *pairs)


def instability(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, training accuracy in the first quarter at a large batch."""
    variants = (f"cifar_sweep/{rule}-4k" for rule in ("lalc", "lars_1e3", "sgd"))
    yield from _compare_early_accuracies(evidence, *variants)


def nesterov_instability(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4 and fig. 4, Nesterov momentum does not close the gap from SGD to LALC."""
    nesterov, sgd, lalc = (
        mean_estimate(evidence.early_accuracy(f"cifar_sweep/{name}-4k"))
        for name in ("nesterov", "sgd", "lalc")
    )
    difference = nesterov.minus(sgd.times(0.5)).minus(lalc.times(0.5))
    name = "early training accuracy of Nesterov less the mean of SGD's and LALC's, %"
    yield from_estimate(name, difference, 0.0, replicates="seeds", **BELOW)


def imagenet(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 5, LALC, LARS and WarmUp at batch 8k of ImageNet."""
    variants = (f"imagenet_8k/{rule}" for rule in ("lalc", "lars", "sgd"))
    yield from _compare_early_accuracies(evidence, *variants)
    lalc, lars, warmed = (
        evidence.final(f"imagenet_8k/{name}", "test_accuracy")
        for name in ("lalc", "lars", "lalc_warmup")
    )
    yield between_seeds("test accuracy of LALC less LARS's, %", lalc, lars, **ABOVE)
    name = "test accuracy of LALC with WarmUp less that without, %"
    yield between_seeds(name, warmed, lalc, **HALF_PERCENT)


# --- the first epoch of training (sec. 2.1, fig. 3) ---

STATISTICS_RUN = "vgg_statistics/sgd"
PROBED_STEPS = (10, 50, 100, 390, 1950)  # an epoch has 390 steps


def _log_growth(evidence: Evidence, step: float) -> FloatArray:
    """The logarithm of the factor per layer of the gradient's standard deviation, (seeds,)."""
    variances = evidence.probe(STATISTICS_RUN, "gradient_variance", step)
    return np.array([np.log(fit_growth_rate(np.sqrt(curve))) for curve in variances])


def _over_layers(evidence: Evidence, quantity: str, step: float) -> FloatArray:
    """The mean over layers of a probed quantity, (seeds,)."""
    means: FloatArray = evidence.probe(STATISTICS_RUN, quantity, step).mean(1)
    return means


def _log_change(evidence: Evidence, quantity: str) -> FloatArray:
    """The change of the mean logarithm of a probed quantity in the first epoch, (seeds,)."""
    first, later = (
        np.log(evidence.probe(STATISTICS_RUN, quantity, step)).mean(1) for step in (0, 390)
    )
    change: FloatArray = later - first
    return change


def decay(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and 2.1, the explosion fades: growth per layer after one epoch and at first."""
    ratios = _log_growth(evidence, 390) / _log_growth(evidence, 0)
    name = "growth per layer after 390 steps over that at first, of the logarithm"
    yield over_seeds(name, ratios, 0.5, **BELOW)


def vanishing_state(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and 3, a vanishing gradient can be approached in training."""
    lowest = np.min([_log_growth(evidence, step) for step in PROBED_STEPS], axis=0)
    name = "lowest logarithm of the growth per layer in training"
    yield over_seeds(name, lowest, 0.0, relation="<=", tolerance=0.01)


def forward_variance(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 3, the variance rises behind ReLU and convolution, which the weights do not explain.

    In the paper's chart the norm of the weights is almost constant. With our learning rate it is
    not, so the variance behind a convolution is taken relative to that of its weights.
    """
    weights = _log_change(evidence, "weight_variance")
    relu = _log_change(evidence, "act_activation_variance")
    yield over_seeds("change of the log variance behind ReLU", relu, 0.0, **ABOVE)
    gained = _log_change(evidence, "conv_activation_variance") - weights
    name = "change of the log variance behind convolutions over that of their weights"
    yield over_seeds(name, gained, 0.0, **ABOVE)
    name = "change of the log variance of the weights"
    yield over_seeds(name, weights, 0.0, relation="~", tolerance=0.1, extension=True)


def centred(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 2.1 and fig. 3, what stays as Thm. 1 assumes it: after an epoch, means over layers."""
    for name, quantity in (
        ("weights", "weight_offset"),
        ("BN outputs", "norm_activation_offset"),
        ("gradients of BN outputs", "norm_gradient_offset"),
    ):
        values = _over_layers(evidence, quantity, 390)
        yield over_seeds(f"mean over standard deviation, {name}", values, 0.5, **BELOW)
    values = _over_layers(evidence, "norm_activation_gradient_correlation", 390)
    yield over_seeds("correlation of BN output and gradient", values, 0.1, **BELOW)


def correlation(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 2.1 and fig. 3, the activations behind ReLU become correlated."""
    first, later = (_over_layers(evidence, "act_activation_correlation", step) for step in (0, 390))
    name = "correlation of activations after an epoch less that at first"
    yield over_seeds(name, later - first, 0.0, **ABOVE)
