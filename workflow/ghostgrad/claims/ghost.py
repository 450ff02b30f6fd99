"""The claims of the Ghost paper (002 and 000), each a function of the evidence; see workflow/claims/ghost.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.measures import CURVE_STATISTICS, fitted_rate, jackknife
from ghostgrad.claims.comparison import Comparison, average, between_seeds, extreme
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    maxpool_backward,
    maxpool_forward,
)
from ghostgrad.theory.quadrature import LAWS

PI = math.pi
C = PI / (PI - 1)
PRINTED_RATES = {"SELU": 1.072, "Tanh": 1.178, "ReLU": 1.467}
HALF_DIGIT = 0.0005
MODULES = slice(None, None, 2)  # of a SeqNet's layers, two a module


def def3_1(e: Evidence) -> Iterator[Comparison]:
    backward = e.layers("plainnet_init/relu-bn", "backward_variance")
    steps, net = backward[:, :-1] / backward[:, 1:], backward[:, :1] / backward[:, -1:]
    # of one net the product telescopes; of expected ratios, as they are used, it is a statement
    value, se = jackknife(np.hstack([steps, net]), lambda mean: float(mean[:-1].prod() / mean[-1]))
    yield Comparison("product of the layers' mean R_b over the net's mean R_b", value, 1.0, se=se, tolerance=0.02)


def prop3_4(e: Evidence) -> Iterator[Comparison]:
    for direction in ("forward", "backward"):
        for k in (1, 4):
            values = e.samples(f"operators/linear-k{k}", direction)
            yield average(f"R_{direction[0]} over the formula, D = {k}d", values, 1.0)
            # the proposition is of one fixed W: dependent dimensions would show as a spread over W
            spread = float(np.sqrt(np.mean((values - 1) ** 2)))
            yield Comparison(
                f"its spread over W, D = {k}d, R_{direction[0]}", spread, 0.005, tolerance=0.0, relation="<="
            )


def cor3_7(e: Evidence) -> Iterator[Comparison]:
    for place in ("bn", "linear"):
        values = e.samples("operators/bn-128", f"at_{place}")
        yield Comparison(
            f"largest batch mean of the derivative at the {place}'s input", values.max(), 0.0, tolerance=1e-12
        )
    yield average("mean at the ReLU's input", e.samples("operators/bn-128", "at_relu"), 0.0)


def prop3_8(e: Evidence, batches: tuple[int, ...] = (16, 128)) -> Iterator[Comparison]:
    for batch in batches:
        z, square = (e.samples(f"operators/bn-{batch}", f"z_{name}") for name in ("mean", "second"))
        yield average(f"E z, B = {batch}", z, 1.0, propositions.bn_z_mean(batch))
        value, se = jackknife(np.stack([z, square], 1), lambda m: float(m[1] - m[0] ** 2))
        yield Comparison(f"Var z, B = {batch}", value, 2.0, propositions.bn_z_variance(batch), se=se)


def prop3_12(_: Evidence) -> Iterator[Comparison]:
    for name, activation in ACTIVATIONS.items():
        quotient = activation.variance / activation.slope
        relation = "=" if name == "Linear" else "<"
        yield Comparison(f"Var/E[s'^2] of {name}", quotient, 1.0, relation=relation)


def prop3_14(_: Evidence) -> Iterator[Comparison]:
    for law in LAWS.values():
        gap = propositions.shifted_relu_gap(law, 0.0)
        mean = law.absolute_mean
        yield Comparison(f"gap, {law.name}", gap, mean / 4, mean**2 / 4, relation=">=")


def propB_14(_: Evidence) -> Iterator[Comparison]:
    for law in LAWS.values():
        gap = propositions.shifted_relu_gap(law, 0.0)
        yield Comparison(f"gap, {law.name}", gap, law.absolute_mean**2 / 8, relation=">=")


def cor3_15(e: Evidence) -> Iterator[Comparison]:
    value, se = e.rate("plainnet_init/relu-bn", "backward_variance")
    yield Comparison(
        "factor of the gradient's variance per layer, ReLU + BN", value, C, se=se, tolerance=0.01, relation=">="
    )


def prop3_17(e: Evidence) -> Iterator[Comparison]:
    for depth in (20, 40, 80):
        variant, blocks = f"scaled_resnet_init/depth-{depth}", depth // 2
        branch = {}
        for way in ("forward", "backward"):
            block, branch[way] = (e.layers(variant, f"{part}_{way}")[:, 2::2].mean(1) for part in ("block", "branch"))
            # 5 % of the term: cov(x, F(x)) is not exactly 0 in a net of width 256
            rest = (block - 1) * blocks / branch[way]
            yield average(f"L (R_{way[0]}(block) - 1)/R_{way[0]}(F), L = {blocks}", rest, 1.0, tolerance=0.05)
        backward = e.layers(variant, "backward_variance")
        growth = np.log(backward[:, 0] / backward[:, -1])
        bound = float(branch["backward"].mean())
        yield average(f"log R_b(net), L = {blocks}", growth, bound, relation="<=")


def prop4_1(e: Evidence) -> Iterator[Comparison]:
    for k in (2, 4):
        for kind, ratios in (("untied", propositions.untied_ratios(k)), ("tied", propositions.tied_ratios(k))):
            for name, ratio in zip(("R_f", "R_b"), ratios, strict=True):
                values = e.samples(f"operators/module-{kind}-k{k}", name)
                # to O(1/D), D = 256 k
                yield average(f"{name}, {kind}, k = {k}", values, ratio, tolerance=4 / (256 * k))


def fc_module(e: Evidence) -> Iterator[Comparison]:
    for k in (2, 4):
        tied = (1 + 2 / k) / (1 + 2 / k * (1 - 1 / PI))
        for kind, paper in (("untied", C), ("r", tied)):
            value, se = e.rate(f"seqnet_init/k{k}-{kind}", "backward_variance", MODULES)
            yield Comparison(f"variance rate, {kind}, k = {k}", value, paper, se=se, tolerance=0.01 * paper)


def c3(e: Evidence) -> Iterator[Comparison]:
    for depth in (20, 40, 80):
        variant = f"resnet_init/depth-{depth}"
        block, branch = (
            [e.layers(variant, f"{part}_{way}")[:, 2::2] for way in ("backward", "forward")]
            for part in ("block", "branch")
        )
        quotient = (block[0] / block[1]) / ((1 + branch[0]) / (1 + branch[1]))
        for name, index in (("first", 0), ("last", -1)):
            yield average(
                f"{name} block's rate over the formula, depth {depth}", quotient[:, index], 1.0, tolerance=0.01
            )
    plain, residual = (
        jackknife(e.layers(v, "gradient_norm")[:, 1:], CURVE_STATISTICS["growth"])
        for v in ("plainnet_init/relu-bn", "resnet_init/depth-20")
    )
    yield Comparison("growth of ResNet20", residual[0], 1.0, se=residual[1], relation=">")
    yield Comparison(
        "growth of ResNet20 against PlainNet20",
        residual[0],
        plain[0],
        se=math.hypot(residual[1], plain[1]),
        relation="<",
    )


def propC_2(_: Evidence) -> Iterator[Comparison]:
    b, step = 0.01, 0.002
    for law in LAWS.values():
        mean, slope = law.absolute_mean, propositions.shifted_relu_slope(law)
        gap = propositions.shifted_relu_gap(law, b)
        # O(b^2) terms "can be ignored"
        numbers = (mean / 4 + slope * b, mean**2 / 4 + slope * b)
        yield Comparison(f"gap at b = {b}, {law.name}", gap, *numbers, tolerance=2 * b**2, relation=">=")
        ends = [propositions.shifted_relu_gap(law, shift) for shift in (step, -step)]
        difference = (ends[0] - ends[1]) / (2 * step)
        # a density with a kink at 0 leaves a term b|b|
        yield Comparison(f"linear coefficient, {law.name}", difference, slope, tolerance=step)


def rem3_5(e: Evidence) -> Iterator[Comparison]:
    for direction in ("forward", "backward"):
        # "quite well": 5 %; the first layer's input is independent by construction
        values = e.layers("plainnet_dependence/relu-bn", f"linear_{direction}")[:, 2:]
        for name, index in (("second", 0), ("last", -1)):
            yield average(f"R_{direction[0]} of the {name} layer over Prop. 3.4", values[:, index], 1.0, tolerance=0.05)


def rem3_9(e: Evidence) -> Iterator[Comparison]:
    batch = 128
    values = e.layers("plainnet_dependence/relu-bn", "derivative_correlation")
    for name, index in (("first", 1), ("last but one", -2)):
        paper = math.sqrt(2 / (PI * batch))
        yield average(f"mean |correlation| in the {name} layer", values[:, index], paper, tolerance=0.05 * paper)


def between_layers(y: np.ndarray) -> np.ndarray:
    """Nothing: the remark leaves the activations out."""
    return y


def rem3_16(_: Evidence) -> Iterator[Comparison]:
    rng, widths = np.random.default_rng(0), (256, 64, 512, 128)
    quotients = []
    for _repeat in range(64):
        weights = [rng.normal(size=(out, into)) for into, out in pairwise(widths)]
        x, of_y = rng.normal(size=(1024, widths[0])), rng.normal(size=(1024, widths[-1]))
        y, of_x = x, of_y
        for weight in weights:
            y = between_layers(y @ weight.T)
        for weight in reversed(weights):
            of_x = of_x @ weight
        forward, backward = y.var(0).mean() / x.var(0).mean(), of_x.var(0).mean() / of_y.var(0).mean()
        quotients.append(backward / forward)
    yield average("R_b/R_f of three linear layers", np.array(quotients), widths[-1] / widths[0])


def eq1(_: Evidence) -> Iterator[Comparison]:
    for name, printed in PRINTED_RATES.items():
        yield Comparison(f"r of {name}", ACTIVATIONS[name].rate, printed, tolerance=HALF_DIGIT)


def c1_maxpool(_: Evidence) -> Iterator[Comparison]:
    yield Comparison("R_f", maxpool_forward(), 0.492, tolerance=HALF_DIGIT)
    yield Comparison("R_b", maxpool_backward(), 0.25)


def relu_ratios(_: Evidence) -> Iterator[Comparison]:
    relu = ACTIVATIONS["ReLU"]
    yield Comparison("R_f", relu.variance, (1 - 1 / PI) / 2)
    yield Comparison("R_b", relu.slope, 0.5)


def c2_conceal(e: Evidence) -> Iterator[Comparison]:
    def growth(at: float) -> np.ndarray:
        """First weight's gradient norm over that of the last hidden layer, per seed."""
        norms = e.probe("conceal/plainnet20", "weight_gradient", at)
        return norms[:, 0] / norms[:, -2]

    def ratio(quantity: str, index: int) -> np.ndarray:
        before, after = (e.probe("conceal/plainnet20", quantity, at)[:, index] for at in (0, 5))
        return after / before

    yield extreme(
        "first over last gradient norm after 5 steps, over the same at initialization", growth(5) / growth(0), 0.5, "<="
    )
    yield extreme("norm of the first weight after 5 steps, over initialization", ratio("weight_norm", 0), 1.2, ">=")
    yield extreme(
        "variance before the second BN after 5 steps, over initialization", ratio("bn_variance", 1), 1.2, ">="
    )


