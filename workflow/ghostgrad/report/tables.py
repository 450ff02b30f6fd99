"""The paper's numbers beside ours, with a verdict for each.

Verdicts, a closed list: match | close | off | diverged as reported | diverged unexpectedly | scaled | cited |
no paper value | not run (reason). A cell is judged only where the scale changes repeats or seeds of the paper's spec
at most; it matches within hypot(tolerance, 2 standard errors), is close within hypot(2 tolerance, 2 standard errors).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ghostgrad.analysis import measures
from ghostgrad.analysis.measures import Measured
from ghostgrad.analysis.results import Results
from ghostgrad.claims import judge as claims
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.reference import table_keys
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import missing_reason
from ghostgrad.runs.provenance import code_hash

COLUMNS = """row column metric unit relation paper paper_std ours ours_std ours_se n n_diverged delta tolerance verdict
scale code source""".split()
KEYS = ["row", "column", "metric"]

# Where neither the reference row nor the paper's own spread gives a tolerance, by metric.
DEFAULT_TOLERANCE = {"test_accuracy": 0.5, "top1": 0.5}
DEFAULT_TOLERANCE |= dict.fromkeys(("APb", "APb50", "APb75", "APm", "APm50", "APm75"), 0.5)
OTHERWISE = 0.02  # relative


def tolerance(row: Mapping[str, Any]) -> float:
    """The reference row's, else twice the paper's standard deviation, else the metric's default, else 2 %."""
    if not math.isnan(row["tolerance"]):
        return row["tolerance"]
    if not math.isnan(row["std"]):
        return 2 * row["std"]
    return DEFAULT_TOLERANCE.get(row["metric"], OTHERWISE * abs(row["value"]))


def judge(row: Mapping[str, Any], ours: float, se: float, allowed: float) -> str:
    """match, close or off of a reference row's value and relation (= < <= > >=)."""
    delta = ours - row["value"]
    if row["relation"] in ("<", "<="):
        delta = max(delta, 0.0)
    elif row["relation"] in (">", ">="):
        delta = min(delta, 0.0)
    noise = 0.0 if math.isnan(se) else 2 * se
    if abs(delta) <= math.hypot(allowed, noise):
        return "match"
    return "close" if abs(delta) <= math.hypot(2 * allowed, noise) else "off"


def measure(results: Results) -> list[Measured]:
    """What the artifact's table function makes of the runs that exist."""
    artifact = results.artifact
    if artifact.table is None:
        return []
    measured = list(getattr(measures, artifact.table)(results, **artifact.options.get("table", {})))
    keys = table_keys(artifact)
    for number in measured:
        # The registry would refuse a number of the paper for a row that it does not know.
        if (key := (number.row, number.column, number.metric)) not in keys:
            raise ValueError(f"{artifact.table} reports {key}, which its @reports does not declare")
    return measured


def compare(results: Results, why_not: str | None = None) -> pd.DataFrame:
    """One row per number of the paper or of ours, in the paper's order, and per cell that has neither; `why_not` is the
    reason where nothing ran."""
    artifact, paper = results.artifact, results.paper
    ours = {} if why_not else {(m.row, m.column, m.metric): m for m in measure(results)}
    ours = _with_differences(paper, ours)
    rows = [_row(results, reference_row, ours, why_not) for reference_row in paper.to_dict("records")]
    known = {tuple(row[key] for key in KEYS) for row in rows}
    blank = dict.fromkeys(["relation", "diverges", "cited", "source", "minus"], "")
    blank |= dict.fromkeys(["value", "std", "tolerance"], math.nan)
    for key, measured in ours.items():
        if key not in known:
            row = dict(zip(KEYS, key, strict=True)) | {**blank, "unit": measured.unit, "source": artifact.section}
            rows.append(_row(results, row, ours, why_not))
    shown = {(row["row"], row["column"]) for row in rows}
    metric = rows[0]["metric"] if rows else ""
    places = [(cell.row, cell.column) for cell in artifact.cells]
    for place in places:  # neither the paper's number nor ours
        if place not in shown:
            row = dict(zip(KEYS, (*place, metric), strict=True)) | {**blank, "unit": "", "source": artifact.section}
            rows.append(_row(results, row, {}, why_not))
    if paper.empty:  # no order but that of the registry
        order = {place: index for index, place in enumerate(places)}
        rows.sort(key=lambda row: order.get((row["row"], row["column"]), len(order)))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"n": "Int64", "n_diverged": "Int64"})


def _terms(minus: str) -> list[tuple[str, ...]]:
    """The (row, column) of both cells of a difference, `row|column minus row|column`."""
    return [tuple(cell.split("|")) for cell in minus.split(" minus ")]


