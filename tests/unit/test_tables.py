"""The paper's numbers beside ours: tolerance, verdicts, differences, spread over seeds.

A verdict is the workflow's statement about a paper. These tests cover every verdict of the closed
list, and show that only results of the paper's own experiment are judged.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostgrad.analysis import measures
from ghostgrad.analysis.measured import Measured
from ghostgrad.analysis.tidy import tidy_table
from ghostgrad.checks import InputError
from ghostgrad.registry.reference import ReferenceRow
from ghostgrad.report import tables
from ghostgrad.report.cells import cell_text, parse_row
from tests.unit.fabricate import (
    BUILT,
    CLASSIFY,
    STEADY,
    compared,
    experiment,
    finish,
    publish,
    reference,
    registry,
    table_code,
)

NAN = math.nan
NUMBER = st.floats(-100, 100, allow_subnormal=False)
WIDTH = st.floats(0.01, 10)


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


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (10.0, "match"),
        (10.99, "match"),
        (9.01, "match"),
        (11.99, "close"),
        (8.01, "close"),
        (12.01, "off"),
        (7.99, "off"),
    ],
)
def test_judged_without_noise(ours, verdict):
    """Within the tolerance, within twice the tolerance, or neither; on both sides."""
    assert tables.number_verdict(row(10.0), ours, NAN, 1.0) == verdict


@pytest.mark.parametrize(
    ("ours", "se", "verdict"),
    [
        (11.4, 0.0, "close"),
        (11.4, 0.5, "match"),  # hypot(1, 2 * 0.5) = 1.414
        (11.42, 0.5, "close"),
        (12.2, 0.5, "close"),  # hypot(2, 2 * 0.5) = 2.236
        (12.25, 0.5, "off"),
        (14.0, 2.0, "match"),  # hypot(1, 4) = 4.12
    ],
)
def test_judged_with_the_standard_error(ours, se, verdict):
    """A difference that two standard errors explain does not count: noise adds in quadrature."""
    assert tables.number_verdict(row(10.0), ours, se, 1.0) == verdict


@pytest.mark.parametrize("relation", ["<", "<="])
def test_an_upper_bound(relation):
    """Anything below it fits, however far; above it the tolerance decides."""
    verdicts = [
        tables.number_verdict(row(10.0, relation), ours, NAN, 1.0)
        for ours in (-90.0, 9.9, 10.5, 11.5, 12.5)
    ]
    assert verdicts == ["match", "match", "match", "close", "off"]


@pytest.mark.parametrize("relation", [">", ">="])
def test_a_lower_bound(relation):
    """Anything above it fits, however far; below it the tolerance decides."""
    verdicts = [
        tables.number_verdict(row(10.0, relation), ours, NAN, 1.0)
        for ours in (110.0, 10.1, 9.5, 8.5, 7.5)
    ]
    assert verdicts == ["match", "match", "match", "close", "off"]


@STEADY
@given(NUMBER, NUMBER, WIDTH, st.floats(0, 10))
def test_bounds_are_the_two_halves_of_equality(value, ours, allowed, se):
    """Equality fails exactly where one of the two bounds does, and more noise never makes a verdict
    worse."""
    order = ["match", "close", "off"]

    def rank(relation, error=se):
        return order.index(tables.number_verdict(row(value, relation), ours, error, allowed))

    assert rank("=") == max(rank("<="), rank(">="))
    assert min(rank("<"), rank(">")) == 0
    assert rank("=", se + 1) <= rank("=")


VERDICTS = {
    "match": ([92.1, 92.2, 92.0], {"row": "A", "value": 92.5}, "match"),
    "close": ([91.61, 91.6, 91.59], {"row": "A", "value": 92.5}, "close"),
    "off": ([90.1, 90.0, 90.2], {"row": "A", "value": 92.5}, "off"),
    "the row's tolerance": (
        [90.1, 90.0, 90.2],
        {"row": "A", "value": 92.5, "tolerance": 3},
        "match",
    ),
    "the paper's spread": ([90.1, 90.0, 90.2], {"row": "A", "value": 92.5, "std": 1.2}, "match"),
    "noise": ([85.0, 92.0, 93.0], {"row": "A", "value": 92.5}, "match"),
    "below a bound": ([10.0, 11.0, 12.0], {"row": "A", "value": 70, "relation": "<"}, "match"),
    "above a bound": ([80.0, 80.1, 80.2], {"row": "A", "value": 70, "relation": "<="}, "off"),
    "above a lower bound": (
        [80.0, 80.1, 80.2],
        {"row": "A", "value": 70, "relation": ">="},
        "match",
    ),
    "below a lower bound": ([10.0, 11.0, 12.0], {"row": "A", "value": 70, "relation": ">"}, "off"),
    "a cited number that was run": (
        [92.1, 92.2, 92.0],
        {"row": "A", "value": 92.5, "cited": "yes"},
        "match",
    ),
    "a reported divergence that was none": (
        [92.1, 92.2, 92.0],
        {"row": "A", "value": 9.09, "diverges": "yes"},
        "off",
    ),
}


@pytest.mark.parametrize(("accuracies", "paper", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_verdict_of_finished_runs(bench, accuracies, paper, verdict):
    """A whole row of the table is judged with its standard error."""
    reference(bench.workflow, "ghost.x", [paper])
    finish(bench, "a", accuracies)
    assert compared(bench)["A", ""]["verdict"] == verdict


def test_without_the_papers_numbers_rows_have_the_order_of_the_registry(bench):
    """Cells that have run do not move to the front."""
    places = [(cell.row, cell.column) for cell in bench.artifact("ghost.x").cells]
    last = next(i for i, cell in enumerate(bench.artifact("ghost.x").cells) if cell.variant == "c")
    finish(bench, "c", [90.0, 91.0, 92.0])
    lines = compared(bench)
    assert [place for place in lines if place in places] == places
    assert lines[places[last]]["ours"] == 91.0
    assert lines[places[0]]["verdict"].startswith("not run")


@pytest.mark.parametrize(
    ("diverges", "verdict"), [("yes", "diverged as reported"), ("", "diverged unexpectedly")]
)
def test_divergence_is_a_result(bench, diverges, verdict):
    """One diverged seed of three is enough, and it outweighs a number that would match."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 10.0, "diverges": diverges}])
    finish(bench, "a", [10.0, 10.0])
    publish(bench.run("laptop", "nets/a-s2"), {"status": "diverged", "test_accuracy": 10.0})
    line = compared(bench)["A", ""]
    assert (line["verdict"], line["n"], line["n_diverged"]) == (verdict, 3, 1)


