"""The ledger as CSV, as a page, on the terminal, and docs/findings.md."""

from __future__ import annotations

import html
import re
import sys
import textwrap
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from ghostgrad.checks import InputError, display_path, nearest
from ghostgrad.claims.judge import COLUMNS, ledger
from ghostgrad.files import CsvTable, write_atomically
from ghostgrad.registry.claim import Row, count_verdicts, read_claims_csv
from ghostgrad.registry.registry import Registry
from ghostgrad.report.render import figures


def write_ledger(registry: Registry, scale: str, folder: Path) -> None:
    """claims.csv and claims.html of a scale."""
    rows = ledger(registry, scale)
    write_atomically(
        folder / "claims.csv", CsvTable(COLUMNS, ([row[column] for column in COLUMNS] for row in rows)).text()
    )
    write_atomically(folder / "claims.html", page(read_claims_csv(folder / "claims.csv"), scale))
    print(f"claims: {count_verdicts(rows)}")


def _number(text: str, se: str = "") -> str:
    return figures(float(text), float(se or "nan")) if text else ""


SIGNS = {"=": "", "<=": "≤ ", ">=": "≥ ", "<": "< ", ">": "> ", "": ""}


def _bound(row: Row, name: str, relation: str) -> str:
    return SIGNS[row[relation]] + _number(row[name]) if row[name] else ""


def _claims(rows: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    """A claim's first row with all of its rows."""
    groups = (list(group) for _, group in groupby(rows, key=lambda row: row["id"]))
    return [(group[0], group) for group in groups]


def show(registry: Registry, scale: str, path: Path, as_csv: bool) -> None:
    """The ledger on the terminal: a line per claim and its numbers."""
    if as_csv:
        sys.stdout.write(path.read_text(encoding="utf-8") if read_claims_csv(path) else "")
        return
    rows = read_claims_csv(path)
    for head, group in _claims(rows):
        print(f"{head['id']:18} {head['verdict']:40} {head['section']}")
        print(f"    {head['statement']}")
        for row in group:
            if row["comparison"]:
                corrected = _bound(row, "corrected", "corrected_relation")
                corrected = f"; corrected {corrected}" if corrected else ""
                paper = _bound(row, "paper", "relation") or "–"
                print(
                    f"    - {row['comparison']}: paper {paper}, ours {_number(row['ours'], row['ours_se'])}{corrected}"
                )
    print(f"\nscale {scale}: {count_verdicts(rows)}")


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Claims at scale {scale}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; max-width: 70rem; }}
h2 {{ font-size: 1rem; margin: 1.4rem 0 .2rem; }} p {{ margin: .1rem 0; }}
.section, .evidence {{ color: #666; font-size: .85rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; margin: .3rem 0; }}
td, th {{ padding: .1rem .9rem .1rem 0; text-align: left; font-weight: normal; }} th {{ color: #666; }}
.verdict {{ padding: 0 .4rem; border-radius: .2rem; background: #eee; font-weight: normal; }}
.holds {{ background: #e3f1e6; }} .holds-as-corrected {{ background: #fbf3d9; }} .fails {{ background: #f8dedb; }}
</style></head><body><h1>Claims and errata</h1><p>{counts}</p>{body}</body></html>
"""


def page(rows: list[Row], scale: str) -> str:
    """One offline page."""
    parts = []
    for head, group in _claims(rows):
        kind = head["verdict"].partition(" (")[0].replace(" ", "-")
        verdict = f'<span class="verdict {kind}">{html.escape(head["verdict"])}</span>'
        parts.append(f'<h2>{head["id"]} {verdict}</h2><p class="section">{html.escape(head["section"])}</p>')
        parts.append(f"<p>{html.escape(head['statement'])}</p>")
        if head["corrected_form"]:
            parts.append(f"<p>Corrected: {html.escape(head['corrected_form'])}</p>")
        if head["comparison"]:
            parts.append("<table><tr><th></th><th>paper</th><th>ours</th><th>corrected</th></tr>")
            for row in group:
                paper, corrected = _bound(row, "paper", "relation"), _bound(row, "corrected", "corrected_relation")
                cells = [row["comparison"], paper, _number(row["ours"], row["ours_se"]), corrected]
                parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
            parts.append("</table>")
        if head["evidence"]:
            parts.append(f'<p class="evidence">{html.escape(head["evidence"])}</p>')
    return PAGE.format(scale=scale, counts=count_verdicts(rows), body="".join(parts))


FINDINGS = Path(__file__).resolve().parents[2] / "report" / "findings.md"


def write_findings(path: Path, target: Path) -> None:
    """docs/findings.md: the text of workflow/report/findings.md with the ledger's numbers in the places that it names,
    {{claim|comparison|ours}} or {{claim|verdict}}; InputError where the ledger has no such number."""
    rows = read_claims_csv(path)
    by_claim = {head["id"]: (head, {row["comparison"]: row for row in group}) for head, group in _claims(rows)}

    def fill(match: re.Match) -> str:
        name, *rest = match[1].split("|")
        if name == "scale":
            return rows[0]["scale"]
        if name not in by_claim:
            raise InputError(f"{display_path(FINDINGS)}: no claim '{name}'{nearest(name, by_claim)}")
        head, comparisons = by_claim[name]
        if rest == ["verdict"]:
            return head["verdict"]
        comparison, column = rest
        if comparison not in comparisons:
            return "not run" if not head["comparison"] else _unknown(name, comparison, comparisons)
        row = comparisons[comparison]
        return _number(row[column], row["ours_se"] if column == "ours" else "")

    text = FINDINGS.read_text(encoding="utf-8")
    paragraphs = re.sub(r"\{\{(.+?)\}\}", fill, text, flags=re.DOTALL).strip().split("\n\n")
    wrapped = (part if part[0] in "#!" else _wrap(part) for part in paragraphs)
    write_atomically(target, "\n\n".join(wrapped) + "\n")


def _wrap(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def _unknown(claim: str, comparison: str, known: Iterable[str]) -> str:
    raise InputError(f"{display_path(FINDINGS)}: {claim} has no comparison '{comparison}'{nearest(comparison, known)}")
