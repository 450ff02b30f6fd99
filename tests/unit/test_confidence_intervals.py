"""Standard errors are right: intervals of 1.96 standard errors cover the truth about 95 times in
100."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ghostgrad.analysis.statistics import fit_growth_rate, jackknife
from ghostgrad.claims import layers
from ghostgrad.claims.comparison import average
from ghostgrad.registry.spec import expand
from ghostgrad.rng import generator
from ghostgrad.tasks import sample, simulate

REPEATS = 32
COUNTS = [
    pytest.param(60, 0.88, id="60"),
    pytest.param(200, 0.90, id="200", marks=pytest.mark.long),
]


def streams(first: int, n: int) -> list[torch.Generator]:
    return [generator(1, "coverage", first + i) for i in range(n)]


def plain(first: int, n: int) -> np.ndarray:
    size = {"net": "plain", "depth": 6, "width": 24, "batch": 16}
    spec = expand("simulate", {**size, "repeats": 32, "seed": 0})
    return simulate.measure(spec, streams(first, n))[:, 1:, 0].double().numpy()


def module(first: int, n: int) -> np.ndarray:
    size = {"quantity": "module", "width": 8, "expansion": 2}
    spec = expand("sample", {**size, "repeats": 32, "seed": 0})
    return sample.module(spec, streams(first, n))[:, 0, 1:2].numpy()


@pytest.mark.parametrize(("count", "least"), COUNTS)
def test_intervals_of_a_claim_hold_the_truth(count, least):
    """The claim takes the mean over its own repeats of Var(W y) divided by its formula, whose
    true value is 1 (BN-ResNet eq. 10)."""
    is_covered = []
    for seed in range(count):
        ratios = layers.linear_variance_ratios(12, 8, seed, repeats=REPEATS, batch=40)
        comparison = average("", ratios.mean(1), None)
        is_covered.append(abs(comparison.ours - 1) < 1.96 * comparison.se)
    assert least <= np.mean(is_covered) <= 0.99


STATISTICS = {
    "fitted rate": (plain, fit_growth_rate),
    "mean ratio": (module, lambda mean: float(mean[0])),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("count", "least"), COUNTS)
def test_intervals_hold_the_truth(name, count, least):
    """The jackknife gives a standard error for each of `count` experiments of 32 repeats; the truth
    is taken from one of 8,000 repeats."""
    measure, statistic = STATISTICS[name]
    truth = statistic(np.concatenate([measure(10**6 + i * 500, 500) for i in range(16)]).mean(0))
    estimates = [jackknife(measure(i * REPEATS, REPEATS), statistic) for i in range(count)]
    covered = np.mean([abs(value - truth) < 1.96 * se for value, se, _ in estimates])
    assert least <= covered <= 0.99
