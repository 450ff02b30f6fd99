"""The claims of the Ghost paper about curves over layers (fig. 1, 5 and 10), one function each.

The curves are those of the gradient norm in plain and residual nets (002; 000 is the tiny-paper
version). The statements and the runs are in workflow/claims/ghost_curves.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from ghostgrad.analysis.statistics import (
    Estimate,
    FloatArray,
    depth_exponent,
    fit_growth_rate,
    jackknife,
    line_r_squared,
    mean_estimate,
    total_growth,
)
from ghostgrad.checks import InputError
from ghostgrad.claims.comparison import Comparison, from_estimate, growth
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory.activations import ACTIVATIONS

PRINTED_RATES = {"SELU": 1.072, "Tanh": 1.178, "ReLU": 1.467}  # of the variance, app. A
EXPLODING = 1.02  # per layer: growth by a half over 20 layers, which counts as an explosion


def gradient_norms(evidence: Evidence, variant: str) -> FloatArray:
    """The gradient norms of the weights, (repeats, layers)."""
    return evidence.layers(variant, "gradient_norm")[:, 1:]  # index 0 is the input


def side_by_side(*norms: FloatArray) -> FloatArray:
    """The gradient norms of several nets, (repeats, layers) each, as (repeats, layers of all).

    A repeat draws its inputs and weights from the same stream in every net, so the nets depend on
    each other, and the jackknife has to leave a repeat out of all of them together. InputError if
    the numbers of repeats differ.
    """
    repeats = [len(of_net) for of_net in norms]
    if len(set(repeats)) > 1:
        found = " and ".join(map(str, repeats))
        raise InputError(f"repeats: nets that are compared need equally many, found {found}")
    return np.hstack(norms)


def plain_exponential(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and fig. 1 left, the shape of PlainNet20's curve."""
    norms = gradient_norms(evidence, "plainnet_init/relu-bn")
    fit = jackknife(norms, partial(line_r_squared, logarithmic=True))
    yield from_estimate("R^2 of an exponential, PlainNet20", fit, 0.99, relation=">")
    total = jackknife(norms, total_growth).logarithm()
    yield from_estimate("log of the growth of PlainNet20", total, 0.0, relation=">")


def depth(evidence: Evidence) -> Iterator[Comparison]:
    """000 sec. 1, the gradient of the first layer of plain nets of 20 and of 40 layers."""

    def increase(curves: FloatArray) -> float:
        """The norm at the first layer of the net of 40 layers over that of the net of 20."""
        return float(curves[20] / curves[0])

    def excess(curves: FloatArray) -> float:
        """The factor per added layer less that per layer of the net of 20."""
        return float(increase(curves) ** (1 / 20)) - fit_growth_rate(curves[:20])

    nets = ("plainnet_init/relu-bn", "plainnet_init/relu-bn-40")
    curves = side_by_side(*(gradient_norms(evidence, net) for net in nets))
    name = "log of the first layer's norm, 40 layers over 20"
    yield from_estimate(name, jackknife(curves, increase).logarithm(), 0.0, relation=">")
    tolerance = 0.05 * (fit_growth_rate(curves[:, :20].mean(0)) - 1)
    name = "factor per added layer less that per layer of the net of 20"
    yield from_estimate(name, jackknife(curves, excess), 0.0, relation="~", tolerance=tolerance)


