"""The snapshots in docs/snapshots are those of this registry."""

from __future__ import annotations

import csv
import re

import pytest

from ghostgrad.registry.claim import CLAIM_COLUMNS, read_claims_csv
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.verdict import PROVENANCE, VERDICTS, without_reason
from ghostgrad.report import tables
from tests.conftest import ROOT

REGISTRY = Registry()
SNAPSHOTS = sorted(path.parent for path in (ROOT / "docs/snapshots").glob("*/README.md"))


def test_the_snapshots_are_those_that_the_readme_links_to():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in SNAPSHOTS} == set(re.findall(r"\(docs/snapshots/(\w+)/", readme))
    assert SNAPSHOTS


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.name)
def test_its_claims_are_those_of_the_registry(snapshot):
    """A claim that was added, removed or reworded since the snapshot makes it stale."""
    rows = read_claims_csv(snapshot / "claims.csv")
    assert list(rows[0]) == CLAIM_COLUMNS
    assert {row["id"]: (row["section"], row["statement"]) for row in rows} == {
        claim.id: (claim.section, claim.statement) for claim in REGISTRY.claims.values()
    }
    assert {without_reason(row["verdict"]) for row in rows} <= set(VERDICTS)
    for row in rows:
        if row["comparison"]:  # the hashes of the code of the runs, if any, and of the claim
            assert re.fullmatch(r"([0-9a-f+]+/)?[0-9a-f]{8}", row["code"]), row["id"]


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.name)
def test_its_index_lists_every_artifact(snapshot):
    """Every artifact is listed with its status, and the page says from which commit it is."""
    text = (snapshot / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[?([a-z0-9]+\.[A-Za-z0-9_]+)", text, flags=re.MULTILINE)
    assert listed == list(REGISTRY.artifacts)
    assert re.search(r"Made from commit [0-9a-f]{40} by", text)


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.name)
def test_its_tables_say_whose_each_number_is(snapshot):
    """Every number beside ours has a provenance of the closed list, and a basis."""
    for path in sorted((snapshot / "tables").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == tables.COLUMNS, path.name
        for row in rows:
            assert without_reason(row["verdict"]) in VERDICTS, path.name
            if row["reference"]:
                assert row["provenance"] in PROVENANCE, path.name
                assert row["basis"], path.name
