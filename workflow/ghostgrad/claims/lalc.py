"""The claims of the LALC paper (001) on theory and on networks at initialization, and its errata.

One function each; those on training are in `ghostgrad.claims.lalc_training`. The statements, their
conditions, the runs and the corrected forms are in workflow/claims/lalc.yaml. RELU_GROWTH_RATE is
pi/(pi-1), the factor of the gradient's variance in Thm. 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.statistics import (
    FloatArray,
    fit_growth_rate,
    jackknife,
    mean_estimate,
)
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import (
    Comparison,
    Criteria,
    Relation,
    average,
    from_estimate,
    growth,
    paired_difference,
)
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import ACTIVATIONS, HARDSHRINK, RELU_GROWTH_RATE

BELOW: Criteria = {"relation": "<", "tolerance": 0.0}

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
    """Thm. 1, the lower bound of S and the condition for equality."""
    c = RELU_GROWTH_RATE
    smallest = min(layers.amplify_random_layers())
    yield Comparison("smallest S of random layers", smallest, c, relation=">=")
    simulated = layers.simulate_layers(second_moments=False)
    yield average("mean S of simulated layers", simulated, c, relation=">=")
    equal = layers.amplify_sign_weights(inputs=5)
    yield Comparison("S of a layer with equal variances before the BN", equal, c)


def cor1(_: Evidence) -> Iterator[Comparison]:
    """Cor. 1, the same with second moments."""
    simulated = layers.simulate_layers(second_moments=True)
    name = "mean ratio of simulated layers"
    yield average(name, simulated, RELU_GROWTH_RATE, relation=">=")


def cor2(_: Evidence) -> Iterator[Comparison]:
    """Cor. 2, the limit in which ReLU passes an input whole or not at all."""
    signs = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    for name, means in (("30", 30.0), ("30 and -30", 30.0 * signs)):
        smallest = min(layers.amplify_random_layers(means))
        yield Comparison(f"smallest S at mu/sigma = {name}", smallest, 1.0, relation=">=")


THEOREM_2 = math.pi / (math.pi + 2)  # the right-hand side of eq. 6


def thm2(evidence: Evidence) -> Iterator[Comparison]:
    """Thm. 2, the lower bound of S of perfectly correlated inputs."""
    yield compare_correlated_amplification(evidence, THEOREM_2, ">=", corrected=None)


def thm2_equality(evidence: Evidence) -> Iterator[Comparison]:
    """Thm. 2, its equality where the variances before the BN are identical.

    A single input is perfectly correlated and, as in Thm. 1, independent. The Gaussian W of the run
    do not meet the condition, but S does not change when the weights of an output are divided by
    its standard deviation. These scaled weights do, though they are no longer independent.
    """
    single = evidence.compute("exact computation", layers.amplify_sign_weights, inputs=1)
    yield Comparison("S of one input, weights 1 or -1", single, THEOREM_2, RELU_GROWTH_RATE)
    yield compare_correlated_amplification(evidence, THEOREM_2)


def compare_correlated_amplification(
    evidence: Evidence,
    reference: float,
    relation: Relation = "=",
    corrected: float | None = RELU_GROWTH_RATE,
) -> Comparison:
    """E of min(S, 100) over W, for perfectly correlated inputs.

    E[S] diverges for Gaussian W, so that its sample mean would have no standard error. The mean of
    min(S, 100) bounds it from below.
    """
    values = np.minimum(evidence.samples("rectified/correlated", "S"), 100.0)
    return average(
        "E of min(S, 100) over W",
        values,
        reference,
        corrected,
        relation=relation,
        corrected_relation=">",
        tolerance=1e-6,  # S is computed in single precision
    )


def vanishing(_: Evidence) -> Iterator[Comparison]:
    """Sec. 2.1 and 5, gradients may vanish with correlated inputs, which we read of single outputs.

    Given |W|, weights of symmetric signs have E[1/s^2] >= 1/E[s^2], so that E[S] >= pi/(pi-1).
    """
    s = layers.amplify_correlated_outputs()
    yield Comparison("smallest S of single outputs", float(s.min()), 1.0, relation="<")
    below = (s < 1).astype(float)
    name = "fraction of outputs with S below 1"
    yield average(name, below, 0.0, relation=">", extension=True)
    name = "E of min(S, 100) over W, single outputs"
    yield average(name, np.minimum(s, 100.0), 1.0, relation="<", extension=True)


def thm2_explains(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 2.1, Thm. 2 as the reason that correlation decreases the gradient."""
    yield compare_correlated_amplification(evidence, RELU_GROWTH_RATE, "<")


def activations(_: Evidence) -> Iterator[Comparison]:
    """Sec. 2, every activation function amplifies the gradient; those with a jump may not."""
    nonlinear = [a.growth_rate for name, a in ACTIVATIONS.items() if name != "Linear"]
    name = "smallest factor of the gradient's variance over continuous activations"
    yield Comparison(name, min(nonlinear), 1.0, relation=">")
    name = "factor of the gradient's variance, Hardshrink"
    yield Comparison(name, HARDSHRINK.growth_rate, 1.0, relation=">", extension=True)


