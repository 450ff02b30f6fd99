"""claims.csv: every claim of the ledger with its verdict and the comparisons behind it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable

from ghostgrad.claims.comparison import Comparison, verdict
from ghostgrad.claims.evidence import Evidence, Missing
from ghostgrad.registry.claim import Claim
from ghostgrad.registry.registry import Registry

COLUMNS = """id section statement verdict comparison relation paper ours ours_se corrected_relation corrected
corrected_form evidence scale""".split()


def comparisons(claim: Claim, evidence: Evidence) -> list[Comparison]:
    """What decides a computed claim; Missing where a run is not there."""
    module = importlib.import_module(f"ghostgrad.claims.{claim.module}")
    return list(getattr(module, claim.function)(evidence))


def judge(registry: Registry, claim: Claim, scale: str) -> tuple[str, list[Comparison], str]:
    """Verdict, comparisons and evidence of a claim at a scale."""
    if claim.quotes:
        return "editorial", [], " | ".join(claim.quotes)
    evidence = Evidence(registry, scale, [])
    try:
        found = comparisons(claim, evidence)
    except Missing as reason:
        return f"not run ({reason})", [], ""
    used: dict[str, dict[str, None]] = {}  # every file once, and what was read of it
    for path, rows in evidence.used:
        run = path.partition("/runs/")[2]
        used.setdefault(f"{run.rsplit('-s', 1)[0]}-s*/{run.rsplit('/', 1)[1]}", {})[rows] = None
    files = (f"{file} ({', '.join(rows)})" for file, rows in used.items())
    own = "Monte Carlo in" if any(one.se for one in found) else "quadrature and exact algebra in"
    where = f"ghostgrad/claims/{claim.module}.py: {claim.function}"
    told = verdict(found)
    if not told.startswith("not run") and _scaled(registry, claim, scale):
        told = f"not run ({'does not show' if told == 'fails' else 'shows'} at scale {scale})"
    return told, found, ", ".join(files) or f"{own} {where}"


def _scaled(registry: Registry, claim: Claim, scale: str) -> bool:
    """Whether the claim hangs on training that the scale makes another than the paper's: such numbers are shown, not
    judged, in tables too."""
    trained = (run for run in registry.claim_runs(scale, claim) if run.task == "classify")
    return any(registry.experiments[run.experiment].scaled(run.variant, scale) for run in trained)


def ledger(registry: Registry, scale: str) -> list[dict]:
    """One row per comparison, and one for a claim that has none."""
    rows = []
    for claim in registry.claims.values():
        told, found, evidence = judge(registry, claim, scale)
        head = {"id": claim.id, "section": claim.section, "statement": claim.statement, "verdict": told}
        tail = {"corrected_form": claim.corrected, "evidence": evidence, "scale": scale}
        numbers = [
            {
                "comparison": c.name,
                "relation": c.relation if c.paper is not None else None,
                "paper": c.paper,
                "ours": c.ours,
                "ours_se": c.error,
                "corrected_relation": c.corrected_relation if c.corrected is not None else None,
                "corrected": c.corrected,
            }
            for c in found
        ]
        blank = dict.fromkeys(COLUMNS[4:11])
        rows += [{**head, **number, **tail} for number in numbers or [blank]]
    return rows


def measured(found: Iterable[Comparison]):
    """CsvTable for the table of one claim: each comparison as printed and, where there is one, as corrected."""
    for one in found:
        for column, number, agrees in (
            ("as printed", one.paper, one.as_printed),
            ("as corrected", one.corrected, one.as_corrected),
        ):
            if number is not None and not math.isnan(number):
                yield one, column, number, agrees
