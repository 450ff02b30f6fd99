"""A second implementation of ghostgrad.simulate, for the tests: the plain loop that a reader of the
paper would write.

It computes one repeat at a time, with torch's own layers and backward(). Of the library it uses
only the specs and the random draws.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ghostgrad.checks import validate
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.rng import generator
from ghostgrad.tasks import simulate

CPU = torch.device("cpu")
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "selu": nn.SELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}
NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}


def make_spec(**keys) -> SimulateSpec:
    """A valid, small spec with these changes."""
    small = {"net": "plain", "depth": 4, "width": 12, "batch": 10, "repeats": 5, "seed": 0}
    validate(small | keys, SimulateSpec.schema(), "test")
    return SimulateSpec.expand(small | keys)


def paper_spec(**keys) -> SimulateSpec:
    """A spec with the width, batch and depth of Ghost sec. 2.1, and these changes."""
    return make_spec(**{"width": 256, "batch": 128, "depth": 20, **keys})


def generators(repeats: int, first: int = 0) -> list[torch.Generator]:
    return [generator(0, "repeat", first + i) for i in range(repeats)]


def measured(spec: SimulateSpec, chunk: int, repeats: int | None = None) -> Tensor:
    """What the library measures for all repeats, `chunk` of them at a time."""
    streams = generators(repeats or spec.repeats)
    parts = [streams[i : i + chunk] for i in range(0, len(streams), chunk)]
    return torch.cat([simulate.measure(spec, part) for part in parts])


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    return layer


def var(x: Tensor) -> float:
    """Var[x] of sec. 2: the variance of each element over the batch, averaged over the elements."""
    return x.detach().var(0, unbiased=False).mean().item()


class Loop:
    """A network with the given weights, written layer by layer."""

    def __init__(self, spec: SimulateSpec, weights: list[Tensor]):
        self.spec = spec
        self.linears = [linear(weight) for weight in weights]
        self.act = ACTIVATIONS[spec.activation]()
        dtype = weights[0].dtype
        self.norm = (
            (lambda: NORMS[spec.norm](spec.width).to(dtype)) if spec.norm != "none" else nn.Identity
        )
        self.scale = 1 / math.sqrt(spec.depth // 2) if spec.branch_scale == "1/sqrt(L)" else 1.0
        self.blocks: list[tuple[nn.Module, nn.Module, Tensor, Tensor]] = []

    def signals(self, x: Tensor) -> list[Tensor]:
        """x^(0), x^(1), … with their autograd graph."""
        return [x, *getattr(self, self.spec.net)(x)]

    def plain(self, x: Tensor):
        for layer in self.linears:
            x = self.act(self.norm()(layer(x)))
            yield x

    def seqnet(self, x: Tensor):
        for first, second in zip(self.linears[::2], self.linears[1::2], strict=True):
            hidden = torch.relu(first(x))
            x = self.norm()(second(hidden))
            yield from (hidden, x)

    def residual(self, x: Tensor):
        for first, second in zip(self.linears[::2], self.linears[1::2], strict=True):
            half = nn.Sequential(first, self.norm(), self.act)
            rest = nn.Sequential(second, self.norm())
            hidden = half(x)
            total = x + self.scale * rest(hidden)
            total.retain_grad()
            self.blocks.append((nn.Sequential(half, rest), nn.Identity(), x, total))
            x = self.act(total) if self.spec.residual_sum == "activation" else total
            yield from (hidden, x)

    def preact(self, x: Tensor):
        *pairs, projection = self.linears
        for first, second in zip(pairs[::2], pairs[1::2], strict=True):
            half = nn.Sequential(self.norm(), self.act, first)
            rest = nn.Sequential(self.norm(), self.act, second)
            hidden = half(x)
            shortcut = (
                nn.Identity() if self.blocks else nn.Sequential(self.norm(), self.act, projection)
            )
            total = shortcut(x) + self.scale * rest(hidden)
            total.retain_grad()
            self.blocks.append((nn.Sequential(half, rest), shortcut, x, total))
            x = total
            yield from (hidden, x)

    def ratios(
        self, branch: nn.Module, shortcut: nn.Module, x: Tensor, total: Tensor
    ) -> list[float]:
        """R_f and R_b of a block and then of its branch. Each is computed on its own, from the
        block's input and the derivative at its output."""

        def block(z: Tensor) -> Tensor:
            return shortcut(z) + self.scale * branch(z)

        values = []
        for run, top in ((block, total.grad), (branch, total.grad)):
            z = x.detach().clone().requires_grad_()
            y = run(z)
            (dz,) = torch.autograd.grad(y, z, top)
            values += [var(y) / var(z), var(dz) / var(top)]
        return values


def reference(spec: SimulateSpec, x: Tensor, top: Tensor, weights: list[Tensor]) -> np.ndarray:
    """What measure() reports for one repeat, (layers + 1, columns)."""
    net = Loop(spec, weights)
    signals = net.signals(x.clone().requires_grad_())
    for signal in signals:
        signal.retain_grad()
    signals[-1].backward(top)
    out = np.full((len(signals), 7 if net.blocks else 3), np.nan)
    out[1:, 0] = [layer.weight.grad.norm().item() for layer in net.linears[: len(signals) - 1]]
    out[:, 1] = [var(signal) for signal in signals]
    out[:, 2] = [var(signal.grad) for signal in signals]
    for index, block in enumerate(net.blocks, start=1):
        out[2 * index, 3:] = net.ratios(*block)
    return out


def looped(spec: SimulateSpec, repeats: int, dtype: torch.dtype | None = None) -> np.ndarray:
    """reference() for repeats 0, 1, …, with the inputs, derivatives and weights that measure()
    draws for them."""
    out = []
    for stream in generators(repeats):
        inputs, top, weights = simulate.draw(spec, [stream])
        out.append(
            reference(
                spec, *(t[0].to(dtype) for t in (inputs, top)), [w[0].to(dtype) for w in weights]
            )
        )
    return np.stack(out)
