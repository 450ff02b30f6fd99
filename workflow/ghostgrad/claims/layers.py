"""Layers that claims compute on the spot, because they need no run: by Monte Carlo or quadrature.

Signals are (batch, features) and weights (outputs, inputs). All random numbers come from generators
with fixed seeds, so that a claim has the same numbers in every build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghostgrad.analysis.statistics import FloatArray
from ghostgrad.theory.activations import ACTIVATIONS

# --- batch normalization and linear layers (BN-ResNet paper sec. 3 and 4) ---


GAMMA = 1.7  # of the BN that is differentiated
LINEAR_BATCH = 500  # inputs of each repeat of `linear_variance_ratios`


def batch_norm(x: NDArray[Any], gamma: float) -> NDArray[Any]:
    """Batch normalization of one feature over a batch, (B,), without the shift.

    Complex numbers pass through analytically, for the derivative by a complex step.
    """
    centred = x - x.mean()
    normalized: NDArray[Any] = gamma * centred / np.sqrt((centred * centred).mean())
    return normalized


def differentiate_batch_norm(
    batch: int = 16, gamma: float = GAMMA
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """A batch x, its normalized variate z, a gradient dl/dy, and dl/dx, each (B,).

    dl/dx comes from the Jacobian by complex steps, f'(x) = Im f(x + ih)/h, which subtracts nothing
    and is therefore exact to rounding.
    """
    rng = np.random.default_rng(0)
    x, dy, step = rng.normal(2, 3, batch), rng.normal(1, 1, batch), 1e-30
    jacobian = np.array(
        [batch_norm(x + 1j * step * unit, gamma).imag / step for unit in np.eye(batch)]
    )
    return x, batch_norm(x, 1.0), dy, jacobian @ dy


def draw_elements(rng: np.random.Generator, batch: int, count: int) -> FloatArray:
    """Independent elements N(0, 1), (batch, count)."""
    return rng.normal(size=(batch, count))


def linear_variance_ratios(
    inputs: int, outputs: int, seed: int = 0, repeats: int = 64, batch: int = LINEAR_BATCH
) -> FloatArray:
    """Measured Var(W y) over the sum W^2 Var(y) of equation 10, (repeats, outputs).

    The elements of y have unequal variances; each repeat has its own W, (outputs, inputs).
    """
    rng, ratios = np.random.default_rng(seed), []
    for _ in range(repeats):
        weight, deviation = rng.normal(size=(outputs, inputs)), rng.uniform(0.5, 2, inputs)
        y = draw_elements(rng, batch, inputs) * deviation
        ratios.append((y @ weight.T).var(0, ddof=1) / (weight**2 @ deviation**2))
    return np.array(ratios)


def measure_widening_scale(width: int = 128, repeats: int = 64, batch: int = 500) -> FloatArray:
    """The output variance of a scale of one block whose width doubles to n, (repeats,).

    It is in units of n Var(W), where it is the row sum of squared weights: the shortcut's n x n/2
    matrix gives 1/2 and the branch's last n x n matrix gives 1.
    """
    rng, n, variances = np.random.default_rng(0), width, []
    for _ in range(repeats):
        shortcut, branch = (rng.normal(size=(n, inputs)) for inputs in (n // 2, n))
        y = draw_elements(rng, batch, n // 2) @ shortcut.T + draw_elements(rng, batch, n) @ branch.T
        variances.append(y.var(0, ddof=1).mean() / n)
    return np.array(variances)


# --- linear layers in a row (Ghost Rem. 3.16) ---


def compute_chain_ratio(
    weights: Sequence[FloatArray], x: FloatArray, output_gradient: FloatArray
) -> float:
    """R_b/R_f of linear layers in a row, from signals x and dl/dy at their two ends.

    `weights` are (outputs, inputs); x and dl/dy are (batch, features).
    """
    y, gradient = x, output_gradient
    for weight in weights:
        y = y @ weight.T
    for weight in reversed(weights):
        gradient = gradient @ weight
    forward = y.var(0).mean() / x.var(0).mean()
    backward = gradient.var(0).mean() / output_gradient.var(0).mean()
    return float(backward / forward)


# --- a deep plain net (Ghost Rem. 3.9) ---


def correlate_with_derivative(width: int, batch: int, depth: int, repeats: int = 16) -> FloatArray:
    """Mean |correlation| over the batch of a neuron with its derivative, (repeats, depth + 1).

    The layers are y = relu(BN(W x)) with W ~ N(0, 2/d), and the derivative on top is the output
    itself, so that the correlation is 1 there. Index 0 is the input.
    """
    rng, values = np.random.default_rng(2), []
    for _ in range(repeats):
        signals, backward = [rng.normal(size=(batch, width))], []
        for _layer in range(depth):
            weight = rng.normal(size=(width, width)) * np.sqrt(2 / width)
            z = signals[-1] @ weight.T
            deviation = z.std(0)
            normalized = (z - z.mean(0)) / deviation
            y, derivative = relu_and_derivative(normalized)
            signals.append(y)
            backward.append((weight, deviation, normalized, derivative))
        gradient = signals[-1]
        correlations = [_mean_correlation(signals[-1], gradient)]
        for x, (weight, deviation, normalized, derivative) in zip(
            reversed(signals[:-1]), reversed(backward), strict=True
        ):
            gradient_y = gradient * derivative
            gradient = differentiate_through_bn(gradient_y, normalized, deviation) @ weight
            correlations.append(_mean_correlation(x, gradient))
        values.append(correlations[::-1])
    return np.array(values)


def _mean_correlation(x: FloatArray, y: FloatArray) -> float:
    """The mean over features of |correlation| over the batch; a constant feature counts as 0."""
    x, y = (v - v.mean(0) for v in (x, y))
    norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    return float((np.abs((x * y).sum(0)) / np.maximum(norms, 1e-30)).mean())


def differentiate_through_bn(
    gradient: FloatArray, normalized: FloatArray, deviation: FloatArray
) -> FloatArray:
    """dl/dx of y = BN(x) from dl/dy: without its mean and without its projection on y."""
    projection = normalized * (gradient * normalized).mean(0)
    result: FloatArray = (gradient - gradient.mean(0) - projection) / deviation
    return result


# --- ReLU, a linear layer and BN (LALC sec. 2) ---


def compute_amplification(
    weights: FloatArray, means: FloatArray, stds: FloatArray, gradient_variances: FloatArray
) -> float:
    """S of BN(W relu(x)) for independent x_i ~ N(mean_i, std_i^2) (LALC Thm. 1, Cor. 2).

    S = sum_i Var(x_i) Var(g_i) / sum_j Var(x'_j) Var(g'_j), from the input x with gradient g to the
    output x' with gradient g', of which `gradient_variances` are the variances, (outputs,).
    The probability that ReLU passes a signal and the variance after it come from quadrature.
    """
    relu = ACTIVATIONS["ReLU"]
    shifted = [relu.with_input(float(m), float(s)) for m, s in zip(means, stds, strict=True)]
    pass_probability = np.array([activation.mean_squared_derivative for activation in shifted])
    relu_variance = np.array([activation.variance for activation in shifted])
    squares = weights**2
    # BN divides each output by its variance before the BN, which is squares @ relu_variance.
    amplified = gradient_variances * (squares @ (pass_probability * stds**2))
    return float((amplified / (squares @ relu_variance)).sum() / gradient_variances.sum())


def draw_layers(
    rng: np.random.Generator, count: int
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Random layers of 5 inputs and 6 outputs: W, deviations of x, variances of the gradients.

    Weights with heavy tails and unequal variances make the variances before the BN differ, which
    the LALC paper excludes for an equality (E-L3).
    """
    for _ in range(count):
        yield rng.standard_t(3, size=(6, 5)), rng.uniform(0.5, 2, 5), rng.uniform(0.1, 10, 6)


