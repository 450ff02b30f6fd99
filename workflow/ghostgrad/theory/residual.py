"""The formulas of "Analysis on gradient propagation in batch normalized residual networks", as printed and as
corrected.

y = relu(z + a), z ~ N(0, 1), a = beta/gamma; phi and Phi are the standard normal density and distribution function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ghostgrad.theory.propositions import relu_mean, relu_second_moment, relu_variance
from ghostgrad.theory.quadrature import distribution

PHI_0 = 1 / math.sqrt(2 * math.pi)


def p(a: float) -> float:
    """The integral of the density from 0 to a."""
    return distribution(a) - 0.5


def mean_printed(a: float) -> float:
    """E(y) of eq. 8 and 27."""
    return PHI_0 + a / 2 + PHI_0 * (1 - math.exp(-a * a / 2))


def mean_true(a: float) -> float:
    """a Phi(a) + phi(a) (E-B1)."""
    return relu_mean(a, 1.0)


def second_moment_printed(a: float) -> float:
    """E(y^2) of eq. 9 and 30."""
    return 0.5 + math.sqrt(2 / math.pi) * a + 0.5 * a * a + math.exp(-a * a / 2) + p(a)


def second_moment_restored(a: float) -> float:
    """Eq. 9 with the "1 -" before exp that it seems to have lost: right at a = 0 only (E-B2)."""
    return second_moment_printed(a) + 1 - 2 * math.exp(-a * a / 2)


def second_moment_true(a: float) -> float:
    """(1 + a^2) Phi(a) + a phi(a)."""
    return relu_second_moment(a, 1.0)


def layer_factor_printed(a: float) -> float:
    """c_1/c_2 of eq. 13 to 16 as they stand: P(y > 0) over E(y^2)."""
    return (0.5 + p(a)) / second_moment_printed(a)


def layer_factor_true(a: float) -> float:
    """Phi(a) over Var(y): eq. 10 needs the variance, not the second moment (E-B3). Above 1 for every a."""
    return distribution(a) / relu_variance(a, 1.0)


def block_ratio_printed(block: int) -> float:
    """Eq. 22, equal weight variances: L/(L-1) from block L to L - 1."""
    return block / (block - 1)


def block_ratio_true(block: int, shortcut: float = 1.0) -> float:
    """1 + C^2/(L - 1 + s): at initialization the branch holds two layers of factor C = pi/(pi-1), and the block's input
    has L - 1 + s times the variance of a branch's output (E-B8). s, `shortcut`, is what the 1x1 shortcut of the scale's
    first block passes on: 1 where that does not widen; where it widens k-fold, 1/k with weights of variance 2/(fan out)
    (He), 2/(1 + k) with 2/(fan in + fan out) (Xavier)."""
    return 1 + (math.pi / (math.pi - 1)) ** 2 / (block - 1 + shortcut)


def kantorovich(values: Sequence[float]) -> tuple[float, float]:
    """E(1/X) E(X) of equally likely values, and its bound (c + d)^2/(4 c d) (app. E)."""
    low, high, n = min(values), max(values), len(values)
    return sum(1 / v for v in values) / n * sum(values) / n, (low + high) ** 2 / (4 * low * high)
