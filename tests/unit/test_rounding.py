"""No verdict may turn with the processor, and tables and the ledger have one judge.

Another processor or library rounds differently. Here every drawn weight is moved by its last bit,
and every verdict has to stay; what a scale changes is shown only, whatever its numbers.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ghostgrad.claims import judge as judging
from ghostgrad.claims.comparison import Comparison, verdict
from ghostgrad.claims.judge import claim_rows, compare, judge
from ghostgrad.registry.claim import Claim
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.scaling import describe_scaling
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.verdict import without_reason
from ghostgrad.report import tables
from tests.unit import evidence
from tests.unit.evidence import Computed
from tests.unit.fabricate import publish

REGISTRY = load_registry()
COMPUTED = [claim for claim in REGISTRY.claims.values() if claim.computed]
CLAIM_TABLES = [claim for claim in COMPUTED if claim.id in REGISTRY.artifacts]


def can_be_computed(claim: Claim) -> bool:
    """Whether a test can compute the runs: simulations, sampled operators, digits."""
    experiments = {REGISTRY.experiments[run.partition("/")[0]] for run in claim.runs}
    # The trained claims are about hours of training, also at scale laptop; this one takes seconds.
    return all(
        experiment.task in ("simulate", "sample", "initialize") or experiment.name == "conceal"
        for experiment in experiments
    ) and not any(run.startswith("imagenet_init/") for run in claim.runs)


# --- the last bit of every weight ---


def nudge(weights: Tensor, seed: int = 0) -> Tensor:
    """The weights, each moved to one of its two neighbours among the floating-point numbers. Zeros
    stay: they are not drawn."""
    rng = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, weights.shape, generator=rng) * 2 - 1
    moved = torch.nextafter(weights, signs.to(weights) * math.inf)
    return torch.where(weights == 0, weights, moved)


def nudge_parameters(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(nudge(parameter))
    return model


class NudgedGenerator(np.random.Generator):
    """numpy's generator, whose normal numbers are moved by their last bit."""

    def normal(self, *arguments: Any, **options: Any) -> Any:
        drawn = super().normal(*arguments, **options)
        return np.nextafter(drawn, np.where(np.asarray(drawn) * 1e6 % 1 < 0.5, -np.inf, np.inf))


def after(function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: change(function(*arguments, **options))


@pytest.fixture
def nudged(monkeypatch) -> Iterator[None]:
    """Every weight is moved where it is drawn: in simulations, in sampled operators, in networks
    at initialization and before training, and in the claims' own Monte Carlo."""
    for name in ("simulate", "sample"):
        module = importlib.import_module(f"ghostgrad.tasks.{name}")
        monkeypatch.setattr(module, "normal", after(module.normal, nudge))
    for name in ("initialize", "classify"):
        module = importlib.import_module(f"ghostgrad.tasks.{name}")
        monkeypatch.setattr(module, "build_network", after(module.build_network, nudge_parameters))
    initialize = importlib.import_module("ghostgrad.models.init")
    draw = initialize.initialize

    def draw_and_nudge(model: nn.Module, *arguments: Any, **options: Any) -> None:
        draw(model, *arguments, **options)
        nudge_parameters(model)

    monkeypatch.setattr(initialize, "initialize", draw_and_nudge)
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed=None: NudgedGenerator(np.random.PCG64(seed))
    )


FOLDERS: dict[bool, Path] = {}  # of the runs with and without the nudge


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory, worker_id):
    base = tmp_path_factory.getbasetemp()
    parent = base if worker_id == "master" else base.parent
    for is_nudged, name in ((False, "evidence"), (True, "nudged")):
        FOLDERS[is_nudged] = parent / name
        FOLDERS[is_nudged].mkdir(exist_ok=True)
    yield
    evidence.FOLDER.clear()


# `evidence` remembers a run by its spec, which does not say whether it is nudged.
READERS = {is_nudged: cache(evidence.series_and_probes.__wrapped__) for is_nudged in (False, True)}


def use_runs(monkeypatch, is_nudged: bool) -> None:
    evidence.FOLDER[:] = [FOLDERS[is_nudged]]
    monkeypatch.setattr(evidence, "series_and_probes", READERS[is_nudged])


@cache
def comparisons(claim_id: str, is_nudged: bool) -> list[Comparison]:
    return compare(REGISTRY.claims[claim_id], Computed())


def outcomes(compared: list[Comparison]) -> list[tuple[str, str | None, str | None]]:
    return [(c.name, c.outcome, c.corrected_outcome) for c in compared]


CLAIMS = [claim for claim in COMPUTED if can_be_computed(claim)]


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_no_verdict_turns_with_the_last_bit(claim, monkeypatch, request):
    """Neither that of the claim nor that of any of its numbers."""
    use_runs(monkeypatch, False)
    usual = comparisons(claim.id, False)
    request.getfixturevalue("nudged")
    use_runs(monkeypatch, True)
    moved = comparisons(claim.id, True)
    assert without_reason(verdict(moved)) == without_reason(verdict(usual))
    assert outcomes(moved) == outcomes(usual)