def linear_bn(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 3.1, a plain net of linear layers and BN alone."""
    rate = evidence.growth_rate("plainnet_init/linear-bn")
    yield from_estimate("factor per layer, linear layers with BN", rate, EXPLODING, relation="<")


def _line_preference(curve: FloatArray) -> float:
    """R^2 of a line through the curve less that of an exponential."""
    return line_r_squared(curve, logarithmic=False) - line_r_squared(curve, logarithmic=True)


def _power_preference(curve: FloatArray) -> float:
    """R^2 of a power of the layer's index, from 1, less that of an exponential."""
    logarithm, index = np.log(curve), np.log(np.arange(len(curve)) + 1)
    power = float(np.corrcoef(index, logarithm)[0, 1]) ** 2
    return power - line_r_squared(curve, logarithmic=True)


def residual_linear(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and fig. 1 left, the shape of the curve within residual nets."""
    for depth in (20, 40, 80):
        norms = gradient_norms(evidence, f"resnet_init/depth-{depth}")
        for label, shape in (("line", _line_preference), ("power of the index", _power_preference)):
            name = f"R^2 of a {label} less that of an exponential, ResNet{depth}"
            extension = depth != 20 or shape is _power_preference
            difference = jackknife(norms, shape)
            yield from_estimate(name, difference, 0.0, relation=">", extension=extension)


def residual_depth(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and fig. 10, the exponent of growth ~ depth^p between two depths of residual nets."""
    norms = {
        depth: gradient_norms(evidence, f"resnet_init/depth-{depth}") for depth in (20, 40, 80)
    }
    for shallow, deep in pairwise(norms):
        curves = side_by_side(norms[shallow], norms[deep])
        exponent = jackknife(curves, partial(depth_exponent, shallow_depth=shallow))
        name = f"exponent of the growth against the depth, {shallow} to {deep} layers"
        yield from_estimate(name, exponent, 1.0, relation="~", tolerance=0.5)


def deepest_close(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 1 and fig. 1 left, the norms at the last layer."""
    residual, plain = (
        mean_estimate(gradient_norms(evidence, variant)[:, -1]).logarithm()
        for variant in ("resnet_init/depth-20", "plainnet_init/relu-bn")
    )
    name = "log of the norm at the last layer, ResNet20 less PlainNet20"
    difference = residual.minus(plain)
    yield from_estimate(name, difference, 0.0, relation="~", tolerance=math.log(1.5))


def fig5_order(evidence: Evidence) -> Iterator[Comparison]:
    """App. A and fig. 5, the order of the rates with BN."""
    rates = {
        name: evidence.growth_rate(f"plainnet_init/{name.lower()}-bn")
        for name in ("SELU", "Tanh", "ReLU")
    }
    for smaller, larger in pairwise(rates):
        name = f"factor per layer with BN, {larger} less {smaller}"
        yield from_estimate(name, rates[larger].minus(rates[smaller]), 0.0, relation=">")


def fig5_rates(evidence: Evidence) -> Iterator[Comparison]:
    """App. A and A.1, the factors of the norm with BN, extrapolated to an infinite net.

    The leading finite-size terms are of order 1/width and 1/batch. Both halve in a net of twice the
    width and batch, so that twice its factor less that of the original one is without them.
    """
    for activation in PRINTED_RATES:
        narrow, wide = (
            evidence.growth_rate(f"{family}/{activation.lower()}-bn")
            for family in ("plainnet_init", "plainnet_wide")
        )
        limit = wide.times(2).minus(narrow)
        name = f"factor per layer with BN, extrapolated, {activation}"
        yield growth(name, limit, ACTIVATIONS[activation].growth_rate ** 0.5, relation="~")


def excess_with_bn(evidence: Evidence, experiment: str, activation: str) -> Estimate:
    """The factor per layer of a plain net with BN less that of the same net without."""

    def excess(curves: FloatArray) -> float:
        with_bn, without = np.split(curves, 2)
        return fit_growth_rate(with_bn) - fit_growth_rate(without)

    nets = (f"{experiment}/{activation}{bn}" for bn in ("-bn", ""))
    return jackknife(side_by_side(*(gradient_norms(evidence, net) for net in nets)), excess)


def bn_rates(evidence: Evidence) -> Iterator[Comparison]:
    """App. A, BN increases the rates."""
    for activation in PRINTED_RATES:
        excess = excess_with_bn(evidence, "plainnet_init", activation.lower())
        name = f"factor per layer with BN less without, {activation}"
        yield from_estimate(name, excess, 0.0, relation=">")
