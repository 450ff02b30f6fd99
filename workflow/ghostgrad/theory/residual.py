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
    """E(y) as equations 8 and 27 print it; right at a = 0 only, and negative at -2 (E-B1, E-B18).

    Equation 25 integrates z over (0, a), where the mean of z + a over -a < z < 0 is needed.
    """
    return PHI_0 + a / 2 + PHI_0 * (1 - math.exp(-a * a / 2))


def mean_corrected(a: float) -> float:
    """E(y) = a Phi(a) + phi(a) (E-B1)."""
    return relu_mean(a, 1.0)


def second_moment_printed(a: float) -> float:
    """E(y^2) as equations 9 and 30 print it, and c_2 as equation 16 does: 1.5 at a = 0 (E-B2)."""
    return 0.5 + math.sqrt(2 / math.pi) * a + 0.5 * a * a + math.exp(-a * a / 2) + p(a)


def second_moment_restored(a: float) -> float:
    """The same with 1 - exp(-a^2/2) for exp(-a^2/2): 0.5 at a = 0, too large elsewhere (E-B2).

    The "1 -" is lost either in print or in our copy of the text. Section 3.3 shows that it was
    meant: its constants, one at a = 0 and about 0.33 at a = 1, are c_1/c_2 of this formula.
    """
    return second_moment_printed(a) + 1 - 2 * math.exp(-a * a / 2)


def second_moment_corrected(a: float) -> float:
    """E(y^2) = (1 + a^2) Phi(a) + a phi(a) (E-B2)."""
    return relu_second_moment(a, 1.0)


def variance_corrected(a: float) -> float:
    """Var(y), which equations 13 and 34 to 37 need where they have the second moment (E-B3)."""
    return relu_variance(a, 1.0)


def layer_factor_printed(a: float) -> float:
    """c_1/c_2 of equations 13 to 16 as they stand: P(y > 0) over E(y^2), 1/3 at a = 0."""
    return (0.5 + p(a)) / second_moment_printed(a)


def layer_factor_restored(a: float) -> float:
    """c_1/c_2 with the restored E(y^2): 1 at a = 0 and 0.332 at a = 1, as in section 3.3."""
    return (0.5 + p(a)) / second_moment_restored(a)


def layer_factor_corrected(a: float) -> float:
    """Phi(a)/Var(y): equation 10 needs the variance and not the second moment (E-B3).

    By Chernoff's inequality (Ghost Prop. 3.12) it is above 1 for every a.
    """
    return normal_cdf(a) / variance_corrected(a)


def block_factor(branch: float, block: int, shortcut: float = 1.0) -> float:
    """1 + branch/(L - 1 + s): the gradient's variance at the input of block L over its output.

    `branch` is the product of the factors of the branch's two layers: (c_1/c_2)^2 in equation 40,
    c_1/c_2 in equation 21, and in truth C^2 with C = pi/(pi-1) at initialization. The input of
    block L has L - 1 + s times the variance of a branch's output: L - 1 branches have added to it,
    and s (`shortcut`) is what the shortcut of the scale's first block passes on. s is 1 where that
    block does not widen. Where it widens k-fold, s is 1/k with weights of variance 2/(fan out) (He)
    and 2/(1 + k) with weights of variance 2/(fan in + fan out) (Xavier). The paper has 1/k on both
    terms of the first block, so that its denominator for k = 2 is L - 1 (s = 0).
    """
    return 1 + branch / (block - 1 + shortcut)


def block_ratio_corrected(block: int, shortcut: float = 1.0) -> float:
    """1 + C^2/(L - 1 + s), the block's factor at initialization as corrected (E-B8)."""
    return block_factor(RELU_GROWTH_RATE**2, block, shortcut)


def block_ratio_printed(block: int) -> float:
    """L/(L-1) of equation 22, which is 1 + 1/(L-1)."""
    return block_factor(1.0, block, shortcut=0.0)


def kantorovich_constant(low: float, high: float) -> float:
    """K = (c + d)^2/(4 c d) of values in [c, d] (app. E)."""
    return (low + high) ** 2 / (4 * low * high)


def kantorovich_bound(values: Sequence[float]) -> tuple[float, float]:
    """E(1/X) E(X) of equally likely values in [c, d], and its bound K (app. E)."""
    n = len(values)
    product = sum(1 / v for v in values) / n * sum(values) / n
    return product, kantorovich_constant(min(values), max(values))
