"""The claims of the Ghost paper (002; 000 is its tiny-paper version), one function each.

The statements and the runs are in workflow/claims/ghost.yaml. The module `ghost_images` has the
claims about networks of images, `ghost_curves` those about the gradient norm over the layers of
plain and residual nets, and `ghost_errata` the places that look wrong. R_f and R_b of an operator
are the factors by which it multiplies the variance of the signal and, on the way back, of the
derivative (Def. 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.statistics import (
    Estimate,
    FloatArray,
    fit_growth_rate,
    jackknife,
    mean_estimate,
    total_growth,
)
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import (
    Comparison,
    Criteria,
    Relation,
    average,
    from_estimate,
    growth,
)
from ghostgrad.claims.evidence import Evidence
from ghostgrad.claims.ghost_curves import PRINTED_RATES, gradient_norms
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import (
    ACTIVATIONS,
    RELU_GROWTH_RATE,
    maxpool_backward_ratio,
    maxpool_forward_ratio,
)
from ghostgrad.theory.quadrature import LAWS

HALF_DIGIT = 0.0005  # half of the last printed digit
MODULES = slice(None, None, 2)  # the module boundaries of a SeqNet, whose modules have two layers
WIDTH, BATCH = 256, 128  # of the simulations
LINEAR_BATCH = 1024  # of the sampled linear layers


# --- section 3 ---


def def3_1(evidence: Evidence) -> Iterator[Comparison]:
    """Def. 3.1, the ratios of a chain are products, for R_b in a plain net.

    For one net the product telescopes and says nothing. For expected ratios, which is how we read
    Cor. 3.15, it is a statement: the product of the layers' means against the net's mean.
    """
    backward = evidence.layers("plainnet_init/relu-bn", "backward_variance")
    ratios, net = backward[:, :-1] / backward[:, 1:], backward[:, :1] / backward[:, -1:]

    def log_quotient(mean: FloatArray) -> float:
        return float(np.log(mean[:-1]).sum() - np.log(mean[-1]))

    name = "log of the product of the layers' mean R_b over the net's mean R_b"
    estimate = jackknife(np.hstack([ratios, net]), log_quotient)
    yield from_estimate(name, estimate, 0.0, relation="~", tolerance=0.02)


def prop3_4(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 3.4, R_f and R_b of a linear layer.

    The proposition holds for each fixed W. Dependent dimensions would leave the mean over W at 1
    and show as a spread over W beyond that of the finite batch, whose variance is 2/(B n) for n
    independent outputs.
    """
    for direction in ("forward", "backward"):
        for k in (1, 4):
            values = evidence.samples(f"operators/linear-k{k}", direction)
            ratio = f"R_{direction[0]} over the formula, D = {k}d"
            yield average(ratio, values, 1.0)
            outputs = WIDTH * (k if direction == "forward" else 1)
            squares = mean_estimate((values - 1) ** 2 * LINEAR_BATCH * outputs / 2)
            name = f"log of the squared spread over that of the finite batch, {ratio}"
            logarithm = squares.logarithm()
            yield from_estimate(name, logarithm, 0.0, relation="<=", tolerance=math.log(3))


def rem3_5(evidence: Evidence) -> Iterator[Comparison]:
    """Rem. 3.5, Prop. 3.4 inside a deep net."""
    for direction in ("forward", "backward"):
        # The input of the first layer is independent by construction, so the second comes first.
        values = evidence.layers("plainnet_dependence/relu-bn", f"linear_{direction}")[:, 2:]
        for layer, index in (("second", 0), ("last", -1)):
            name = f"R_{direction[0]} of the {layer} layer over Prop. 3.4"
            yield average(name, values[:, index], 1.0, relation="~", tolerance=0.05)


def cor3_7(evidence: Evidence) -> Iterator[Comparison]:
    """Cor. 3.7, derivatives before a BN have mean zero, in units of their root mean square."""
    for place, layer in (("bn", "BN"), ("linear", "linear layer")):
        values = evidence.samples("operators/bn-128", f"at_{place}")
        name = f"largest batch mean of the derivative at the {layer}'s input"
        yield Comparison(name, values.max(), 0.0, tolerance=1e-12)
    # At the input of ReLU the batch mean is zero only in expectation.
    values = evidence.samples("operators/bn-128", "at_relu")
    yield average("mean at the ReLU's input", values, 0.0, resolution=0.005)


