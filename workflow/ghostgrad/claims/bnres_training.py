"""The claims of the BN-ResNet paper (004) about its models, at initialization and trained.

The statements and the runs are in workflow/claims/bnres_training.yaml. A curve over blocks is that
of the gradient's variance at the output of each residual block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, jackknife, split_block_ratios
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import (
    Comparison,
    average,
    between_seeds,
    from_estimate,
    over_seeds,
)
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import residual
from ghostgrad.theory.activations import RELU_GROWTH_RATE

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


# --- convolutional nets at initialization (sec. 4) ---


def _conv_ratios(evidence: Evidence) -> Iterator[tuple[str, int, FloatArray]]:
    """(initialization, scale, ratios (repeats, blocks)) of Model-1's scales that widen.

    The 1x1 shortcut has 9 times the variance of the 3x3 weights with He and 12 times with Xavier.
    Its row sums of squares are those of a 3x3 shortcut with equal variances, which the paper
    assumes, with He only: Xavier's nets are an extension.

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
            bound = RELU_GROWTH_RATE**2
            yield average(name, quotient, bound, relation="<=", extension=init != "He")
        quotients = jackknife(ratios, lambda means: float((means[1] - 1) / (means[4] - 1)))
        name = f"growth of block 2 over block 5, {place}"
        yield from_estimate(name, quotients, 2.0, relation=">", extension=init != "He")


def eq22_conv(evidence: Evidence) -> Iterator[Comparison]:
    """Eq. 21 at k = 2 in Model-1's convolutional blocks, with He's and with Xavier's weights."""
    for init, scale, ratios in _conv_ratios(evidence):
        channels = 16 * 2 ** (scale - 1)
        constant = layers.bound_constant(channels, 9 * channels) ** 2
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
                extension=init != "He",
            )


# --- errata of the models at initialization ---


def e_b13(evidence: Evidence) -> Iterator[Comparison]:
    """E-B13: the gradient of Model-2 grows at initialization."""
    ratios = split_block_ratios(evidence.layers("resnet15_init/model2-xavier", "feature_variance"))
    # The first block of each scale changes the width. Geometric mean over the other blocks.
    factors = np.exp(np.mean([np.log(scale[:, 1:]) for scale in ratios], axis=(0, 2)))
    name = "factor per block at initialization, Model-2"
    # Images and borders shift the factor. 1.5 per block is 2 decades over these 12 blocks.
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
