"""Closed forms and quadrature for Gaussian pre-activations (Ghost sec. 3.1, app. A and C.1).

E[f(X)], X ~ N(0, 1), is integrated piecewise between the kinks of f with an absolute error below 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

REACH = 39.0  # beyond it the density is 0 in double precision

Function = Callable[[float], float]

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def density(x: float) -> float:
    """The standard normal density."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gaussian_mean(f: Function, kinks: tuple[float, ...] = ()) -> float:
    """E[f(X)] for X ~ N(0, 1)."""
    from scipy.integrate import quad

    edges = [-REACH, *sorted({-5.0, 5.0, *kinks}), REACH]  # a narrow middle, so that the bulk cannot be missed
    pieces = pairwise(edges)
    return sum(quad(lambda x: f(x) * density(x), a, b, epsabs=1e-10, epsrel=1e-10)[0] for a, b in pieces)


@dataclass(frozen=True)
class Activation:
    """An element-wise nonlinearity s, its derivative and the places where the derivative jumps."""

    value: Function
    derivative: Function
    kinks: tuple[float, ...] = ()

    @property
    def variance(self) -> float:
        """Var[s(X)], the forward ratio R_f of a unit Gaussian input (Ghost sec. 3.1)."""
        return gaussian_mean(lambda x: self.value(x) ** 2, self.kinks) - gaussian_mean(self.value, self.kinks) ** 2

    @property
    def slope(self) -> float:
        """E[s'(X)^2], the backward ratio R_b."""
        return gaussian_mean(lambda x: self.derivative(x) ** 2, self.kinks)

    @property
    def mean_slope(self) -> float:
        """E[s'(X)]."""
        return gaussian_mean(self.derivative, self.kinks)

    @property
    def rate(self) -> float:
        """r = E[s'(X)^2] / Var[s(X)], the growth of the gradient's variance per layer (Ghost eq. 1, corrected); its
        norm grows by sqrt(r)."""
        return self.slope / self.variance


ACTIVATIONS = {
    "ReLU": Activation(lambda x: max(x, 0.0), lambda x: float(x > 0), (0.0,)),
    "SELU": Activation(
        lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * math.expm1(x)),
        lambda x: SELU_SCALE * (1.0 if x > 0 else SELU_ALPHA * math.exp(x)),
        (0.0,),
    ),
    "Tanh": Activation(math.tanh, lambda x: 1 - math.tanh(x) ** 2),
}


def distribution(x: float) -> float:
    """The standard normal distribution function Phi."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def maxpool_forward(n: int = 4) -> float:
    """R_f of the maximum of n independent N(0, 1): its variance, from the density n phi Phi^(n-1) (Ghost app. C.1)."""

    def moment(power: int) -> float:
        return gaussian_mean(lambda x: n * x**power * distribution(x) ** (n - 1))

    return moment(2) - moment(1) ** 2


def maxpool_backward(n: int = 4) -> float:
    """R_b of the same: an input receives the derivative where it is the largest, with probability 1/n."""
    return gaussian_mean(lambda x: distribution(x) ** (n - 1))
