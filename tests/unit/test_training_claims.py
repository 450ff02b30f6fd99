"""Claims that training runs decide, on runs written by hand: each can hold, fail, and be left open by its seeds."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ghostgrad.claims.comparison import between_seeds, over_seeds
from ghostgrad.claims.comparison import verdict as verdict_of
from ghostgrad.claims.judge import judge
from ghostgrad.files import CsvTable
from ghostgrad.registry.registry import load_registry
from ghostgrad.report import tables
from tests.unit.fabricate import publish

REGISTRY = load_registry()
# Final test and training accuracy as the papers say, by variant or by its beginning.
ACCURACY = {
    "lalc": 95.0,
    "lalc_raw": 93.0,
    "lalc_nesterov": 95.5,
    "lalc-16k": 85.0,
    "lars": 92.0,
    "clars": 91.0,
    "sgd": 90.0,
    "nesterov": 90.6,
    "warmup-128": 95.1,
    "warmup-4k": 90.0,
    "warmup-16k": 80.0,
    "model1": 92.0,
    "model2": 90.0,
    "model3": 10.0,
    "relu": 12.0,
    "selu": 80.0,
    "resnet50": 77.0,
    "resnet50-orthogonal": 77.1,
    "seqnet50": 77.5,
    "seqnet50-free": 75.7,
    "seqnet50-skip": 78.5,
    "plainnet50": 30.0,
    "resnet101": 78.8,
    "seqnet101": 76.7,
}
GROWTH = {"plainnet50": 1.2, "seqnet50": 1.06, "resnet50": 1.03}  # of the gradient, a convolution toward the input
SPREAD = np.array([-0.04, 0.0, 0.04])  # of the seeds
SHAPE = np.tile([3.0, 2.0, 1.0, 0.5, 0.0], 3)  # log variance over the blocks of three scales
# Claim -> what to change so that its first number is on the wrong side: accuracies or probes by variant.
WRONG = {
    "lalc.self_disable": {"lalc-128": {"late": 0.9}},
    "lalc.abl_norm": {"lalc_raw-128": {"accuracy": 97.0}},
    "lalc.decay": {"sgd": {"late": 1.6}},
    "lalc.accum": {"lalc_accumulated-1k": {"accuracy": 91.0}},
    "lalc.small_batch": {"warmup-128": {"accuracy": 90.0}},
    "lalc.large_batch": {"warmup-4k": {"accuracy": 97.0}},
    "lalc.large_scaling": {"lars_1e3-4k": {"accuracy": 97.0}},
    "lalc.instability": {"sgd-4k": {"early": 70.0}},
    "lalc.warmup": {"lalc_warmup-4k": {"accuracy": 97.0}},
    "lalc.scaling": {"lars_1e2-128": {"accuracy": 97.0}},
    "lalc.nesterov": {"lalc_nesterov-128": {"accuracy": 94.0}},
    "lalc.too_large": {"warmup-16k": {"accuracy": 94.0}},
    "bnres.order": {"model2": {"accuracy": 95.0}},
    "bnres.trend": {"model1": {"shape": -SHAPE}},
    "bnres.gradient_range": {"model2": {"shape": 4 * SHAPE}},
    "bnres.batch_shape": {"model1-b512": {"shape": -SHAPE}},
    "bnres.init_shape": {"model1-std0.01": {"shape": -SHAPE}},
    "ghost.a_depth": {"selu-80": {"accuracy": 5.0}},
    "ghost.b2_resnet_orth": {"resnet50-orthogonal": {"accuracy": 79.0}},
    "E-G20": {"seqnet50": {"accuracy": 76.0}},
    "ghost.init_growth": {"plainnet50": {"growth": 1.0}},
    "ghost.trained_growth": {"seqnet50": {"growth": 0.9}},
    "ghost.convergence": {"seqnet50": {"early": 10.0}},
    "ghost.skip": {"seqnet50-skip": {"accuracy": 77.0}},
}


def value(variant: str) -> float:
    """The longest beginning decides."""
    return ACCURACY[max((name for name in ACCURACY if variant.startswith(name)), key=len)]


def write(claim: str, changes: dict, wide: bool = False, scale: str = "paper") -> None:
    """All runs of a claim at a scale; `wide` spreads the seeds far apart."""
    for run in REGISTRY.claim_runs(scale, REGISTRY.claims[claim]):
        own = changes.get(run.variant, {})
        noise = (2000 if wide else 1) * SPREAD[run.seed % 3] * (-1 if run.variant.endswith("-free") else 1)
        accuracy = own.get("accuracy", value(run.variant)) + noise
        early = own.get("early", 40.0 if run.variant.startswith("sgd") else 60.0) + noise
        series = CsvTable(("step", "at", "train_accuracy"), [[step, 25 * step, early] for step in range(1, 9)])
        if run.experiment == "imagenet":
            seqnet = run.variant.startswith("seqnet")  # fast at first, then behind, ahead at the end
            first, then = own.get("early", 60.0 + 10 * seqnet) + noise, accuracy - 5 * seqnet
            columns = ("step", "at", "train_accuracy", "test_accuracy")
            series = CsvTable(columns, [[at, at, first if at <= 2 else then, accuracy] for at in range(1, 21)])
        probes = []
        for at in run.spec.probe_at:
            late = own.get("late", 0.05) if at else 0.5
            probes.append([at, at, "clipped_fraction", 0, late + bool(at) * noise / 100])
            curve = own.get("shape", SHAPE) + noise * np.linspace(-1, 1, 15)
            if run.experiment == "vgg_statistics":
                curve = -(2 * late + bool(at) * noise / 100) * np.arange(15.0)
            probes += [[at, at, "gradient_variance", k, math.exp(v)] for k, v in enumerate([0.0, *curve])]
            if run.variant in GROWTH:
                growth = own.get("growth", GROWTH[run.variant]) + noise / 100
                probes += [[at, at, "weight_gradient", k, growth**-k] for k in range(49)]
        metrics = {"test_accuracy": accuracy, "train_accuracy": accuracy}
        publish(run, metrics, series, probes=probes)


def verdict(claim: str, scale: str = "paper") -> str:
    return judge(REGISTRY, REGISTRY.claims[claim], scale)[0]


@pytest.mark.parametrize("claim", WRONG)
def test_it_holds_fails_and_is_left_open(claim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verdict(claim).startswith("not run (")
    write(claim, {})
    assert verdict(claim) == ("holds as corrected" if REGISTRY.claims[claim].corrected else "holds")
    write(claim, WRONG[claim])
    assert verdict(claim) == "fails"
    write(claim, {}, wide=True)
    assert re.match(r"not run \([358] seeds leave it open: ", verdict(claim)), verdict(claim)


@pytest.mark.parametrize("relation", ["=", "<"])
def test_the_intervals_are_scipys(relation, level=0.9):
    """Welch's of two samples, Student's of one; one-sided ones of 95 % are those of 90 % on both sides."""
    first, second = np.array([91.0, 92.5, 91.7]), np.array([90.1, 94.0])
    one = between_seeds("x", first, second, relation=relation)
    low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    assert (one.ours - one.noise, one.ours + one.noise) == pytest.approx((low, high))
    one = over_seeds("x", first, 0.0, relation=relation)
    low, high = stats.ttest_1samp(first, 0.0).confidence_interval(level)
    assert (one.ours - one.noise, one.ours + one.noise) == pytest.approx((low, high))


def test_what_a_scale_changes_is_shown_and_not_judged(tmp_path, monkeypatch):
    """Small images and few updates are not the paper's; of them the ledger says what it sees and no more."""
    monkeypatch.chdir(tmp_path)
    write("bnres.order", {}, scale="laptop")
    assert verdict("bnres.order", "laptop") == "not run (shows at scale laptop)"
    write("bnres.order", WRONG["bnres.order"], scale="laptop")
    assert verdict("bnres.order", "laptop") == "not run (does not show at scale laptop)"


