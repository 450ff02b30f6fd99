"""Expectations of a random variable by adaptive quadrature, with an absolute error below 1e-9."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

RealFunction = Callable[[float], float]

# So far out the standard normal density underflows to 0 in double precision.
GAUSSIAN_REACH = 39.0


def normal_density(x: float) -> float:
    """The density phi of the standard normal distribution."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal_cdf(x: float) -> float:
    """The distribution function Phi of the standard normal distribution."""
    # erfc keeps its relative accuracy in the lower tail, where 1 + erf would cancel.
    return 0.5 * math.erfc(-x / math.sqrt(2))


def integrate(f: RealFunction, edges: Sequence[float]) -> float:
    """The integral of f from the first edge to the last.

    Adaptive quadrature converges fast only where the integrand is smooth, so each place where f or
    its derivative jumps has to be one of the edges.
    """
    from scipy.integrate import quad

    pieces = (quad(f, a, b, epsabs=1e-11, epsrel=1e-11, limit=200)[0] for a, b in pairwise(edges))
    return sum(pieces)


def gaussian_mean(f: RealFunction, kinks: Sequence[float] = ()) -> float:
    """E[f(X)] for X ~ N(0, 1); `kinks` are the places where f or its derivative jumps."""
    # Nearly all of the mass lies in [-5, 5]. The quadrature, whose first look at an interval 78
    # wide is coarse, cannot miss it as a piece of its own.
    edges = [-GAUSSIAN_REACH, *sorted({-5.0, 5.0, *kinks}), GAUSSIAN_REACH]
    return integrate(lambda x: f(x) * normal_density(x), edges)


@dataclass(frozen=True)
class Law:
    """A symmetric distribution of variance 1.

    `density` is its density, `reach` the half-width beyond which the density is 0 or negligible.
    """

    name: str
    density: RealFunction
    reach: float

    def mean(self, f: RealFunction, kinks: Sequence[float] = ()) -> float:
        """E[f(X)]; `kinks` are the places where f or its derivative jumps."""
        # 0 is always an edge: the density of the Laplace distribution has a kink there.
        inner = {kink for kink in (0.0, *kinks) if abs(kink) < self.reach}
        edges = sorted({-self.reach, self.reach, -self.reach / 8, self.reach / 8, *inner})
        return integrate(lambda x: f(x) * self.density(x), edges)

    @property
    def absolute_mean(self) -> float:
        """E|X|."""
        return self.mean(abs)


LAWS = {
    law.name: law
    for law in (
        Law("Gaussian", normal_density, GAUSSIAN_REACH),
        Law("uniform", lambda x: 1 / (2 * math.sqrt(3)), math.sqrt(3)),
        Law("Laplace", lambda x: math.exp(-math.sqrt(2) * abs(x)) / math.sqrt(2), 40.0),
    )
}