def rate(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and 2, the exploding rate, sqrt(pi/(pi-1)) ~ 1.21 of the standard deviation."""
    deviations = np.sqrt(evidence.layers("plainnet_init/relu-bn", "backward_variance")[:, 1:])
    name = "factor of the gradient's standard deviation per layer"
    yield growth(name, jackknife(deviations, fit_growth_rate), 1.21, relation="~")


# --- networks at initialization (fig. 1) ---

VGG_POOLS = 5  # max-pools of the VGG-like network, one after each group of convolutions
# Orders of magnitude over the whole net; the MLP with BN grows by four.
EXPLODED = 1.0


def _deviations(evidence: Evidence, net: str) -> FloatArray:
    """The gradient's standard deviation at the watched places of a network, (repeats, places)."""
    return np.sqrt(evidence.layers(f"networks_init/{net}", "gradient_variance")[:, 1:])


def _rates(evidence: Evidence, net: str) -> FloatArray:
    """The fitted factor per layer of the gradient's standard deviation, (repeats,)."""
    return np.array([fit_growth_rate(curve) for curve in _deviations(evidence, net)])


def _rates_between_pools(evidence: Evidence, net: str) -> FloatArray:
    """The same of a VGG-like network without the steps that contain a pool, (repeats,).

    One slope is fitted through the logarithms of all groups, each of which has its own level.
    """
    logarithms = np.log(_deviations(evidence, net))
    groups = logarithms.reshape(len(logarithms), VGG_POOLS, -1)
    index = np.arange(groups.shape[2]) - (groups.shape[2] - 1) / 2
    slopes = (groups @ index).mean(1) / (index @ index)
    rates: FloatArray = np.exp(-slopes)
    return rates


def claims(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1, 5 and fig. 1, which networks do not explode.

    The plain nets with LayerNorm are none of the paper's architectures.
    """
    for name, net, extension in (
        ("ViT-B/16", "vit", False),
        ("Swin-T", "swin", False),
        ("DropOut", "vgg-dropout", False),
        ("no activation", "vgg-linear", False),
        ("plain net with LayerNorm and ReLU", "mlp-layernorm-relu", True),
        ("plain net with LayerNorm and GELU", "mlp-layernorm-gelu", True),
    ):
        deviations = _deviations(evidence, net)
        # The logarithm, whose spread does not grow with the growth.
        decades = np.log10(deviations[:, 0] / deviations[:, -1])
        label = f"growth over the whole net in decades, {name}"
        yield average(label, decades, EXPLODED, relation="<", extension=extension)


def convolution(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5, convolutional against fully connected networks, with and without the pools."""
    mlp = mean_estimate(_rates(evidence, "mlp"))
    vgg = mean_estimate(_rates(evidence, "vgg")).minus(mlp)
    yield from_estimate("VGG-like less MLP, factor per layer", vgg, 0.0, **BELOW)
    between = mean_estimate(_rates_between_pools(evidence, "vgg")).minus(mlp)
    name = "VGG-like without its pools less MLP, factor per layer"
    yield from_estimate(name, between, 0.0, **BELOW)


def residual(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 1, residual against plain networks."""
    resnet = mean_estimate(_rates(evidence, "resnet50"))
    for name, net in (("MLP", "mlp"), ("VGG-like", "vgg")):
        difference = resnet.minus(mean_estimate(_rates(evidence, net)))
        label = f"ResNet50 less {name}, factor per layer"
        yield from_estimate(label, difference, 0.0, **BELOW)


def smoother(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 1b, the smoother variants of ReLU that its caption cites."""
    relu = _rates(evidence, "vgg")
    for name, net in (
        ("LeakyReLU", "leaky_relu"),
        ("ELU", "elu"),
        ("Swish", "silu"),
        ("GELU", "gelu"),
    ):
        # A repeat draws the same images and weights for every activation, so that the differences
        # within repeats are less noisy than those of the means.
        difference = paired_difference(_rates(evidence, f"vgg-{net}"), relu)
        yield average(f"{name} less ReLU, factor per layer", difference, 0.0, **BELOW)


# --- errata ---


def e_l3(_: Evidence) -> Iterator[Comparison]:
    """E-L3: the proof of Thm. 1 separates W_ij from the variance before the BN, which contains it.

    Both the separation and Jensen's inequality after it change the expectation, by factors that
    cancel: S is pi/(pi-1) for every W (`thm1`), if the output gradients have mean 0 and are
    uncorrelated with each other and with the inputs.
    """
    inputs = 16
    values = layers.separated_expectations(inputs)
    name = f"E[1/s^2] E[W^2] over E[W^2/s^2], {inputs} Gaussian weights"
    yield average(name, values, 1.0, inputs / (inputs - 2))


def e_l4(evidence: Evidence) -> Iterator[Comparison]:
    """E-L4: the cross term in the proof of Thm. 2 is not zero, and 1/(2 pi) becomes 1/pi.

    The proof has 1/2 + 1/(2 pi) = (pi+1)/(2 pi) without the cross term -1/pi, and goes on with
    (pi+2)/(2 pi). With the cross term it is (pi-1)/(2 pi).
    """
    result, used = 0.5 + 1 / (2 * math.pi), (math.pi + 2) / (2 * math.pi)
    correct = (math.pi - 1) / (2 * math.pi)
    cross_terms = evidence.compute("Monte Carlo", layers.cross_terms)
    yield average("(a) cross term", cross_terms, 0.0, 1 / math.pi)
    values = evidence.samples("rectified/correlated", "spread")
    name = "(b) variance before the BN"
    yield average(f"{name}, as derived", values, result, correct)
    yield average(f"{name}, as used in eq. 25", values, used, correct)
    yield Comparison("(c) its value in eq. 25", result, used, (math.pi + 1) / (2 * math.pi))