def test_one_seed_leaves_all_open(tmp_path, monkeypatch):
    """However far apart the two are."""
    monkeypatch.chdir(tmp_path)
    write("bnres.order", {})
    claim = REGISTRY.claims["bnres.order"]
    first = {run.variant: (run,) for run in REGISTRY.claim_runs("paper", claim) if not run.seed}
    monkeypatch.setattr(REGISTRY.experiments["resnet15_cifar"], "runs", lambda _scale, variant: first[variant])
    assert judge(REGISTRY, claim, "paper")[0].startswith("not run (one seed leaves it open")
    table = tables.build(REGISTRY, REGISTRY.artifact("bnres.order"), "paper", None)
    assert table["ours"].tolist() == pytest.approx([2.0, 80.0, 2.0, 9.96])
    assert table["ours_se"].isna().all(), "one run has no standard error"


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize(("seconds", "told"), [(250.0, "holds"), (150.0, "holds as corrected")])
def test_the_cost_of_clars_is_measured(seconds, told, gpu, tmp_path, monkeypatch):
    """From env.json, over all process starts of a run: on a GPU its time and memory, else the CPU's."""
    monkeypatch.chdir(tmp_path)
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims["lalc.clars_cost"]):
        folder = publish(run, {"test_accuracy": 90.0})
        cost = seconds if run.variant.startswith("clars") else 100.0
        count = 2 if run.variant.startswith("clars") else 1  # of process starts
        starts = [{"cpu_s": 1.0, "gpu_s": cost / count, "peak_mb": 1, "gpu_peak_mb": cost}] * count
        if not gpu:
            starts = [{"cpu_s": cost / count, "gpu_s": 0.0, "peak_mb": cost, "gpu_peak_mb": None}] * count
        (Path(folder) / "env.json").write_text(json.dumps(starts))
    assert verdict("lalc.clars_cost") == told


