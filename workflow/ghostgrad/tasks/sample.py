"""Single operators at initialization, sampled: what the propositions of the Ghost and the LALC
paper state about one layer, as repeats that each draw new weights and data. `quantity` names the
operator.

A repeat has places and columns: an operator's function returns (repeats, places, columns).

bn          batch normalization backward (Ghost Cor. 3.7, Prop. 3.8)
linear      a linear layer (Ghost Prop. 3.4)
module      tied and untied two-layer modules, exactly for each W (Ghost Prop. 4.1)
correlated  BN(W relu(x)) of perfectly correlated inputs, exactly for each W (LALC Thm. 2)
pool        max-pooling (Ghost app. C.1)
blocked     a Gaussian sample, half of it dropped at random, and its positive part (LALC fig. 2)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ghostgrad.files import Cell
from ghostgrad.registry.specs.sample import SampleSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks.blocks import normal, run_block, series_table, summary_table

Generators = list[torch.Generator]
BINS = torch.linspace(-4, 4, 81)  # edges


def correlate(x: Tensor, noise: Tensor, correlation: float) -> Tensor:
    """A variable of unit variance with this correlation to x; x and noise are independent and have
    unit variance."""
    return correlation * x + math.sqrt(1 - correlation**2) * noise


def bn(spec: SampleSpec, generators: Generators) -> Tensor:
    """relu's input -> u -> x = W u -> y = BN(x) of a batch, with dl/dy = 1 + N(0, 1), in float64,
    so that an exact 0 shows as one.

    z_mean, z_second: mean over features of z and z^2, where R_b = (1 - z/B)/sigma^2 (Prop. 3.8).
    at_bn, at_linear: the largest |batch mean| over features of dl/dx and of dl/du, over its root
    mean square (Cor. 3.7). at_relu: the same of relu's input, signed, and its mean over features.
    `correlation` ties dl/dy to y, against Assumption 3.6; `norm: none` takes the BN away.
    """
    batch, d = spec.batch, spec.width
    raw = normal(generators, batch, d).double().requires_grad_()
    weight = normal(generators, d, d, std=d**-0.5).double()
    upstream = normal(generators, batch, d).double()
    u = raw.clamp(min=0)
    x = u @ weight.transpose(1, 2)
    centred = x - x.mean(1, keepdim=True)
    sigma2 = (centred * centred).mean(1, keepdim=True)
    y = centred * sigma2.rsqrt() if spec.norm == "batch" else x
    upstream = 1 + correlate(y.detach(), upstream, spec.correlation)
    of_x, of_u, of_raw = torch.autograd.grad(y, (x, u, raw), upstream)

    def relative_mean(v: Tensor) -> Tensor:
        """(repeats, features): mean over the batch, over the root mean square of the repeat."""
        return v.mean(1) / (v * v).mean((1, 2), keepdim=True).sqrt().squeeze(1)

    ratio = of_x.var(1, correction=0) / upstream.var(1, correction=0)
    if spec.norm == "batch":
        ratio = ratio * sigma2.squeeze(1)
    z = (batch * (1 - ratio)).detach()
    columns = [
        z.mean(1),
        (z * z).mean(1),
        relative_mean(of_x).abs().amax(1),
        relative_mean(of_u).abs().amax(1),
        relative_mean(of_raw).mean(1),
    ]
    return torch.stack(columns, dim=1).unsqueeze(1)


def linear(spec: SampleSpec, generators: Generators) -> Tensor:
    """R_f and R_b of y = W x with W ~ N(0, 1/d) in R^{kd x d}, over ||W||^2/D and ||W||^2/d
    (Prop. 3.4); `correlation` ties all dimensions of x, and those of dl/dy, to a common factor,
    against Assumption 3.3."""
    batch, d, rho = spec.batch, spec.width, spec.correlation
    wide = spec.expansion * d
    weight = normal(generators, wide, d, std=d**-0.5)

    def signal(features: int) -> Tensor:
        return correlate(normal(generators, batch, 1), normal(generators, batch, features), rho)

    x, of_y = signal(d), signal(wide)
    squares = (weight * weight).sum((1, 2))

    def ratio(after: Tensor, before: Tensor, features: int) -> Tensor:
        variances = [v.var(1, correction=0).mean(1) for v in (after, before)]
        return variances[0] / variances[1] / (squares / features)

    forward = ratio(x @ weight.transpose(1, 2), x, wide)
    return torch.stack([forward, ratio(of_y @ weight, of_y, d)], dim=1).unsqueeze(1)


def module(spec: SampleSpec, generators: Generators) -> Tensor:
    """R_f and R_b of M relu(W x) over x ~ N(0, I) and dl/dy ~ N(0, I), exactly for each
    W ~ N(0, c/D) in R^{D x d}, by the arc-cosine kernel of two Gaussians with correlation
    cos(theta).

    column_spread: (||column of W||^2 - c)^2, mean over columns, whose expectation is 2 c^2/D.
    absolute_trace: tr(W^T E[|Wx| |Wx|^T] W)/d.
    """
    d, wide = spec.width, spec.expansion * spec.width
    std = (spec.weight_scale / wide) ** 0.5
    weight = normal(generators, wide, d, std=std).double()
    second = weight.transpose(1, 2) if spec.tied else normal(generators, d, wide, std=std).double()
    gram = weight @ weight.transpose(1, 2)
    out = second.transpose(1, 2) @ second
    norms = gram.diagonal(dim1=1, dim2=2).sqrt()
    scale = norms.unsqueeze(1) * norms.unsqueeze(2)
    cosine = (gram / scale).clamp(-1, 1)  # rounding may leave the interval, where acos is NaN
    theta, sine = cosine.acos(), (1 - cosine**2).clamp(min=0).sqrt()
    both = (math.pi - theta) / (2 * math.pi)  # P(both are positive)
    covariance = scale * (sine / (2 * math.pi) + both * cosine) - scale / (2 * math.pi)
    absolute = scale * (2 / math.pi) * (sine + cosine * cosine.asin())
    columns = (weight * weight).sum(1)
    return torch.stack(
        [
            (covariance * out).sum((1, 2)) / d,
            (both * out * gram).sum((1, 2)) / d,
            ((columns - spec.weight_scale) ** 2).mean(1),
            (absolute * gram).sum((1, 2)) / d,
        ],
        dim=1,
    ).unsqueeze(1)


def correlated(spec: SampleSpec, generators: Generators) -> Tensor:
    """S of LALC Thm. 2 with x = t b, b ~ N(0, 1), t ~ N(0, I), W ~ N(0, 1) in R^{d x d}, a mean
    over outputs; and `spread`, the variance before the BN over sum t^2, mean over outputs. With
    `correlation: 0` the inputs are independent, as in Thm. 1."""
    d = spec.width
    t, weight = normal(generators, 1, d).double(), normal(generators, d, d).double()
    squares = (weight * t).square().sum(2)
    if spec.correlation:
        # W relu(x) is p b for b > 0 and n |b| for b < 0.
        p, n = (weight * t.clamp(min=0)).sum(2), (weight * (-t).clamp(min=0)).sum(2)
        spread = (p * p + n * n) / 2 - (p + n) ** 2 / (2 * math.pi)
    else:
        spread = squares * (0.5 - 1 / (2 * math.pi))
    s = 0.5 * (squares / spread).mean(1)
    return torch.stack([s, (spread / t.square().sum(2)).mean(1)], dim=1).unsqueeze(1)


def blocked(spec: SampleSpec, generators: Generators) -> Tensor:
    """Variances (place 0) and densities in BINS (places 1, 2, …) of an N(0, 1) sample, of the
    sample with a random half set to 0, and of its positive part."""
    x = normal(generators, spec.batch)
    keep = normal(generators, spec.batch) > 0
    samples = (x, x * keep, x.clamp(min=0))
    width = BINS[1] - BINS[0]
    edges = BINS.to(x.device)
    densities = []
    for values in samples:
        counts = torch.stack([torch.histc(row, len(edges) - 1, -4, 4) for row in values])
        densities.append(counts / (values.shape[1] * width))
    # Three columns of variances and three of densities: place 0 has only the former, the others
    # only the latter.
    variances = torch.stack([values.var(1, correction=0) for values in samples], dim=1)
    first = torch.cat([variances, torch.full_like(variances, torch.nan)], dim=1).unsqueeze(1)
    density = torch.stack(densities, dim=2)
    others = torch.cat([torch.full_like(density, torch.nan), density], dim=2)
    return torch.cat([first, others], dim=1)


def pool(spec: SampleSpec, generators: Generators) -> Tensor:
    """2x2 max-pooling of independent N(0, 1), and the same after a ReLU: the variance of the
    output, and the share of inputs that receive the derivative."""
    x = normal(generators, spec.batch, 4)
    # The share of windows whose first input is the largest: by symmetry that of every input.
    largest, where = x.max(2)
    positive = largest.clamp(min=0)
    columns = [largest.var(1), positive.var(1), (where == 0).float().mean(1)]
    return torch.stack([*columns, ((where == 0) & (largest > 0)).float().mean(1)], dim=1).unsqueeze(
        1
    )


@dataclass(frozen=True)
class Quantity:
    """A sampled operator and what it measures."""

    measure: Callable[[SampleSpec, Generators], Tensor]
    columns: tuple[str, ...]
    floats_per_repeat: Callable[[SampleSpec], int]
    """How many numbers a repeat holds in memory."""


def _matrices(count: int) -> Callable[[SampleSpec], int]:
    """The numbers in `count` matrices of D x D."""
    return lambda spec: count * (spec.expansion * spec.width) ** 2


def _signals(count: int) -> Callable[[SampleSpec], int]:
    """The numbers in `count` batches of D features."""
    return lambda spec: count * spec.batch * spec.expansion * spec.width


QUANTITIES = {
    "bn": Quantity(bn, ("z_mean", "z_second", "at_bn", "at_linear", "at_relu"), _signals(20)),
    "linear": Quantity(linear, ("forward", "backward"), _signals(6)),
    "module": Quantity(module, ("R_f", "R_b", "column_spread", "absolute_trace"), _matrices(20)),
    "correlated": Quantity(correlated, ("S", "spread"), _matrices(8)),
    "pool": Quantity(
        pool,
        ("pool_forward", "relu_pool_forward", "pool_backward", "relu_pool_backward"),
        lambda spec: 20 * spec.batch,
    ),
    "blocked": Quantity(
        blocked,
        (
            "input_variance",
            "dropped_variance",
            "relu_variance",
            "input_density",
            "dropped_density",
            "relu_density",
        ),
        lambda spec: 6 * spec.batch,
    ),
}


def sample(spec: SampleSpec, state: State, device: torch.device) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly."""
    quantity = QUANTITIES[spec.quantity]
    floats = quantity.floats_per_repeat(spec)
    values = run_block(spec, state, device, partial(quantity.measure, spec), floats)
    metrics: dict[str, Cell] = {"status": "done", "repeats": len(values)}
    first = values[:, 0].double()
    for index, column in enumerate(quantity.columns):
        if not first[:, index].isnan().any():
            metrics |= {column: first[:, index].mean().item()}
    series = series_table(spec, "place", quantity.columns, values)
    return Record(metrics, series, summary_table(quantity.columns, values))
