"""The claims of the Ghost paper (002; 000 is its tiny-paper version), one function each.

The statements and the runs are in workflow/claims/ghost.yaml; what is wrong in the paper has more
comparisons in `ghostgrad.claims.ghost_errata`. R_f and R_b of an operator are the factors by which
it multiplies the variance of the signal and, on the way back, of the derivative (Def. 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.statistics import (
    FloatArray,
    fit_growth_rate,
    jackknife,
    standard_error,
    total_growth,
)
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import Comparison, Relation, average, between_seeds, extreme
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    RELU_GROWTH_RATE,
    maxpool_backward_ratio,
    maxpool_forward_ratio,
)
from ghostgrad.theory.quadrature import LAWS

PRINTED_RATES = {"SELU": 1.072, "Tanh": 1.178, "ReLU": 1.467}  # app. A
HALF_DIGIT = 0.0005  # half of the last printed digit
MODULES = slice(None, None, 2)  # the module boundaries of a SeqNet, whose modules have two layers


# --- section 3 ---


def def3_1(evidence: Evidence) -> Iterator[Comparison]:
    """Def. 3.1, the ratios of a chain are products, for R_b in a plain net.

    For one net the product telescopes and says nothing. The paper uses expected ratios, and for
    those it is a statement: the product of the layers' means against the net's mean.
    """
    backward = evidence.layers("plainnet_init/relu-bn", "backward_variance")
    ratios, net = backward[:, :-1] / backward[:, 1:], backward[:, :1] / backward[:, -1:]

    def quotient(mean: FloatArray) -> float:
        return float(mean[:-1].prod() / mean[-1])

    value, se = jackknife(np.hstack([ratios, net]), quotient)
    name = "product of the layers' mean R_b over the net's mean R_b"
    yield Comparison(name, value, 1.0, se=se, tolerance=0.02)


def prop3_4(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 3.4, R_f and R_b of a linear layer."""
    for direction in ("forward", "backward"):
        for k in (1, 4):
            values = evidence.samples(f"operators/linear-k{k}", direction)
            yield average(f"R_{direction[0]} over the formula, D = {k}d", values, 1.0)
            # The proposition holds for each fixed W. Dependent dimensions would leave the mean over
            # W at 1 and show as a spread over W.
            spread = float(np.sqrt(np.mean((values - 1) ** 2)))
            name = f"its spread over W, D = {k}d, R_{direction[0]}"
            yield Comparison(name, spread, 0.005, tolerance=0.0, relation="<=")


def rem3_5(evidence: Evidence) -> Iterator[Comparison]:
    """Rem. 3.5, Prop. 3.4 inside a deep net; "quite well" is taken as 5 %."""
    for direction in ("forward", "backward"):
        # The input of the first layer is independent by construction, so the second comes first.
        values = evidence.layers("plainnet_dependence/relu-bn", f"linear_{direction}")[:, 2:]
        for layer, index in (("second", 0), ("last", -1)):
            name = f"R_{direction[0]} of the {layer} layer over Prop. 3.4"
            yield average(name, values[:, index], 1.0, tolerance=0.05)


def cor3_7(evidence: Evidence) -> Iterator[Comparison]:
    """Cor. 3.7, derivatives before a BN have mean zero."""
    for place in ("bn", "linear"):
        values = evidence.samples("operators/bn-128", f"at_{place}")
        name = f"largest batch mean of the derivative at the {place}'s input"
        yield Comparison(name, values.max(), 0.0, tolerance=1e-12)
    # At the input of ReLU the batch mean is zero only in expectation.
    yield average("mean at the ReLU's input", evidence.samples("operators/bn-128", "at_relu"), 0.0)


def prop3_8(evidence: Evidence, batches: tuple[int, ...] = (16, 128)) -> Iterator[Comparison]:
    """Prop. 3.8, mean and variance of z in R_b(BN) = (1 - z/B)/sigma^2."""
    for batch in batches:
        z, z_squared = (
            evidence.samples(f"operators/bn-{batch}", f"z_{k}") for k in ("mean", "second")
        )
        yield average(f"E z, B = {batch}", z, 1.0, propositions.bn_z_mean(batch))
        moments = np.stack([z, z_squared], 1)
        value, se = jackknife(moments, lambda mean: float(mean[1] - mean[0] ** 2))
        yield Comparison(
            f"Var z, B = {batch}", value, 2.0, propositions.bn_z_variance(batch), se=se
        )