def _with_differences(paper: pd.DataFrame, ours: dict) -> dict:
    """Adds the rows of the paper that are a difference of two cells ("+0.4")."""
    added = dict(ours)
    for row in paper[paper["minus"] != ""].to_dict("records"):
        first, second = (ours.get((*cell, row["metric"])) for cell in _terms(row["minus"]))
        if first and second:
            se = float(np.hypot(first.se, second.se))
            key = (row["row"], row["column"], row["metric"])
            n = min(first.n or 0, second.n or 0) or None
            added[key] = Measured(
                *key,
                first.ours - second.ours,
                se=se,
                n=n,
                n_diverged=first.n_diverged + second.n_diverged,
                unit=first.unit,
                of=((first.row, first.column), (second.row, second.column)),
            )
    return added


def _row(results: Results, row: Mapping[str, Any], ours: Mapping, why_not: str | None) -> dict[str, Any]:
    measured: Measured | None = ours.get(tuple(row[key] for key in KEYS))
    allowed = math.nan if math.isnan(row["value"]) else tolerance(row)
    out = {
        **{key: row[key] for key in ("row", "column", "metric", "unit", "relation", "source")},
        "paper": row["value"],
        "paper_std": row["std"],
        "tolerance": allowed,
        "scale": results.scale,
        "code": "",
    }
    if measured is None:
        reason = why_not or _why_missing(results, row)
        return out | {"verdict": "cited" if row["cited"] else f"not run ({reason})"}
    comparable, runs_code = (True, "") if measured.quadrature else _provenance(results, measured)
    out |= {
        "ours": measured.ours,
        "ours_std": measured.std,
        "ours_se": measured.se,
        "n": measured.n,
        "code": _code(results.registry.table_modules(results.artifact), runs_code),
    }
    out |= {"n_diverged": measured.n_diverged, "unit": row["unit"] or measured.unit}
    if math.isnan(row["value"]):
        return out | {"verdict": "no paper value"}
    out["delta"] = measured.ours - row["value"]
    if not comparable:
        verdict = "scaled"
    elif measured.n_diverged:
        verdict = "diverged as reported" if row["diverges"] else "diverged unexpectedly"
    else:
        verdict = judge(row, measured.ours, measured.se, allowed)
    return out | {"verdict": verdict}


def _why_missing(results: Results, row: Mapping[str, Any]) -> str:
    places = _terms(row["minus"]) if row["minus"] else [(row["row"], row["column"])]
    cells = [cell for cell in results.artifact.cells if (cell.row, cell.column) in places]
    runs = [run for cell in cells for run in results.registry.cell_runs(results.scale, cell)]
    if cells and not runs:
        return f"not at scale {results.scale}"
    return missing_reason(runs)


def _provenance(results: Results, measured: Measured) -> tuple[bool, str]:
    """Whether the cell may be judged, and the hash of the code that computed it (several joined by +)."""
    frame = results.tidy
    places = pd.MultiIndex.from_arrays([frame["row"], frame["column"].fillna("")])
    mine = frame[places.isin(measured.of or [(measured.row, measured.column)])]
    mine = frame if mine.empty else mine  # a number of several cells
    codes = {code for codes in mine["code"] for code in codes.split("+")}
    return bool(mine["comparable"].all()), "+".join(sorted(codes))


def _code(modules: tuple[str, ...], runs_code: str) -> str:
    """`<hash of the code of the runs>/<hash of the code of the table>`; the latter alone for a number
    that needs no run."""
    return "/".join(filter(None, (runs_code, code_hash(*modules))))


def build(
    registry: Registry, artifact: Artifact, scale: str, why_not: str | None, tidy_file: Path | None = None
) -> pd.DataFrame:
    """The table of an artifact at a scale, from its tidy file or, without one, from the runs that exist."""
    results = Results(registry, artifact, scale, tidy_file)
    return _of_claim(results) if artifact.table == "claim" and not why_not else compare(results, why_not)


def _of_claim(results: Results) -> pd.DataFrame:
    """The comparisons that decide a claim, each with the paper's number and, where that is wrong, the corrected one."""
    artifact, rows = results.artifact, []
    claim = results.registry.claims[artifact.id]
    told, found, _ = claims.judge(results.registry, claim, results.scale)
    modules = results.registry.table_modules(artifact)
    of_runs = _provenance(results, Measured("", "", "", math.nan))[1] if len(results.tidy) else ""
    for one, column, number, agrees in claims.measured(found):
        rows.append(
            {
                "row": one.name,
                "column": column,
                "relation": one.relation if column == "as printed" else one.corrected_relation,
                "paper": number,
                "ours": one.ours,
                "ours_se": one.error or math.nan,
                "delta": one.ours - number,
                "tolerance": one.tolerance,
                "verdict": "match" if agrees else "off",
                "code": _code(modules, of_runs),
            }
        )
    rows = rows or [{"row": artifact.title, "verdict": told}]
    blank = dict.fromkeys(("column", "metric", "unit", "relation", "code"), "")
    common = {"scale": results.scale, "source": claim.section}
    table = pd.DataFrame([{**blank, **row, **common} for row in rows], columns=COLUMNS)
    return table.astype({"n": "Int64", "n_diverged": "Int64"})
