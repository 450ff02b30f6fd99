"""What the Ghost and the LALC paper state in closed form, as printed and as corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ghostgrad.theory.quadrature import Law, density, distribution, integrate

PI = math.pi


# --- ReLU of a Gaussian (LALC Prop. 1) ---


def relu_mean(mean: float, std: float) -> float:
    """E[max(Y, 0)], Y ~ N(mean, std^2)."""
    z = mean / std
    return mean * distribution(z) + std * density(z)


def relu_second_moment(mean: float, std: float) -> float:
    """E[max(Y, 0)^2]."""
    z = mean / std
    return (mean**2 + std**2) * distribution(z) + mean * std * density(z)


def relu_variance(mean: float, std: float) -> float:
    """Var[max(Y, 0)]."""
    return relu_second_moment(mean, std) - relu_mean(mean, std) ** 2


# --- batch normalization (Ghost Cor. 3.7, Prop. 3.8) ---


def bn_z_mean(batch: int) -> float:
    """E[z] of R_b(BN) = (1 - z/B)/sigma^2: B times the mean squared sample correlation of two independent vectors, one
    of them exchangeable. The paper's 1 is the limit of a large batch (E-G8)."""
    return batch / (batch - 1)


def bn_z_variance(batch: int) -> float:
    """Var[z] where one of the vectors is Gaussian: its squared sample correlation is Beta(1/2, (B-2)/2). The paper:
    2."""
    return 2 * batch**2 * (batch - 2) / ((batch - 1) ** 2 * (batch + 1))


def bn_z_by_quadrature(batch: int) -> tuple[float, float]:
    """E[z] and Var[z] over the law of the sample correlation r of two independent vectors, one of them Gaussian, whose
    density is proportional to (1 - r^2)^((B-4)/2); z = B r^2."""

    def moment(power: int) -> float:
        return integrate(lambda r: r**power * (1 - r * r) ** ((batch - 4) / 2), [-1.0, -0.3, 0.0, 0.3, 1.0])

    mean, square = (moment(power) / moment(0) for power in (2, 4))
    return batch * mean, batch**2 * (square - mean**2)


# --- ReLU of a symmetric law (Ghost Prop. 3.14, 000 Prop. B.14, Prop. C.2) ---


def shifted_relu_gap(law: Law, shift: float) -> float:
    """E[relu'(X + b)^2] - Var[relu(X + b)] by quadrature (Ghost Prop. C.2)."""

    def moment(power: int) -> float:
        return law.mean(lambda x: max(x + shift, 0.0) ** power, (-shift,))

    passed = law.mean(lambda x: float(x > -shift), (-shift,))
    return passed - (moment(2) - moment(1) ** 2)


def shifted_relu_slope(law: Law) -> float:
    """The derivative of `shifted_relu_gap` at b = 0: p(0) - E|X|/2 (Ghost Prop. C.2 prints its negative, in Var)."""
    return law.density(0.0) - law.absolute_mean / 2


# --- tied and untied modules (Ghost Prop. 4.1) ---


def untied_ratios(k: float) -> tuple[float, float]:
    """R_f and R_b of h(x) = M relu(W x), W and M independent N(0, 2/D), D = k d."""
    return 2 / k * (1 - 1 / PI), 2 / k


def tied_ratios(k: float, dimension: float = math.inf) -> tuple[float, float]:
    """R_f and R_b of g(x) = W^T relu(W x), W N(0, 2/D), with the terms of order 1/D (the paper leaves out that of R_f,
    E-G12)."""
    return 1 + 2 / k * (1 - 1 / PI) + (3 - 4 / PI) / dimension, 1 + 2 / k + 3 / dimension


def tied_backward_variance(k: float, dimension: float) -> float:
    """The leading term of Var[R_b(g)] over W, (8 (k+2)^2/k + 4)/D^2, at least 68/D^2: the spread of ||W||^2, and that
    of tr((W^T W)^2) beside it. The paper: less than 8/D^2 (E-G12)."""
    return (8 * (k + 2) ** 2 / k + 4) / dimension**2


# --- LALC theorems ---


def correlated_amplification(weights: Sequence[Sequence[float]], t: Sequence[float], shares: Sequence[float]) -> float:
    """S of BN(W relu(x)) for perfectly correlated inputs x_i = t_i b, b ~ N(0, 1) (LALC Thm. 2), where gradient j has
    the variance `shares`[j].

    With P = sum_i w_i max(t_i, 0) and N = sum_i w_i max(-t_i, 0), the variance before the BN is
    (P^2 + N^2)/2 - (P + N)^2/(2 pi).
    """
    total = 0.0
    for row, share in zip(weights, shares, strict=True):
        p = sum(w * max(s, 0.0) for w, s in zip(row, t, strict=True))
        n = sum(w * max(-s, 0.0) for w, s in zip(row, t, strict=True))
        spread = sum((w * s) ** 2 for w, s in zip(row, t, strict=True))
        total += share * 0.5 * spread / ((p * p + n * n) / 2 - (p + n) ** 2 / (2 * PI))
    return total / sum(shares)
