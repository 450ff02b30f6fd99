"""docs/findings.md: the text of workflow/report/findings.md with numbers from claims.csv.

A place {{claim|comparison|column}} is filled with a number, {{claim|verdict}} with the verdict of a
claim without its reason, and {{scale}} with the scale. A place that claims.csv does not have is an
error.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from ghostgrad.checks import InputError, display_path, nearest
from ghostgrad.files import write_atomically
from ghostgrad.registry.claim import Row, read_claims_csv
from ghostgrad.report.cells import format_estimate
from ghostgrad.report.claim_list import group_by_claim, ours_text
from ghostgrad.report.pages import TEMPLATES

TEMPLATE = TEMPLATES / "findings.md"
WIDTH = 100

Claims = Mapping[str, tuple[Row, Mapping[str, Row]]]  # id -> first row, rows by comparison


def write_findings(claims_csv: Path, target: Path, template: Path = TEMPLATE) -> None:
    """Fill the template from claims.csv; InputError where it names a claim or a comparison that the
    file does not have."""
    rows = read_claims_csv(claims_csv)
    claims = {
        claim["id"]: (claim, {row["comparison"]: row for row in comparisons})
        for claim, comparisons in group_by_claim(rows)
    }

    def fill(place: re.Match[str]) -> str:
        name = " ".join(place[1].split())  # a place may be broken over two lines
        if name == "scale":
            return rows[0]["scale"]
        return _place_text(name, claims, display_path(template))

    text = template.read_text(encoding="utf-8")
    text = re.sub(r"\{\{(.+?)\}\}", fill, text, flags=re.DOTALL)
    paragraphs = [_wrap(paragraph) for paragraph in text.strip().split("\n\n")]
    write_atomically(target, "\n\n".join(paragraphs) + "\n")


def _place_text(place: str, claims: Claims, where: str) -> str:
    name, _, rest = place.partition("|")
    if name not in claims:
        raise InputError(f"{where}: no claim '{name}'{nearest(name, claims)}")
    claim, comparisons = claims[name]
    if rest == "verdict":
        return claim["verdict"].partition(" (")[0]  # the reason of an open one is too long here
    comparison, _, column = rest.rpartition("|")
    if comparison not in comparisons:
        if not claim["comparison"]:  # a claim that was not run has no comparisons
            return "not run"
        hint = nearest(comparison, comparisons)
        raise InputError(f"{where}: {name} has no comparison '{comparison}'{hint}")
    row = comparisons[comparison]
    columns = ("reference", "ours", "corrected")
    if column not in columns:
        raise InputError(f"{where}: {name}: no column '{column}'{nearest(column, columns)}")
    if column == "ours":
        return ours_text(row)
    return format_estimate(float(row[column])) if row[column] else ""


def _wrap(paragraph: str) -> str:
    """Filled places change the length of lines, so paragraphs are wrapped again. Headings and
    images have to stay on one line."""
    if paragraph[0] in "#!":
        return paragraph
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
