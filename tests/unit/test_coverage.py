"""Standard errors mean what they say: intervals of 1.96 of them hold the truth about 95 times in 100."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ghostgrad.analysis.measures import fitted_rate, jackknife
from ghostgrad.claims import bnres
from ghostgrad.claims.comparison import average
from ghostgrad.registry.spec import expand
from ghostgrad.rng import generator
from ghostgrad.tasks import sample, simulate

REPEATS = 32
COUNTS = [pytest.param(60, 0.88, id="60"), pytest.param(200, 0.90, id="200", marks=pytest.mark.long)]


def streams(first: int, n: int) -> list[torch.Generator]:
    return [generator(1, "coverage", first + i) for i in range(n)]


def plain(first: int, n: int) -> np.ndarray:
    spec = expand("simulate", {"net": "plain", "depth": 6, "width": 24, "batch": 16, "repeats": 32, "seed": 0})
    return simulate.measure(spec, streams(first, n))[:, 1:, 0].double().numpy()


def module(first: int, n: int) -> np.ndarray:
    spec = expand("sample", {"quantity": "module", "width": 8, "expansion": 2, "repeats": 32, "seed": 0})
    return sample.module(spec, streams(first, n))[:, 0, 1:2].numpy()


@pytest.mark.parametrize(("count", "least"), COUNTS)
def test_intervals_of_a_claim_hold_the_truth(count, least):
    """Of the mean over a claim's own repeats: Var(W y) over its formula, 1 by equation 10 of the BN-ResNet paper."""
    found = [average("", bnres.linear(12, 8, seed, repeats=REPEATS, batch=40).mean(1), None) for seed in range(count)]
    covered = np.mean([abs(one.ours - 1) < 1.96 * one.se for one in found])
    assert least <= covered <= 0.99


STATISTICS = {"fitted rate": (plain, fitted_rate), "mean ratio": (module, lambda mean: float(mean[0]))}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("count", "least"), COUNTS)
def test_intervals_hold_the_truth(name, count, least):
    """`count` experiments of 32 repeats against one of 8,000; the jackknife's error, as tables print it."""
    measure, statistic = STATISTICS[name]
    truth = statistic(np.concatenate([measure(10**6 + i * 500, 500) for i in range(16)]).mean(0))
    found = [jackknife(measure(i * REPEATS, REPEATS), statistic) for i in range(count)]
    covered = np.mean([abs(value - truth) < 1.96 * se for value, se in found])
    assert least <= covered <= 0.99
