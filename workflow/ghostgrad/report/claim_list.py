"""The list of claims for people: claims.csv, its page claims.html, and its form on the
terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from ghostgrad.claims.judge import claim_rows
from ghostgrad.files import CsvTable, write_atomically
from ghostgrad.registry.claim import (
    CLAIM_COLUMNS,
    Row,
    count_claims,
    count_followers,
    read_claims_csv,
)
from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.verdict import LEGEND, SIGNS, mark, sign, without_reason
from ghostgrad.report.cells import ROUNDING, format_estimate
from ghostgrad.report.pages import render_page
from ghostgrad.report.verdicts import css_class

# The sections of the page. A defect of our copy is no statement about a paper.
SECTIONS = (
    ("Claims", lambda verdict: verdict not in ("editorial", "extraction")),
    ("Mistakes of wording and notation", lambda verdict: verdict == "editorial"),
    ("Defects of our copy, which are not the papers'", lambda verdict: verdict == "extraction"),
)
DECIDED = ("holds", "fails, corrected form holds", "fails")


def write_claim_list(registry: Registry, scale: str, folder: Path) -> None:
    """Judge every claim at a scale, write claims.csv and claims.html, and print the counts."""
    rows = claim_rows(registry, scale)
    table = CsvTable(CLAIM_COLUMNS, ([row[column] for column in CLAIM_COLUMNS] for row in rows))
    write_atomically(folder / "claims.csv", table.text())
    # The page shows what the file says: numbers rounded as there, empty where there are none.
    write_atomically(
        folder / "claims.html", render_claim_list(read_claims_csv(folder / "claims.csv"), scale)
    )
    print(f"claims: {count_claims(rows)}")


def group_by_claim(rows: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    """The first row of each claim, which has the columns that all of its rows share, with all of
    its rows."""
    groups = (list(group) for _, group in groupby(rows, key=lambda row: row["id"]))
    return [(group[0], group) for group in groups]


def ours_text(row: Row) -> str:
    """Our number of a comparison with its standard error."""
    return _number_text(row["ours"], row["ours_se"])


def _number_text(number: str, se: str = "") -> str:
    return format_estimate(float(number), float(se or "nan")) if number else ""


def _tolerance_text(tolerance: str) -> str:
    """The tolerance of a comparison; nothing where it allows for rounding only."""
    value = float(tolerance or "nan")
    return f"±{value:.2g}" if value > ROUNDING else ""


def _with_relation(relation: str, number: str) -> str:
    """`≥ 0.19947`; an equality has no sign."""
    if not number:
        return ""
    text = _number_text(number)
    return text if relation == "=" else f"{SIGNS[relation]} {text}"


def reference_text(row: Row) -> str:
    """The number of the statement in a comparison, with the mark of its provenance."""
    return _with_relation(row["relation"], row["reference"]) + mark(row["provenance"])


def corrected_text(row: Row) -> str:
    """The corrected number of a comparison; empty where the statement needs none."""
    return _with_relation(row["corrected_relation"], row["corrected"])


def count_evidence(rows: Iterable[Row]) -> str:
    """`30 exact computation, 12 simulation`: what the decided verdicts rest on."""
    claims = {row["id"]: row for row in rows if without_reason(row["verdict"]) in DECIDED}
    counts = Counter(row["rests_on"] for row in claims.values())
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())


def evidence_text(rows: list[Row]) -> str:
    """A sentence that says what the decided verdicts rest on, and how many claims fail for the same
    reason as another."""
    text = f"The decided verdicts rest on: {count_evidence(rows)}"
    return "; ".join(filter(None, (text, count_followers(rows)))) + "."


def show_claim_list(path: Path, scale: str, as_csv: bool) -> None:
    """Print claims.csv: a block per claim with its comparisons, and the counts at the end."""
    rows = read_claims_csv(path)
    if as_csv:
        sys.stdout.write(path.read_text(encoding="utf-8"))
        return
    for claim, comparisons in group_by_claim(rows):
        print(f"{claim['id']:18} {claim['verdict']}")
        relation = f" ({claim['stated_relation']}; {claim['conditions']})"
        print(f"    {name_papers(claim['section'])}{relation if claim['conditions'] else ''}")
        print(f"    {claim['statement']}")
        for row in comparisons:
            if row["comparison"]:
                print(f"    - {row['comparison']}: {_comparison_text(row)}")
    print(f"\nscale {scale}: {count_claims(rows)}")
    print(evidence_text(rows))
    print(LEGEND)


def _comparison_text(row: Row) -> str:
    """`printed 1.21, ours 1.467 ± 0.001 ✗; corrected 1.467 ✓`."""
    text = f"ours {ours_text(row)}"
    if row["reference"]:
        text = f"{row['provenance']} {reference_text(row)}, {text} {sign(row['outcome'])}".rstrip()
    if corrected := corrected_text(row):
        text += f"; corrected {corrected} {sign(row['corrected_outcome'])}".rstrip()
    return text


def render_claim_list(rows: list[Row], scale: str) -> str:
    """claims.html: every claim with its verdict, comparisons and evidence."""
    groups = group_by_claim(rows)
    sections = [
        (title, [_page_claim(*g) for g in groups if is_shown(without_reason(g[0]["verdict"]))])
        for title, is_shown in SECTIONS
    ]
    return render_page(
        "claims",
        scale=scale,
        counts=count_claims(rows),
        rests_on=evidence_text(rows),
        legend=LEGEND,
        sections=[section for section in sections if section[1]],
    )


def _page_claim(claim: Row, rows: list[Row]) -> dict[str, object]:
    comparisons = [
        {
            "name": row["comparison"],
            "reference": reference_text(row),
            "basis": name_papers(f"{row['provenance']}: {row['basis']}") if row["basis"] else "",
            "ours": ours_text(row),
            "tolerance": _tolerance_text(row["tolerance"]),
            "outcome": sign(row["outcome"]),
            "corrected": corrected_text(row),
            "corrected_outcome": sign(row["corrected_outcome"]),
        }
        for row in rows
        if row["comparison"]
    ]
    has_corrected = any(comparison["corrected"] for comparison in comparisons)
    kind = css_class(claim["verdict"])
    texts = {key: name_papers(claim[key]) for key in ("section", "statement", "corrected_form")}
    shown = {"kind": kind, "comparisons": comparisons, "has_corrected": has_corrected}
    shown["fails"] = claim["verdict"].startswith("fails")
    return {**claim, **texts, **shown}