def s6_vgg_input(e: Evidence) -> Iterator[Comparison]:
    def growth(net: str) -> np.ndarray:
        """log of the gradient's standard deviation at the image over that at the last BN, free of the classifier's
        scale."""
        variances = e.layers(f"vgg_input/{net}", "gradient_variance")
        return np.log(variances[:, 0] / variances[:, -1]) / 2

    vgg = growth("vgg16")
    for gamma, net, relation in ((0, "resnet50-zero-gamma", ">"), (1, "resnet50", "<")):
        resnet = growth(net)
        se = math.hypot(*(v.std(ddof=1) / len(v) ** 0.5 for v in (vgg, resnet)))
        name = f"log growth to the input, VGG16-BN less ResNet50 with gamma = {gamma}"
        signs = {"relation": ">", "corrected_relation": relation}
        yield Comparison(name, vgg.mean() - resnet.mean(), 0.0, 0.0, se=se, **signs)


def a_depth(e: Evidence) -> Iterator[Comparison]:
    for depth in (40, 80):
        selu, relu = (e.final(f"plain_depth/{name}-{depth}", "train_accuracy") for name in ("selu", "relu"))
        yield between_seeds(f"training accuracy at {depth} layers, SELU less ReLU, %", selu, relu, relation=">")


def b2_resnet_orth(e: Evidence) -> Iterator[Comparison]:
    gains = []
    for with_it, without in (("seqnet50", "seqnet50-free"), ("resnet50-orthogonal", "resnet50")):
        gains.append(e.final(f"imagenet/{with_it}", "test_accuracy") - e.final(f"imagenet/{without}", "test_accuracy"))
    yield between_seeds("gain of SeqNet50 less that of ResNet50, %", *gains, relation=">")