def rem3_9(evidence: Evidence) -> Iterator[Comparison]:
    """Rem. 3.9, correlation over the batch of a neuron with its derivative.

    Two independent vectors of length B have the mean absolute correlation sqrt(2/(pi B)).
    """
    batch = 128
    values = evidence.layers("plainnet_dependence/relu-bn", "derivative_correlation")
    independent = math.sqrt(2 / (math.pi * batch))
    for layer, index in (("first", 1), ("last but one", -2)):
        name = f"mean |correlation| in the {layer} layer"
        yield average(name, values[:, index], independent, tolerance=0.05 * independent)


def prop3_12(_: Evidence) -> Iterator[Comparison]:
    """Prop. 3.12, Var <= E[s'^2] with equality only for affine functions, by quadrature."""
    for name, activation in ACTIVATIONS.items():
        quotient = activation.variance / activation.mean_squared_derivative
        relation: Relation = "=" if name == "Linear" else "<"
        yield Comparison(f"Var/E[s'^2] of {name}", quotient, 1.0, relation=relation)


def prop3_14(_: Evidence) -> Iterator[Comparison]:
    """Prop. 3.14, the gap E[relu'^2] - Var[relu] of symmetric laws, by quadrature."""
    for law in LAWS.values():
        gap = propositions.shifted_relu_gap(law, 0.0)
        mean = law.absolute_mean
        yield Comparison(f"gap, {law.name}", gap, mean / 4, mean**2 / 4, relation=">=")


def propB_14(_: Evidence) -> Iterator[Comparison]:
    """Prop. B.14 of the tiny-paper version, whose bound of the same gap is right."""
    for law in LAWS.values():
        gap = propositions.shifted_relu_gap(law, 0.0)
        yield Comparison(f"gap, {law.name}", gap, law.absolute_mean**2 / 8, relation=">=")


def cor3_15(evidence: Evidence) -> Iterator[Comparison]:
    """Cor. 3.15, exponential growth of a plain net with BN."""
    value, se = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    name = "factor of the gradient's variance per layer, ReLU + BN"
    yield Comparison(name, value, RELU_GROWTH_RATE, se=se, tolerance=0.01, relation=">=")


def rem3_16(_: Evidence) -> Iterator[Comparison]:
    """Rem. 3.16, R_b/R_f over linear layers telescopes; activations are left out, as there."""
    rng, widths = np.random.default_rng(0), (256, 64, 512, 128)
    ratios = []
    for _repeat in range(64):
        weights = [rng.normal(size=(out, into)) for into, out in pairwise(widths)]
        x, gradient = rng.normal(size=(1024, widths[0])), rng.normal(size=(1024, widths[-1]))
        ratios.append(layers.compute_chain_ratio(weights, x, gradient))
    expected = widths[-1] / widths[0]
    yield average("R_b/R_f of three linear layers", np.array(ratios), expected)


