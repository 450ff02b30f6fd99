"""The paper's numbers beside ours, with a verdict for each: the table of an artifact as a frame.

Our number comes from series.csv, probes.csv or metrics.csv of the artifact's runs, through the
function of `analysis/measures.py` that the artifact names as `table`, as a `Measured`. The paper's
is a row of workflow/reference/<artifact>.csv, a `ReferenceRow`. `_compare_number` puts the two
beside each other. The table of a claim shows its comparisons, from `claims/`, instead.

`report/verdicts.py` has the closed list of verdicts and the rule by which a cell is judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.analysis import measures
from ghostgrad.analysis.measured import Measured
from ghostgrad.analysis.results import Results
from ghostgrad.claims.judge import judge, table_entries
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.reference import Key, ReferenceRow, read_reference, table_keys
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import missing_reason
from ghostgrad.runs.provenance import code_hash

COLUMNS = """row column metric unit relation paper paper_std ours ours_std ours_se n n_diverged
delta tolerance verdict scale code source""".split()

# Where neither the reference row nor the paper's own spread gives a tolerance: by metric, in
# percentage points, and relative to the number for all other metrics.
DEFAULT_TOLERANCE = dict.fromkeys(
    ("test_accuracy", "top1", "APb", "APb50", "APb75", "APm", "APm50", "APm75"), 0.5
)
RELATIVE_TOLERANCE = 0.02

Place = tuple[str, str]  # row, column
Record = dict[str, str | float | int | None]  # a row of the table; absent columns become NaN


def paper_numbers(results: Results) -> list[ReferenceRow]:
    """The numbers that the paper prints for an artifact, in its order."""
    folder = results.registry.workflow / "reference"
    return read_reference(folder / f"{results.artifact.source}.csv")


def _unprinted(key: Key, unit: str, source: str) -> ReferenceRow:
    """A place of the table for which the paper prints no number."""
    row, column, metric = key
    return ReferenceRow(
        row=row,
        column=column,
        metric=metric,
        unit=unit,
        relation="",
        minus="",
        value=math.nan,
        std=math.nan,
        tolerance=math.nan,
        diverges="",
        cited="",
        source=source,
        line=0,
    )


def tolerance(number: ReferenceRow) -> float:
    """The tolerance of the reference row, else twice the paper's standard deviation, else the
    default of the metric, else 2 % of the number."""
    if not math.isnan(number.tolerance):
        return number.tolerance
    if not math.isnan(number.std):
        return 2 * number.std
    return DEFAULT_TOLERANCE.get(number.metric, RELATIVE_TOLERANCE * abs(number.value))


def number_verdict(number: ReferenceRow, ours: float, se: float, allowed: float) -> str:
    """`match`, `close` or `off`: how our number agrees with the paper's number and its relation
    (= < <= > >=), within the tolerance `allowed` and our standard error, which may be NaN."""
    delta = ours - number.value
    # A bound is missed on one side only.
    if number.relation in ("<", "<="):
        delta = max(delta, 0.0)
    elif number.relation in (">", ">="):
        delta = min(delta, 0.0)
    noise = 0.0 if math.isnan(se) else 2 * se
    if abs(delta) <= math.hypot(allowed, noise):
        return "match"
    return "close" if abs(delta) <= math.hypot(2 * allowed, noise) else "off"


def measure(results: Results) -> list[Measured]:
    """What the table function of an artifact measures in the runs that exist."""
    artifact = results.artifact
    if artifact.table is None:
        return []
    function = getattr(measures, artifact.table)
    measured: list[Measured] = list(function(results, **artifact.options.get("table", {})))
    keys = table_keys(artifact)
    for number in measured:
        # The registry would refuse a number of the paper for a row that it does not know.
        if (key := (number.row, number.column, number.metric)) not in keys:
            raise ValueError(f"{artifact.table} reports {key}, which its @reports does not declare")
    return measured


def compare(results: Results, why_not: str | None = None) -> pd.DataFrame:
    """One row per number of the paper or of ours, and one per cell that has neither.

    The rows have the paper's order, and after them come our numbers that the paper does not print.
    `why_not` is the reason where nothing can be measured.
    """
    paper = paper_numbers(results)
    ours: dict[Key, Measured] = {}
    if not why_not:
        ours = {(m.row, m.column, m.metric): m for m in measure(results)}
        ours |= _differences(paper, ours)
    rows = [_compare_number(results, number, ours, why_not) for number in paper]
    printed = {number.key for number in paper}
    for key, measured in ours.items():
        if key not in printed:
            number = _unprinted(key, measured.unit, results.artifact.section)
            rows.append(_compare_number(results, number, ours, why_not))
    shown = {(row["row"], row["column"]) for row in rows}
    metric = str(rows[0]["metric"]) if rows else ""
    places = [(cell.row, cell.column) for cell in results.artifact.cells]
    for place in places:
        if place not in shown:
            # Neither the paper's number nor ours: the row says why ours is missing.
            number = _unprinted((*place, metric), "", results.artifact.section)
            rows.append(_compare_number(results, number, {}, why_not))
    if not paper:
        # Without the paper's order, that of the registry: what has run does not come first.
        order = {place: index for index, place in enumerate(places)}
        rows.sort(key=lambda row: order.get((str(row["row"]), str(row["column"])), len(order)))
    return _to_frame(rows)


def _to_frame(rows: list[Record]) -> pd.DataFrame:
    # Counts may be missing, and a column of floats would write 3 as 3.0.
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64", "n_diverged": "Int64"})


def _differences(paper: list[ReferenceRow], ours: Mapping[Key, Measured]) -> dict[Key, Measured]:
    """Ours for the numbers of the paper that are a difference of two cells ("+0.4"), where both
    cells have been measured."""
    differences: dict[Key, Measured] = {}
    for number in paper:
        if not number.minus:
            continue
        first, second = (ours.get(term) for term in number.terms)
        if first and second:
            differences[number.key] = Measured(
                *number.key,
                first.ours - second.ours,
                se=float(np.hypot(first.se, second.se)),
                n=min(first.n or 0, second.n or 0) or None,
                n_diverged=first.n_diverged + second.n_diverged,
                unit=first.unit,
                source_cells=((first.row, first.column), (second.row, second.column)),
            )
    return differences


def _compare_number(
    results: Results, number: ReferenceRow, ours: Mapping[Key, Measured], why_not: str | None
) -> Record:
    """A row of the table: the paper's number, ours if it was measured, and the verdict."""
    is_printed = not math.isnan(number.value)
    allowed = tolerance(number) if is_printed else math.nan
    row: Record = {
        "row": number.row,
        "column": number.column,
        "metric": number.metric,
        "unit": number.unit,
        "relation": number.relation,
        "source": number.source,
        "paper": number.value,
        "paper_std": number.std,
        "tolerance": allowed,
        "scale": results.scale,
        "code": "",
    }
    measured = ours.get(number.key)
    if measured is None:
        reason = why_not or _why_missing(results, number)
        row["verdict"] = "cited" if number.cited else f"not run ({reason})"
        return row
    if measured.quadrature:  # computed from a formula, so that no run and no scale matters
        comparable, runs_code = True, ""
    else:
        places = measured.source_cells or ((number.row, number.column),)
        comparable, runs_code = _provenance(results, places)
    row |= {
        "unit": number.unit or measured.unit,
        "ours": measured.ours,
        "ours_std": measured.std,
        "ours_se": measured.se,
        "n": measured.n,
        "n_diverged": measured.n_diverged,
        "code": _code(results, runs_code),
    }
    if not is_printed:
        row["verdict"] = "no paper value"
        return row
    row["delta"] = measured.ours - number.value
    row["verdict"] = _verdict(number, measured, comparable, allowed)
    return row