def _weight_rates(e: Evidence, variant: str, at: float) -> np.ndarray:
    """Fitted factor per convolution toward the input of the weights' gradient norms, the stem's left out, (seeds,)."""
    return np.array([fitted_rate(norms[1:]) for norms in e.probe(variant, "weight_gradient", at)])


def init_growth(e: Evidence) -> Iterator[Comparison]:
    plain = _weight_rates(e, "imagenet_init/plainnet50", 0)
    for net in ("ResNet50", "SeqNet50"):
        other = _weight_rates(e, f"imagenet_init/{net.lower()}", 0)
        yield between_seeds(f"growth a convolution, PlainNet50 less {net}", plain, other, relation=">")


def trained_growth(e: Evidence) -> Iterator[Comparison]:
    rates = (_weight_rates(e, f"imagenet/{net}", 50) for net in ("seqnet50", "resnet50"))
    yield between_seeds("growth a convolution, SeqNet50 less ResNet50", *rates, relation=">")


def convergence(e: Evidence) -> Iterator[Comparison]:
    for depth in (50, 101):
        for after, until, relation in ((0, 2, ">"), (10, 20, "<")):
            nets = (e.accuracy(f"imagenet/{f}{depth}", "train_accuracy", after, until) for f in ("seqnet", "resnet"))
            name = f"training accuracy, epochs {after} to {until}, SeqNet{depth} less ResNet{depth}, %"
            yield between_seeds(name, *nets, relation=relation)


def skip(e: Evidence) -> Iterator[Comparison]:
    for column, what in (("train_accuracy", "training"), ("test_accuracy", "validation")):
        nets = (e.accuracy(f"imagenet/{net}", column, 0, 100) for net in ("seqnet50-skip", "seqnet50"))
        yield between_seeds(f"mean {what} accuracy, Skip-SeqNet50 less SeqNet50, %", *nets, relation=">")
