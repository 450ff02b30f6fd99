"""The errata of the Ghost paper (002; 000 is its tiny-paper version), one function each.

The statements and the corrected forms are in workflow/claims/ghost_errata.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, jackknife, standard_error, total_growth
from ghostgrad.claims.comparison import Comparison, CorrectedCriteria, average, between_seeds
from ghostgrad.claims.evidence import Evidence
from ghostgrad.claims.ghost import HALF_DIGIT, MODULES, PRINTED_RATES, prop3_8
from ghostgrad.theory import costs, propositions
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    RELU_GROWTH_RATE,
    fixed_point_variance,
    relu_maxpool_backward_ratio,
    relu_maxpool_forward_ratio,
)
from ghostgrad.theory.quadrature import LAWS


def relu(x: FloatArray) -> FloatArray:
    """max(x, 0), element by element."""
    return np.maximum(x, 0.0)


# --- growth rates (app. A) ---


def e_g1(_: Evidence) -> Iterator[Comparison]:
    """E-G1: eq. 1 as printed does not give its own numbers; E[s'^2]/Var[s] does.

    Here the printed numbers are on our side, and the two formulas are what they are compared with.
    """
    for name, printed in PRINTED_RATES.items():
        activation = ACTIVATIONS[name]
        as_printed = activation.mean_derivative**2 / activation.variance
        corrected = activation.growth_rate
        yield Comparison(f"r of {name}", printed, as_printed, corrected, tolerance=HALF_DIGIT)


def e_g3(evidence: Evidence) -> Iterator[Comparison]:
    """E-G3: the printed rates are those of the variance; the norm grows by their roots."""
    for name, printed in PRINTED_RATES.items():
        value, se = evidence.growth_rate(f"plainnet_init/{name.lower()}-bn")
        label = f"factor of the norm per layer, {name}"
        yield Comparison(label, value, printed, printed**0.5, se=se, tolerance=0.01)


def e_g6(evidence: Evidence) -> Iterator[Comparison]:
    """E-G6: without BN ReLU does not explode; its forward variance decays instead."""
    rates = {
        name: evidence.growth_rate(f"plainnet_init/{name}") for name in ("relu", "tanh", "selu")
    }
    forward = evidence.layers("plainnet_init/relu", "forward_variance")
    ratios = forward[:, 1:] / forward[:, :-1]
    name = "R_f of the first layer, ReLU without BN"
    yield average(name, ratios[:, 0], None, 1 - 1 / math.pi, tolerance=0.01)
    name = "R_f of the last layer, ReLU without BN"
    yield average(name, ratios[:, -1], None, 0.8, corrected_relation=">")
    relu_rate, relu_se = rates["relu"]
    # The corrected rate is 1 within 1 %, because the width of the net is only 256.
    yield Comparison(
        "factor per layer, ReLU without BN",
        relu_rate,
        math.sqrt(RELU_GROWTH_RATE),
        1.0,
        se=relu_se,
        tolerance=0.01,
    )
    for other in ("tanh", "selu"):
        rate, se = rates[other]
        yield Comparison(
            f"ReLU's less {other}'s factor without BN",
            relu_rate - rate,
            0.0,
            0.0,
            se=math.hypot(relu_se, se),
            relation=">",
            corrected_relation="<",
        )


def e_g7(evidence: Evidence) -> Iterator[Comparison]:
    """E-G7: without BN the pre-activations of Tanh settle at another variance than 1.

    With weights N(0, 2/d) they settle at q, where the gradient's variance grows by
    2 E[s'(sqrt(q) X)^2] per layer. The fit leaves out the first layers, where the variance has not
    settled yet.
    """
    value, se = evidence.growth_rate("plainnet_init/tanh", layers=slice(10, None))
    tanh = ACTIVATIONS["Tanh"]
    q = fixed_point_variance(tanh, 2.0)
    corrected = math.sqrt(2 * tanh.with_input(std=math.sqrt(q)).mean_squared_derivative)
    name = "factor per layer of layers 10 to 20, Tanh without BN"
    yield Comparison(name, value, math.sqrt(1.178), corrected, se=se, tolerance=0.01)


def e_g27(evidence: Evidence) -> Iterator[Comparison]:
    """E-G27: what BN adds to SELU's rate is an effect of the finite width and batch.

    Such an effect is of order 1/width and 1/batch and halves when both double; an effect of BN
    itself would stay.
    """
    excess = []
    for family in ("plainnet_init", "plainnet_wide"):
        (with_bn, with_bn_se), (without, without_se) = (
            evidence.growth_rate(f"{family}/{name}") for name in ("selu-bn", "selu")
        )
        excess.append((with_bn - without, math.hypot(with_bn_se, without_se)))
    (narrow, narrow_se), (wide, wide_se) = excess
    yield Comparison(
        "SELU: excess of the rate with BN, twice the size over once",
        wide / narrow,
        1.0,
        0.5,
        se=math.hypot(narrow_se, wide_se) / narrow,
        tolerance=0.1,
    )


# --- propositions of section 3 ---


def e_g4(_: Evidence) -> Iterator[Comparison]:
    """E-G4: the gap of a Gaussian is (E|x|)^2/4 = 1/(2 pi), less than Prop. 3.14 says."""
    law = LAWS["Gaussian"]
    gap = propositions.shifted_relu_gap(law, 0.0)
    printed, corrected = law.absolute_mean / 4, 1 / (2 * math.pi)
    yield Comparison("gap of a Gaussian", gap, printed, corrected, relation=">=")


def e_g5(_: Evidence) -> Iterator[Comparison]:
    """E-G5: the threshold on |b| of Prop. C.2, at which the linear term is half the gap.

    The Gaussian is left out, because its linear term vanishes.
    """
    b = 1e-3
    for name in ("uniform", "Laplace"):
        law = LAWS[name]
        mean = law.absolute_mean
        denominator = 4 * abs(mean - 2 * law.density(0.0))
        right, left = (propositions.shifted_relu_gap(law, shift) for shift in (b, -b))
        slope = (right - left) / (2 * b)
        threshold = propositions.shifted_relu_gap(law, 0.0) / 2 / abs(slope)
        yield Comparison(
            f"|b| at which the linear term is half the gap, {name}",
            threshold,
            mean / denominator,
            mean**2 / denominator,
            tolerance=0.005 * threshold,
        )


def e_g8(evidence: Evidence) -> Iterator[Comparison]:
    """E-G8: E z and Var z have terms of order 1/B."""
    # At B = 16 even a few repeats tell 1 from B/(B-1); at B = 128 only quadrature does.
    yield from prop3_8(evidence, (16,))
    mean, variance = propositions.bn_z_by_quadrature(128)
    yield Comparison("E z, B = 128, by quadrature", mean, 1.0, propositions.bn_z_mean(128))
    yield Comparison(
        "Var z, B = 128, by quadrature", variance, 2.0, propositions.bn_z_variance(128)
    )


def e_g9(evidence: Evidence) -> Iterator[Comparison]:
    """E-G9: R_b(F) - 1 does not fall as 1/L; the bound of the net is e^R_b(F) and not e."""
    excess = {}
    for depth in (20, 40, 80):
        variant = f"scaled_resnet_init/depth-{depth}"
        backward = evidence.layers(variant, "backward_variance")
        branch = evidence.layers(variant, "branch_backward")[:, 2::2].mean(1)
        excess[depth] = (float(branch.mean()) - 1, standard_error(branch))
        growth = np.log(backward[:, 0] / backward[:, -1])
        bound = float(branch.mean())
        name = f"log R_b(net), L = {depth // 2}"
        yield average(name, growth, None, bound, corrected_relation="<=")
    (first, first_se), (last, last_se) = excess[20], excess[80]
    # If R_b(F) - 1 were O(1/L), four times the blocks would leave a quarter.
    yield Comparison(
        "R_b(F) - 1 at L = 40 over that at L = 10",
        last / first,
        0.25,
        0.25,
        se=last / first * math.hypot(first_se / first, last_se / last),
        tolerance=0.05,
        relation="<=",
        corrected_relation=">",
    )


# --- modules (sec. 4) ---


def e_g11(evidence: Evidence) -> Iterator[Comparison]:
    """E-G11: with weights N(0, 1/D) the ratios are a quarter of those that Prop. 4.1 prints."""
    for name, ratio in zip(("R_f", "R_b"), propositions.tied_ratios(2), strict=True):
        values = evidence.samples("operators/module-small-k2", name)
        yield average(
            f"{name}, tied, k = 2, N(0, 1/D)", values, ratio, ratio / 4, tolerance=4 / 512
        )


def e_g12(evidence: Evidence) -> Iterator[Comparison]:
    """E-G12: three quantities in the proof of Prop. 4.1 (app. D)."""
    d, k = 256, 2
    wide = k * d
    variant = f"operators/module-tied-k{k}"
    values = evidence.samples(variant, "column_spread")
    yield average("Var of a column's squared norm", values, 4 / wide, 8 / wide)
    # In a narrow module, d = 16 and D = 32, where the corrected term 2/d is not small.
    values = evidence.samples("operators/module-narrow-k2", "absolute_trace")
    yield average("tr(W^T M W)/d, d = 16", values, 4 * 16 / 32, 4 * 18 / 32)
    values = evidence.samples(variant, "R_b")
    moments = np.stack([values, values**2], 1)
    variance, se = jackknife(moments, lambda mean: float(mean[1] - mean[0] ** 2))
    corrected = propositions.tied_backward_variance(k, wide)
    yield Comparison(
        "Var[R_b]",
        variance,
        8 / wide**2,
        corrected,
        se=se,
        tolerance=0.02 * corrected,
        relation="<",
    )


def e_g14(_: Evidence) -> Iterator[Comparison]:
    """E-G14: with the sqrt(2) of L-Init the module is y = sqrt(2) x and not y = x.

    relu(u) - relu(-u) = u, so that [R; -R]^T relu([R; -R] x) = R^T R x = x if the columns of R
    are orthonormal.
    """
    rng = np.random.default_rng(0)
    r = np.linalg.qr(rng.normal(size=(32, 16)))[0]
    doubled = np.concatenate([r, -r])
    x = rng.normal(size=(16, 1000))
    y = doubled.T @ relu(math.sqrt(2) * doubled @ x)
    slope = float((x * y).sum() / (x * x).sum())
    yield Comparison("y/x with W = sqrt2 [R; -R], M = [R; -R]^T", slope, 1.0, math.sqrt(2))
    difference = float(np.abs(y - math.sqrt(2) * x).max())
    yield Comparison("largest |y - sqrt2 x|", difference, None, 0.0, tolerance=1e-12)


def e_g17(evidence: Evidence) -> Iterator[Comparison]:
    """E-G17: O-Init grows faster than R-Init, and L-Init is linear."""
    (o_rate, o_se), (r_rate, r_se), (l_rate, l_se) = (
        evidence.growth_rate(f"seqnet_init/k2-{kind}", "backward_variance", MODULES)
        for kind in "orl"
    )
    yield Comparison(
        "O-Init's less R-Init's rate, k = 2",
        o_rate - r_rate,
        0.0,
        0.0,
        se=math.hypot(o_se, r_se),
        corrected_relation=">",
    )
    yield Comparison("L-Init's rate, k = 2", l_rate, None, 1.0, se=l_se, tolerance=0.005)


# --- residual nets and pools (app. C) ---


def e_g10(evidence: Evidence) -> Iterator[Comparison]:
    """E-G10: a vanilla residual net does not explode exponentially in its depth.

    The logarithm of an exponential growth would double with the depth. That of a power law grows by
    the same step with each doubling, which is roughly what is measured.
    """
    logarithms = []
    for depth in (20, 40, 80):
        norms = evidence.layers(f"resnet_init/depth-{depth}", "gradient_norm")[:, 1:]
        growth, se = jackknife(norms, total_growth)
        logarithms.append((math.log(growth), se / growth))
    (log_20, se_20), (log_40, se_40), (log_80, se_80) = logarithms
    yield Comparison(
        "log growth of depth 80",
        log_80,
        2 * log_40,
        2 * log_40 - log_20,
        se=math.hypot(se_80, 2 * se_40, se_20),
        tolerance=0.1,
    )


def e_g26(evidence: Evidence) -> Iterator[Comparison]:
    """E-G26: VGG pools after its ReLU, so both lie between two of its convolutions."""
    numbers = (
        ("forward", 0.492, relu_maxpool_forward_ratio()),
        ("backward", 0.25, relu_maxpool_backward_ratio()),
    )
    for direction, printed, corrected in numbers:
        values = evidence.samples("operators/pool", f"relu_pool_{direction}")
        yield average(f"R_{direction[0]} of ReLU and pool", values, printed, corrected)


# --- ImageNet (sec. 4.2 and 5, app. B.3) ---


def e_g20(evidence: Evidence) -> Iterator[Comparison]:
    """E-G20: SeqNet101 has the lower training accuracy, so it is not overfitting there."""
    criteria: dict[int, CorrectedCriteria] = {
        50: {"relation": ">", "tolerance": 0.0},
        101: {"relation": ">", "tolerance": 0.0, "corrected": 0.0, "corrected_relation": "<"},
    }
    for depth, depth_criteria in criteria.items():
        seqnet, resnet = (
            evidence.final(f"imagenet/{family}{depth}", "train_accuracy")
            for family in ("seqnet", "resnet")
        )
        name = f"training accuracy of SeqNet{depth} less ResNet{depth}'s, %"
        yield between_seeds(name, seqnet, resnet, **depth_criteria)


def e_g21(_: Evidence) -> Iterator[Comparison]:
    """E-G21: SeqNet50 has 66 weight layers and twice the multiply-adds of ResNet50."""
    seqnet, resnet = costs.seqnet50_cost(), costs.resnet50_cost()
    yield Comparison("weight layers of SeqNet50", seqnet.layers, 50, 66)
    quotient = seqnet.multiply_adds / resnet.multiply_adds
    name = "multiply-adds of SeqNet50 over those of ResNet50"
    yield Comparison(name, quotient, 1.0, 2.0, tolerance=0.05)


def e_g25(evidence: Evidence) -> Iterator[Comparison]:
    """E-G25: with zero gamma the gradient inside the branches of ResNet50 is exactly 0 at first."""
    for gamma, net in ((0, "resnet50-zero-gamma"), (1, "resnet50")):
        # Place 1 is the output of the stem's BN. Then each block has three BNs, of which the third
        # has that gamma. Its output is the end of the branch, where the gradient is that of the
        # sum with the shortcut; only the other two are inside.
        variances = evidence.layers(f"vgg_input/{net}", "gradient_variance")[:, 2:]
        inside = float(np.delete(variances, np.s_[2::3], axis=1).max())
        yield Comparison(
            f"largest gradient variance inside a branch of ResNet50, gamma = {gamma}",
            inside,
            0.0,
            0.0 if gamma == 0 else None,
            relation=">",
            tolerance=0.0,
        )
