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

from ghostgrad.registry.registry import load_registry
from tests.conftest import ROOT

PAPERS = {
    path.name[:3]: path.read_text(encoding="utf-8")
    for pattern in ("papers/00[0-9]_*.txt", "*/papers/00[0-9]_*.txt")
    for path in sorted(ROOT.parent.glob(pattern))
}
LONGEST = 12  # words
WORKFLOW = ROOT / "workflow"
REGISTRY = load_registry()
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


def quoted(text: str) -> list[str]:
    return [words for words in re.findall(r'"([^"]+)"', text) if words not in CODES]


def papers_of(section: str) -> frozenset[str]:
    """The papers that a place names: `{"002", "000"}` of `002 fig. 5 (000 fig. 3)`."""
    return frozenset(CODES.intersection(re.findall(r"\d+", section)))


def quotations() -> Iterator[tuple[str, str, frozenset[str]]]:
    """(place, words, papers of which one has the words) of every quotation in the registry's files
    and in the findings. An artifact that repeats another one has to be true of its own paper."""
    for path in sorted(WORKFLOW.glob("claims/*.yaml")):
        bodies = yaml.safe_load(path.read_text(encoding="utf-8"))
        for claim, body in bodies.items():
            papers = papers_of(body.get("section") or bodies[body["like"]]["section"])
            yield from ((claim, words, papers) for words in body.pop("quotes", []))
            for place, text in texts(body, claim):
                yield from ((place, words, papers) for words in quoted(text))
                if place.endswith(".printed"):
                    yield place, text, papers
    for artifact in REGISTRY.artifacts.values():
        papers = papers_of(artifact.section)
        for text in (artifact.title, artifact.caption):
            yield from ((artifact.id, words, papers) for words in quoted(text))
    for path in sorted(WORKFLOW.glob("experiments/*.yaml")):
        for name, body in yaml.safe_load(path.read_text(encoding="utf-8"))["experiments"].items():
            for place, text in texts(body, name):
                yield from ((place, words, papers_of(body["section"])) for words in quoted(text))
    for path in sorted(WORKFLOW.glob("reference/*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                place, papers = f"{path.stem}: {row['row']}", papers_of(row["source"])
                for text in (row["source"], row["basis"]):
                    yield from ((place, words, papers) for words in quoted(text))
                if row["provenance"] == "printed":
                    yield place, row["basis"], papers
    findings = (WORKFLOW / "report" / "findings.md").read_text(encoding="utf-8")
    yield from (("findings", words, frozenset(CODES)) for words in quoted(findings))


QUOTATIONS = list(quotations())


def without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_quotations_are_found_in_every_kind_of_file():
    assert len(QUOTATIONS) > 50
    places = {place for place, _, _ in QUOTATIONS}
    assert {
        "E-G15",
        "ghost.fig1_left",
        "ghost0.fig1_left",
        "vgg19_checkpoint.deviations.why",
    } <= places
    assert any(":" in place for place in places)


def test_every_quotation_is_of_a_paper():
    assert not [place for place, _, papers in QUOTATIONS if not papers]


@pytest.mark.parametrize(("place", "words", "papers"), QUOTATIONS)
def test_a_quotation_has_a_dozen_words_at_most(place, words, papers):
    assert len(words.split()) <= LONGEST, place


@pytest.mark.skipif(not PAPERS, reason="the texts of the papers are not beside the checkout")
@pytest.mark.parametrize(("place", "words", "papers"), QUOTATIONS)
def test_a_quotation_is_literal(place, words, papers):
    """One of the papers that its entry names has the words."""
    assert any(without_spaces(words) in without_spaces(PAPERS[code]) for code in papers), place
