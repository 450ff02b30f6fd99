"""What the Ghost paper and the LALC paper state in closed form, as printed and as corrected.

R_f and R_b of an operator are the factors by which it multiplies the variance of the signal and,
on the way back, of the derivative (Ghost Def. 3.1). Codes such as E-G11 name the errata in
workflow/claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ghostgrad.theory.quadrature import Law, normal_cdf, normal_density

# --- ReLU of a Gaussian (LALC Prop. 1) ---


def relu_mean(mean: float, std: float) -> float:
    """E[max(Y, 0)] for Y ~ N(mean, std^2)."""
    z = mean / std
    return mean * normal_cdf(z) + std * normal_density(z)


def relu_second_moment(mean: float, std: float) -> float:
    """E[max(Y, 0)^2] for Y ~ N(mean, std^2)."""
    z = mean / std
    return (mean**2 + std**2) * normal_cdf(z) + mean * std * normal_density(z)


def relu_variance(mean: float, std: float) -> float:
    """Var[max(Y, 0)] for Y ~ N(mean, std^2)."""
    return relu_second_moment(mean, std) - relu_mean(mean, std) ** 2


# --- batch normalization (Ghost Cor. 3.7, Prop. 3.8) ---


def bn_z_mean(batch: int) -> float:
    """E[z] of R_b(BN) = (1 - z/B)/sigma^2 for a batch of size B, as corrected.

    z is B times the squared sample correlation of two independent vectors, one of which is
    exchangeable; the mean of that squared correlation is 1/(B - 1). The 1 that the paper prints is
    the limit of a large batch (Prop. 3.8).
    """
    return batch / (batch - 1)


def bn_z_variance(batch: int) -> float:
    """Var[z] where one of the two vectors is Gaussian, as corrected.

    The squared sample correlation then is Beta(1/2, (B - 2)/2). The paper prints 2, the limit of a
    large batch (Prop. 3.8).
    """
    return 2 * batch**2 * (batch - 2) / ((batch - 1) ** 2 * (batch + 1))


# --- ReLU of a symmetric law (Ghost Prop. 3.14 and Prop. C.2; tiny-paper version Prop. B.14) ---


def shifted_relu_gap(law: Law, shift: float) -> float:
    """E[relu'(X + b)^2] - Var[relu(X + b)] by quadrature, for X of `law` and b = `shift`.

    The two versions of the paper bound it from below, at b = 0, by E|X|/4 (Prop. 3.14) and by
    (E|X|)^2/8 (Prop. B.14). For a symmetric law of variance 1 it is exactly (E|X|)^2/4: the first
    bound is wrong unless |X| = 1, the second is right and not sharp (E-G4, claim X3).
    """

    def moment(power: int) -> float:
        return law.mean(lambda x: max(x + shift, 0.0) ** power, (-shift,))

    # relu'^2 is 1 where X + b is positive, so its mean is that probability.
    positive = law.mean(lambda x: float(x > -shift), (-shift,))
    return positive - (moment(2) - moment(1) ** 2)


def shifted_relu_slope(law: Law) -> float:
    """The derivative of `shifted_relu_gap` with respect to b at b = 0: p(0) - E|X|/2.

    Prop. C.2 prints the negative of this, because the term is on the side of the variance there.
    """
    return law.density(0.0) - law.absolute_mean / 2


# --- tied and untied modules (Ghost Prop. 4.1) ---


def untied_ratios(k: float) -> tuple[float, float]:
    """R_f and R_b of h(x) = M relu(W x) with independent W, M ~ N(0, 2/D), D = k d.

    The proposition prints N(0, 1/D), its proof and sec. 4.2 use N(0, 2/D) (erratum E-G11).
    """
    return 2 / k * (1 - 1 / math.pi), 2 / k


def tied_ratios(k: float, dimension: float = math.inf) -> tuple[float, float]:
    """R_f and R_b of g(x) = W^T relu(W x) with W ~ N(0, 2/D), D = k d = `dimension`.

    The terms of order 1/D are included; the paper leaves out that of R_f (erratum E-G12).
    """
    forward = 1 + 2 / k * (1 - 1 / math.pi) + (3 - 4 / math.pi) / dimension
    return forward, 1 + 2 / k + 3 / dimension


def tied_backward_variance(k: float, dimension: float) -> float:
    """The leading term of Var[R_b(g)] over W: (8 (k+2)^2/k + 4)/D^2, which is at least 68/D^2.

    It is the spread of ||W||^2 and, beside it, that of tr((W^T W)^2). The paper claims less than
    8/D^2 (app. D; erratum E-G12).
    """
    return (8 * (k + 2) ** 2 / k + 4) / dimension**2


# --- LALC theorems ---


def correlated_amplification(
    weights: Sequence[Sequence[float]], t: Sequence[float], gradient_variances: Sequence[float]
) -> float:
    """S of BN(W relu(x)) for perfectly correlated inputs x_i = t_i b, b ~ N(0, 1) (LALC Thm. 2).

    `weights` is W, (outputs, inputs); `t` is (inputs,); `gradient_variances` has the variance of
    the gradient at each output, (outputs,).

    relu(x_i) is max(t_i, 0) b for positive b and max(-t_i, 0) |b| for negative b. With
    P = sum_i w_i max(t_i, 0) and N = sum_i w_i max(-t_i, 0), an output before the BN therefore has
    the second moment (P^2 + N^2)/2, the mean (P + N)/sqrt(2 pi) and the variance
    (P^2 + N^2)/2 - (P + N)^2/(2 pi).
    """
    total = 0.0
    for row, gradient_variance in zip(weights, gradient_variances, strict=True):
        p = sum(w * max(s, 0.0) for w, s in zip(row, t, strict=True))
        n = sum(w * max(-s, 0.0) for w, s in zip(row, t, strict=True))
        squares = sum((w * s) ** 2 for w, s in zip(row, t, strict=True))
        output_variance = (p * p + n * n) / 2 - (p + n) ** 2 / (2 * math.pi)
        # ReLU passes the derivative half of the time, hence 0.5.
        total += gradient_variance * 0.5 * squares / output_variance
    return total / sum(gradient_variances)
