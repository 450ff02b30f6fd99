"""The numbers of statements beside ours: provenance, tolerance, verdicts, differences, spread.

A verdict is the workflow's statement about a paper. These tests cover every verdict that a cell can
have, and show that only results of the paper's own experiment are judged. The judge itself is
tested in test_comparison.py.
"""

from __future__ import annotations

import math

import pytest

from ghostgrad.analysis import measures
from ghostgrad.analysis.measured import Measured
from ghostgrad.analysis.tidy import tidy_table
from ghostgrad.checks import InputError
from ghostgrad.registry.reference import ReferenceRow
from ghostgrad.registry.verdict import without_reason
from ghostgrad.report import tables
from ghostgrad.report.cells import cell_text, parse_row
from tests.unit.fabricate import (
    BUILT,
    CLASSIFY,
    compared,
    experiment,
    finish,
    publish,
    reference,
    registry,
    table_code,
)

NAN = math.nan


def row(value=10.0, relation="=", tolerance=NAN, std=NAN, metric="test_accuracy"):
    return ReferenceRow(
        row="A",
        column="",
        metric=metric,
        unit="",
        relation=relation,
        minus="",
        value=value,
        std=std,
        tolerance=tolerance,
        diverges="",
        cited="",
        provenance="printed",
        basis="10.0",
        source="tab. 1",
        line=2,
    )


@pytest.mark.parametrize(
    ("reference_row", "expected"),
    [
        (row(tolerance=0.3, std=0.4), 0.3),
        (row(tolerance=0.0, std=0.4), 0.0),
        (row(std=0.4), 0.8),
        (row(metric="test_accuracy"), tables.DEFAULT_TOLERANCE["test_accuracy"]),
        (row(value=50.0, metric="rate"), 1.0),
        (row(value=-50.0, metric="rate"), 1.0),
    ],
)
def test_tolerance(reference_row, expected):
    """The tolerance is the reference row's, else twice the paper's spread, else the metric's
    default, else 2 % of the value."""
    assert tables.tolerance(reference_row) == pytest.approx(expected)


def measured(ours, se=NAN, degrees=0, quadrature=False):
    return Measured("A", "", "test_accuracy", ours, se=se, degrees=degrees, quadrature=quadrature)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (10.0, "holds"),
        (10.99, "holds"),
        (9.01, "holds"),
        (11.01, "fails"),
        (8.99, "fails"),
    ],
)
def test_a_number_from_a_formula_is_judged_by_its_tolerance_alone(ours, verdict):
    number = row(10.0)
    assert tables.number_verdict(number, measured(ours, quadrature=True), 1.0) == verdict


@pytest.mark.parametrize("ours", [10.0, 50.0])
def test_a_single_run_is_open(ours):
    """Without a second seed nothing is known of the spread, not even from the binomial error."""
    for se in (NAN, 0.3):
        verdict = tables.number_verdict(row(10.0), measured(ours, se), 1.0)
        assert verdict == "open (A, test_accuracy: more seeds or repeats than one)"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(10.0, "holds"), (10.5, "holds"), (10.9, "open"), (11.5, "open"), (13.0, "fails")],
)
def test_a_number_is_judged_by_its_interval(ours, verdict):
    """With 63 degrees of freedom and an error of 0.2 the interval is 0.33 wide to confirm and 0.83
    to refute."""
    judged = tables.number_verdict(row(10.0), measured(ours, 0.2, 63), 1.0)
    assert judged.partition(" (")[0] == verdict


