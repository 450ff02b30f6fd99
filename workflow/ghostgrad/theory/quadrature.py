"""Expectations of a random variable X by adaptive quadrature, with an absolute error below 1e-9."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

REACH = 39.0  # beyond it the standard normal density is 0 in double precision

Function = Callable[[float], float]


def density(x: float) -> float:
    """The standard normal density phi."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def distribution(x: float) -> float:
    """The standard normal distribution function Phi."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def integrate(f: Function, edges: list[float]) -> float:
    """The integral of f from the first edge to the last, piece by piece."""
    from scipy.integrate import quad

    return sum(quad(f, a, b, epsabs=1e-11, epsrel=1e-11, limit=200)[0] for a, b in pairwise(edges))


def gaussian_mean(f: Function, kinks: tuple[float, ...] = ()) -> float:
    """E[f(X)] for X ~ N(0, 1); kinks are the places where f or its derivative jumps."""
    edges = [-REACH, *sorted({-5.0, 5.0, *kinks}), REACH]  # a narrow middle, so that the bulk cannot be missed
    return integrate(lambda x: f(x) * density(x), edges)


@dataclass(frozen=True)
class Law:
    """A symmetric law of variance 1: its density and the half-width beyond which it is negligible."""

    name: str
    density: Function
    reach: float

    def mean(self, f: Function, kinks: tuple[float, ...] = ()) -> float:
        """E[f(X)]."""
        inner = {k for k in (0.0, *kinks) if abs(k) < self.reach}
        edges = sorted({-self.reach, self.reach, -self.reach / 8, self.reach / 8, *inner})
        return integrate(lambda x: f(x) * self.density(x), edges)

    @property
    def absolute_mean(self) -> float:
        """E|X|."""
        return self.mean(abs)


LAWS = {
    law.name: law
    for law in (
        Law("Gaussian", density, REACH),
        Law("uniform", lambda x: 1 / (2 * math.sqrt(3)), math.sqrt(3)),
        Law("Laplace", lambda x: math.exp(-math.sqrt(2) * abs(x)) / math.sqrt(2), 40.0),
    )
}
