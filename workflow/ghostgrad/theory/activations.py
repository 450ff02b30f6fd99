"""Element-wise nonlinearities and what they do to the variance of signals and of derivatives (Ghost sec. 3.1, app. A).

For a pre-activation N(mean, std^2): R_f = Var[s]/std^2 forward, R_b = E[s'^2] backward, and behind a BN the variance of
the gradient grows by r = R_b/R_f per layer, its norm by sqrt(r) (Ghost eq. 1, corrected: it prints E[s']^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ghostgrad.theory.quadrature import density, distribution, gaussian_mean

Function = Callable[[float], float]

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """An element-wise nonlinearity s, its derivative and the places where the derivative jumps."""

    value: Function
    derivative: Function
    kinks: tuple[float, ...] = ()

    def at(self, mean: float = 0.0, std: float = 1.0) -> Activation:
        """The same as a function of a standard normal: x -> s(mean + std x); the derivative stays that of s."""
        kinks = tuple((kink - mean) / std for kink in self.kinks)
        value, derivative = self.value, self.derivative
        return Activation(lambda x: value(mean + std * x), lambda x: derivative(mean + std * x), kinks)

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
        """Var[s(X)], the forward ratio R_f of a unit Gaussian input (Ghost sec. 3.1)."""
        return self.second_moment - self.mean**2

    @property
    def slope(self) -> float:
        """E[s'(X)^2], the backward ratio R_b."""
        return gaussian_mean(lambda x: self.derivative(x) ** 2, self.kinks)

    @property
    def mean_slope(self) -> float:
        """E[s'(X)]."""
        return gaussian_mean(self.derivative, self.kinks)

    @property
    def rate(self) -> float:
        """r = E[s'(X)^2] / Var[s(X)], the growth of the gradient's variance per layer behind a BN."""
        return self.slope / self.variance

    @property
    def layernorm_rate(self) -> float:
        """E[s'(X)^2] / E[s(X)^2], the same behind a LayerNorm, which removes the mean over features and not that of
        each feature over the batch (LALC's "no explosion with layer normalization", E-L9)."""
        return self.slope / self.second_moment


def fixed_point(activation: Activation, gain: float, start: float = 1.0) -> float:
    """The variance q = gain E[s(sqrt(q) X)^2] at which the signals of a plain net without BN settle, with weights
    N(0, gain/d); 0 where they die out."""
    q = start
    for _ in range(10_000):
        before, q = q, gain * activation.at(std=math.sqrt(q)).second_moment
        if q < 1e-12:
            return 0.0
        if abs(q - before) < 1e-13 * before:
            return q
    return q


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _silu_slope(x: float) -> float:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


def _mish_slope(x: float) -> float:
    t = math.tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


def _leaky(slope: float) -> Activation:
    return Activation(lambda x: x if x > 0 else slope * x, lambda x: 1.0 if x > 0 else slope, (0.0,))


def _elu(scale: float, alpha: float) -> Activation:
    return Activation(
        lambda x: scale * (x if x > 0 else alpha * math.expm1(x)),
        lambda x: scale * (1.0 if x > 0 else alpha * math.exp(x)),
        (0.0,),
    )


def _clipped(low: float, high: float, slope: float = 1.0, shift: float = 0.0) -> Activation:
    """slope x + shift, held between two values."""
    ends = tuple((end - shift) / slope for end in (low, high))
    return Activation(lambda x: min(max(slope * x + shift, low), high), lambda x: slope * (ends[0] < x < ends[1]), ends)


# With the default parameters of torch.nn.
ACTIVATIONS = {
    "ReLU": replace(_leaky(0.0), value=lambda x: max(x, 0.0)),
    "LeakyReLU": _leaky(0.01),
    "PReLU": _leaky(0.25),
    "ReLU6": _clipped(0.0, 6.0),
    "ELU": _elu(1.0, 1.0),
    "SELU": _elu(SELU_SCALE, SELU_ALPHA),
    "GELU": Activation(lambda x: x * distribution(x), lambda x: distribution(x) + x * density(x)),
    "SiLU": Activation(lambda x: x * sigmoid(x), _silu_slope),
    "Mish": Activation(lambda x: x * math.tanh(softplus(x)), _mish_slope),
    "Hardswish": Activation(
        lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
        lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
        (-3.0, 3.0),
    ),
    "Softplus": Activation(softplus, sigmoid),
    "Sigmoid": Activation(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "Hardsigmoid": _clipped(0.0, 1.0, 1 / 6, 0.5),
    "Tanh": Activation(math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "Hardtanh": _clipped(-1.0, 1.0),
    "Softsign": Activation(lambda x: x / (1 + abs(x)), lambda x: (1 + abs(x)) ** -2, (0.0,)),
    "Tanhshrink": Activation(lambda x: x - math.tanh(x), lambda x: math.tanh(x) ** 2),
    "LogSigmoid": Activation(lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "Linear": Activation(lambda x: x, lambda x: 1.0),
}


def maxpool_forward(n: int = 4) -> float:
    """R_f of the maximum of n independent N(0, 1): its variance, from the density n phi Phi^(n-1) (Ghost app. C.1)."""

    def moment(power: int) -> float:
        return gaussian_mean(lambda x: n * x**power * distribution(x) ** (n - 1))

    return moment(2) - moment(1) ** 2


def maxpool_backward(n: int = 4) -> float:
    """R_b of the same: an input receives the derivative where it is the largest, with probability 1/n."""
    return gaussian_mean(lambda x: distribution(x) ** (n - 1))


def relu_maxpool_forward(n: int = 4) -> float:
    """R_f of ReLU and then the maximum of n (VGG pools after its ReLU, E-G26), a ReLU layer's input to the pool's
    output."""

    def moment(power: int) -> float:
        return gaussian_mean(lambda x: n * max(x, 0.0) ** power * distribution(x) ** (n - 1), (0.0,))

    return moment(2) - moment(1) ** 2


def relu_maxpool_backward(n: int = 4) -> float:
    """R_b of the same: the input is the largest and positive."""
    return gaussian_mean(lambda x: (x > 0) * distribution(x) ** (n - 1), (0.0,))
