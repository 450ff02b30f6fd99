"""Sampled operators agree with torch's layers, Monte Carlo over inputs, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.base import Spec
from ghostgrad.rng import generator
from ghostgrad.tasks import sample
from ghostgrad.tasks.blocks import normal
from ghostgrad.theory import propositions


def spec(quantity: str, **keys) -> Spec:
    return expand("sample", {"quantity": quantity, "repeats": 4, "seed": 0, **keys})


def streams(n: int = 4) -> list[torch.Generator]:
    return [generator(0, "repeat", i) for i in range(n)]


def columns(quantity: str, n: int = 4, **keys) -> dict[str, np.ndarray]:
    """Return the values (repeats,) of each column at place 0."""
    values = sample.QUANTITIES[quantity].measure(spec(quantity, **keys), streams(n))
    return dict(
        zip(sample.QUANTITIES[quantity].columns, values[:, 0].T.double().numpy(), strict=True)
    )


def test_bn_is_torchs_layer_and_autograd():
    """The columns of one repeat agree with autograd through nn.BatchNorm1d in float64.

    The derivative's batch mean is zero at the BN and at the linear layer, but not at the ReLU.
    """
    batch, d = 12, 8
    stream = streams(1)
    raw = normal(stream, batch, d)[0].double().requires_grad_()
    weight = normal(stream, d, d, std=d**-0.5)[0].double()
    upstream = 1 + normal(stream, batch, d)[0].double()
    u = torch.relu(raw)
    u.retain_grad()
    x = u @ weight.T
    x.retain_grad()
    norm = nn.BatchNorm1d(d, eps=1e-30, affine=False, dtype=torch.float64)
    norm(x).backward(upstream)
    ratio = x.grad.var(0, correction=0) / upstream.var(0, correction=0) * x.var(0, correction=0)
    z = batch * (1 - ratio)
    sampled = columns("bn", 1, width=d, batch=batch)
    assert sampled["z_mean"][0] == pytest.approx(z.mean().item(), rel=1e-9)
    assert sampled["z_second"][0] == pytest.approx((z * z).mean().item(), rel=1e-9)
    assert sampled["at_bn"][0] < 1e-14
    assert sampled["at_linear"][0] < 1e-13
    assert sampled["at_relu"][0] == pytest.approx(
        (raw.grad.mean(0) / raw.grad.square().mean().sqrt()).mean().item(), rel=1e-6
    )


@pytest.mark.parametrize("batch", [4, 16, 128])
def test_the_moments_of_z_are_the_exact_ones(batch):
    """z has the mean B/(B-1) and the variance 2 B^2 (B-2)/((B-1)^2 (B+1)).

    The means over 300 repeats of 64 features hold to four standard errors.
    """
    sampled = columns("bn", 300, width=64, batch=batch)
    z, square = sampled["z_mean"], sampled["z_second"]
    assert z.mean() == pytest.approx(propositions.bn_z_mean(batch), abs=4 * z.std() / 300**0.5)
    second = propositions.bn_z_variance(batch) + propositions.bn_z_mean(batch) ** 2
    assert square.mean() == pytest.approx(second, abs=4 * square.std() / 300**0.5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_modules_ratios_are_those_of_monte_carlo(tied):
    """The arc-cosine kernel gives the ratios of 200,000 random inputs through the same W."""
    d, k, n = 6, 2, 200_000
    stream = streams(1)
    weight = normal(stream, k * d, d, std=(2 / (k * d)) ** 0.5)[0].double()
    second = weight.T if tied else normal(stream, d, k * d, std=(2 / (k * d)) ** 0.5)[0].double()
    rng = torch.Generator().manual_seed(1)
    x, dy = (torch.empty(n, d, dtype=torch.float64).normal_(generator=rng) for _ in range(2))
    hidden = x @ weight.T
    y = torch.relu(hidden) @ second.T
    dx = ((dy @ second) * (hidden > 0)) @ weight
    sampled = columns("module", 1, width=d, expansion=k, tied=tied)
    for name, after, before in (("R_f", y, x), ("R_b", dx, dy)):
        measured = (after.var(0).mean() / before.var(0).mean()).item()
        assert sampled[name][0] == pytest.approx(measured, rel=0.02)
    trace = (
        torch.einsum("ni,nj->ij", hidden.abs(), hidden.abs()) / n * (weight @ weight.T)
    ).sum().item() / d
    assert sampled["absolute_trace"][0] == pytest.approx(trace, rel=0.02)


def test_correlated_inputs_are_those_of_monte_carlo():
    """The variance before the BN and S agree with 400,000 draws of the common factor."""
    d = 5
    stream = streams(1)
    t, weight = normal(stream, 1, d)[0, 0].double(), normal(stream, d, d)[0].double()
    b = torch.empty(400_000, dtype=torch.float64).normal_(
        generator=torch.Generator().manual_seed(1)
    )
    before = torch.relu(b[:, None] * t) @ weight.T
    variance = before.var(0)
    sampled = columns("correlated", 1, width=d, correlation=1)
    assert sampled["spread"][0] == pytest.approx(
        (variance / t.square().sum()).mean().item(), rel=0.02
    )
    s = 0.5 * ((weight * t).square().sum(1) / variance).mean().item()
    assert sampled["S"][0] == pytest.approx(s, rel=0.02)
    theory = propositions.correlated_amplification(weight.tolist(), t.tolist(), [1.0] * d)
    assert sampled["S"][0] == pytest.approx(theory, rel=1e-9)


def test_independent_inputs_give_theorem_1():
    assert columns("correlated", width=16)["S"] == pytest.approx(
        [math.pi / (math.pi - 1)] * 4, rel=1e-12
    )


def test_densities_are_normalized_and_variances_right():
    values = (
        sample.QUANTITIES["blocked"]
        .measure(spec("blocked", batch=50_000), streams(2))
        .double()
        .numpy()
    )
    width = float(sample.BINS[1] - sample.BINS[0])
    assert values.shape == (2, 81, 6)
    assert (values[:, 1:, 3:].sum(1) * width) == pytest.approx(np.ones((2, 3)), abs=1e-3)
    assert values[:, 0, :3].mean(0) == pytest.approx([1, 0.5, 0.340845], abs=0.02)


def test_pooling_is_the_closed_form():
    sampled = columns("pool", 8, batch=100_000)
    assert sampled["pool_forward"].mean() == pytest.approx(0.4917, abs=0.004)
    assert sampled["relu_pool_backward"].mean() == pytest.approx(15 / 64, abs=0.004)
