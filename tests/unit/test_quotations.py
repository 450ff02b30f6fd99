"""What stands between quotation marks is literal: it is compared with the text of the papers.

The papers are not part of the repository. Their texts are looked for near the checkout, in folders
named `papers`, as files whose names begin with a paper's code. Without them, the comparison is
skipped and says so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

PAPERS = [
    path.read_text(encoding="utf-8")
    for pattern in ("papers/00[0-9]_*.txt", "*/papers/00[0-9]_*.txt")
    for path in sorted(ROOT.parent.glob(pattern))
]
LONGEST = 12  # words
WORKFLOW = ROOT / "workflow"
CODES = {"000", "001", "002", "004"}  # words in quotation marks that are no quotations


def texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """(place, text) of every text in nested mappings and lists."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from texts(child, f"{place}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from texts(child, place)
    elif isinstance(value, str):
        yield place, value


def quotations() -> Iterator[tuple[str, str]]:
    """(place, words) of every quotation in the registry's files and in the findings."""
    for path in sorted(WORKFLOW.glob("claims/*.yaml")):
        for claim, body in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            quotes = body.pop("quotes", [])
            yield from ((claim, words) for words in quotes)
            for place, text in texts(body, claim):
                yield from ((place, words) for words in re.findall(r'"([^"]+)"', text))
    for path in sorted(WORKFLOW.glob("experiments/*.yaml")):
        for place, text in texts(yaml.safe_load(path.read_text(encoding="utf-8")), path.stem):
            yield from ((place, words) for words in re.findall(r'"([^"]+)"', text))
    for path in sorted(WORKFLOW.glob("reference/*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                place = f"{path.stem}: {row['row']}"
                yield from ((place, words) for words in re.findall(r'"([^"]+)"', row["source"]))
    findings = (WORKFLOW / "report" / "findings.md").read_text(encoding="utf-8")
    yield from (("findings", words) for words in re.findall(r'"([^"]+)"', findings))


QUOTATIONS = [(place, words) for place, words in quotations() if words not in CODES]


def without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_quotations_are_found_in_every_kind_of_file():
    assert len(QUOTATIONS) > 50
    assert {"E-G15", "findings"} & {place for place, _ in QUOTATIONS} == {"E-G15"}
    assert any(":" in place for place, _ in QUOTATIONS)


@pytest.mark.parametrize(("place", "words"), QUOTATIONS)
def test_a_quotation_has_a_dozen_words_at_most(place, words):
    assert len(words.split()) <= LONGEST, place


@pytest.mark.skipif(not PAPERS, reason="the texts of the papers are not beside the checkout")
@pytest.mark.parametrize(("place", "words"), QUOTATIONS)
def test_a_quotation_is_literal(place, words):
    assert any(without_spaces(words) in without_spaces(paper) for paper in PAPERS), place
