"""claims.csv: every claim of the papers with its verdict and the comparisons behind it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ghostgrad.claims.comparison import Comparison, verdict
from ghostgrad.claims.evidence import Evidence, MissingEvidence
from ghostgrad.registry.claim import Claim
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.tasks import TASKS

NUMBER_COLUMNS = "comparison relation paper ours ours_se corrected_relation corrected".split()
COLUMNS = [
    *"id section statement verdict".split(),
    *NUMBER_COLUMNS,
    *"corrected_form evidence scale".split(),
]


class Judgement(NamedTuple):
    """The verdict of a claim, the comparisons behind it, and what these are made of."""

    verdict: str
    comparisons: list[Comparison]
    evidence: str


def compare(claim: Claim, evidence: Evidence) -> list[Comparison]:
    """The comparisons that decide a computed claim; MissingEvidence if a run is not there."""
    # By name: the registry counts the claim's module among those that make the claim's table
    # (`Registry.table_modules`), since no import statement shows this dependency.
    module = importlib.import_module(f"ghostgrad.claims.{claim.module}")
    return list(getattr(module, claim.function)(evidence))


def judge(registry: Registry, claim: Claim, scale: str) -> Judgement:
    """The verdict of a claim at a scale."""
    if claim.quotes:
        return Judgement("editorial", [], " | ".join(claim.quotes))
    evidence = Evidence(registry, scale, [])
    try:
        comparisons = compare(claim, evidence)
    except MissingEvidence as reason:
        return Judgement(f"not run ({reason})", [], "")
    claim_verdict = verdict(comparisons)
    if not claim_verdict.startswith("not run") and _depends_on_scaled_training(
        registry, claim, scale
    ):
        shows = "does not show" if claim_verdict == "fails" else "shows"
        claim_verdict = f"not run ({shows} at scale {scale})"
    return Judgement(claim_verdict, comparisons, _describe_evidence(claim, evidence, comparisons))


def _describe_evidence(claim: Claim, evidence: Evidence, comparisons: list[Comparison]) -> str:
    """Every file that was read, with all seeds of a run as one, and what was read of it.

    A claim that needs no run names the function that computes it.
    """
    rows_of_file: dict[str, dict[str, None]] = {}
    for path, rows in evidence.used:
        run, _, seed_and_name = path.partition("/runs/")[2].rpartition("-s")
        name = seed_and_name.rpartition("/")[2]
        rows_of_file.setdefault(f"{run}-s*/{name}", {})[rows] = None
    if rows_of_file:
        return ", ".join(f"{file} ({', '.join(rows)})" for file, rows in rows_of_file.items())
    has_error = any(comparison.se for comparison in comparisons)
    method = "Monte Carlo" if has_error else "quadrature and exact algebra"
    return f"{method} in ghostgrad/claims/{claim.module}.py: {claim.function}"


def _depends_on_scaled_training(registry: Registry, claim: Claim, scale: str) -> bool:
    """True if the claim depends on training that differs from the paper's at this scale.

    Such numbers are shown and not judged, as in tables.
    """
    trained = (run for run in registry.claim_runs(scale, claim) if TASKS[run.task].trains)
    return any(registry.experiments[run.experiment].scaled(run.variant, scale) for run in trained)


def claim_rows(registry: Registry, scale: str) -> list[dict[str, Any]]:
    """The rows of claims.csv: one per comparison, and one for a claim that has none."""
    rows = []
    for claim in registry.claims.values():
        judgement = judge(registry, claim, scale)
        claim_fields = {
            "id": claim.id,
            "section": claim.section,
            "statement": claim.statement,
            "verdict": judgement.verdict,
            "corrected_form": claim.corrected,
            "evidence": judgement.evidence,
            "scale": scale,
        }
        numbers = [_number_fields(comparison) for comparison in judgement.comparisons]
        for number_fields in numbers or [dict.fromkeys(NUMBER_COLUMNS)]:
            rows.append({**claim_fields, **number_fields})
    return rows


def _number_fields(comparison: Comparison) -> dict[str, Any]:
    has_paper, has_corrected = comparison.paper is not None, comparison.corrected is not None
    return {
        "comparison": comparison.name,
        "relation": comparison.relation if has_paper else None,
        "paper": comparison.paper,
        "ours": comparison.ours,
        "ours_se": comparison.finite_se,
        "corrected_relation": comparison.corrected_relation if has_corrected else None,
        "corrected": comparison.corrected,
    }


def table_entries(
    comparisons: Iterable[Comparison],
) -> Iterator[tuple[Comparison, str, float, bool]]:
    """The entries of the table of one claim: (comparison, column, number, whether ours agrees).

    Each comparison appears under "as printed" and, if there is a corrected number, under "as
    corrected".
    """
    for comparison in comparisons:
        for column, number, agrees in (
            ("as printed", comparison.paper, comparison.as_printed),
            ("as corrected", comparison.corrected, comparison.as_corrected),
        ):
            if number is not None and not math.isnan(number):
                yield comparison, column, number, agrees
