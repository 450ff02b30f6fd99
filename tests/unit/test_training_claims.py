"""Claims that training runs decide, on runs written by hand.

Each claim can hold, fail, and be left open by too few seeds.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy import stats

from ghostgrad.claims.comparison import Comparison, between_seeds, over_seeds
from ghostgrad.claims.comparison import verdict as verdict_of
from ghostgrad.claims.judge import judge
from ghostgrad.claims.lalc_training import TENSORS
from ghostgrad.data.coco_evaluation import METRICS
from ghostgrad.files import CsvTable
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.spec import RunSpec
from ghostgrad.report import tables
from ghostgrad.runs.provenance import code_hash
from tests.unit.fabricate import publish

REGISTRY = load_registry()
# Final test and training accuracy in percent as the papers claim, by prefix of the variant's name.
ACCURACY = {
    "lalc": 95.0,
    "lalc_raw": 93.0,
    "lalc_nesterov": 95.5,
    "lalc-16k": 85.0,
    "lars": 92.0,
    "lars_1e4-16k": 80.0,
    "clars": 91.0,
    "clars_1e4-16k": 80.0,
    "sgd": 90.0,
    "sgd-16k": 80.0,
    "nesterov": 90.6,
    "warmup-128": 95.1,
    "warmup-4k": 90.0,
    "warmup-16k": 80.0,
    "model1": 92.0,
    "model2": 90.0,
    "model3": 10.0,
    "resnet99": 92.0,
    "relu": 12.0,
    "selu": 80.0,
    "resnet18": 69.8,
    "resnet34": 73.3,
    "resnet50": 77.0,
    "resnet50-orthogonal": 77.1,
    "seqnet18": 72.4,
    "seqnet34": 75.7,
    "seqnet34-free": 74.0,
    "seqnet34-lr": 75.0,
    "seqnet50": 77.5,
    "seqnet50-orthogonal": 77.3,
    "seqnet50-looks-linear": 77.3,
    "seqnet50-untied": 60.0,
    "seqnet50-bias": 77.3,
    "seqnet50-bn": 77.2,
    "seqnet50-second": 77.1,
    "seqnet50-third": 77.4,
    "seqnet50-tied-both": 77.0,
    "seqnet50-tied-none": 77.2,
    "seqnet50-free": 75.7,
    "seqnet50-skip": 78.5,
    "plainnet50": 30.0,
    "resnet101": 78.8,
    "seqnet101": 76.7,
    "seqnet101-bn": 77.0,
    "seqnet101-free": 75.6,
    "seqnet101-lr": 76.3,
}
# Growth of the gradient norm per convolution toward the input.
GROWTH = {"plainnet50": 1.2, "seqnet50": 1.04, "resnet50": 1.02}
# What the probe `statistics` measures at first and later.
STATISTICS = {
    "weight_variance": (1e-4, 1e-4),
    "conv_activation_variance": (1.0, 4.0),
    "act_activation_variance": (0.3, 0.9),
    "weight_offset": (0.02, 0.02),
    "norm_activation_offset": (0.05, 0.1),
    "norm_gradient_offset": (0.05, 0.05),
    "norm_activation_gradient_correlation": (0.04, 0.05),
    "act_activation_correlation": (0.1, 0.4),
}
SPREAD = np.array([-0.004, 0.0, 0.004])  # of the seeds; three refute at 141 standard errors
SHAPE = np.tile([3.0, 2.0, 1.0, 0.5, 0.0], 3)  # log variance over the blocks of three scales
PATTERNLESS = np.array([0.0, 2, 1, 3, 0, 3, 0, 2, 0, 1, 0, 0, 1, 2, 3])
# Claim -> accuracies or probes, by variant, with which the claim holds. The claims that are not
# listed hold with the common curves above.
RIGHT = {
    "bnres.faster": {"model1": {"early": 70.0}, "model3": {"early": 10.0}},
    "bnres.no_pattern": {"model2": {"shape": PATTERNLESS}},
}
# Claim -> accuracies or probes to change, by variant, so that its first number is wrong.
WRONG = {
    "lalc.self_disable": {"lalc-128": {"late": 0.9}},
    "lalc.abl_norm": {"lalc_raw-128": {"accuracy": 97.0}},
    "lalc.decay": {"sgd": {"late": 1.6}},
    "lalc.vanishing_state": {"sgd": {"last": 0.3}},
    "lalc.forward_variance": {"sgd": {"conv_activation_variance": 0.2}},
    "lalc.centred": {"sgd": {"norm_activation_offset": 3.0}},
    "lalc.correlation": {"sgd": {"act_activation_correlation": 0.05}},
    "lalc.nesterov_instability": {"nesterov-4k": {"early": 70.0}},
    "lalc.imagenet": {"lars": {"accuracy": 97.0}},
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
    "bnres.faster": {"model1": {"early": 50.0}},
    "bnres.trend": {"model1": {"shape": -SHAPE}},
    "bnres.dip": {"model1": {"shape": np.arange(15.0)[::-1]}},
    "bnres.distance": {"model1": {"shape": np.tile(np.arange(5.0)[::-1], 3)}},
    "bnres.resnet99": {"resnet99": {"shape": -SHAPE}},
    "bnres.no_pattern": {"model1": {"shape": PATTERNLESS}, "model2": {"shape": SHAPE}},
    "bnres.gradient_range": {"model2": {"shape": 4 * SHAPE}},
    "bnres.batch_shape": {"model1-b512": {"shape": -SHAPE}},
    "bnres.init_shape": {"model1-std0.01": {"shape": -SHAPE}},
    "ghost.tab1_reach": {"seqnet50": {"accuracy": 75.0}},
    "ghost.tab1_shallow": {"seqnet18": {"accuracy": 68.0}},
    "ghost.tab1_plain": {"seqnet18": {"accuracy": 69.0}},
    "ghost.final_accuracy": {"seqnet101": {"accuracy": 78.0}},
    "ghost.tab3a_close": {"seqnet50-orthogonal": {"accuracy": 75.0}},
    "ghost.tab3a_best": {"seqnet50-orthogonal": {"accuracy": 79.0}},
    "ghost.tab3a_untied": {"seqnet50-untied": {"accuracy": 75.0}},
    "ghost.tab3b_worse": {"seqnet50-bias": {"accuracy": 79.0}},
    "ghost.tab3b_deep": {"seqnet101-bn": {"accuracy": 75.0}},
    "ghost.tab3c_position": {"seqnet50-second": {"accuracy": 79.0}},
    "ghost.tab4_gain": {"seqnet34-free": {"accuracy": 76.0}},
    "ghost.tab5_tying": {"seqnet50-tied-none": {"accuracy": 79.0}},
    "ghost.b2_resnet_orth": {"resnet50-orthogonal": {"accuracy": 82.0}},
    "E-G20": {"seqnet50": {"accuracy": 76.0}},
    "ghost.init_growth": {"plainnet50": {"growth": 1.0}},
    "ghost.init_stable": {"resnet50": {"growth": 1.2}},
    "ghost.trained_growth": {"seqnet50": {"growth": 0.9}},
    "ghost.trained_stable": {"resnet50": {"growth": 1.2}},
    "ghost.convergence": {"seqnet50": {"early": 10.0}},
    "ghost.gap_closes": {"seqnet50": {"middle": 9.0}},
    "ghost.skip": {"seqnet50-skip": {"accuracy": 77.0}},
}
# Claims about runs that have a single seed in the registry.
ONE_SEED = ("ghost.tab2_comparable", "ghost.lr_seqnet34", "ghost.lr_seqnet101")


def usual_accuracy(variant: str) -> float:
    """The accuracy of the longest entry of ACCURACY with which the variant's name begins."""
    return ACCURACY[max((name for name in ACCURACY if variant.startswith(name)), key=len)]


