"""Element-wise nonlinearities and what they do to the variance of signals and of derivatives.

Source: Ghost paper sec. 3.1 and app. A. For a pre-activation X ~ N(0, 1) a nonlinearity s has the
forward ratio R_f = Var[s(X)] and the backward ratio R_b = E[s'(X)^2]. BN sets the variance of the
signal back to 1 in each layer, so after it the variance of the gradient grows by r = R_b/R_f per
layer toward the input, and the norm of the gradient by sqrt(r).

The paper prints equation 1 as r = E[s'(X)]^2/Var[s(X)]. Its three numbers (1.072, 1.178 and 1.467)
are those of E[s'(X)^2]/Var[s(X)], which is what `Activation.growth_rate` computes (erratum E-G1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ghostgrad.theory.quadrature import RealFunction, gaussian_mean, normal_cdf, normal_density

# C = r of ReLU in closed form: (1/2) / ((1 - 1/pi)/2) (Ghost sec. 3.1; LALC Thm. 1; the constant
# c_1/c_2 of the BN-ResNet paper with its right value). About 1.467; its root is about 1.211.
RELU_GROWTH_RATE = math.pi / (math.pi - 1)

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """An element-wise nonlinearity s, its derivative, and the places where the derivative jumps.

    The properties are expectations over X ~ N(0, 1) by quadrature.
    """

    value: RealFunction
    derivative: RealFunction
    kinks: tuple[float, ...] = ()

    def with_input(self, mean: float = 0.0, std: float = 1.0) -> Activation:
        """The same nonlinearity of a pre-activation N(mean, std^2), as a function of X ~ N(0, 1).

        The value is s(mean + std X). The derivative is s'(mean + std X), without the factor std
        of the chain rule: it is taken with respect to the pre-activation and not to X.
        """
        kinks = tuple((kink - mean) / std for kink in self.kinks)
        value, derivative = self.value, self.derivative
        return Activation(
            lambda x: value(mean + std * x), lambda x: derivative(mean + std * x), kinks
        )

    @property
    def mean(self) -> float:
        """E[s(X)]."""
        return gaussian_mean(self.value, self.kinks)

    @property
    def second_moment(self) -> float:
        """E[s(X)^2]."""
        return gaussian_mean(lambda x: self.value(x) ** 2, self.kinks)

    @property
    def variance(self) -> float:
        """Var[s(X)], the forward ratio R_f (Ghost sec. 3.1)."""
        return self.second_moment - self.mean**2

    @property
    def mean_squared_derivative(self) -> float:
        """E[s'(X)^2], the backward ratio R_b (Ghost sec. 3.1)."""
        return gaussian_mean(lambda x: self.derivative(x) ** 2, self.kinks)

    @property
    def mean_derivative(self) -> float:
        """E[s'(X)], whose square equation 1 of the Ghost paper prints."""
        return gaussian_mean(self.derivative, self.kinks)

    @property
    def growth_rate(self) -> float:
        """r = E[s'(X)^2]/Var[s(X)], the growth of the gradient's variance per layer after a BN."""
        return self.mean_squared_derivative / self.variance


def fixed_point_variance(activation: Activation, gain: float, start: float = 1.0) -> float:
    """The variance at which the pre-activations of a plain net without BN settle.

    With weights N(0, gain/d) the variance q of the pre-activations becomes gain E[s(sqrt(q) X)^2]
    in the next layer. This iterates the map from `start` to its fixed point; 0 if the signal dies
    out.
    """
    q = start
    for _ in range(10_000):
        previous, q = q, gain * activation.with_input(std=math.sqrt(q)).second_moment
        if q < 1e-12:
            return 0.0
        if abs(q - previous) < 1e-13 * previous:
            return q
    return q


def sigmoid(x: float) -> float:
    """1/(1 + exp(-x)), without overflow for large |x|."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    """log(1 + exp(x)), without overflow for large x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _silu_derivative(x: float) -> float:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


def _mish_derivative(x: float) -> float:
    t = math.tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


def _leaky_relu(negative_slope: float) -> Activation:
    return Activation(
        lambda x: x if x > 0 else negative_slope * x,
        lambda x: 1.0 if x > 0 else negative_slope,
        (0.0,),
    )


def _elu(scale: float, alpha: float) -> Activation:
    return Activation(
        lambda x: scale * (x if x > 0 else alpha * math.expm1(x)),
        lambda x: scale * (1.0 if x > 0 else alpha * math.exp(x)),
        (0.0,),
    )


def _clipped_line(low: float, high: float, slope: float = 1.0, shift: float = 0.0) -> Activation:
    """slope x + shift, clipped to [low, high]."""
    left, right = (low - shift) / slope, (high - shift) / slope
    return Activation(
        lambda x: min(max(slope * x + shift, low), high),
        lambda x: slope if left < x < right else 0.0,
        (left, right),
    )


# The nonlinearities of torch.nn with their default parameters.
ACTIVATIONS = {
    "ReLU": replace(_leaky_relu(0.0), value=lambda x: max(x, 0.0)),
    "LeakyReLU": _leaky_relu(0.01),
    "PReLU": _leaky_relu(0.25),
    "ReLU6": _clipped_line(0.0, 6.0),
    "ELU": _elu(1.0, 1.0),
    "SELU": _elu(SELU_SCALE, SELU_ALPHA),
    "GELU": Activation(
        lambda x: x * normal_cdf(x), lambda x: normal_cdf(x) + x * normal_density(x)
    ),
    "SiLU": Activation(lambda x: x * sigmoid(x), _silu_derivative),
    "Mish": Activation(lambda x: x * math.tanh(softplus(x)), _mish_derivative),
    "Hardswish": Activation(
        lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
        lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
        (-3.0, 3.0),
    ),
    "Softplus": Activation(softplus, sigmoid),
    # sigmoid(-x) for 1 - sigmoid(x), which is 0 for x above 37.
    "Sigmoid": Activation(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "Hardsigmoid": _clipped_line(0.0, 1.0, 1 / 6, 0.5),
    # 1 - tanh^2 for 1/cosh^2, whose cosh overflows for x above 710.
    "Tanh": Activation(math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "Hardtanh": _clipped_line(-1.0, 1.0),
    "Softsign": Activation(lambda x: x / (1 + abs(x)), lambda x: (1 + abs(x)) ** -2, (0.0,)),
    "Tanhshrink": Activation(lambda x: x - math.tanh(x), lambda x: math.tanh(x) ** 2),
    "LogSigmoid": Activation(lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "Linear": Activation(lambda x: x, lambda x: 1.0),
}
# Not among them because it jumps. Its derivative is that of backpropagation, which leaves the jumps
# out and so does not bound its variance.
HARDSHRINK = Activation(
    lambda x: x if abs(x) > 0.5 else 0.0, lambda x: float(abs(x) > 0.5), (-0.5, 0.5)
)


def _maximum_variance(n: int, value: RealFunction, kinks: tuple[float, ...] = ()) -> float:
    """Var[value(M)] of the maximum M of n independent N(0, 1), whose density is n phi Phi^(n-1)."""

    def moment(power: int) -> float:
        return gaussian_mean(lambda x: n * value(x) ** power * normal_cdf(x) ** (n - 1), kinks)

    return moment(2) - moment(1) ** 2


def maxpool_forward_ratio(n: int = 4) -> float:
    """R_f of max-pooling over n independent N(0, 1): the variance of their maximum.

    The paper prints 0.492 for 2x2 pooling, n = 4 (Ghost app. C.1).
    """
    return _maximum_variance(n, lambda x: x)


def maxpool_backward_ratio(n: int = 4) -> float:
    """R_b of max-pooling over n independent N(0, 1), 1/n.

    An input receives the derivative of the output only where it is the largest of the n inputs;
    this is the probability of that (Ghost app. C.1).
    """
    return gaussian_mean(lambda x: normal_cdf(x) ** (n - 1))


def relu_maxpool_forward_ratio(n: int = 4) -> float:
    """R_f of ReLU followed by max-pooling over n, from the input of ReLU to the output of the pool.

    VGG pools after its ReLU, so this pair lies between two of its convolutions (erratum
    E-G26). ReLU and the maximum commute, so the output is max(M, 0).
    """
    return _maximum_variance(n, lambda x: max(x, 0.0), (0.0,))


def relu_maxpool_backward_ratio(n: int = 4) -> float:
    """R_b of the same pair: the probability that an input is the largest of n and positive."""
    return gaussian_mean(lambda x: normal_cdf(x) ** (n - 1) if x > 0 else 0.0, (0.0,))