def test_the_nudge_reaches_every_kind_of_weight(request):
    """A nudge that reached nothing would leave every verdict as it is."""
    ones = torch.ones(64)
    assert (nudge(ones) != ones).all()
    assert torch.allclose(nudge(ones), ones, rtol=2e-7, atol=0)
    kinds = ["plainnet_init/relu-bn", "rectified/correlated", "operators/linear-k1"]
    kinds += ["resnet15_init/model2-xavier", "seqnet_init/k2-l", "conceal/plainnet20"]
    specs = {}
    for kind in kinds:
        experiment, _, variant = kind.partition("/")
        specs[kind] = REGISTRY.experiments[experiment].runs("smoke", variant)[0].spec.canonical()
    usual = {kind: evidence.compute(spec) for kind, spec in specs.items()}
    numbers = np.random.default_rng(0).normal(size=1000)
    request.getfixturevalue("nudged")
    for kind, spec in specs.items():
        nudged_run = evidence.compute(spec)
        file = "probes.csv" if kind.startswith("conceal") else "series.csv"
        assert nudged_run[file] != usual[kind][file], kind
    nudged_numbers = np.random.default_rng(0).normal(size=1000)
    assert (nudged_numbers != numbers).all()
    assert nudged_numbers == pytest.approx(numbers, rel=1e-15)


def is_simulated(artifact) -> bool:
    tasks = {REGISTRY.experiments[cell.experiment].task for cell in artifact.cells}
    return bool(tasks) and tasks <= {"simulate", "sample"} and artifact.table != "claim"


SIMULATED = [
    artifact
    for artifact in REGISTRY.artifacts.values()
    if artifact.table and is_simulated(artifact) and artifact.source == artifact.id
]


def publish_computed(run: RunSpec) -> None:
    """The run with the few repeats of these tests; its spec says all of them."""
    text = evidence.series_and_probes(few_repeats(run))
    folder = publish(run)
    for name in ("series.csv", "probes.csv", "metrics.csv"):
        (folder / name).write_text(text[name])


def few_repeats(run: RunSpec) -> str:
    enough = evidence.REPEATS[run.task]
    if run.task == "simulate":
        enough = evidence.WIDE_REPEATS.get(run.spec.expansion, enough)
    return run.spec.expand(
        {**run.spec.values(), "repeats": min(enough, run.spec.repeats)}
    ).canonical()


def table_verdicts(artifact) -> list[tuple[Any, ...]]:
    table = tables.build(REGISTRY, artifact, "paper", None)
    table["verdict"] = table["verdict"].map(without_reason)
    return [tuple(row) for row in table[["row", "column", "metric", "verdict"]].to_numpy()]


@pytest.mark.slow
@pytest.mark.parametrize("artifact", SIMULATED, ids=lambda artifact: artifact.id)
def test_no_verdict_of_a_table_turns_with_the_last_bit(artifact, tmp_path, monkeypatch, request):
    found = []
    for is_nudged in (False, True):
        if is_nudged:
            request.getfixturevalue("nudged")
        use_runs(monkeypatch, is_nudged)
        folder = tmp_path / str(is_nudged)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for cell in artifact.cells:
            publish_computed(REGISTRY.cell_runs("paper", cell)[0])
        found.append(table_verdicts(artifact))
    assert found[0] == found[1]
    assert any(verdict != "not run" for *_, verdict in found[0])


# --- what a scale changes ---


def name_of_a_number(claim: Claim) -> str:
    """The name of a comparison that the claim could have."""
    return claim.numbers[0].names.replace("*", "x") if claim.numbers else "x"


def arbitrary(claim: Claim, seed: int) -> list[Comparison]:
    """Comparisons that hold, fail, are open or are exact, by chance."""
    rng = np.random.default_rng(seed)
    name, count = name_of_a_number(claim), rng.integers(1, 4)
    return [
        Comparison(name, ours, 0.0, corrected, se=se, degrees=5)
        for ours, corrected, se in zip(
            rng.choice([0.0, 0.0, 0.0, 0.0, 1.0, 100.0, math.nan], count),
            rng.choice([None, 0.0, 1.0], count),
            rng.choice([0.0, 0.0, 1e-6, 1.0, math.inf], count),
            strict=True,
        )
    ]


@pytest.mark.parametrize("scale", ["laptop", "smoke", "substitute"])
def test_a_scaled_claim_is_shown_only_whatever_its_numbers(scale, monkeypatch):
    scaled = [claim for claim in COMPUTED if describe_scaling(REGISTRY, claim.runs, scale)]
    assert len(scaled) > 10
    for claim in scaled:
        for seed in range(20):
            compared = arbitrary(claim, seed)
            monkeypatch.setattr(judging, "compare", lambda *_, compared=compared: compared)
            judgement = judge(REGISTRY, claim, scale)
            assert (
                judgement.verdict == f"shown only ({describe_scaling(REGISTRY, claim.runs, scale)})"
            )
            assert not judgement.judged