def prop3_17(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 3.17, residual blocks scaled by 1/sqrt(L), and the bound of the whole net."""
    for depth in (20, 40, 80):
        variant, blocks = f"scaled_resnet_init/depth-{depth}", depth // 2
        branch = {}
        for way in ("forward", "backward"):
            block, branch[way] = (
                evidence.layers(variant, f"{part}_{way}")[:, 2::2].mean(1)
                for part in ("block", "branch")
            )
            # 5 % of the term: cov(x, F(x)) is not exactly 0 in a net of width 256.
            rest = (block - 1) * blocks / branch[way]
            name = f"L (R_{way[0]}(block) - 1)/R_{way[0]}(F), L = {blocks}"
            yield average(name, rest, 1.0, tolerance=0.05)
        backward = evidence.layers(variant, "backward_variance")
        growth = np.log(backward[:, 0] / backward[:, -1])
        bound = float(branch["backward"].mean())
        yield average(f"log R_b(net), L = {blocks}", growth, bound, relation="<=")


def relu_ratios(_: Evidence) -> Iterator[Comparison]:
    """Sec. 3.1, R_f and R_b of ReLU, by quadrature."""
    relu = ACTIVATIONS["ReLU"]
    yield Comparison("R_f", relu.variance, (1 - 1 / math.pi) / 2)
    yield Comparison("R_b", relu.mean_squared_derivative, 0.5)


# --- section 4: SeqNet modules ---


def prop4_1(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 4.1, the ratios of tied and untied modules."""
    for k in (2, 4):
        kinds = (("untied", propositions.untied_ratios(k)), ("tied", propositions.tied_ratios(k)))
        for kind, ratios in kinds:
            for name, ratio in zip(("R_f", "R_b"), ratios, strict=True):
                values = evidence.samples(f"operators/module-{kind}-k{k}", name)
                # The proposition holds up to O(1/D), with D = 256 k.
                yield average(f"{name}, {kind}, k = {k}", values, ratio, tolerance=4 / (256 * k))


def fc_module(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.1 and 4.2, growth over a stack of modules: R_b/R_f of Prop. 4.1 per module."""
    for k in (2, 4):
        tied = (1 + 2 / k) / (1 + 2 / k * (1 - 1 / math.pi))
        for kind, paper in (("untied", RELU_GROWTH_RATE), ("r", tied)):
            value, se = evidence.growth_rate(
                f"seqnet_init/k{k}-{kind}", "backward_variance", MODULES
            )
            name = f"variance rate, {kind}, k = {k}"
            yield Comparison(name, value, paper, se=se, tolerance=0.01 * paper)


# --- appendices A and C ---


def eq1(_: Evidence) -> Iterator[Comparison]:
    """App. A, the printed numbers of eq. 1. They are those of the corrected formula (E-G1)."""
    for name, printed in PRINTED_RATES.items():
        rate = ACTIVATIONS[name].growth_rate
        yield Comparison(f"r of {name}", rate, printed, tolerance=HALF_DIGIT)


def a_depth(evidence: Evidence) -> Iterator[Comparison]:
    """App. A, the largest trainable depth."""
    for depth in (40, 80):
        selu, relu = (
            evidence.final(f"plain_depth/{name}-{depth}", "train_accuracy")
            for name in ("selu", "relu")
        )
        name = f"training accuracy at {depth} layers, SELU less ReLU, %"
        yield between_seeds(name, selu, relu, relation=">")


def c1_maxpool(_: Evidence) -> Iterator[Comparison]:
    """App. C.1, the ratios of max-pooling, by quadrature."""
    yield Comparison("R_f", maxpool_forward_ratio(), 0.492, tolerance=HALF_DIGIT)
    yield Comparison("R_b", maxpool_backward_ratio(), 0.25)


def c2_conceal(evidence: Evidence) -> Iterator[Comparison]:
    """App. C.2, training turns exploding gradients into large weights, which BN conceals."""

    def growth(step: float) -> FloatArray:
        """The first weight's gradient norm over that of the last hidden layer, (seeds,)."""
        norms = evidence.probe("conceal/plainnet20", "weight_gradient", step)
        return norms[:, 0] / norms[:, -2]  # index -1 is the classifier

    def change(quantity: str, index: int) -> FloatArray:
        """A probed quantity after 5 steps over the same at initialization, (seeds,)."""
        before, after = (
            evidence.probe("conceal/plainnet20", quantity, step)[:, index] for step in (0, 5)
        )
        return after / before

    name = "first over last gradient norm after 5 steps, over the same at initialization"
    yield extreme(name, growth(5) / growth(0), 0.5, "<=")
    name = "norm of the first weight after 5 steps, over initialization"
    yield extreme(name, change("weight_norm", 0), 1.2, ">=")
    name = "variance before the second BN after 5 steps, over initialization"
    yield extreme(name, change("bn_variance", 1), 1.2, ">=")


def c3(evidence: Evidence) -> Iterator[Comparison]:
    """App. C.3, vanilla residual nets: R_b/R_f of a block, and growth against a plain net."""
    for depth in (20, 40, 80):
        variant = f"resnet_init/depth-{depth}"
        block_backward, block_forward, branch_backward, branch_forward = (
            evidence.layers(variant, f"{part}_{way}")[:, 2::2]
            for part in ("block", "branch")
            for way in ("backward", "forward")
        )
        formula = (1 + branch_backward) / (1 + branch_forward)
        quotient = (block_backward / block_forward) / formula
        for block, index in (("first", 0), ("last", -1)):
            name = f"{block} block's rate over the formula, depth {depth}"
            yield average(name, quotient[:, index], 1.0, tolerance=0.01)
    (plain, plain_se), (residual, residual_se) = (
        jackknife(evidence.layers(variant, "gradient_norm")[:, 1:], total_growth)
        for variant in ("plainnet_init/relu-bn", "resnet_init/depth-20")
    )
    yield Comparison("growth of ResNet20", residual, 1.0, se=residual_se, relation=">")
    name, se = "growth of ResNet20 against PlainNet20", math.hypot(residual_se, plain_se)
    yield Comparison(name, residual, plain, se=se, relation="<")


def propC_2(_: Evidence) -> Iterator[Comparison]:
    """Prop. C.2, the gap of Prop. 3.14 for a small shift b, by quadrature."""
    b, step = 0.01, 0.002
    for law in LAWS.values():
        mean, slope = law.absolute_mean, propositions.shifted_relu_slope(law)
        gap = propositions.shifted_relu_gap(law, b)
        printed, corrected = mean / 4 + slope * b, mean**2 / 4 + slope * b
        # Terms of O(b^2) "can be ignored".
        name = f"gap at b = {b}, {law.name}"
        yield Comparison(name, gap, printed, corrected, tolerance=2 * b**2, relation=">=")
        right, left = (propositions.shifted_relu_gap(law, shift) for shift in (step, -step))
        difference = (right - left) / (2 * step)
        # The central difference is off by O(step): a density with a kink at 0 has a term b|b|.
        yield Comparison(f"linear coefficient, {law.name}", difference, slope, tolerance=step)


def s6_vgg_input(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 6, the derivative with respect to the image, at initialization."""

    def log_growth(net: str) -> FloatArray:
        """log of the gradient's standard deviation at the image over that at the last BN.

        (repeats,); the quotient does not depend on the scale of the classifier.
        """
        variances = evidence.layers(f"vgg_input/{net}", "gradient_variance")
        logarithm: FloatArray = np.log(variances[:, 0] / variances[:, -1])
        return logarithm / 2

    vgg = log_growth("vgg16")
    # With gamma = 0 in the last BN of each branch, as in the usual recipe, the claim is true.
    nets: tuple[tuple[int, str, Relation], ...] = (
        (0, "resnet50-zero-gamma", ">"),
        (1, "resnet50", "<"),
    )
    for gamma, net, relation in nets:
        resnet = log_growth(net)
        yield Comparison(
            f"log growth to the input, VGG16-BN less ResNet50 with gamma = {gamma}",
            float(vgg.mean() - resnet.mean()),
            0.0,
            0.0,
            se=math.hypot(standard_error(vgg), standard_error(resnet)),
            relation=">",
            corrected_relation=relation,
        )


# --- ImageNet ---


def b2_resnet_orth(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.2, what orthogonal regularization gains, seed by seed."""

    def accuracy(net: str) -> FloatArray:
        return evidence.final(f"imagenet/{net}", "test_accuracy")

    seqnet_gain = accuracy("seqnet50") - accuracy("seqnet50-free")
    resnet_gain = accuracy("resnet50-orthogonal") - accuracy("resnet50")
    name = "gain of SeqNet50 less that of ResNet50, %"
    yield between_seeds(name, seqnet_gain, resnet_gain, relation=">")


def _weight_gradient_rates(evidence: Evidence, variant: str, epoch: float) -> FloatArray:
    """Fitted factor per convolution toward the input of the weights' gradient norms, (seeds,).

    The stem is left out.
    """
    norms = evidence.probe(variant, "weight_gradient", epoch)[:, 1:]
    return np.array([fit_growth_rate(curve) for curve in norms])


def init_growth(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 left, growth of the gradient at initialization."""
    plain = _weight_gradient_rates(evidence, "imagenet_init/plainnet50", 0)
    for net in ("ResNet50", "SeqNet50"):
        other = _weight_gradient_rates(evidence, f"imagenet_init/{net.lower()}", 0)
        name = f"growth a convolution, PlainNet50 less {net}"
        yield between_seeds(name, plain, other, relation=">")


def trained_growth(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 right, growth of the gradient at epoch 50."""
    seqnet, resnet = (
        _weight_gradient_rates(evidence, f"imagenet/{net}", 50) for net in ("seqnet50", "resnet50")
    )
    name = "growth a convolution, SeqNet50 less ResNet50"
    yield between_seeds(name, seqnet, resnet, relation=">")


def convergence(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.3 and fig. 7 and 8, who is ahead in the first epochs and who after 10."""
    spans: tuple[tuple[int, int, Relation], ...] = ((0, 2, ">"), (10, 20, "<"))
    for depth in (50, 101):
        for after, until, relation in spans:
            seqnet, resnet = (
                evidence.mean_accuracy(f"imagenet/{family}{depth}", "train_accuracy", after, until)
                for family in ("seqnet", "resnet")
            )
            nets = f"SeqNet{depth} less ResNet{depth}"
            name = f"training accuracy, epochs {after} to {until}, {nets}, %"
            yield between_seeds(name, seqnet, resnet, relation=relation)


def skip(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 9, Skip-SeqNet50 against SeqNet50 over the whole training."""
    for column, what in (("train_accuracy", "training"), ("test_accuracy", "validation")):
        with_skip, without = (
            evidence.mean_accuracy(f"imagenet/{net}", column, 0, 100)
            for net in ("seqnet50-skip", "seqnet50")
        )
        name = f"mean {what} accuracy, Skip-SeqNet50 less SeqNet50, %"
        yield between_seeds(name, with_skip, without, relation=">")
