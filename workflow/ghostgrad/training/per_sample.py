"""Norms of every sample's gradient, per parameter, without the gradients themselves: for CLARS (001 app. B).

A layer's weight gradient is a sum over samples of products of its input and of the loss's gradient at its output, so
each sample's share and its norm follow from the two. With a loss that is a mean over B samples a sample's gradient is
B times its share, and the mean of the gradients' norms is the sum of the shares'. In a net with BN in train mode a
sample's loss depends on the other samples too; its share is then the part of the sum's gradient that its own
activations carry (E-L8).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup

CHUNK = 2**24  # values of a layer's unfolded input that are held at a time


def linear_squares(x: Tensor, delta: Tensor) -> Tensor:
    """Squared norms (B,) of the weight gradients delta_i x_i^T of a linear layer; x (B, in), delta (B, out)."""
    return x.square().sum(1) * delta.square().sum(1)


def conv_squares(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Tensor:
    """Squared norms (B,) of the weight gradients of a convolution; x (B, C, H, W), delta (B, O, H', W').

    With A_i the unfolded input (C k k, T) and D_i the output's gradient (O, T), T = H' W', the gradient is D_i A_i^T.
    Its norm comes from the two T x T Gram matrices where that is cheaper than the gradient (Goodfellow 2015).
    """
    positions, rows = delta[0, 0].numel(), layer.weight[0].numel()
    grams = prefers_grams(layer, x)
    found = []
    size = max(1, CHUNK // (rows * positions))
    for some, of_them in zip(x.split(size), delta.flatten(2).split(size), strict=True):
        unfolded = F.unfold(some, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        if grams:
            found.append(((unfolded.mT @ unfolded) * (of_them.mT @ of_them)).sum((1, 2)).clamp(min=0))
        else:
            found.append((of_them @ unfolded.mT).square().sum((1, 2)))
    return torch.cat(found)


def prefers_grams(layer: nn.Conv2d, x: Tensor) -> bool:
    """True where a convolution of x has few positions and many weights."""
    sizes = zip(x.shape[2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    positions = math.prod((n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k, stride, pad, dilation in sizes)
    rows = layer.weight[0].numel()
    return positions * (rows + layer.out_channels) < rows * layer.out_channels


def conv_gradients(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """What conv_squares gives, and the gradient of the sum; each image's gradient is a group of one convolution. On a
    CPU that costs little more than the sum alone, and a fourth of unfolding, which copies the input k k times."""
    squares, total = [], torch.zeros_like(layer.weight, dtype=x.dtype)
    size = max(1, CHUNK // layer.weight.numel())
    options = (layer.stride, layer.padding, layer.dilation)
    for some, of_them in zip(x.split(size), delta.split(size), strict=True):
        n, shape = len(some), layer.weight.shape
        image, gradient = (part.reshape(1, -1, *part.shape[2:]) for part in (some, of_them))
        each = torch.nn.grad.conv2d_weight(image, (n * shape[0], *shape[1:]), gradient, *options, groups=n)
        squares.append(each.view(n, -1).square().sum(1))
        total += each.view(n, *shape).sum(0)
    return torch.cat(squares), total


def norm_squares(layer: nn.BatchNorm2d | nn.BatchNorm1d, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms (B,) of the gradients of gamma and beta; x and delta (B, C, …)."""
    normalized = F.batch_norm(x, None, None, training=True, eps=layer.eps)
    return _over_positions(delta * normalized), _over_positions(delta)


def _over_positions(values: Tensor) -> Tensor:
    """Squared norms (B,) of what is left of (B, C, …) when positions are summed."""
    return values.flatten(2).sum(2).square().sum(1) if values.ndim > 2 else values.square().sum(1)


class SampleNorms:
    """Collects the mean over the samples of |grad f_i| of every parameter, over the backward passes of one update,
    whose losses add up to the mean over all samples."""

    def __init__(self, model: nn.Module):
        self.sums: dict[Tensor, Tensor] = {}
        kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
        self.layers = [module for module in model.modules() if isinstance(module, kinds)]
        covered = {id(p) for layer in self.layers for p in layer.parameters(recurse=False)}
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
                raise InputError(f"optimizer: clars has no per-sample norms for {layer}")
        for name, parameter in model.named_parameters():
            if id(parameter) not in covered:
                raise InputError(f"optimizer: clars has no per-sample norms for the parameter '{name}'")

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Forward and backward happen inside."""
        hooks = [layer.register_forward_hook(self._watch) for layer in self.layers]
        hooks += [layer.register_forward_pre_hook(self._take_over) for layer in self.layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _take_over(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Where the samples' gradients are computed for their norms, autograd need not compute their sum again."""
        x = inputs[0]
        taken = isinstance(layer, nn.Conv2d) and x.requires_grad and not x.is_cuda and not prefers_grams(layer, x)
        layer.weight.requires_grad_(not taken)

    def _watch(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, taken = inputs[0].detach(), not layer.weight.requires_grad
        layer.weight.requires_grad_()
        output.register_hook(lambda delta: self._add(layer, x, delta, taken))

    @torch.no_grad()
    def _add(self, layer: nn.Module, x: Tensor, delta: Tensor, taken: bool) -> None:
        wide = torch.promote_types(torch.promote_types(x.dtype, delta.dtype), torch.float32)
        x, delta = x.to(wide), delta.to(wide)  # under autocast either may be bfloat16
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            squares = norm_squares(layer, x, delta)
        elif taken:
            square, total = conv_gradients(layer, x, delta)
            layer.weight.grad = total if layer.weight.grad is None else layer.weight.grad + total
            squares = (square,)
        else:
            squares = (conv_squares(layer, x, delta) if isinstance(layer, nn.Conv2d) else linear_squares(x, delta),)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            squares += (_over_positions(delta),)
        for parameter, square in zip(layer.parameters(recurse=False), squares, strict=True):
            self.sums[parameter] = self.sums.get(parameter, 0) + square.sqrt().sum()

    def means(self, group: ProcessGroup = SINGLE_PROCESS) -> dict[Tensor, float]:
        """By parameter, since the last call; over the samples of every process."""
        total = group.all_reduce_sum(torch.stack(list(self.sums.values()))) / group.size
        found = dict(zip(self.sums, total.tolist(), strict=True))
        self.sums = {}
        return found
