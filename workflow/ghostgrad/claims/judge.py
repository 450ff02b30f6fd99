"""claims.csv: every claim of the papers with its verdict and the comparisons behind it."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from ghostgrad.analysis.tidy import read_provenance
from ghostgrad.checks import InputError, nearest
from ghostgrad.claims.comparison import Comparison, verdict
from ghostgrad.claims.evidence import Evidence, MissingEvidence, UndeclaredEvidence
from ghostgrad.registry.claim import NUMBER_COLUMNS, Claim
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.scaling import describe_scaling
from ghostgrad.registry.tasks import TASKS
from ghostgrad.registry.verdict import without_reason
from ghostgrad.runs.provenance import code_hash


class Judgement(NamedTuple):
    """The verdict of a claim, the comparisons behind it, and what these are made of.

    `judged` is False where the comparisons decide nothing, as on a scaled run; then each of them
    has the verdict of the claim.
    """

    verdict: str
    comparisons: list[Comparison]
    rests_on: str
    evidence: str
    code: str
    """`<code of the runs>/<code of the claim>`; the latter alone for a claim without runs."""
    judged: bool = True


def compare(claim: Claim, evidence: Evidence) -> list[Comparison]:
    """The comparisons that decide a computed claim; MissingEvidence if a run is not there, and
    InputError for a number whose source the claim does not name."""
    # By name: the registry counts the claim's module among those that make the claim's table
    # (`Registry.table_modules`), since no import statement shows this dependency.
    module = importlib.import_module(f"ghostgrad.claims.{claim.module}")
    comparisons = list(getattr(module, claim.function)(evidence))
    used = {
        claim.source_of(comparison.name).names
        for comparison in comparisons
        if comparison.reference is not None
    }
    for source in claim.numbers:
        if source.names not in used:
            hint = nearest(source.names, [comparison.name for comparison in comparisons])
            raise InputError(f"{claim.where}.numbers: no comparison '{source.names}'{hint}")
    if not claim.corrected and any(c.corrected is not None for c in comparisons):
        raise InputError(f"{claim.where}: key 'corrected' is missing; there is a corrected number")
    return comparisons


def judge(registry: Registry, claim: Claim, scale: str) -> Judgement:
    """The verdict of a claim at a scale."""
    if claim.quotes:
        return Judgement(claim.kind, [], "the text", " | ".join(claim.quotes), "")
    evidence = Evidence(registry, scale, [], claim.runs)
    try:
        comparisons = compare(claim, evidence)
    except UndeclaredEvidence as variant:
        # What is scaled or missing is decided by `runs`, so that it has to be complete.
        problem = f"'{variant}' is missing; the claim reads it"
        raise InputError(f"{claim.where}.runs: {problem}") from None
    except MissingEvidence as reason:
        return Judgement(f"not run ({reason})", [], "", "", "", judged=False)
    sources = (
        rests_on(claim, evidence, comparisons),
        _describe_evidence(claim, evidence),
        _code(claim, evidence),
    )
    scaling = describe_scaling(registry, claim.runs, scale)
    if scaling:
        return Judgement(f"shown only ({scaling})", comparisons, *sources, judged=False)
    if claim.undecided:
        return Judgement(f"open ({claim.undecided})", comparisons, *sources, judged=False)
    return Judgement(verdict(comparisons), comparisons, *sources)


def rests_on(claim: Claim, evidence: Evidence, comparisons: list[Comparison]) -> str:
    """What the verdict of a claim rests on: the kinds of its runs and of what it computes besides,
    or, for a claim without runs, how it is computed."""
    if not claim.runs:
        has_error = any(comparison.se for comparison in comparisons)
        return "Monte Carlo" if has_error else "exact computation"
    experiments = [run.partition("/")[0] for run in claim.runs]
    tasks = [evidence.registry.experiments[experiment].task for experiment in experiments]
    kinds = [kind for kind, _ in evidence.computed]
    # Runs have errors. Where no judged number has one, only extensions are from the runs.
    if any(comparison.se for comparison in comparisons if not comparison.extension) or not kinds:
        kinds = [*(TASKS[task].evidence for task in tasks), *kinds]
    return ", ".join(dict.fromkeys(kinds))


def _describe_evidence(claim: Claim, evidence: Evidence) -> str:
    """Every file that was read, with all seeds of a run as one, and what was read of it, and the
    functions that compute something besides.

    A claim that needs no run names the function that computes it.
    """
    rows_of_file: dict[str, dict[str, None]] = {}
    for path, rows in evidence.used:
        run, _, seed_and_name = path.partition("/runs/")[2].rpartition("-s")
        name = seed_and_name.rpartition("/")[2]
        rows_of_file.setdefault(f"{run}-s*/{name}", {})[rows] = None
    if rows_of_file:
        files = [f"{file} ({', '.join(rows)})" for file, rows in rows_of_file.items()]
        return ", ".join(dict.fromkeys([*files, *(place for _, place in evidence.computed)]))
    return f"ghostgrad/claims/{claim.module}.py: {claim.function}"


def _code(claim: Claim, evidence: Evidence) -> str:
    """Hashes of the code that computed the runs and of the code that judges the claim."""
    runs = {code for run in evidence.read for code in read_provenance(run)["code"].split("+")}
    parts = ["+".join(sorted(runs)), code_hash("claims.judge", f"claims.{claim.module}")]
    return "/".join(filter(None, parts))


def claim_rows(registry: Registry, scale: str) -> list[dict[str, Any]]:
    """The rows of claims.csv: one per comparison, and one for a claim that has none."""
    rows = []
    for claim in registry.claims.values():
        judgement = judge(registry, claim, scale)
        claim_fields = {
            "id": claim.id,
            "section": claim.section,
            "statement": claim.statement,
            "stated_relation": claim.relation,
            "conditions": claim.conditions,
            "verdict": judgement.verdict,
            "corrected_form": claim.corrected,
            "follows_from": claim.follows_from,
            "rests_on": judgement.rests_on,
            "evidence": judgement.evidence,
            "code": judgement.code,
            "scale": scale,
        }
        numbers = [_number_fields(claim, c, judgement) for c in judgement.comparisons]
        for fields in numbers or [dict.fromkeys(NUMBER_COLUMNS)]:
            rows.append({**claim_fields, **fields})
    return rows


def _number_fields(claim: Claim, comparison: Comparison, judgement: Judgement) -> dict[str, Any]:
    """The columns of claims.csv that describe one comparison."""
    has_reference = comparison.reference is not None
    has_corrected = comparison.corrected is not None
    source = claim.source_of(comparison.name) if has_reference else None
    return {
        "comparison": comparison.name,
        "relation": comparison.relation if has_reference else None,
        "reference": comparison.reference,
        "provenance": source.provenance if source else None,
        "basis": source.basis if source else None,
        "ours": comparison.ours,
        "ours_se": comparison.finite_se,
        "tolerance": comparison.tolerance,
        "outcome": outcome_text(comparison, judgement) if has_reference else None,
        "corrected_relation": comparison.corrected_relation if has_corrected else None,
        "corrected": comparison.corrected,
        "corrected_outcome": outcome_text(comparison, judgement, of_corrected=True)
        if has_corrected
        else None,
    }


def outcome_text(comparison: Comparison, judgement: Judgement, of_corrected: bool = False) -> str:
    """The outcome of a comparison as tables and the list show it, a verdict with its reason: of
    the number of the statement, or of the corrected one."""
    if not judgement.judged:
        return judgement.verdict
    text = comparison.outcome_text(of_corrected)
    return f"shown only (extension: {without_reason(text)})" if comparison.extension else text