def write_runs(claim: str, changes: dict, wide: bool = False, scale: str = "paper") -> None:
    """Publish all runs of a claim at a scale; `wide` spreads the seeds far apart."""
    changes = {**RIGHT.get(claim, {}), **changes}
    for run in REGISTRY.claim_runs(scale, REGISTRY.claims[claim]):
        own = changes.get(run.variant, {})
        noise = (20_000 if wide else 1) * SPREAD[run.seed % 3]
        # Gains are differences seed by seed, in which equal noise would cancel.
        if run.variant.endswith(("-free", "-orthogonal")):
            noise = -noise
        accuracy = own.get("accuracy", usual_accuracy(run.variant)) + noise
        unstable = run.variant.startswith(("sgd", "nesterov"))
        early = own.get("early", 40.0 if unstable else 60.0) + noise
        rows = [[step, 25 * step, early] for step in range(1, 9)]
        series = CsvTable(("step", "at", "train_accuracy"), rows)
        if run.experiment == "imagenet":
            series = imagenet_series(run.variant, accuracy, own, noise)
        probes = []
        for position in getattr(run.spec, "probe_at", ()):
            probes += probe_rows(run, own, position, noise)
        metrics = {"test_accuracy": accuracy, "train_accuracy": accuracy}
        metrics |= dict.fromkeys(METRICS, 40.0)
        publish(run, metrics, series, probes=probes)


