"""The numbers of the statements beside ours, each with a verdict: an artifact's table as a frame.

Our number comes from series.csv, probes.csv or metrics.csv of the artifact's runs, through the
function of `analysis/measures.py` that the artifact names as `table`, as a `Measured`. The number
beside it is a row of workflow/reference/<artifact>.csv, a `ReferenceRow`, which says whose it is.
The table of a claim shows its comparisons, from `claims/`, instead.

`claims/comparison.py` judges both; `registry/verdict.py` has the closed list of verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ghostgrad.analysis import measures
from ghostgrad.analysis.measured import Measured
from ghostgrad.analysis.results import Results
from ghostgrad.checks import InputError
from ghostgrad.claims.comparison import from_estimate
from ghostgrad.claims.judge import judge, outcome_text
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.reference import Key, ReferenceRow, table_keys
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import missing_reason
from ghostgrad.runs.provenance import code_hash

COLUMNS = """row column metric unit relation reference reference_std provenance basis ours ours_std
ours_se n n_diverged delta tolerance verdict scale code source""".split()

# Where neither the reference row nor the paper's own spread gives a tolerance: by metric, in
# percentage points, and relative to the number for all other metrics. The reference row of a growth
# factor gives a tolerance on what the factor exceeds 1 by.
DEFAULT_TOLERANCE = dict.fromkeys(
    ("test_accuracy", "top1", "APb", "APb50", "APb75", "APm", "APm50", "APm75"), 0.5
)
RELATIVE_TOLERANCE = 0.02

CITED = "as we read it, the paper cites this number from another work"

Place = tuple[str, str]  # row, column
Record = dict[str, str | float | int | None]  # a row of the table; absent columns become NaN


def _without_number(key: Key, unit: str, source: str) -> ReferenceRow:
    """A place of the table for which there is no number beside ours."""
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
        provenance="",
        basis="",
        source=source,
        line=0,
    )


def tolerance(number: ReferenceRow) -> float:
    """The tolerance of the reference row, else none of a strict relation (where it would say by how
    much more ours has to lie beyond the number), else twice the paper's standard deviation, else
    the default of the metric, else 2 % of the number."""
    if not math.isnan(number.tolerance):
        return number.tolerance
    if number.relation in ("<", ">"):
        return 0.0
    if not math.isnan(number.std):
        return 2 * number.std
    return DEFAULT_TOLERANCE.get(number.metric, RELATIVE_TOLERANCE * abs(number.value))


def number_verdict(number: ReferenceRow, measured: Measured, allowed: float) -> str:
    """`holds`, `fails` or `open`, with what would decide it: how our number agrees with the other
    number and its relation, within the tolerance `allowed`."""
    return from_estimate(
        ", ".join(filter(None, number.key)),
        measured.estimate,
        number.value,
        tolerance=allowed,
        relation=number.relation,  # type: ignore[arg-type]  # a word of WORDS["relation"]
        replicates="seeds or repeats",
    ).outcome_text()


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
    """One row per number of a statement or of ours, and one per cell that has neither.

    The rows have the paper's order, and after them come our numbers that stand beside no other.
    `why_not` is the reason where nothing can be measured.
    """
    numbers = results.references
    ours: dict[Key, Measured] = {}
    if not why_not:
        ours = {(m.row, m.column, m.metric): m for m in measure(results)}
        ours |= _differences(numbers, ours)
    rows = [_compare_number(results, number, ours, why_not) for number in numbers]
    known = {number.key for number in numbers}
    for key, measured in ours.items():
        if key not in known:
            number = _without_number(key, measured.unit, results.artifact.section)
            rows.append(_compare_number(results, number, ours, why_not))
    shown = {(row["row"], row["column"]) for row in rows}
    metric = str(rows[0]["metric"]) if rows else ""
    places = [(cell.row, cell.column) for cell in results.artifact.cells]
    for place in places:
        if place not in shown:
            # Neither a number of the statement nor ours: the row says why ours is missing.
            number = _without_number((*place, metric), "", results.artifact.section)
            rows.append(_compare_number(results, number, {}, why_not))
    if not numbers:
        # Without the paper's order, that of the registry: what has run does not come first.
        order = {place: index for index, place in enumerate(places)}
        rows.sort(key=lambda row: order.get((str(row["row"]), str(row["column"])), len(order)))
    return _to_frame(rows)


def _to_frame(rows: list[Record]) -> pd.DataFrame:
    # Counts may be missing, and a column of floats would write 3 as 3.0.
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64", "n_diverged": "Int64"})


def _differences(numbers: list[ReferenceRow], ours: Mapping[Key, Measured]) -> dict[Key, Measured]:
    """Ours for the numbers that are a difference of two cells (+0.4), where both cells have been
    measured."""
    differences: dict[Key, Measured] = {}
    for number in numbers:
        if not number.minus:
            continue
        first, second = (ours.get(term) for term in number.terms)
        if first and second:
            difference = first.estimate.minus(second.estimate)
            # The verdict of runs that diverged is that of the cell in which more of them did.
            diverged = max(first, second, key=lambda cell: cell.n_diverged / (cell.n or 1))
            smaller = min(first.n or 0, second.n or 0) or None
            differences[number.key] = Measured(
                *number.key,
                difference.value,
                se=difference.se if math.isfinite(difference.se) else math.nan,
                degrees=difference.degrees,
                n=diverged.n if diverged.n_diverged else smaller,
                n_diverged=diverged.n_diverged,
                unit=first.unit,
                source_cells=((first.row, first.column), (second.row, second.column)),
            )
    return differences


def _compare_number(
    results: Results, number: ReferenceRow, ours: Mapping[Key, Measured], why_not: str | None
) -> Record:
    """A row of the table: the statement's number, ours if it was measured, and the verdict."""
    has_number = not math.isnan(number.value)
    allowed = tolerance(number) if has_number and number.relation else math.nan
    row: Record = {
        "row": number.row,
        "column": number.column,
        "metric": number.metric,
        "unit": number.unit,
        "relation": number.relation,
        "source": number.source,
        "reference": number.value,
        "reference_std": number.std,
        "provenance": number.provenance,
        "basis": number.basis,
        "tolerance": allowed,
        "scale": results.scale,
        "code": "",
    }
    measured = ours.get(number.key)
    if measured is None:
        reason = why_not or _why_missing(results, number)
        row["verdict"] = f"not run ({CITED if number.cited else reason})"
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
    if has_number:
        row["delta"] = measured.ours - number.value
    row["verdict"] = _verdict(number, measured, comparable, allowed)
    return row


