"""The claims of the Ghost paper (002 and 000), each a function of the evidence; see workflow/claims/ghost.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.claims.comparison import Comparison, average, extreme
from ghostgrad.claims.evidence import Evidence
from ghostgrad.measures import CURVE_STATISTICS, fitted_rate, jackknife
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    fixed_point,
    maxpool_backward,
    maxpool_forward,
    relu_maxpool_backward,
    relu_maxpool_forward,
)
from ghostgrad.theory.quadrature import LAWS

PI = math.pi
C = PI / (PI - 1)
PRINTED_RATES = {"SELU": 1.072, "Tanh": 1.178, "ReLU": 1.467}
HALF_DIGIT = 0.0005


def _rate(e: Evidence, variant: str, column: str = "gradient_norm") -> tuple[float, float]:
    """The fitted factor per layer of the mean over repeats, and its standard error."""
    return jackknife(e.layers(variant, column)[:, 1:], fitted_rate)


def def3_1(e: Evidence) -> Iterator[Comparison]:
    backward = e.layers("plainnet_init/relu-bn", "backward_variance")
    steps = backward[:, :-1] / backward[:, 1:]
    net = backward[:, 0] / backward[:, -1]
    yield average("product of the layers' R_b over the net's", steps.prod(1) / net, 1.0, tolerance=1e-6)


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
        relation = "=" if name == "Linear" else "<="
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
    value, se = _rate(e, "plainnet_init/relu-bn", "backward_variance")
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
            boundaries = e.layers(f"seqnet_init/k{k}-{kind}", "backward_variance")[:, ::2]
            value, se = jackknife(boundaries, fitted_rate)
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


def rem3_16(_: Evidence) -> Iterator[Comparison]:
    rng, widths = np.random.default_rng(0), (256, 64, 512, 128)
    quotients = []
    for _repeat in range(64):
        weights = [rng.normal(size=(out, into)) for into, out in pairwise(widths)]
        x, of_y = rng.normal(size=(1024, widths[0])), rng.normal(size=(1024, widths[-1]))
        y, of_x = x, of_y
        for weight in weights:
            y = y @ weight.T
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
        places = (0, e.places(f"vgg_input/{net}") - 1)
        image, last = (e.samples(f"vgg_input/{net}", "gradient_variance", place) for place in places)
        return np.log(image / last) / 2

    vgg, resnet = growth("vgg16"), growth("resnet50")
    se = math.hypot(*(v.std(ddof=1) / len(v) ** 0.5 for v in (vgg, resnet)))
    signs = {"relation": ">", "corrected_relation": "<"}
    yield Comparison(
        "log growth to the input, VGG16-BN less ResNet50", vgg.mean() - resnet.mean(), 0.0, 0.0, se=se, **signs
    )


# --- errata ---


def e_g1(_: Evidence) -> Iterator[Comparison]:
    for name, printed in PRINTED_RATES.items():
        activation = ACTIVATIONS[name]
        as_printed = activation.mean_slope**2 / activation.variance
        yield Comparison(f"r of {name}", printed, as_printed, activation.rate, tolerance=HALF_DIGIT)


def e_g3(e: Evidence) -> Iterator[Comparison]:
    for name, printed in PRINTED_RATES.items():
        value, se = _rate(e, f"plainnet_init/{name.lower()}-bn")
        yield Comparison(f"factor of the norm per layer, {name}", value, printed, printed**0.5, se=se, tolerance=0.01)


def e_g4(_: Evidence) -> Iterator[Comparison]:
    law = LAWS["Gaussian"]
    numbers = (law.absolute_mean / 4, 1 / (2 * PI))
    yield Comparison("gap of a Gaussian", propositions.shifted_relu_gap(law, 0.0), *numbers, relation=">=")


def e_g5(_: Evidence) -> Iterator[Comparison]:
    b = 1e-3
    for name in ("uniform", "Laplace"):
        law = LAWS[name]
        mean, width = law.absolute_mean, 4 * abs(law.absolute_mean - 2 * law.density(0.0))
        slope = (propositions.shifted_relu_gap(law, b) - propositions.shifted_relu_gap(law, -b)) / (2 * b)
        ours = propositions.shifted_relu_gap(law, 0.0) / 2 / abs(slope)
        yield Comparison(
            f"|b| at which the linear term is half the gap, {name}",
            ours,
            mean / width,
            mean**2 / width,
            tolerance=0.005 * ours,
        )


def e_g6(e: Evidence) -> Iterator[Comparison]:
    rates = {name: _rate(e, f"plainnet_init/{name}") for name in ("relu", "tanh", "selu")}
    value, se = rates["relu"]
    # within 1 %: a net of width 256
    yield Comparison("factor per layer, ReLU without BN", value, math.sqrt(C), 1.0, se=se, tolerance=0.01)
    for other in ("tanh", "selu"):
        difference, error = value - rates[other][0], math.hypot(se, rates[other][1])
        signs = {"relation": ">", "corrected_relation": "<"}
        yield Comparison(f"ReLU's less {other}'s factor without BN", difference, 0.0, 0.0, se=error, **signs)


def e_g7(e: Evidence) -> Iterator[Comparison]:
    settled = e.layers("plainnet_init/tanh", "gradient_norm")[:, 10:]
    value, se = jackknife(settled, fitted_rate)
    tanh = ACTIVATIONS["Tanh"]
    q = fixed_point(tanh, 2.0)
    truth = math.sqrt(2 * tanh.at(std=math.sqrt(q)).slope)
    yield Comparison(
        "factor per layer of layers 10 to 20, Tanh without BN", value, math.sqrt(1.178), truth, se=se, tolerance=0.01
    )


def e_g8(e: Evidence) -> Iterator[Comparison]:
    yield from prop3_8(e, (16,))  # where few repeats tell 1 from B/(B-1)
    numbers = propositions.bn_z_by_quadrature(128)
    for name, ours, printed, formula in zip(
        ("E z", "Var z"), numbers, (1.0, 2.0), (propositions.bn_z_mean, propositions.bn_z_variance), strict=True
    ):
        yield Comparison(f"{name}, B = 128, by quadrature", ours, printed, formula(128))


def e_g9(e: Evidence) -> Iterator[Comparison]:
    excess = {}
    for depth in (20, 40, 80):
        variant = f"scaled_resnet_init/depth-{depth}"
        backward = e.layers(variant, "backward_variance")
        branch = e.layers(variant, "branch_backward")[:, 2::2].mean(1)
        excess[depth] = (branch.mean() - 1, branch.std(ddof=1) / len(branch) ** 0.5)
        growth = np.log(backward[:, 0] / backward[:, -1])
        bound = float(branch.mean())
        yield average(f"log R_b(net), L = {depth // 2}", growth, None, bound, corrected_relation="<=")
    (first, a), (last, b) = excess[20], excess[80]
    se = last / first * math.hypot(a / first, b / last)
    more = {"relation": "<=", "corrected_relation": ">"}
    yield Comparison(
        "R_b(F) - 1 at L = 40 over that at L = 10", last / first, 0.25, 0.25, se=se, tolerance=0.05, **more
    )


def e_g10(e: Evidence) -> Iterator[Comparison]:
    logs = []
    for depth in (20, 40, 80):
        value, se = jackknife(
            e.layers(f"resnet_init/depth-{depth}", "gradient_norm")[:, 1:], CURVE_STATISTICS["growth"]
        )
        logs.append((math.log(value), se / value))
    (g20, a), (g40, b), (g80, c) = logs
    # an exponential's logarithm doubles with the depth; a power law's grows by the same step as before, here roughly
    se = math.hypot(c, 2 * b, a)
    yield Comparison("log growth of depth 80", g80, 2 * g40, 2 * g40 - g20, se=se, tolerance=0.1)


def e_g11(e: Evidence) -> Iterator[Comparison]:
    for name, ratio in zip(("R_f", "R_b"), propositions.tied_ratios(2), strict=True):
        values = e.samples("operators/module-small-k2", name)
        yield average(f"{name}, tied, k = 2, N(0, 1/D)", values, ratio, ratio / 4, tolerance=4 / 512)


def e_g12(e: Evidence) -> Iterator[Comparison]:
    d, k = 256, 2
    wide = k * d
    variant = f"operators/module-tied-k{k}"
    yield average("Var of a column's squared norm", e.samples(variant, "column_spread"), 4 / wide, 8 / wide)
    # in a narrow module, where 2/d is not small
    values = e.samples("operators/module-narrow-k2", "absolute_trace")
    yield average("tr(W^T M W)/d, d = 16", values, 4 * 16 / 32, 4 * 18 / 32)
    values = e.samples(variant, "R_b")
    moments = np.stack([values, values**2], 1)
    spread, se = jackknife(moments, lambda m: float(m[1] - m[0] ** 2))
    truth = propositions.tied_backward_variance(k, wide)
    yield Comparison("Var[R_b]", spread, 8 / wide**2, truth, se=se, tolerance=0.02 * truth, relation="<")


def e_g14(_: Evidence) -> Iterator[Comparison]:
    rng = np.random.default_rng(0)
    r = np.linalg.qr(rng.normal(size=(32, 16)))[0]
    twice = np.concatenate([r, -r])
    x = rng.normal(size=(16, 1000))
    y = twice.T @ np.maximum(math.sqrt(2) * twice @ x, 0)
    slope = float((x * y).sum() / (x * x).sum())
    yield Comparison("y/x with W = sqrt2 [R; -R], M = [R; -R]^T", slope, 1.0, math.sqrt(2))
    yield Comparison("largest |y - sqrt2 x|", float(np.abs(y - math.sqrt(2) * x).max()), None, 0.0, tolerance=1e-12)


def e_g17(e: Evidence) -> Iterator[Comparison]:
    rates = {
        kind: jackknife(e.layers(f"seqnet_init/k2-{kind}", "backward_variance")[:, ::2], fitted_rate) for kind in "orl"
    }
    se = math.hypot(rates["o"][1], rates["r"][1])
    relation = {"corrected_relation": ">"}
    yield Comparison("O-Init's less R-Init's rate, k = 2", rates["o"][0] - rates["r"][0], 0.0, 0.0, se=se, **relation)
    yield Comparison("L-Init's rate, k = 2", rates["l"][0], None, 1.0, se=rates["l"][1], tolerance=0.005)


def e_g26(e: Evidence) -> Iterator[Comparison]:
    truth = relu_maxpool_forward(), relu_maxpool_backward()
    for name, printed, true in zip(("forward", "backward"), (0.492, 0.25), truth, strict=True):
        yield average(f"R_{name[0]} of ReLU and pool", e.samples("operators/pool", f"relu_pool_{name}"), printed, true)


def e_g27(e: Evidence) -> Iterator[Comparison]:
    excess = []
    for family in ("plainnet_init", "plainnet_wide"):
        (with_bn, a), (without, b) = (_rate(e, f"{family}/{name}") for name in ("selu-bn", "selu"))
        excess.append((with_bn - without, math.hypot(a, b)))
    (narrow, a), (wide, b) = excess
    # of order 1/width and 1/batch: half at twice the size; an effect of BN itself would stay
    yield Comparison(
        "SELU: excess of the rate with BN, twice the size over once",
        wide / narrow,
        1.0,
        0.5,
        se=math.hypot(a, b) / narrow,
        tolerance=0.1,
    )