VERDICTS = {
    "within the default tolerance": ([92.4, 92.5, 92.6], {"row": "A", "value": 92.5}, "holds"),
    "at its edge": ([91.9, 92.0, 92.1], {"row": "A", "value": 92.5}, "open"),
    "outside": ([50.1, 50.0, 50.2], {"row": "A", "value": 92.5}, "fails"),
    "within the row's tolerance": (
        [90.1, 90.0, 90.2],
        {"row": "A", "value": 92.5, "tolerance": 3},
        "holds",
    ),
    "within the paper's spread": (
        [91.1, 91.0, 91.2],
        {"row": "A", "value": 92.5, "std": 1.2},
        "holds",
    ),
    "noise": ([85.0, 92.0, 93.0], {"row": "A", "value": 92.5}, "open"),
    "below a bound": ([10.0, 11.0, 12.0], {"row": "A", "value": 70, "relation": "<"}, "holds"),
    "above a bound": ([90.0, 90.1, 90.2], {"row": "A", "value": 70, "relation": "<="}, "fails"),
    "above a lower bound": (
        [80.0, 80.1, 80.2],
        {"row": "A", "value": 70, "relation": ">="},
        "holds",
    ),
    "below a lower bound": (
        [10.0, 10.1, 10.2],
        {"row": "A", "value": 70, "relation": ">"},
        "fails",
    ),
    "approximately": (
        [92.4, 92.5, 92.6],
        {"row": "A", "value": 92.5, "relation": "~"},
        "holds",
    ),
    "outside the conditions of the statement": (
        [50.1, 50.0, 50.2],
        {"row": "A", "value": 92.5, "relation": ""},
        "shown only",
    ),
    "a cited number that was run": (
        [92.1, 92.2, 92.0],
        {"row": "A", "value": 92.5, "cited": "yes"},
        "shown only",
    ),
    "a reported divergence that was none": (
        [92.1, 92.2, 92.0],
        {"row": "A", "value": 9.09, "diverges": "yes"},
        "fails",
    ),
}