FINAL = [
    artifact
    for artifact in REGISTRY.artifacts.values()
    if artifact.table in ("final_metrics", "top1") and artifact.source == artifact.id
]


@pytest.mark.parametrize("artifact", FINAL, ids=lambda artifact: artifact.id)
def test_a_scaled_table_is_shown_only_whatever_its_numbers(artifact, tmp_path, monkeypatch):
    """Accuracies drawn at random, some of runs that diverged."""
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        names = artifact.options.get("table", {}).get("metrics", ["test_accuracy"])
        for cell in artifact.cells:
            for run in REGISTRY.cell_runs("laptop", cell):
                status = "diverged" if rng.random() < 0.2 else "done"
                publish(
                    run,
                    {
                        "status": status,
                        **dict(zip(names, rng.uniform(0, 100, len(names)), strict=True)),
                    },
                )
        table = tables.build(REGISTRY, artifact, "laptop", None)
        measured = table[table["ours"].notna()]
        # A run that no scale changes may be judged; no trained one is such a run.
        assert set(measured["verdict"]) <= {"shown only (scaled)"}
        found.append(measured["verdict"].tolist())
    assert found[0] == found[1] == found[2]


# --- one judge ---


def table_rows(claim: Claim, scale: str) -> list[tuple[str, str, str]]:
    """(comparison, which number, verdict) of the claim's table."""
    table = tables.build(REGISTRY, REGISTRY.artifact(claim.id), scale, None)
    return [tuple(row) for row in table[["row", "column", "verdict"]].to_numpy()]


def ledger_rows(claim: Claim, scale: str, monkeypatch) -> tuple[str, list[tuple[str, str, str]]]:
    """The claim's verdict in claims.csv, and its rows in the order of its table."""
    with monkeypatch.context() as alone:
        alone.setattr(REGISTRY, "claims", {claim.id: claim})
        rows = claim_rows(REGISTRY, scale)
    found = []
    for row in rows:
        if row["reference"] is not None:
            found.append((row["comparison"], "as stated", row["outcome"]))
        if row["corrected"] is not None:
            found.append((row["comparison"], "corrected", row["corrected_outcome"]))
    return rows[0]["verdict"], found


def shown_as_claim(claim: Claim) -> bool:
    return REGISTRY.artifact(claim.id).table == "claim"


JUDGED_ALIKE = [claim for claim in CLAIM_TABLES if shown_as_claim(claim)]
UNSCALED = [claim for claim in JUDGED_ALIKE if can_be_computed(claim)]


@pytest.mark.parametrize("scale", ["paper", "laptop"])
def test_a_claim_that_was_not_run_is_not_run_in_its_table(scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_runs = [claim for claim in JUDGED_ALIKE if claim.runs]
    assert len(with_runs) > 10
    for claim in with_runs:
        stated, rows = ledger_rows(claim, scale, monkeypatch)
        ((_, _, shown),) = table_rows(claim, scale)
        assert rows == []
        assert shown == stated
        assert without_reason(stated) == "not run"


@pytest.mark.parametrize("scale", ["paper", "laptop"])
def test_the_table_and_the_ledger_have_one_judge(scale, tmp_path, monkeypatch):
    """Each row of a claim's table has the verdict of its row in claims.csv, and the claim's own
    verdict does not contradict them. The numbers are arbitrary."""
    monkeypatch.chdir(tmp_path)
    seen = set()
    for claim, seed in product(JUDGED_ALIKE, range(4)):
        compared = arbitrary(claim, seed + 4 * len(claim.id))
        monkeypatch.setattr(judging, "compare", lambda *_, compared=compared: compared)
        stated, rows = ledger_rows(claim, scale, monkeypatch)
        assert table_rows(claim, scale) == rows
        shown = {without_reason(text) for _, column, text in rows if column == "as stated"}
        seen.add(without_reason(stated))
        if describe_scaling(REGISTRY, claim.runs, scale):
            assert {text for *_, text in rows} == {stated}
            assert shown == {"shown only"}
        elif claim.undecided:
            assert {text for *_, text in rows} == {stated}
            assert shown == {"open"}
        elif "fails" in shown:
            assert stated.startswith("fails")
        else:
            assert without_reason(stated) == ("open" if "open" in shown else "holds")
    assert {"fails", "holds"} <= seen
    assert scale == "paper" or "shown only" in seen


@pytest.mark.slow
@pytest.mark.parametrize("claim", UNSCALED, ids=lambda claim: claim.id)
def test_real_numbers_are_judged_alike(claim, tmp_path, monkeypatch):
    """The same with the comparisons of the claim itself, in the order of its table."""
    monkeypatch.chdir(tmp_path)
    use_runs(monkeypatch, False)
    usual = comparisons(claim.id, False)
    monkeypatch.setattr(judging, "compare", lambda *_: usual)
    stated, rows = ledger_rows(claim, "paper", monkeypatch)
    assert table_rows(claim, "paper") == rows
    if not claim.undecided:
        assert stated == verdict(usual)