def _verdict(number: ReferenceRow, measured: Measured, comparable: bool, allowed: float) -> str:
    # This comes first, because a scaled run may agree or diverge for reasons of its own.
    if not comparable:
        return "shown only (scaled)"
    if math.isnan(number.value):
        return "shown only (no number in the paper)"
    if not number.relation:
        return "shown only (extension)"
    # A number of another work, which followed another recipe than our run.
    if number.cited:
        return f"shown only ({CITED})"
    if measured.n_diverged:
        return _diverged_verdict(number, measured)
    return number_verdict(number, measured, allowed)


def _diverged_verdict(number: ReferenceRow, measured: Measured) -> str:
    """The verdict where runs diverged, which outweighs the number, as that is from some step on the
    way. Several seeds have to agree: one seed decides nothing."""
    runs = measured.n or 0
    if measured.n_diverged < runs or runs < 2:
        return f"open ({measured.n_diverged} of {runs} runs diverged; more seeds)"
    if number.diverges:
        return "holds (diverged as reported)"
    if number.relation in ("<", "<="):  # what does not learn is below any bound
        return "open (all runs diverged; one that learns would decide the bound)"
    return "fails (diverged)"


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
    if runs["comparable"].dtype != bool:
        raise InputError(f"{results.tidy_file}: comparable: expected True or False in every row")
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
    """The comparisons that decide a claim: each with the number of the statement and, where that
    is wrong, with the corrected one. A claim without comparisons has one row with its verdict."""
    artifact = results.artifact
    claim = results.registry.claims[artifact.id]
    judgement = judge(results.registry, claim, results.scale)
    runs_code = _provenance(results, ())[1] if len(results.tidy) else ""
    blank: Record = dict.fromkeys(("column", "metric", "unit", "relation", "code"), "")
    blank |= {"scale": results.scale, "source": claim.section}
    rows: list[Record] = []
    for comparison in judgement.comparisons:
        shared = blank | {
            "row": comparison.name,
            "ours": comparison.ours,
            "ours_se": comparison.finite_se or math.nan,
            "tolerance": comparison.tolerance,
            "code": _code(results, runs_code),
        }
        if comparison.reference is not None:
            source = claim.source_of(comparison.name)
            own: Record = {
                "column": "as stated",
                "relation": comparison.relation,
                "reference": comparison.reference,
                "provenance": source.provenance,
                "basis": source.basis,
                "delta": comparison.ours - comparison.reference,
                "verdict": outcome_text(comparison, judgement),
            }
            rows.append(shared | own)
        if comparison.corrected is not None:
            own = {
                "column": "corrected",
                "relation": comparison.corrected_relation,
                "reference": comparison.corrected,
                "provenance": "ours",
                "basis": f"corrected form: {claim.corrected}",
                "delta": comparison.ours - comparison.corrected,
                "verdict": outcome_text(comparison, judgement, of_corrected=True),
            }
            rows.append(shared | own)
    return _to_frame(rows or [{**blank, "row": artifact.title, "verdict": judgement.verdict}])
