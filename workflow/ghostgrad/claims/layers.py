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
    inputs: int, outputs: int, seed: int = 0, repeats: int = 256, batch: int = LINEAR_BATCH
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


def normalize(x: FloatArray) -> FloatArray:
    """Batch normalization of every feature of (batch, features), without the affine part."""
    normalized: FloatArray = (x - x.mean(0)) / x.std(0)
    return normalized


def rectified(x: FloatArray, offset: float) -> FloatArray:
    """ReLU of the normalized signal with beta = offset and gamma = 1, (batch, features)."""
    return np.maximum(normalize(x) + offset, 0.0)


def measure_widening_scale(
    blocks: int = 3,
    widening: int = 2,
    offset: float = 0.0,
    width: int = 128,
    repeats: int = 64,
    batch: int = 512,
) -> FloatArray:
    """The variances of a scale of residual blocks of n = `width` features, (repeats, blocks + 1).

    Column 0 is the shortcut of the first block, whose input has n/`widening` features; column L is
    the output of block L. Each layer is BN with beta = `offset`, ReLU and a weight matrix of
    variance 1/n, so that a matrix with n inputs has row sums of squares of 1 on average.
    """
    rng, n, variances = np.random.default_rng(0), width, []

    def layer(x: FloatArray) -> FloatArray:
        weight = rng.normal(scale=n**-0.5, size=(n, x.shape[1]))
        y: FloatArray = rectified(x, offset) @ weight.T
        return y

    for _ in range(repeats):
        x = draw_elements(rng, batch, n // widening)
        signals = [layer(x)]
        signals.append(signals[0] + layer(layer(x)))
        while len(signals) <= blocks:
            signals.append(signals[-1] + layer(layer(signals[-1])))
        variances.append([signal.var(0, ddof=1).mean() for signal in signals])
    return np.array(variances)


def measure_cascade(
    depth: int = 6, width: int = 128, repeats: int = 32, batch: int = 256
) -> dict[str, FloatArray]:
    """What a net of BN, ReLU and weight layers has over equations 10, 11, 12 and 32, (repeats,).

    The elements of its signals and gradients are not drawn independently. The ratios are averaged
    over features and over all layers but the first, whose inputs are independent. beta is 0.
    """
    rng = np.random.default_rng(0)
    ratios: dict[str, list[float]] = {"eq10": [], "eq11": [], "eq12": [], "eq32": []}
    for _ in range(repeats):
        weights = rng.normal(scale=(2 / width) ** 0.5, size=(depth, width, width))
        signals = [draw_elements(rng, batch, width)]
        for weight in weights:
            signals.append(rectified(signals[-1], 0.0) @ weight.T)
        gradient = differentiate_normalize(signals[-1], draw_elements(rng, batch, width))
        sums = dict.fromkeys(ratios, 0.0)
        for weight, x, y in list(zip(weights, signals, signals[1:], strict=False))[:0:-1]:
            of_relu = gradient @ weight  # the gradient of the output of ReLU
            of_bn = of_relu * (normalize(x) > 0)
            before = differentiate_normalize(x, of_bn)
            predicted = {
                "eq10": (y, rectified(x, 0.0).var(0) @ (weight**2).T),
                "eq11": (of_relu, gradient.var(0) @ weight**2),
                "eq12": (of_bn, of_relu.var(0) / 2),
                "eq32": (before, of_bn.var(0) / x.var(0)),
            }
            for name, (signal, variance) in predicted.items():
                sums[name] += float((signal.var(0) / variance).mean())
            gradient = before
        for name, total in sums.items():
            ratios[name].append(total / (depth - 1))
    return {name: np.array(values) for name, values in ratios.items()}


def differentiate_normalize(x: FloatArray, of_output: FloatArray) -> FloatArray:
    """The gradient before `normalize` from the one behind it, (batch, features) each (eq. 4)."""
    z = normalize(x)
    centred = of_output - of_output.mean(0)
    gradient: FloatArray = (centred - z * (of_output * z).mean(0)) / x.std(0)
    return gradient


def draw_squared_sums(repeats: int, rows: int, count: int) -> FloatArray:
    """Sums of `count` squared Gaussian weights, (repeats, rows)."""
    sums: FloatArray = (np.random.default_rng(0).normal(size=(repeats, rows, count)) ** 2).sum(2)
    return sums


def bound_constant(rows: int, count: int) -> float:
    """K of eq. 14 as app. E bounds it, for `rows` row sums of `count` squared Gaussian weights.

    A mean over drawn matrices. It is larger than E(1/X) E(X), the least K that eq. 14 needs, and
    so in the paper's favour.
    """
    sums = draw_squared_sums(16, rows, count)
    return float(bound_constants(sums).mean())


def bound_constants(sums: FloatArray) -> FloatArray:
    """K of app. E for each repeat of row sums (repeats, rows), (repeats,)."""
    low, high = sums.min(1), sums.max(1)
    # As `theory.residual.kantorovich_constant`, which the other papers' claims do not depend on.
    constants: FloatArray = (low + high) ** 2 / (4 * low * high)
    return constants


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


def correlate_with_derivative(
    width: int, batch: int, depth: int, rectify: bool = True, repeats: int = 16
) -> FloatArray:
    """Mean |correlation| over the batch of a neuron with its derivative, (repeats, depth + 1).

    The layers are y = relu(BN(W x)), or BN(W x) without `rectify`, with W ~ N(0, 2/d). The loss is
    half the squared distance of the output to the input, which is the target. Index 0 is the input.
    """
    rng, values = np.random.default_rng(2), []
    for _ in range(repeats):
        signals, backward = [rng.normal(size=(batch, width))], []
        for _layer in range(depth):
            weight = rng.normal(size=(width, width)) * np.sqrt(2 / width)
            z = signals[-1] @ weight.T
            deviation = z.std(0)
            normalized = (z - z.mean(0)) / deviation
            y, derivative = normalized, np.ones_like(normalized)
            if rectify:
                y, derivative = relu_and_derivative(normalized)
            signals.append(y)
            backward.append((weight, deviation, normalized, derivative))
        gradient = signals[-1] - signals[0]
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

    Weights with heavy tails and unequal variances make the variances before the BN differ, so that
    the layers do not meet the condition under which Thm. 1 states an equality.
    """
    for _ in range(count):
        yield rng.standard_t(3, size=(6, 5)), rng.uniform(0.5, 2, 5), rng.uniform(0.1, 10, 6)


def amplify_random_layers(means: float | FloatArray = 0.0) -> Iterator[float]:
    """S of eight random layers; `means` of their five inputs are in units of the deviations."""
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


def amplify_sign_weights(inputs: int) -> float:
    """S of a layer of six outputs with weights 1 or -1 and inputs N(0, 1).

    The variance before the BN is the same for every output, as Thm. 1 and 2 require for equality.
    """
    weights = np.random.default_rng(0).choice([-1.0, 1.0], size=(6, inputs))
    return compute_amplification(weights, np.zeros(inputs), np.ones(inputs), np.ones(6))


# --- the same with perfectly correlated inputs (LALC Thm. 2) ---


def draw_weights(rng: np.random.Generator, *shape: int) -> FloatArray:
    """Independent weights N(0, 1)."""
    return rng.normal(size=shape)


def draw_rectified_sums(
    count: int, inputs: int = 16
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Outputs with perfectly correlated inputs x = t b, b ~ N(0, 1), each with its own W and t.

    W and t are (count, inputs). In the notation of the proof, P = W relu(t) and N = W relu(-t),
    both (count,): W relu(x) is P b for b > 0 and N |b| for b < 0.
    """
    rng = np.random.default_rng(2)
    weights, t = draw_weights(rng, count, inputs), rng.normal(size=(count, inputs))
    positive = (weights * np.maximum(t, 0)).sum(1)
    negative = (weights * np.maximum(-t, 0)).sum(1)
    return weights, t, positive, negative


def rectified_sum_variance(
    positive: FloatArray, negative: FloatArray, _squares: FloatArray
) -> FloatArray:
    """The variance over b of W relu(t b), from P and N; `_squares` are the sums of (W t)^2."""
    return (positive**2 + negative**2) / 2 - (positive + negative) ** 2 / (2 * np.pi)


def amplify_correlated_outputs(count: int = 4096) -> FloatArray:
    """S of single outputs with perfectly correlated inputs, (count,)."""
    weights, t, positive, negative = draw_rectified_sums(count)
    squares: FloatArray = ((weights * t) ** 2).sum(1)
    amplified: FloatArray = squares / 2 / rectified_sum_variance(positive, negative, squares)
    return amplified


def cross_terms(count: int = 2**16) -> FloatArray:
    """sqrt(2/pi) mu (P + N) over sum t^2, (count,), for weights of variance 1.

    It is the cross term of the variance before the BN, whose mean over W the proof of Thm. 2 sets
    to 0; mu = (P + N)/sqrt(2 pi) is the mean of the output over b.
    """
    _, t, positive, negative = draw_rectified_sums(count)
    means = (positive + negative) / np.sqrt(2 * np.pi)
    products: FloatArray = np.sqrt(2 / np.pi) * means * (positive + negative) / (t**2).sum(1)
    return products


def separated_expectations(inputs: int = 16, count: int = 2**16) -> FloatArray:
    """Values whose mean is E[1/s^2] E[W^2] over E[W^2/s^2], with s^2 = sum W^2, (count,).

    The denominator is 1/inputs, since the `inputs` terms of sum W^2/s^2 = 1 have the same mean.
    """
    squares = draw_weights(np.random.default_rng(3), count, inputs) ** 2
    values: FloatArray = inputs * squares.mean() / squares.sum(1)
    return values