def imagenet_series(variant: str, accuracy: float, own: dict, noise: float) -> CsvTable:
    """Return 60 epochs; a SeqNet is ahead in the first two and then below its final accuracy, by
    less after epoch 20."""
    ahead, behind, middle = (10, 5, 2) if variant.startswith("seqnet") else (0, 0, 0)
    middle = own.get("middle", middle)
    first = own.get("early", 60.0 + ahead) + noise
    # The noise of the middle differs, because a gain seed by seed would lose equal noise.
    train = [first] * 2 + [accuracy - behind] * 18 + [accuracy - middle + noise] * 40
    rows = [[epoch, epoch, value, accuracy] for epoch, value in enumerate(train, start=1)]
    return CsvTable(("step", "at", "train_accuracy", "test_accuracy"), rows)


def probe_rows(run: RunSpec, own: dict, position: float, noise: float) -> list[list]:
    """Return the rows of probes.csv at a position; `late` applies to positions after the first."""
    late, late_noise = (own.get("late", 0.05), noise / 100) if position else (0.5, 0.0)
    place = (position, position)
    rows = [[*place, "clipped_fraction", 0, late + late_noise]]
    shape = own.get("shape", SHAPE)
    if run.variant == "resnet99":  # 33 blocks per scale instead of 5
        shape = np.concatenate(
            [np.interp(np.linspace(0, 4, 33), range(5), part) for part in np.split(shape, 3)]
        )
    # Another slope in each scale, whose patterns would otherwise agree without any spread.
    curve = shape + noise * np.linspace(-1, 1, len(shape)) ** 3
    if run.experiment == "vgg_statistics":
        is_last = position == run.spec.probe_at[-1]
        slope = own.get("last", -0.01) if is_last else late  # of the standard deviation
        curve = -(2 * slope + late_noise) * np.arange(15.0)
        for index, (name, values) in enumerate(STATISTICS.items(), start=1):
            spread = math.exp(10 * index * late_noise)  # unequal, since differences are judged
            value = own.get(name, values[1]) * spread if position else values[0]
            rows += [[*place, name, k, value] for k in range(3)]
    logarithms = enumerate([0.0, *curve])
    rows += [[*place, "gradient_variance", k, math.exp(value)] for k, value in logarithms]
    if run.variant in GROWTH:
        growth = own.get("growth", GROWTH[run.variant]) + noise / 100
        rows += [[*place, "weight_gradient", k, growth**-k] for k in range(49)]
    return rows


def verdict(claim: str, scale: str = "paper") -> str:
    return judge(REGISTRY, REGISTRY.claims[claim], scale).verdict


def test_every_claim_about_networks_of_images_is_here():
    """Only ghost.c2_conceal is tested elsewhere, in test_claims.py, where its runs are computed."""
    trained = {
        claim.id
        for claim in REGISTRY.claims.values()
        if claim.computed
        and any(run.task in ("classify", "detect") for run in REGISTRY.claim_runs("paper", claim))
    }
    elsewhere = {"lalc.clars_cost", "lalc.inverse_norm", "ghost.a_depth", "ghost.c2_conceal"}
    assert trained == {*WRONG, *ONE_SEED, *elsewhere}


