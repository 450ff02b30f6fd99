"""The norm of every sample's gradient, per parameter, without the gradients themselves: what CLARS
needs (LALC paper app. B).

The gradient of a layer's weights is a sum over samples i of a product of the layer's input x_i and
of delta_i, the loss's gradient with respect to its output. Hooks see both, so the norm of each
summand follows without another pass:

    linear        |delta_i x_i^T| = |delta_i| |x_i|
    convolution   With the unfolded input A_i (C k k, T) and the output's gradient D_i (O, T) over T
                  positions, the gradient is D_i A_i^T, and
                  |D_i A_i^T|^2 = sum over s, t of (A_i^T A_i)_st (D_i^T D_i)_st,
                  which needs only two T x T Gram matrices (Goodfellow 2015). That is cheaper where
                  T is small beside C k k and O, in late layers; elsewhere the gradient is computed.
    BN            sums over positions of delta_i times the normalized input (gamma), and of
                  delta_i (beta)

The loss is a mean over B samples, so the gradient of a sample's own loss is B times its summand,
and the mean over samples of the gradients' norms is the sum of the summands' norms. In a network
with BN in train mode, a sample's loss depends on the other samples too. There, a sample's summand
is the part of the gradient that its own activations carry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup

MAX_VALUES = 2**24  # of a layer's unfolded input or of its per-sample gradients, at a time

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d
Layer: TypeAlias = nn.Conv2d | nn.Linear | BatchNorm


def linear_squares(x: Tensor, delta: Tensor) -> Tensor:
    """Squared norms (B,) of the weight gradients delta_i x_i^T; x (B, in), delta (B, out)."""
    return x.square().sum(1) * delta.square().sum(1)


def conv_squares(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Tensor:
    """Squared norms (B,) of the weight gradients of a convolution.

    x (B, C, H, W) is its input, delta (B, O, H', W') the loss's gradient at its output.
    """
    positions, rows = delta[0, 0].numel(), layer.weight[0].numel()
    use_grams = prefers_grams(layer, x)
    squares = []
    chunk = max(1, MAX_VALUES // (rows * positions))
    for x_part, delta_part in zip(x.split(chunk), delta.flatten(2).split(chunk), strict=True):
        unfolded = F.unfold(
            x_part, layer.kernel_size, layer.dilation, _padding(layer), layer.stride
        )
        if use_grams:
            products = (unfolded.mT @ unfolded) * (delta_part.mT @ delta_part)
            # Rounding can make the sum of a vanishing gradient slightly negative.
            squares.append(products.sum((1, 2)).clamp(min=0))
        else:
            squares.append((delta_part @ unfolded.mT).square().sum((1, 2)))
    return torch.cat(squares)


def prefers_grams(layer: nn.Conv2d, x: Tensor) -> bool:
    """True where Gram matrices are cheaper than gradients for a convolution of x (B, C, H, W).

    Per sample they cost T^2 (C k k + O) multiplications, the gradient T C k k O.
    """
    positions = 1
    for axis, size in enumerate(x.shape[2:]):
        span = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        positions *= (size + 2 * _padding(layer)[axis] - span - 1) // layer.stride[axis] + 1
    rows = math.prod(layer.weight.shape[1:])
    return positions * (rows + layer.out_channels) < rows * layer.out_channels


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    """The zeros on either side, by axis; our networks have no padding that is text ('same')."""
    if isinstance(layer.padding, str):
        raise TypeError(f"no per-sample norms for the padding {layer.padding!r}")
    return layer.padding


def conv_gradients(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms (B,) as `conv_squares` gives them, and the gradient of the sum.

    Each sample's gradient is one group of a grouped convolution. On a CPU this costs little more
    than the sum alone, and a fourth of unfolding, which copies the input k k times.
    """
    shape = layer.weight.shape
    squares, total = [], torch.zeros_like(layer.weight, dtype=x.dtype)
    chunk = max(1, MAX_VALUES // layer.weight.numel())
    for x_part, delta_part in zip(x.split(chunk), delta.split(chunk), strict=True):
        n = len(x_part)
        # (n, C, H, W) -> (1, n C, H, W): the samples become the groups of one image.
        image, gradient = (part.reshape(1, -1, *part.shape[2:]) for part in (x_part, delta_part))
        per_sample = torch.nn.grad.conv2d_weight(  # type: ignore[attr-defined]  # not in its stubs
            image,
            (n * shape[0], *shape[1:]),
            gradient,
            layer.stride,
            layer.padding,
            layer.dilation,
            groups=n,
        )
        squares.append(per_sample.view(n, -1).square().sum(1))
        total += per_sample.view(n, *shape).sum(0)
    return torch.cat(squares), total


def norm_squares(layer: BatchNorm, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms (B,) of the gradients of gamma and beta; x and delta (B, C, …)."""
    normalized = F.batch_norm(x, None, None, training=True, eps=layer.eps)
    return _squares_of_sums(delta * normalized), _squares_of_sums(delta)


def _squares_of_sums(values: Tensor) -> Tensor:
    """Squared norms (B,) of (B, C, …) summed over positions."""
    if values.ndim > 2:
        values = values.flatten(2).sum(2)
    return values.square().sum(1)


class SampleNorms:
    """Collects the mean over samples of |grad f_i| of every parameter during one update.

    The update may take several backward passes, whose losses add up to the mean over all samples.
    Raises InputError for a parameter of another layer than convolutions, linear layers and BN, and
    for a convolution with groups or with padding other than zeros.
    """

    def __init__(self, model: nn.Module):
        self.sums: dict[Tensor, Tensor] = {}
        self.layers: list[Layer] = [
            module
            for module in model.modules()
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d))
        ]
        problem = "optimizer: clars has no per-sample norms for"
        covered = {id(p) for layer in self.layers for p in layer.parameters(recurse=False)}
        for layer in self.layers:
            is_convolution = isinstance(layer, nn.Conv2d)
            if is_convolution and (layer.groups != 1 or layer.padding_mode != "zeros"):
                raise InputError(f"{problem} {layer}")
        for name, parameter in model.named_parameters():
            if id(parameter) not in covered:
                raise InputError(f"{problem} the parameter '{name}'")

    @contextmanager
    def collect(self) -> Iterator[None]:
        """The forward and backward passes of an update happen inside."""
        hooks = []
        for layer in self.layers:
            hooks.append(layer.register_forward_pre_hook(self._before_forward))
            hooks.append(layer.register_forward_hook(self._after_forward))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before_forward(self, layer: Layer, inputs: tuple[Tensor, ...]) -> None:
        """Take over the weight's gradient where the samples' gradients are computed anyway.

        Their sum is that gradient, so autograd need not compute it again: it leaves out a weight
        that requires no gradient in the forward pass. Not so for the network's first layer: without
        a gradient of its input either, its output would get none, and no hook would run.
        """
        x = inputs[0]
        takes_over = (
            isinstance(layer, nn.Conv2d)
            and x.requires_grad
            and not x.is_cuda
            and not prefers_grams(layer, x)
        )
        layer.weight.requires_grad_(not takes_over)

    def _after_forward(self, layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, taken_over = inputs[0].detach(), not layer.weight.requires_grad
        layer.weight.requires_grad_()
        output.register_hook(lambda delta: self._add(layer, x, delta, taken_over))

    @torch.no_grad()
    def _add(self, layer: Layer, x: Tensor, delta: Tensor, taken_over: bool) -> None:
        """Add the norms of one layer in one backward pass, and its gradient where taken over."""
        # Under autocast either may be bfloat16, in which squares and sums lose too much.
        wide = torch.promote_types(torch.promote_types(x.dtype, delta.dtype), torch.float32)
        squares = self._squares(layer, x.to(wide), delta.to(wide), taken_over)
        for parameter, square in zip(layer.parameters(recurse=False), squares, strict=True):
            norms = square.sqrt().sum()
            previous = self.sums.get(parameter)
            self.sums[parameter] = norms if previous is None else previous + norms

    def _squares(
        self, layer: Layer, x: Tensor, delta: Tensor, taken_over: bool
    ) -> tuple[Tensor, ...]:
        """Squared norms (B,) for each parameter of the layer, in the order of `parameters()`."""
        if isinstance(layer, nn.Conv2d):
            if taken_over:
                weight_squares, gradient = conv_gradients(layer, x, delta)
                grad = layer.weight.grad
                layer.weight.grad = gradient if grad is None else grad + gradient
            else:
                weight_squares = conv_squares(layer, x, delta)
        elif isinstance(layer, nn.Linear):
            weight_squares = linear_squares(x, delta)
        else:
            return norm_squares(layer, x, delta)
        if layer.bias is None:
            return (weight_squares,)
        return weight_squares, _squares_of_sums(delta)

    def means(self, group: ProcessGroup = SINGLE_PROCESS) -> dict[Tensor, float]:
        """The mean by parameter since the last call, over the samples of every process."""
        # A process weights its losses by 1/(number of its own samples), hence the division.
        sums = torch.stack(list(self.sums.values()))
        means = group.all_reduce_sum(sums) / group.size
        result = dict(zip(self.sums, means.tolist(), strict=True))
        self.sums = {}
        return result
