"""The formulas of the BN-ResNet paper, each as printed and as corrected.

The paper is "Analysis on gradient propagation in batch normalized residual networks". A BN with
scale gamma and shift beta followed by ReLU gives y = relu(z + a) up to the factor gamma, with
z ~ N(0, 1) and a = beta/gamma. phi and Phi are the standard normal density and distribution
function. Codes such as E-B1 name the errata in workflow/claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ghostgrad.theory.activations import RELU_GROWTH_RATE
from ghostgrad.theory.propositions import relu_mean, relu_second_moment, relu_variance
from ghostgrad.theory.quadrature import normal_cdf

PHI_0 = 1 / math.sqrt(2 * math.pi)  # phi(0), the paper's phi_0


def p(a: float) -> float:
    """The integral of phi from 0 to a, which the paper calls p(a)."""
    return normal_cdf(a) - 0.5


def mean_printed(a: float) -> float:
    """E(y) as equations 8 and 27 print it; right at a = 0 only (E-B1)."""
    return PHI_0 + a / 2 + PHI_0 * (1 - math.exp(-a * a / 2))


def mean_corrected(a: float) -> float:
    """E(y) = a Phi(a) + phi(a) (E-B1)."""
    return relu_mean(a, 1.0)


def second_moment_printed(a: float) -> float:
    """E(y^2) as equations 9 and 30 print it: 1.5 at a = 0, where E(y^2) is 0.5 (E-B2)."""
    return 0.5 + math.sqrt(2 / math.pi) * a + 0.5 * a * a + math.exp(-a * a / 2) + p(a)


def second_moment_restored(a: float) -> float:
    """Equation 9 with 1 - exp(-a^2/2) for exp(-a^2/2), as if a "1 -" had been lost in print.

    That repairs the value at a = 0 and leaves it wrong everywhere else, so it is no correction
    (E-B2).
    """
    return second_moment_printed(a) + 1 - 2 * math.exp(-a * a / 2)


def second_moment_corrected(a: float) -> float:
    """E(y^2) = (1 + a^2) Phi(a) + a phi(a) (E-B2)."""
    return relu_second_moment(a, 1.0)


def layer_factor_printed(a: float) -> float:
    """c_1/c_2 of equations 13 to 16 as they stand: P(y > 0) over E(y^2)."""
    return (0.5 + p(a)) / second_moment_printed(a)


def layer_factor_corrected(a: float) -> float:
    """Phi(a)/Var(y): equation 10 needs the variance and not the second moment (E-B3).

    By Chernoff's inequality (Ghost Prop. 3.12) it is above 1 for every a.
    """
    return normal_cdf(a) / relu_variance(a, 1.0)


def block_ratio_printed(block: int) -> float:
    """Equation 22: the gradient's variance grows by L/(L-1) from block L to block L - 1."""
    return block / (block - 1)


def block_ratio_corrected(block: int, shortcut: float = 1.0) -> float:
    """The same at initialization as corrected: 1 + C^2/(L - 1 + s) (E-B8).

    The branch holds two layers, each with the factor C = pi/(pi-1). The input of block L has
    L - 1 + s times the variance of a branch's output: L - 1 branches have added to it, and s
    (`shortcut`) is what the 1x1 shortcut of the scale's first block passes on. s is 1 where that
    block does not widen; where it widens k-fold, s is 1/k with weights of variance 2/(fan out)
    (He) and 2/(1 + k) with weights of variance 2/(fan in + fan out) (Xavier).
    """
    return 1 + RELU_GROWTH_RATE**2 / (block - 1 + shortcut)


def kantorovich_bound(values: Sequence[float]) -> tuple[float, float]:
    """E(1/X) E(X) of equally likely values in [c, d], and its bound (c + d)^2/(4 c d) (app. E)."""
    low, high, n = min(values), max(values), len(values)
    product = sum(1 / v for v in values) / n * sum(values) / n
    return product, (low + high) ** 2 / (4 * low * high)
