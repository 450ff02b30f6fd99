"""The list of claims for people: claims.csv, its page claims.html, and its form on the
terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from ghostgrad.claims.judge import COLUMNS, claim_rows
from ghostgrad.files import CsvTable, write_atomically
from ghostgrad.registry.claim import Row, count_verdicts, read_claims_csv
from ghostgrad.registry.registry import Registry
from ghostgrad.report.cells import format_estimate
from ghostgrad.report.pages import render_page
from ghostgrad.report.verdicts import css_class

RELATION_SIGNS = {"=": "", "<=": "≤ ", ">=": "≥ ", "<": "< ", ">": "> ", "": ""}


def write_claim_list(registry: Registry, scale: str, folder: Path) -> None:
    """Judge every claim at a scale, write claims.csv and claims.html, and print the counts."""
    rows = claim_rows(registry, scale)
    table = CsvTable(COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_atomically(folder / "claims.csv", table.text())
    # The page shows what the file says: numbers rounded as there, empty where there are none.
    write_atomically(
        folder / "claims.html", render_claim_list(read_claims_csv(folder / "claims.csv"), scale)
    )
    print(f"claims: {count_verdicts(rows)}")


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


def _bound_text(row: Row, column: str, relation_column: str) -> str:
    """`≥ 0.19947`: a number of the paper with its relation."""
    if not row[column]:
        return ""
    return RELATION_SIGNS[row[relation_column]] + _number_text(row[column])


def paper_text(row: Row) -> str:
    """What the paper prints for a comparison."""
    return _bound_text(row, "paper", "relation")


def corrected_text(row: Row) -> str:
    """What the paper should print for a comparison; empty where it is right."""
    return _bound_text(row, "corrected", "corrected_relation")


def show_claim_list(path: Path, scale: str, as_csv: bool) -> None:
    """Print claims.csv: a block per claim with its comparisons, and the counts at the end."""
    rows = read_claims_csv(path)
    if as_csv:
        sys.stdout.write(path.read_text(encoding="utf-8") if rows else "")
        return
    for claim, comparisons in group_by_claim(rows):
        print(f"{claim['id']:18} {claim['verdict']:40} {claim['section']}")
        print(f"    {claim['statement']}")
        for row in comparisons:
            if row["comparison"]:
                text = f"paper {paper_text(row) or '–'}, ours {ours_text(row)}"
                if corrected := corrected_text(row):
                    text += f"; corrected {corrected}"
                print(f"    - {row['comparison']}: {text}")
    print(f"\nscale {scale}: {count_verdicts(rows)}")


def render_claim_list(rows: list[Row], scale: str) -> str:
    """claims.html: every claim with its verdict, comparisons and evidence."""
    return render_page(
        "claims",
        scale=scale,
        counts=count_verdicts(rows),
        claims=[_page_claim(*x) for x in group_by_claim(rows)],
    )


def _page_claim(claim: Row, rows: list[Row]) -> dict[str, object]:
    comparisons = [
        (row["comparison"], paper_text(row), ours_text(row), corrected_text(row))
        for row in rows
        if row["comparison"]
    ]
    return {**claim, "kind": css_class(claim["verdict"]), "comparisons": comparisons}