def prop3_8(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 3.8, mean and variance of z in R_b(BN) = (1 - z/B)/sigma^2.

    The statement is for a large batch. The small one is shown beside the exact numbers and not
    judged. The resolution is a tenth, because z varies much from repeat to repeat.
    """
    for batch in (16, BATCH):
        z, z_squared = (
            evidence.samples(f"operators/bn-{batch}", f"z_{k}") for k in ("mean", "second")
        )
        moments = np.stack([z, z_squared], 1)
        # The error of a variance rises with the variance, and that of its logarithm does not.
        variance = jackknife(moments, lambda mean: math.log(mean[1] - mean[0] ** 2))
        exact = math.log(propositions.bn_z_variance(batch))
        for name, estimate, number, corrected in (
            (f"E z, B = {batch}", mean_estimate(z), 1.0, propositions.bn_z_mean(batch)),
            (f"log of Var z, B = {batch}", variance, math.log(2.0), exact),
        ):
            if batch < BATCH:
                yield from_estimate(name, estimate, number, extension=True)
                yield from_estimate(f"{name}, exact", estimate, corrected, extension=True)
            else:
                criteria = Criteria(relation="~", tolerance=4 / batch, resolution=0.1)
                yield from_estimate(name, estimate, number, **criteria)


def rem3_9(evidence: Evidence) -> Iterator[Comparison]:
    """Rem. 3.9, correlation over the batch of a neuron with its derivative.

    Two independent vectors of length B have the mean absolute correlation sqrt(2/(pi B)), 0.07. In
    the first two comparisons the derivative on top is drawn at random, independently of the inputs.
    In the others the loss is half the squared distance of the output to the inputs, which are the
    targets.
    """
    values = evidence.layers("plainnet_dependence/relu-bn", "derivative_correlation")
    independent = math.sqrt(2 / (math.pi * BATCH))
    for layer, index in (("first", 1), ("last but one", -2)):
        name = f"mean |correlation| in the {layer} layer, random derivative on top"
        criteria = Criteria(relation="~", tolerance=0.05 * independent)
        yield average(name, values[:, index], independent, **criteria)
    for rectify in (True, False):
        case = "the inputs as targets" if rectify else "the same without ReLU"
        values = evidence.compute(
            "Monte Carlo",
            layers.correlate_with_derivative,
            WIDTH,
            BATCH,
            depth=20,
            rectify=rectify,
        )
        for layer, index in (("first", 1), ("tenth", 10)):
            name = f"mean |correlation| in the {layer} layer, {case}"
            yield average(name, values[:, index], 0.1, relation="<", extension=not rectify)


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
    """Prop. B.14 of the tiny-paper version, whose bound of the same gap is right, and the equality
    in its proof."""
    for law in LAWS.values():
        gap, square = propositions.shifted_relu_gap(law, 0.0), law.absolute_mean**2
        yield Comparison(f"gap, {law.name}", gap, square / 8, relation=">=")
        yield Comparison(f"gap by the proof, {law.name}", gap, square / 4)


def cor3_15(evidence: Evidence) -> Iterator[Comparison]:
    """Cor. 3.15, exponential growth of R_b/R_f in plain nets with BN.

    From layer k to the output R_b/R_f is the product of the two variances at k over that at the
    output.
    """
    for activation in PRINTED_RATES:
        backward, forward = (
            evidence.layers(f"plainnet_init/{activation.lower()}-bn", f"{direction}_variance")[
                :, 1:
            ]
            for direction in ("backward", "forward")
        )
        rate = jackknife(backward * forward, fit_growth_rate)
        name = f"factor of R_b/R_f per layer, {activation} + BN"
        yield growth(name, rate, ACTIVATIONS[activation].growth_rate, relation=">=")


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
    """Prop. 3.17, residual blocks scaled by 1/sqrt(L), and the bound of the whole net.

    The ratio of the net is the product of 1 + R(F)/L over its L blocks, whose logarithm is at most
    the mean of R(F).
    """
    for depth in (20, 40, 80):
        variant, blocks = f"scaled_resnet_init/depth-{depth}", depth // 2
        for direction in ("forward", "backward"):
            block, branch = (
                evidence.layers(variant, f"{part}_{direction}")[:, 2::2].mean(1)
                for part in ("block", "branch")
            )
            quotient = (block - 1) * blocks / branch
            name = f"L (R_{direction[0]}(block) - 1)/R_{direction[0]}(F), L = {blocks}"
            yield average(name, quotient, 1.0, relation="~", tolerance=0.05)
            variances = evidence.layers(variant, f"{direction}_variance")
            net = np.log(variances[:, -1] / variances[:, 0])
            excess = (net if direction == "forward" else -net) - branch
            name = f"log R_{direction[0]}(net) less R_{direction[0]}(F), L = {blocks}"
            yield average(name, excess, 0.0, relation="<=")


def relu_ratios(_: Evidence) -> Iterator[Comparison]:
    """Sec. 3.1, R_f and R_b of ReLU, by quadrature."""
    relu = ACTIVATIONS["ReLU"]
    yield Comparison("R_f", relu.variance, (1 - 1 / math.pi) / 2)
    yield Comparison("R_b", relu.mean_squared_derivative, 0.5)


# --- section 4: SeqNet modules ---


def prop4_1(evidence: Evidence) -> Iterator[Comparison]:
    """Prop. 4.1, the ratios of tied and untied modules.

    The proof prints a term 3/D that the proposition leaves out, with D = 256 k. The tolerance is
    twice that, and the resolution once.
    """
    for k in (2, 4):
        term = 3 / (WIDTH * k)
        kinds = (("untied", propositions.untied_ratios(k)), ("tied", propositions.tied_ratios(k)))
        for kind, ratios in kinds:
            for name, ratio in zip(("R_f", "R_b"), ratios, strict=True):
                values = evidence.samples(f"operators/module-{kind}-k{k}", name)
                criteria = Criteria(relation="~", tolerance=2 * term, resolution=term)
                yield average(f"{name}, {kind}, k = {k}", values, ratio, **criteria)


def fc_module(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 4.1, growth over a stack of modules: R_b/R_f of Prop. 4.1 per module.

    Of the tied modules the paper says only that their rate is much smaller. The quotient of
    Prop. 4.1 is that of one module with Gaussian inputs, which only the first of a stack has.
    """

    def excess(kind: str) -> Estimate:
        """The factor per module of R_b/R_f, less 1; BN holds the forward variance at 1."""
        rate = evidence.growth_rate(f"seqnet_init/{kind}", "backward_variance", MODULES)
        return rate.minus(Estimate(1.0, 0.0, math.inf))

    for k in (2, 4):
        untied, tied = excess(f"k{k}-untied"), excess(f"k{k}-r")
        number = RELU_GROWTH_RATE - 1
        name = f"factor per module less 1, untied, k = {k}"
        yield from_estimate(name, untied, number, relation="~", tolerance=0.05 * number)
        name = f"the same of tied modules less half that of untied ones, k = {k}"
        yield from_estimate(name, tied.minus(untied.times(0.5)), 0.0, relation="<")
        forward, backward = propositions.tied_ratios(k)
        number = backward / forward - 1
        name = f"the same of tied modules, k = {k}"
        criteria = Criteria(relation="~", tolerance=0.05 * number, extension=True)
        yield from_estimate(name, tied, number, **criteria)


# --- appendices A and C ---


def eq1(_: Evidence) -> Iterator[Comparison]:
    """App. A, the printed numbers of eq. 1. They are those of the corrected formula (E-G1)."""
    for name, printed in PRINTED_RATES.items():
        rate = ACTIVATIONS[name].growth_rate
        yield Comparison(f"r of {name}", rate, printed, tolerance=HALF_DIGIT)


def c1_maxpool(_: Evidence) -> Iterator[Comparison]:
    """App. C.1, the ratios of max-pooling, by quadrature."""
    yield Comparison("R_f", maxpool_forward_ratio(), 0.492, tolerance=HALF_DIGIT)
    yield Comparison("R_b", maxpool_backward_ratio(), 0.25)


def c3(evidence: Evidence) -> Iterator[Comparison]:
    """App. C.3, vanilla residual nets: R_b/R_f of a block, and growth against a plain net."""
    for depth in (20, 40, 80):
        variant = f"resnet_init/depth-{depth}"
        block_backward, block_forward, branch_backward, branch_forward = (
            evidence.layers(variant, f"{part}_{direction}")[:, 2::2]
            for part in ("block", "branch")
            for direction in ("backward", "forward")
        )
        formula = (1 + branch_backward) / (1 + branch_forward)
        difference = block_backward / block_forward - formula
        for where, part in (("of the first block", slice(1)), ("over all blocks", slice(None))):
            name = f"R_b/R_f {where} less the formula, depth {depth}"
            tolerance = 0.05 * float(formula[:, part].mean() - 1)
            yield average(name, difference[:, part].mean(1), 0.0, tolerance=tolerance)
    for depth, plain_variant in ((20, "relu-bn"), (40, "relu-bn-40")):
        residual, plain = (
            jackknife(gradient_norms(evidence, variant), total_growth).logarithm()
            for variant in (f"resnet_init/depth-{depth}", f"plainnet_init/{plain_variant}")
        )
        yield from_estimate(f"log growth of ResNet{depth}", residual, 0.0, relation=">")
        name = f"log growth, ResNet{depth} less PlainNet{depth}"
        yield from_estimate(name, residual.minus(plain), 0.0, relation="<")


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