def test_a_scaled_cell_is_shown_and_never_judged(bench):
    """At `smoke` the training is shorter: an equal number is no match and a divergence no
    surprise."""
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 92.5}, {"row": "B", "value": 90.6}])
    finish(bench, "a", [92.5], scale="smoke")
    publish(bench.run("smoke", "nets/b-s0"), {"status": "diverged", "test_accuracy": 10.0})
    lines = compared(bench, "smoke")
    assert [lines[key, ""]["verdict"] for key in "AB"] == ["scaled", "scaled"]
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
        ("B", ""): "cited",
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
    assert [lines[key, ""]["verdict"] for key in "AB"] == ["not run (no data)", "cited"]
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
    assert verdicts[:3] == ["not run (no finished run)", "match", "no paper value"]
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
    assert (line["paper"], line["paper_std"], line["tolerance"], line["scale"]) == (
        3.0,
        0.25,
        0.5,
        "laptop",
    )


def test_one_seed_has_no_spread(bench):
    """Neither the spread nor the error is zero: both are missing."""
    finish(bench, "a", [1.0])
    line = compared(bench)["A", ""]
    assert (math.isnan(line["ours_std"]), math.isnan(line["ours_se"]), line["n"]) == (True, True, 1)


def test_the_difference_of_two_columns(bench):
    """`minus` subtracts one measured cell from another, with both standard errors, and the
    difference is judged like any other number."""
    reference(
        bench.workflow,
        "ghost.x",
        [{"row": "C", "column": "gain", "minus": "C|left minus B|", "value": 1.6}],
    )
    finish(bench, "c", [75.0, 75.4, 75.2])
    finish(bench, "b", [73.7, 73.5])
    line = compared(bench)["C", "gain"]
    assert (line["ours"], line["n"], line["verdict"]) == (pytest.approx(1.6), 2, "match")
    assert line["ours_se"] == pytest.approx(math.hypot(0.2 / math.sqrt(3), 0.1))


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
    columns = """row column metric unit relation paper paper_std ours ours_std ours_se n n_diverged
        delta tolerance"""
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
    assert (line["verdict"], line["n"], line["n_diverged"]) == ("diverged as reported", 3, 3)
    assert math.isnan(line["ours"])
    assert cell_text(parse_row(line)) == "9.09 % / div (3 of 3) diverged as reported"


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
    assert (line["verdict"], line["code"]) == ("match", table_code("aaaa0000"))


def test_a_difference_with_a_diverged_cell(bench):
    """A difference with a diverged cell is no match, whatever the last accuracy was."""
    reference(
        bench.workflow, "ghost.x", [{"row": "C - B", "minus": "C|left minus B|", "value": 1.0}]
    )
    finish(bench, "b", [9.0])
    publish(bench.run("laptop", "nets/c-s0"), {"status": "diverged", "test_accuracy": 10.0})
    assert compared(bench)["C - B", ""]["verdict"] == "diverged unexpectedly"


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