@pytest.mark.parametrize("claim", WRONG)
def test_it_holds_fails_and_is_left_open(claim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verdict(claim).startswith("not run (")
    write_runs(claim, {})
    usual = "fails, corrected form holds" if REGISTRY.claims[claim].corrected else "holds"
    assert verdict(claim) == usual
    write_runs(claim, WRONG[claim])
    assert verdict(claim).partition(" (")[0] == "fails"
    write_runs(claim, {}, wide=True)
    assert verdict(claim).startswith("open ("), verdict(claim)


@pytest.mark.parametrize("claim", ONE_SEED)
def test_what_has_a_single_seed_is_open(claim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verdict(claim).startswith("not run (")
    write_runs(claim, {})
    assert re.fullmatch(r"open \(.*: more seeds than one\)", verdict(claim))


def test_the_trainable_depth_is_open_whatever_the_runs_show(tmp_path, monkeypatch):
    """One learning rate and nets with BN cannot decide it; the comparisons are shown all the
    same."""
    monkeypatch.chdir(tmp_path)
    claim = REGISTRY.claims["ghost.a_depth"]
    for accuracy, shown in ((80.0, "holds"), (5.0, "fails")):
        write_runs(claim.id, {"selu-80": {"accuracy": accuracy}})
        judgement = judge(REGISTRY, claim, "paper")
        assert judgement.verdict == f"open ({claim.undecided})"
        assert verdict_of(judgement.comparisons) == shown


@pytest.mark.parametrize(("dip", "expected"), [(0.8, "holds"), (1.0, "fails")])
def test_the_trend_of_a_checkpoint(dip, expected, tmp_path, monkeypatch):
    """sigma falls by a tenth per layer, and to 0.8 times that at layers 5, 9 and 13."""
    monkeypatch.chdir(tmp_path)
    rows = [
        [0, layer, 0.9**layer * (dip if layer in (5, 9, 13) else 1), 64] for layer in range(1, 17)
    ]
    (run,) = REGISTRY.claim_runs("paper", REGISTRY.claims["ghost.vgg_trend"])
    publish(run, series=CsvTable(("repeat", "layer", "sigma", "channels"), rows))
    assert verdict("ghost.vgg_trend") == expected


def interval(comparison: Comparison) -> tuple[float, float]:
    return (
        comparison.ours - comparison.confirmation_noise,
        comparison.ours + comparison.confirmation_noise,
    )


@pytest.mark.parametrize("relation", ["=", "<"])
def test_the_intervals_are_scipys(relation, level=0.9):
    """The interval is Student's, of two samples with the degrees of freedom of the smaller one.

    One-sided bounds of 95 % are the ends of the two-sided interval of 90 %.
    """
    first, second = np.array([91.0, 92.5, 91.7]), np.array([90.1, 94.0])
    difference = between_seeds("x", first, second, relation=relation)
    se = np.hypot(stats.sem(first), stats.sem(second))
    expected = stats.t.interval(level, 1, first.mean() - second.mean(), se)
    assert interval(difference) == pytest.approx(expected)
    mean = over_seeds("x", first, 0.0, relation=relation)
    expected = stats.ttest_1samp(first, 0.0).confidence_interval(level)
    assert interval(mean) == pytest.approx(tuple(expected))


def test_what_a_scale_changes_is_shown_and_not_judged(tmp_path, monkeypatch):
    """With small images and few updates the verdict only says what the runs show."""
    monkeypatch.chdir(tmp_path)
    for changes in ({}, WRONG["bnres.order"]):
        write_runs("bnres.order", changes, scale="laptop")
        judgement = judge(REGISTRY, REGISTRY.claims["bnres.order"], "laptop")
        assert judgement.verdict.startswith("shown only (measured on 8x8 digits, ")
        assert len(judgement.comparisons) == 4


def test_one_seed_leaves_all_open(tmp_path, monkeypatch):
    """This holds however far apart the two accuracies are."""
    monkeypatch.chdir(tmp_path)
    write_runs("bnres.order", {})
    claim = REGISTRY.claims["bnres.order"]
    first = {run.variant: (run,) for run in REGISTRY.claim_runs("paper", claim) if not run.seed}
    monkeypatch.setattr(
        REGISTRY.experiments["resnet15_cifar"], "runs", lambda _scale, variant: first[variant]
    )
    reason = "test accuracy of Model-1 less Model-2's, %: more seeds than one"
    assert judge(REGISTRY, claim, "paper")[0] == f"open ({reason})"
    table = tables.build(REGISTRY, REGISTRY.artifact("bnres.order"), "paper", None)
    assert table["ours"].tolist() == pytest.approx([2.0, 80.0, 2.0, 9.996])
    assert table["ours_se"].isna().all(), "one run has no standard error"


@pytest.mark.parametrize("gpu", [True, False])
def test_the_cost_of_clars_is_measured_and_shown(gpu, tmp_path, monkeypatch):
    """Time and memory come from env.json, over all processes of a run.

    They are those of the GPU or, without one, of the CPU. They decide nothing, because the paper
    speaks of another implementation.
    """
    monkeypatch.chdir(tmp_path)
    claim = REGISTRY.claims["lalc.clars_cost"]
    for run in REGISTRY.claim_runs("paper", claim):
        folder = publish(run, {"test_accuracy": 90.0})
        cost = 150.0 if run.variant.startswith("clars") else 100.0
        count = 2 if run.variant.startswith("clars") else 1  # of processes
        process = {"cpu_s": 1.0, "gpu_s": cost / count, "peak_mb": 1, "gpu_peak_mb": cost}
        if not gpu:
            process = {"cpu_s": cost / count, "gpu_s": 0.0, "peak_mb": cost, "gpu_peak_mb": None}
        path = Path(folder) / "env.json"
        [environment, *_] = json.loads(path.read_text())
        path.write_text(json.dumps([environment | process] * count))
    judgement = judge(REGISTRY, claim, "paper")
    assert judgement.verdict.startswith("shown only (no comparison within the conditions")
    assert [c.ours for c in judgement.comparisons] == pytest.approx([1.5, 1.5])
    of_runs, of_claim = judgement.code.split("/")
    assert of_runs == environment["code"]
    assert of_claim == code_hash("claims.judge", "claims.lalc_training")
    assert of_claim != code_hash("claims.judge", "claims.ghost")


def test_a_bound_that_no_rule_has_is_not_run():
    assert verdict("lalc.inverse_norm").startswith("not run (no update rule here bounds")


def test_a_killed_process_leaves_the_cost_unknown(tmp_path, monkeypatch):
    """A killed process could not write its time and memory."""
    monkeypatch.chdir(tmp_path)
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims["lalc.clars_cost"]):
        processes = [{}, {"cpu_s": 1.0, "gpu_s": 1.0, "peak_mb": 1, "gpu_peak_mb": 1}]
        folder = publish(run, {"test_accuracy": 90.0})
        (folder / "env.json").write_text(json.dumps(processes))
    reason = "no gpu_s of a process of cifar_sweep/lars_1e2-128 that was killed"
    assert verdict("lalc.clars_cost") == f"not run ({reason})"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "claim", ["lalc.self_disable", "lalc.decay", "bnres.gradient_range", "bnres.init_shape"]
)
def test_a_diverged_run_without_probes_leaves_the_claim_open(claim, seeds, tmp_path, monkeypatch):
    """A non-finite loss is a result and must not stop the other claims."""
    monkeypatch.chdir(tmp_path)
    write_runs(claim, {})
    last = REGISTRY.claim_runs("paper", REGISTRY.claims[claim])[-1].variant
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims[claim]):
        if run.variant == last and run.seed < seeds:
            publish(run, {"status": "diverged", "test_accuracy": 10.0})
    assert verdict(claim).startswith(f"not run ({seeds} of 3 seeds of ")


def test_sgd_that_diverges_at_once_is_unstable(tmp_path, monkeypatch):
    """It diverges before its first evaluation, so that its only row counts."""
    monkeypatch.chdir(tmp_path)
    write_runs("lalc.instability", {})
    for run in REGISTRY.claim_runs("paper", REGISTRY.claims["lalc.instability"]):
        if run.variant == "sgd-4k":
            series = CsvTable(("step", "at", "train_accuracy"), [[1, 0.1, 9.0 + run.seed]])
            publish(run, {"status": "diverged"}, series)
    assert verdict("lalc.instability") == "holds"


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0.0, "holds"), (0.4, "open ("), (0.6, "open ("), (20.0, "fails")],
)
def test_equality_has_to_be_shown(gap, expected):
    """It holds if the interval lies within half a percent, and fails if that of a refutation, which
    is wider, lies outside."""
    values = np.array([95.0, 95.2, 95.1])
    comparison = between_seeds("x", values + gap, values, tolerance=0.5)
    assert verdict_of([comparison]).startswith(expected)


def test_the_clipped_fraction_is_of_the_parameters_of_resnet50():
    with torch.device("meta"):
        network = torchvision.models.resnet50()
    assert len(list(network.parameters())) == TENSORS
