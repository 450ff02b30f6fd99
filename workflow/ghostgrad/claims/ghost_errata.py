"""The errata of the Ghost paper (002, 000), each a function of the evidence; see workflow/claims/ghost_errata.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.measures import CURVE_STATISTICS, jackknife
from ghostgrad.claims.comparison import Comparison, average, between_seeds
from ghostgrad.claims.evidence import Evidence
from ghostgrad.claims.ghost import HALF_DIGIT, MODULES, PI, PRINTED_RATES, C, prop3_8
from ghostgrad.theory import costs, propositions
from ghostgrad.theory.activations import ACTIVATIONS, fixed_point, relu_maxpool_backward, relu_maxpool_forward
from ghostgrad.theory.quadrature import LAWS


def rectified(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def e_g1(_: Evidence) -> Iterator[Comparison]:
    for name, printed in PRINTED_RATES.items():
        activation = ACTIVATIONS[name]
        as_printed = activation.mean_slope**2 / activation.variance
        yield Comparison(f"r of {name}", printed, as_printed, activation.rate, tolerance=HALF_DIGIT)


def e_g3(e: Evidence) -> Iterator[Comparison]:
    for name, printed in PRINTED_RATES.items():
        value, se = e.rate(f"plainnet_init/{name.lower()}-bn")
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
    rates = {name: e.rate(f"plainnet_init/{name}") for name in ("relu", "tanh", "selu")}
    forward = e.layers("plainnet_init/relu", "forward_variance")
    ratios = forward[:, 1:] / forward[:, :-1]
    yield average("R_f of the first layer, ReLU without BN", ratios[:, 0], None, 1 - 1 / PI, tolerance=0.01)
    yield average("R_f of the last layer, ReLU without BN", ratios[:, -1], None, 0.8, corrected_relation=">")
    value, se = rates["relu"]
    # within 1 %: a net of width 256
    yield Comparison("factor per layer, ReLU without BN", value, math.sqrt(C), 1.0, se=se, tolerance=0.01)
    for other in ("tanh", "selu"):
        difference, error = value - rates[other][0], math.hypot(se, rates[other][1])
        signs = {"relation": ">", "corrected_relation": "<"}
        yield Comparison(f"ReLU's less {other}'s factor without BN", difference, 0.0, 0.0, se=error, **signs)


def e_g7(e: Evidence) -> Iterator[Comparison]:
    value, se = e.rate("plainnet_init/tanh", layers=slice(10, None))
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
    y = twice.T @ rectified(math.sqrt(2) * twice @ x)
    slope = float((x * y).sum() / (x * x).sum())
    yield Comparison("y/x with W = sqrt2 [R; -R], M = [R; -R]^T", slope, 1.0, math.sqrt(2))
    yield Comparison("largest |y - sqrt2 x|", float(np.abs(y - math.sqrt(2) * x).max()), None, 0.0, tolerance=1e-12)


def e_g17(e: Evidence) -> Iterator[Comparison]:
    rates = {kind: e.rate(f"seqnet_init/k2-{kind}", "backward_variance", MODULES) for kind in "orl"}
    se = math.hypot(rates["o"][1], rates["r"][1])
    relation = {"corrected_relation": ">"}
    yield Comparison("O-Init's less R-Init's rate, k = 2", rates["o"][0] - rates["r"][0], 0.0, 0.0, se=se, **relation)
    yield Comparison("L-Init's rate, k = 2", rates["l"][0], None, 1.0, se=rates["l"][1], tolerance=0.005)


def e_g21(_: Evidence) -> Iterator[Comparison]:
    (layers, ours), (_, theirs) = costs.seqnet50(), costs.resnet50()
    yield Comparison("weight layers of SeqNet50", layers, 50, 66)
    yield Comparison("multiply-adds of SeqNet50 over those of ResNet50", ours / theirs, 1.0, 2.0, tolerance=0.05)


def e_g25(e: Evidence) -> Iterator[Comparison]:
    for gamma, net in ((0, "resnet50-zero-gamma"), (1, "resnet50")):
        # place 1 is the stem's BN; then three of each block, the third being the one with that gamma
        variances = e.layers(f"vgg_input/{net}", "gradient_variance")[:, 2:]
        inside = np.delete(variances, np.s_[2::3], axis=1)
        corrected = {"corrected": 0.0} if gamma == 0 else {}
        name = f"largest gradient variance inside a branch of ResNet50, gamma = {gamma}"
        yield Comparison(name, float(inside.max()), 0.0, relation=">", tolerance=0.0, **corrected)


def e_g26(e: Evidence) -> Iterator[Comparison]:
    truth = relu_maxpool_forward(), relu_maxpool_backward()
    for name, printed, true in zip(("forward", "backward"), (0.492, 0.25), truth, strict=True):
        yield average(f"R_{name[0]} of ReLU and pool", e.samples("operators/pool", f"relu_pool_{name}"), printed, true)


def e_g20(e: Evidence) -> Iterator[Comparison]:
    for depth, corrected in (("50", {}), ("101", {"corrected": 0.0, "corrected_relation": "<"})):
        nets = (e.final(f"imagenet/{family}{depth}", "train_accuracy") for family in ("seqnet", "resnet"))
        name = f"training accuracy of SeqNet{depth} less ResNet{depth}'s, %"
        yield between_seeds(name, *nets, relation=">", tolerance=0.0, **corrected)


def e_g27(e: Evidence) -> Iterator[Comparison]:
    excess = []
    for family in ("plainnet_init", "plainnet_wide"):
        (with_bn, a), (without, b) = (e.rate(f"{family}/{name}") for name in ("selu-bn", "selu"))
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