def amplify_random_layers(means: float = 0.0) -> Iterator[float]:
    """S of eight random layers; `means` of their inputs are in units of the deviations."""
    for weights, stds, gradient_variances in draw_layers(np.random.default_rng(0), 8):
        yield compute_amplification(weights, means * stds, stds, gradient_variances)


def relu_and_derivative(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ReLU and its derivative, element by element."""
    return np.maximum(x, 0.0), (x > 0).astype(float)


def simulate_layers(second_moments: bool, repeats: int = 256, batch: int = 2048) -> FloatArray:
    """S of random layers measured by a batch through BN, forward and backward, (repeats,).

    With `second_moments` these take the place of the variances, as in Cor. 1.
    """
    rng, ratios = np.random.default_rng(1), []
    for weights, stds, gradient_variances in draw_layers(rng, repeats):
        x = rng.normal(size=(batch, 5)) * stds
        gradient_y = rng.normal(size=(batch, 6)) * np.sqrt(gradient_variances)
        rectified, derivative = relu_and_derivative(x)
        z = rectified @ weights.T
        y = (z - z.mean(0)) / z.std(0)
        gradient_z = differentiate_through_bn(gradient_y, y, z.std(0))
        gradient_x = gradient_z @ weights * derivative
        if second_moments:
            before = (x**2 * gradient_x**2).mean(0).sum()
            ratios.append(before / (y**2 * gradient_y**2).mean(0).sum())
        else:
            before = (x.var(0) * gradient_x.var(0)).sum()
            ratios.append(before / (y.var(0) * gradient_y.var(0)).sum())
    return np.array(ratios)