def test_a_killed_start_leaves_the_cost_unknown(tmp_path, monkeypatch):
    """It never told what it took."""
    monkeypatch.chdir(tmp_path)
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims["lalc.clars_cost"]):
        starts = [{}, {"cpu_s": 1.0, "gpu_s": 1.0, "peak_mb": 1, "gpu_peak_mb": 1}]
        Path(publish(run, {"test_accuracy": 90.0}), "env.json").write_text(json.dumps(starts))
    assert verdict("lalc.clars_cost") == "not run (no gpu_s of a process of cifar_sweep/lars_1e2-128 that was killed)"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("claim", ["lalc.self_disable", "lalc.decay", "bnres.gradient_range", "bnres.init_shape"])
def test_probes_that_a_diverged_run_lacks(claim, seeds, tmp_path, monkeypatch):
    """A non-finite loss is a result, and the ledger goes on."""
    monkeypatch.chdir(tmp_path)
    write(claim, {})
    last = REGISTRY.claim_runs("paper", REGISTRY.claims[claim])[-1].variant
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims[claim]):
        if run.variant == last and run.seed < seeds:
            publish(run, {"status": "diverged", "test_accuracy": 10.0})
    assert verdict(claim).startswith(f"not run ({seeds} of 3 seeds of ")


def test_sgd_that_diverges_at_once_is_unstable(tmp_path, monkeypatch):
    """Before its first evaluation: its one row counts."""
    monkeypatch.chdir(tmp_path)
    write("lalc.instability", {})
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims["lalc.instability"]):
        if run.variant == "sgd-4k":
            publish(run, {"status": "diverged"}, CsvTable(("step", "at", "train_accuracy"), [[1, 0.1, 9.0 + run.seed]]))
    assert verdict("lalc.instability") == "holds"


@pytest.mark.parametrize(
    ("gap", "told"), [(0.0, "holds"), (0.4, "not run (3 seeds"), (0.6, "not run (3 seeds"), (1.5, "fails")]
)
def test_equality_has_to_be_shown(gap, told):
    """Within half a percent, noise included; as far from it, noise included, it fails."""
    values = np.array([95.0, 95.2, 95.1])
    assert verdict_of([between_seeds("x", values + gap, values, tolerance=0.5)]).startswith(told)