def _verdict(number: ReferenceRow, measured: Measured, comparable: bool, allowed: float) -> str:
    # This comes first, because a scaled run may match or diverge for reasons of its own.
    if not comparable:
        return "scaled"
    # Divergence outweighs the number, which is from some step on the way.
    if measured.n_diverged:
        return "diverged as reported" if number.diverges else "diverged unexpectedly"
    return number_verdict(number, measured.ours, measured.se, allowed)


def _why_missing(results: Results, number: ReferenceRow) -> str:
    """Why a cell has no number of ours, although something of the artifact could be measured."""
    places = [(row, column) for row, column, _ in number.terms]
    cells = [cell for cell in results.artifact.cells if (cell.row, cell.column) in places]
    runs = [run for cell in cells for run in results.registry.cell_runs(results.scale, cell)]
    if cells and not runs:
        return f"not at scale {results.scale}"
    return missing_reason(runs)


def _provenance(results: Results, places: tuple[Place, ...]) -> tuple[bool, str]:
    """Whether all runs of these cells may be judged, and the hashes of the code that computed them,
    joined by +. Where no run has such labels, the number is made of all runs of the artifact."""
    tidy = results.tidy
    labels = pd.MultiIndex.from_arrays([tidy["row"], tidy["column"].fillna("")])
    runs = tidy[labels.isin(list(places))]
    if runs.empty:
        runs = tidy
    codes = {code for joined in runs["code"] for code in joined.split("+")}
    return bool(runs["comparable"].all()), "+".join(sorted(codes))


def _code(results: Results, runs_code: str) -> str:
    """`<code of the runs>/<code of the table>`; the latter alone for a number without runs."""
    table_code = code_hash(*results.registry.table_modules(results.artifact))
    return f"{runs_code}/{table_code}" if runs_code else table_code


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table, with empty text for cells without a value."""
    filled = table.astype(object).where(table.notna(), "")
    return [{str(name): value for name, value in row.items()} for row in filled.to_dict("records")]


def build(
    registry: Registry,
    artifact: Artifact,
    scale: str,
    why_not: str | None,
    tidy_file: Path | None = None,
) -> pd.DataFrame:
    """The table of an artifact at a scale, with COLUMNS, from its tidy file or, without one, from
    the runs that exist. `why_not` is the reason where nothing can be measured."""
    results = Results(registry, artifact, scale, tidy_file)
    if artifact.table == "claim" and not why_not:
        return _claim_table(results)
    return compare(results, why_not)


def _claim_table(results: Results) -> pd.DataFrame:
    """The comparisons that decide a claim: each with the number as printed and, where that is
    wrong, as corrected. A claim without comparisons has one row with its verdict."""
    artifact = results.artifact
    claim = results.registry.claims[artifact.id]
    verdict, comparisons, _ = judge(results.registry, claim, results.scale)
    runs_code = _provenance(results, ())[1] if len(results.tidy) else ""
    blank: Record = dict.fromkeys(("column", "metric", "unit", "relation", "code"), "")
    blank |= {"scale": results.scale, "source": claim.section}
    rows: list[Record] = []
    for comparison, column, number, agrees in table_entries(comparisons):
        is_printed = column == "as printed"
        row: Record = {
            "row": comparison.name,
            "column": column,
            "relation": comparison.relation if is_printed else comparison.corrected_relation,
            "paper": number,
            "ours": comparison.ours,
            "ours_se": comparison.finite_se or math.nan,
            "delta": comparison.ours - number,
            "tolerance": comparison.tolerance,
            "verdict": "match" if agrees else "off",
            "code": _code(results, runs_code),
        }
        rows.append({**blank, **row})
    return _to_frame(rows or [{**blank, "row": artifact.title, "verdict": verdict}])
