"""What tables report about runs, from series written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ghostgrad.analysis.measures import vanilla_growth
from ghostgrad.analysis.results import Results
from ghostgrad.files import CsvTable
from ghostgrad.report import tables
from ghostgrad.tasks.simulate import BLOCK_COLUMNS, COLUMNS
from ghostgrad.theory.activations import ACTIVATIONS
from tests.unit.fabricate import SIMULATE, experiment, publish, reference, registry, table_code


def series(repeats, norms) -> CsvTable:
    """A series with gradient norms (repeats, layers) at layers 1..; every other quantity is 1."""
    table = CsvTable(("repeat", "layer", *COLUMNS, *BLOCK_COLUMNS))
    for repeat, layers in zip(repeats, norms, strict=True):
        for layer, norm in enumerate([float("nan"), *layers]):
            table.add(repeat, layer, norm, *[1.0] * (len(COLUMNS) + len(BLOCK_COLUMNS) - 1))
    return table


def measure_exponent(tmp_path, low, high):
    """The exponent row for residual nets of 2 and 4 layers, each given as (repeats, norms)."""
    base = {**SIMULATE, "net": "residual"}
    nets = experiment(base=base, variants={"low": {"depth": 2}, "high": {"depth": 4}})
    artifact = {"title": "T", "section": "s", "rows": {"Low": "nets/low", "High": "nets/high"}}
    reg = registry(tmp_path, {"nets": nets}, {"ghost.x": {**artifact, "table": "vanilla_growth"}})
    for name, (repeats, norms) in (("low", low), ("high", high)):
        publish(
            reg.run("paper", f"nets/{name}-s0"), {"repeats": len(norms)}, series(repeats, norms)
        )
    measured = list(vanilla_growth(Results(reg, reg.artifact("ghost.x"), "paper")))
    assert {m.n for m in measured if m.metric == "growth" and m.row == "Low"} == {len(low[0])}
    return [m for m in measured if m.metric == "exponent"]


def test_the_error_of_an_exponent_knows_that_depths_share_their_repeats(tmp_path, monkeypatch):
    """In each repeat both nets grow by the same random factor, so that their quotient is exact.

    Only the repeats that both nets have count; the others would give another exponent.
    """
    monkeypatch.chdir(tmp_path)
    factor, ones = np.random.default_rng(0).lognormal(size=96), np.ones(96)
    low, high = (
        np.stack([growth * factor, *[ones] * (depth - 1)], 1)
        for growth, depth in ((4.0, 2), (16.0, 4))
    )
    (joint,) = measure_exponent(tmp_path, (range(64), low[:64]), (range(32, 96), high[32:]))
    assert (joint.row, joint.n) == ("Low to High", 32)
    assert joint.ours == pytest.approx(2)  # a growth of 4 becomes one of 16 as the depth doubles
    assert joint.se == pytest.approx(0, abs=1e-8)  # series have nine digits


def test_no_exponent_without_common_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    low, high = (range(8), np.ones((8, 2))), (range(8, 16), np.ones((8, 4)))
    assert measure_exponent(tmp_path, low, high) == []


def test_a_predicted_rate_is_judged_at_every_scale(tmp_path, monkeypatch):
    """A number by quadrature depends neither on the scale nor on the code of the simulation.

    The fitted rate beside it depends on both.
    """
    monkeypatch.chdir(tmp_path)
    nets = experiment(variants={"a": {"width": 16}}, scales={"smoke": {"depth": 3}})
    options = {"table": {"activation": "ReLU", "metrics": ["rate"]}}
    artifact = {"title": "T", "section": "s", "rows": {"ReLU": "nets/a"}}
    artifact |= {"table": "predicted_rates", "options": options}
    reg = registry(tmp_path, {"nets": nets}, {"ghost.x": artifact})
    alpha = ACTIVATIONS["ReLU"].growth_rate ** 0.5
    rows = [{"row": "ReLU", "metric": metric, "value": alpha} for metric in ("alpha", "rate")]
    reference(reg.workflow, "ghost.x", rows)
    norms = np.random.default_rng(0).uniform(1, 2, (8, 3))
    publish(reg.run("smoke", "nets/a-s0"), {"repeats": 8}, series(range(8), norms), code="c0de0001")
    table = tables.build(reg, reg.artifact("ghost.x"), "smoke", None).set_index("metric")
    assert table.loc["alpha", ["verdict", "code"]].tolist() == ["holds", table_code()]
    assert table.loc["rate", ["verdict", "code"]].tolist() == [
        "shown only (scaled)",
        table_code("c0de0001"),
    ]


def test_a_file_is_read_once(bench, monkeypatch):
    """A file stays in memory, because a figure asks for the probes of a cell at every position."""
    publish(
        bench.run("laptop", "nets/a-s0"),
        {"test_accuracy": 1.0},
        series=CsvTable(("step",), [[1], [2]]),
    )
    results = Results(bench, bench.artifact("ghost.x"), "laptop")
    cell = bench.artifact("ghost.x").cells[0]
    first = results.frame(cell, "series.csv")
    monkeypatch.chdir("/")
    assert results.frame(cell, "series.csv") is first
    assert first["step"].tolist() == [1, 2]
