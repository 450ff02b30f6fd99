"""The ledger of claims: its rows, what is shown of it, and docs/findings.md, which is filled from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostgrad.checks import InputError
from ghostgrad.registry.claim import VERDICTS, counts, read
from ghostgrad.report import overview, page
from tests.unit.commands import REGISTRY, refused, told

ERRATA = {"E-G": 27, "E-L": 10, "E-B": 15, "X": 4}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Path:
    """claims.csv of a folder in which nothing has run: quadrature and algebra only."""
    here = tmp_path_factory.mktemp("ledger")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        page.write_ledger(REGISTRY, "smoke", Path("results/smoke"))
    return here / "results" / "smoke" / "claims.csv"


def test_every_theory_item_and_erratum_has_its_row(ledger):
    """In the registry's list of claims, and the papers' errata without a gap."""
    ids = {row["id"] for row in read(ledger)}
    assert {f"{kind}{number}" for kind, last in ERRATA.items() for number in range(1, last + 1)} <= ids
    assert {name for name, artifact in REGISTRY.artifacts.items() if artifact.kind == "claim"} <= ids


def test_verdicts_are_of_the_closed_list(ledger):
    """What lacks its runs names the reason."""
    rows = read(ledger)
    assert {row["verdict"].partition(" (")[0] for row in rows} <= set(VERDICTS)
    verdicts = {row["id"]: row["verdict"] for row in rows}
    assert verdicts["ghost.prop3_12"] == "holds"
    assert verdicts["ghost.prop3_14"] == "holds as corrected"
    assert verdicts["E-G15"] == "editorial"
    assert verdicts["X1"] == "not run (no finished run)"
    assert verdicts["lalc.accum"] == "not run (not at scale smoke)"
    assert not any(row["ours"] for row in rows if row["verdict"].startswith("not run"))


def test_show_claims(ghostgrad, ledger):
    """A line per claim with its numbers, the counts last; --csv is the file."""
    assert "results/smoke/claims.csv: not built yet" in refused(ghostgrad("show", "claims"))
    Path("results/smoke").mkdir(parents=True)
    Path("results/smoke/claims.csv").write_bytes(ledger.read_bytes())
    out = told(ghostgrad("show", "claims"))
    assert "- gap of a Gaussian: paper ≥ 0.19947, ours 0.15915; corrected 0.15915" in out
    assert out.splitlines()[-1] == f"scale smoke: {counts(read(ledger))}"
    assert told(ghostgrad("show", "claims", "--csv")) == ledger.read_text()


def test_a_build_ends_with_the_counts(ghostgrad, ledger):
    Path("results/smoke").mkdir(parents=True)
    Path("results/smoke/claims.csv").write_bytes(ledger.read_bytes())
    lines = overview.closing_lines(REGISTRY, "smoke", {})
    assert f"claims: {counts(read(ledger))} (results/smoke/claims.csv, ghostgrad show claims)" in lines


def test_the_page_holds_every_claim(ledger):
    """Offline, with the verdict's colour."""
    text = (ledger.parent / "claims.html").read_text()
    assert all(f"<h2>{name} <span" in text for name in REGISTRY.claims)
    assert "http" not in text
    assert '<span class="verdict holds-as-corrected">holds as corrected</span>' in text


def test_findings_are_filled_from_the_ledger(ledger, tmp_path):
    """No place is left open; what has not been run says so."""
    target = tmp_path / "findings.md"
    page.write_findings(ledger, target)
    text = target.read_text()
    assert "{{" not in text
    assert "for a Gaussian the gap is 0.15915, not 0.19947" in " ".join(text.split())
    assert "not run" in text


@pytest.mark.parametrize(
    ("place", "expected"),
    [("E-G44|verdict", "no claim 'E-G44'"), ("E-G4|gap of a Gausian|ours", "did you mean 'gap of a Gaussian'?")],
)
def test_a_place_that_the_ledger_lacks_is_one_line(ledger, tmp_path, monkeypatch, place, expected):
    """An edited comparison's name would otherwise leave a hole in the text."""
    template = tmp_path / "findings.md"
    template.write_text("{{" + place + "}}")
    monkeypatch.setattr(page, "FINDINGS", template)
    with pytest.raises(InputError) as error:
        page.write_findings(ledger, tmp_path / "out.md")
    assert expected in str(error.value)


def test_the_committed_findings_are_those_of_the_committed_ledger(tmp_path):
    """docs/findings.md is generated: `make findings SCALE=paper`."""
    root = REGISTRY.workflow.parent
    path = root / "docs" / "snapshots" / "paper" / "claims.csv"
    assert {row["scale"] for row in read(path)} == {"paper"}
    page.write_findings(path, tmp_path / "findings.md")
    assert (tmp_path / "findings.md").read_bytes() == (root / "docs" / "findings.md").read_bytes()