@pytest.mark.parametrize(("accuracies", "paper", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_verdict_of_finished_runs(bench, accuracies, paper, verdict):
    """A whole row of the table is judged with its standard error."""
    reference(bench.workflow, "ghost.x", [paper])
    finish(bench, "a", accuracies)
    assert without_reason(compared(bench)["A", ""]["verdict"]) == verdict


def test_whose_number_it_is(bench):
    """A row has the provenance of its number and what it rests on; ours alone has neither."""
    number = {"row": "A", "value": 92.5, "provenance": "derived", "basis": "from tab. 2"}
    reference(bench.workflow, "ghost.x", [number])
    finish(bench, "a", [92.4])
    finish(bench, "b", [90.0])
    lines = compared(bench)
    assert (lines["A", ""]["provenance"], lines["A", ""]["basis"]) == ("derived", "from tab. 2")
    assert (lines["B", ""]["provenance"], lines["B", ""]["basis"]) == ("", "")


def test_without_the_papers_numbers_rows_have_the_order_of_the_registry(bench):
    """Cells that have run do not move to the front."""
    places = [(cell.row, cell.column) for cell in bench.artifact("ghost.x").cells]
    last = next(i for i, cell in enumerate(bench.artifact("ghost.x").cells) if cell.variant == "c")
    finish(bench, "c", [90.0, 91.0, 92.0])
    lines = compared(bench)
    assert [place for place in lines if place in places] == places
    assert lines[places[last]]["ours"] == 91.0
    assert lines[places[0]]["verdict"].startswith("not run")


DIVERGED = {
    "as reported": ({"diverges": "yes"}, 3, "holds (diverged as reported)"),
    "a number": ({}, 3, "fails (diverged)"),
    "an upper bound": (
        {"relation": "<="},
        3,
        "open (all runs diverged; one that learns would decide the bound)",
    ),
    "some seeds": ({}, 1, "open (1 of 3 runs diverged; more seeds)"),
    "some seeds, as reported": ({"diverges": "yes"}, 1, "open (1 of 3 runs diverged; more seeds)"),
}


@pytest.mark.parametrize(("keys", "diverged", "verdict"), DIVERGED.values(), ids=DIVERGED)
def test_divergence_is_a_result(bench, keys, diverged, verdict):
    """It outweighs a number that would match, if all seeds agree."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 10.0, **keys}])
    finish(bench, "a", [10.0] * (3 - diverged))
    for seed in range(3 - diverged, 3):
        run = bench.run("laptop", f"nets/a-s{seed}")
        publish(run, {"status": "diverged", "test_accuracy": 10.0})
    line = compared(bench)["A", ""]
    assert (line["verdict"], line["n"], line["n_diverged"]) == (verdict, 3, diverged)


def test_one_diverged_seed_decides_nothing(bench):
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 10.0, "diverges": "yes"}])
    publish(bench.run("laptop", "nets/a-s0"), {"status": "diverged", "test_accuracy": 10.0})
    assert compared(bench)["A", ""]["verdict"] == "open (1 of 1 runs diverged; more seeds)"


def test_a_strict_relation_has_no_default_tolerance(bench):
    """A tolerance would say by how much more ours has to lie beyond the number."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 70.0, "relation": "<"}])
    finish(bench, "a", [69.8, 69.81, 69.79])
    assert compared(bench)["A", ""]["verdict"] == "holds"


def test_a_scaled_cell_is_shown_and_never_judged(bench):
    """At `smoke` the training is shorter: an equal number confirms nothing and a divergence refutes
    nothing. A cell without a number beside ours is marked like the others."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 92.5}, {"row": "B", "value": 90.6}])
    finish(bench, "a", [92.5], scale="smoke")
    publish(bench.run("smoke", "nets/b-s0"), {"status": "diverged", "test_accuracy": 10.0})
    lines = compared(bench, "smoke")
    assert [lines[key, ""]["verdict"] for key in "AB"] == ["shown only (scaled)"] * 2
    assert (lines["A", ""]["ours"], lines["A", ""]["delta"], lines["B", ""]["n_diverged"]) == (
        92.5,
        0.0,
        1,
    )


def test_a_cell_without_a_run_gives_the_reason(bench):
    """Cited numbers stay cited; all others, the paper's and ours, give the reason."""
    paper = [{"row": "A", "value": 92.5}, {"row": "B", "value": 1, "cited": "yes"}]
    paper += [{"row": "C", "column": "right", "value": 3}, {"row": "elsewhere", "value": 4}]
    reference(bench.workflow, "ghost.x", paper)
    assert {key: line["verdict"] for key, line in compared(bench).items()} == {
        ("A", ""): "not run (no finished run)",
        ("B", ""): f"not run ({tables.CITED})",
        ("C", "right"): "not run (not at scale laptop)",
        ("elsewhere", ""): "not run (no finished run)",
        ("C", "left"): "not run (no finished run)",
    }


def test_a_reason_given_from_outside_is_in_every_cell(bench):
    """`why_not` (data not set, not at this scale) is in every cell but the cited ones, whatever has
    been run."""
    reference(
        bench.workflow,
        "ghost.x",
        [{"row": "A", "value": 92.5}, {"row": "B", "value": 1, "cited": "yes"}],
    )
    finish(bench, "a", [92.5])
    lines = compared(bench, why_not="no data")
    assert [lines[key, ""]["verdict"] for key in "AB"] == [
        "not run (no data)",
        f"not run ({tables.CITED})",
    ]
    assert math.isnan(lines["A", ""]["ours"])


def test_an_artifact_without_numbers_still_says_why(bench):
    """Where the paper prints no number and nothing ran, there is a row per cell."""
    lines = compared(bench, why_not="no data")
    assert list(lines) == [("A", ""), ("B", ""), ("C", "left"), ("C", "right")]
    assert {line["verdict"] for line in lines.values()} == {"not run (no data)"}


def test_a_partial_artifact(bench):
    """Where runs are missing, the finished seeds are averaged; our cells without a number of the
    paper follow the paper's rows."""
    reference(bench.workflow, "ghost.x", [{"row": "B", "value": 90.6}, {"row": "A", "value": 92.5}])
    finish(bench, "a", [92.4, 92.6])
    finish(bench, "c", [50.0])
    lines = compared(bench)
    assert list(lines) == [("B", ""), ("A", ""), ("C", "left"), ("C", "right")]
    verdicts = [line["verdict"] for line in lines.values()]
    assert verdicts[:3] == [
        "not run (no finished run)",
        "open (A, test_accuracy: about 2 times as many seeds or repeats)",
        "shown only (no number in the paper)",
    ]
    assert verdicts[3] == "not run (not at scale laptop)"
    assert (lines["A", ""]["n"], lines["A", ""]["ours"]) == (2, pytest.approx(92.5))
    assert (lines["C", "left"]["n"], lines["C", "left"]["source"], lines["C", "left"]["unit"]) == (
        1,
        "tab. 1",
        "%",
    )


def test_mean_and_spread_over_seeds(bench):
    """Sample standard deviation, standard error std/sqrt(n), and delta against the paper."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 3.0, "std": 0.25}])
    finish(bench, "a", [1.0, 2.0, 6.0])
    line = compared(bench)["A", ""]
    assert line["ours"] == pytest.approx(3.0)
    assert line["ours_std"] == pytest.approx(math.sqrt(7))
    assert line["ours_se"] == pytest.approx(math.sqrt(7 / 3))
    assert (line["n"], line["n_diverged"], line["delta"]) == (3, 0, pytest.approx(0.0))
    assert (line["reference"], line["reference_std"], line["tolerance"], line["scale"]) == (
        3.0,
        0.25,
        0.5,
        "laptop",
    )


def test_one_seed_has_no_spread(bench):
    """The spread is missing, not zero. The error is the binomial one of the 300 test images."""
    finish(bench, "a", [20.0])
    line = compared(bench)["A", ""]
    assert (math.isnan(line["ours_std"]), line["n"]) == (True, 1)
    assert line["ours_se"] == pytest.approx(100 * math.sqrt(0.2 * 0.8 / 300))


def test_a_single_error_rate_of_an_unknown_set_has_no_error(bench, monkeypatch):
    monkeypatch.setattr(measures, "test_images", lambda *_: None)
    finish(bench, "a", [20.0])
    assert math.isnan(compared(bench)["A", ""]["ours_se"])


def test_the_difference_of_two_columns(bench):
    """`minus` subtracts one measured cell from another, with both standard errors, and the
    difference is judged like any other number."""
    reference(
        bench.workflow,
        "ghost.x",
        [{"row": "C", "column": "gain", "minus": "C|left minus B|", "value": 1.6}],
    )
    finish(bench, "c", [75.0, 75.4, 75.2])
    finish(bench, "b", [73.7, 73.5, 73.6])
    line = compared(bench)["C", "gain"]
    assert (line["ours"], line["n"]) == (pytest.approx(1.6), 3)
    assert line["verdict"] == "holds"
    assert line["ours_se"] == pytest.approx(math.hypot(0.2, 0.1) / math.sqrt(3))


def test_a_difference_needs_both_cells(bench):
    """A difference counts as not run if one of its two cells has no run."""
    reference(
        bench.workflow,
        "ghost.x",
        [{"row": "C", "column": "gain", "minus": "C|left minus B|", "value": 1.6}],
    )
    finish(bench, "c", [75.0])
    assert compared(bench)["C", "gain"]["verdict"] == "not run (no finished run)"


def test_the_code_of_a_cell_is_that_of_its_runs(bench):
    """The distinct hashes of its runs are joined; those of another cell do not count."""
    finish(bench, "a", [1.0, 2.0], code="bbbb0000")
    publish(bench.run("laptop", "nets/a-s2"), {"test_accuracy": 3.0}, code="aaaa0000")
    finish(bench, "b", [1.0], code="cccc0000")
    lines = compared(bench)
    assert (lines["A", ""]["code"], lines["B", ""]["code"]) == (
        table_code("aaaa0000+bbbb0000"),
        table_code("cccc0000"),
    )


def test_columns_and_their_order(bench):
    """Other programs read the header of the CSV."""
    finish(bench, "a", [1.0])
    columns = """row column metric unit relation reference reference_std provenance basis ours
        ours_std ours_se n n_diverged delta tolerance"""
    table = tables.build(bench, bench.artifact("ghost.x"), "laptop", None)
    assert list(table.columns) == [*columns.split(), "verdict", "scale", "code", "source"]


def test_tables_are_made_from_the_tidy_file(bench, tmp_path):
    """The table shows what is in results/<scale>/tidy/."""
    finish(bench, "a", [1.0, 2.0])
    path = tmp_path / "tidy.csv"
    path.write_text(
        tidy_table(bench, bench.artifact("ghost.x"), "laptop").text().replace("done,2,", "done,4,")
    )
    table = tables.build(bench, bench.artifact("ghost.x"), "laptop", None, path)
    assert table.loc[table["row"] == "A", "ours"].tolist() == [2.5]


def test_seeds_that_diverged_without_a_value_have_diverged(bench):
    """A diverged run, such as one of Model-3, may report no accuracy at all."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 9.09, "diverges": "yes"}])
    for seed in range(3):
        publish(
            bench.run("laptop", f"nets/a-s{seed}"), {"status": "diverged", "test_accuracy": None}
        )
    line = compared(bench)["A", ""]
    assert line["verdict"] == "holds (diverged as reported)"
    assert (line["n"], line["n_diverged"]) == (3, 3)
    assert math.isnan(line["ours"])
    assert cell_text(parse_row(line)) == "9.09 % / div (3 of 3) ✓"


def test_the_difference_of_two_rows(bench):
    """A difference may be a row without columns, such as "Skip-SeqNet50 - SeqNet50" of ghost.fig9.

    tab3b and lr_grid have such rows as well.
    """
    reference(bench.workflow, "ghost.x", [{"row": "A - B", "minus": "A| minus B|", "value": 0.8}])
    finish(bench, "a", [77.9])
    finish(bench, "b", [77.1])
    assert compared(bench)["A - B", ""]["ours"] == pytest.approx(0.8)


@pytest.mark.parametrize("code", ["12345e10", "00123456"])
def test_a_hash_is_no_number(bench, code):
    """The hash stays text, although one in sixty looks like a float or starts with zeros."""
    finish(bench, "a", [1.0], code=code)
    assert compared(bench)["A", ""]["code"] == table_code(code)


def test_a_difference_is_judged_by_its_own_cells(tmp_path, monkeypatch):
    """A third cell, which is scaled and of other code, does not affect the verdict."""
    monkeypatch.chdir(tmp_path)
    variants = {
        "a": {},
        "b": {"batch": 32},
        "c": {"batch": 16, "scales": {"laptop": {"length": 1}}},
    }
    body = experiment(
        task="classify", base=dict(CLASSIFY), variants=variants, scales={"laptop": {}}
    )
    rows = {"A": {"x": "nets/a", "y": "nets/b"}, "C": "nets/c"}
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": {**BUILT, "rows": rows}})
    reference(
        reg.workflow,
        "ghost.x",
        [{"row": "A", "column": "gain", "minus": "A|x minus A|y", "value": 1.0}],
    )
    for variant, accuracy, code in (
        ("a", 51.0, "aaaa0000"),
        ("b", 50.0, "aaaa0000"),
        ("c", 1.0, "cccc0000"),
    ):
        publish(reg.run("laptop", f"nets/{variant}-s0"), {"test_accuracy": accuracy}, code=code)
    line = compared(reg)["A", "gain"]
    assert without_reason(line["verdict"]) == "open"  # with one seed each, but not scaled
    assert line["code"] == table_code("aaaa0000")


def test_a_difference_with_a_diverged_cell(bench):
    """A difference with a diverged cell does not hold, whatever the last accuracy was."""
    reference(
        bench.workflow, "ghost.x", [{"row": "C - B", "minus": "C|left minus B|", "value": 1.0}]
    )
    finish(bench, "b", [9.0, 9.1])
    for seed in range(2):
        run = bench.run("laptop", f"nets/c-s{seed}")
        publish(run, {"status": "diverged", "test_accuracy": 10.0})
        expected = "fails" if seed else "open"
        assert compared(bench)["C - B", ""]["verdict"].startswith(f"{expected} (")


@pytest.mark.parametrize("diverged", [(2, 1), (1, 2), (2, 0)])
def test_a_difference_of_cells_of_which_some_runs_diverged(bench, diverged):
    """Two of three and one of three are not three of three."""
    reference(
        bench.workflow, "ghost.x", [{"row": "C - B", "minus": "C|left minus B|", "value": 1.0}]
    )
    for name, count in zip("cb", diverged, strict=True):
        finish(bench, name, [9.0] * (3 - count))
        for seed in range(3 - count, 3):
            run = bench.run("laptop", f"nets/{name}-s{seed}")
            publish(run, {"status": "diverged", "test_accuracy": 10.0})
    expected = "open (2 of 3 runs diverged; more seeds)"
    assert compared(bench)["C - B", ""]["verdict"] == expected


def test_a_table_function_reports_what_it_declares(bench, monkeypatch):
    """Reporting a metric that is not declared is an error.

    Otherwise the registry would refuse the paper's number for a row that exists.
    """

    def undeclared(results, **_options):
        yield Measured("A", "", "top5", 1.0)

    monkeypatch.setattr(measures, "final_metrics", undeclared)
    with pytest.raises(ValueError, match=r"final_metrics reports .*top5.* does not declare"):
        compared(bench)


def test_a_metric_that_no_run_has(tmp_path, monkeypatch):
    """The message names the metric and the nearest one that exists."""
    monkeypatch.chdir(tmp_path)
    table = {**BUILT, "rows": {"A": "nets/a"}, "options": {"table": {"metrics": ["test_acuracy"]}}}
    reg = registry(
        tmp_path, {"nets": experiment(task="classify", base=dict(CLASSIFY))}, {"ghost.x": table}
    )
    publish(reg.run("paper", "nets/a-s0"), {"test_accuracy": 1.0})
    with pytest.raises(
        InputError, match=r"^artifact ghost\.x: .*'test_acuracy'; did you mean 'test_accuracy'\?$"
    ):
        tables.build(reg, reg.artifact("ghost.x"), "paper", None)
