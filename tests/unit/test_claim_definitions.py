"""Claims: their definitions in workflow/claims/, the list claims.csv and how it is shown, and
docs/findings.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostgrad.checks import InputError
from ghostgrad.registry.claim import count_claims, read_claims_csv
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.verdict import LEGEND, VERDICTS
from ghostgrad.report import overview
from ghostgrad.report.claim_list import write_claim_list
from ghostgrad.report.findings import write_findings
from tests.unit.commands import REGISTRY, error_of, output_of
from tests.unit.fabricate import CLAIM, experiment, one_line, registry, workflow

ERRATA = {"E-G": 36, "E-L": 14, "E-B": 20, "X": 3}
# Numbers that are not used again.
WITHDRAWN = {"E-B12", "E-G7", "E-G10", "E-G23", "E-G25", "E-L7", "E-L9"}


TITLED = {**CLAIM, "title": "T"}
MISTAKES = {
    "shadowed source": (
        {"ghost.eq1": {**CLAIM, "numbers": {"r *": {"ours": "x"}, "r of A": {"ours": "y"}}}},
        "ghost.eq1.numbers: 'r *' covers 'r of A' too; put the more specific one first",
    ),
    "follows from no claim": (
        {"ghost.eq1": {**CLAIM, "follows_from": "ghost.eq2"}},
        "ghost.eq1.follows_from: no claim 'ghost.eq2'; did you mean 'ghost.eq1'?",
    ),
    "unknown key": (
        {"ghost.eq1": {**CLAIM, "corected": "2"}},
        "unknown key 'corected'; did you mean 'corrected'?",
    ),
    "id": ({"E-H1": CLAIM}, "'E-H1' is not of the form"),
    "no section": (
        {"ghost.eq1": {key: value for key, value in CLAIM.items() if key != "section"}},
        "ghost.eq1: key 'section' is missing",
    ),
    "no function": (
        {"ghost.prop3_13": CLAIM},
        "no function 'prop3_13' in ghostgrad/claims/ghost.py; did you mean 'prop3_1",
    ),
    "a function of another file": (
        {"E-G1": CLAIM},
        "E-G1: no function 'e_g1' in ghostgrad/claims/ghost.py",
    ),
    "a helper": (
        {"ghost.between_layers": CLAIM},
        "no function 'between_layers' in ghostgrad/claims/ghost.py",
    ),
    "neither number nor quotes": (
        {"ghost.eq1": {"section": "s", "statement": "x"}},
        "ghost.eq1: expected either numbers or quotes, found neither",
    ),
    "number and quotes": (
        {"ghost.eq1": {**CLAIM, "quotes": ["y"]}},
        "ghost.eq1: expected either numbers or quotes, found both",
    ),
    "no conditions": (
        {"ghost.eq1": {key: value for key, value in CLAIM.items() if key != "conditions"}},
        "ghost.eq1: key 'conditions' is missing; a claim with numbers needs it",
    ),
    "no kind": (
        {"ghost.eq1": {"section": "s", "statement": "x", "quotes": ["y"]}},
        "ghost.eq1: key 'kind' is missing; a claim with quotes needs it",
    ),
    "unknown relation": (
        {"ghost.eq1": {**CLAIM, "relation": "about"}},
        "ghost.eq1.relation: 'about' is not allowed",
    ),
    "unknown provenance": (
        {"ghost.eq1": {**CLAIM, "numbers": {"*": {"prined": "1"}}}},
        "unknown key 'prined'; did you mean 'printed'?",
    ),
    "two provenances": (
        {"ghost.eq1": {**CLAIM, "numbers": {"*": {"printed": "1", "ours": "2"}}}},
        "ghost.eq1.numbers.*",
    ),
    "like of nothing": (
        {"ghost.eq1": CLAIM, "ghost.eq2": {"like": "ghost.eq11"}},
        "ghost.eq2.like: no claim 'ghost.eq11'; did you mean 'ghost.eq1'?",
    ),
    "like in a circle": (
        {"ghost.eq1": {"like": "ghost.eq2"}, "ghost.eq2": {"like": "ghost.eq1"}},
        "ghost.eq1.like: 'ghost.eq1' leads back to itself",
    ),
    "unknown run": (
        {"ghost.eq1": {**CLAIM, "runs": ["nets/b"]}},
        "ghost.eq1.runs: nets has no variant 'b'; valid: a",
    ),
    "artifact of no paper": (
        {"gost.eq1": TITLED},
        "gost.eq1.title: no paper 'gost'; did you mean 'ghost'?",
    ),
    "artifact without a title": (
        {"ghost.eq1": {**CLAIM, "artifact": {"from": "none"}}},
        "ghost.eq1: key 'title' is missing; an artifact needs one",
    ),
    "unknown key of an artifact": (
        {"ghost.eq1": {**TITLED, "artifact": {"tabel": "activation_rates"}}},
        "ghost.eq1.artifact: unknown key 'tabel'; did you mean 'table'?",
    ),
    "unknown table function": (
        {"ghost.eq1": {**TITLED, "artifact": {"table": "activation_rate", "from": "none"}}},
        "ghost.eq1.artifact.table: no function 'activation_rate' in "
        "ghostgrad/analysis/measures.py; did you mean 'activation_rates'?",
    ),
    "an artifact of the same id": (
        {"ghost.x": {**TITLED, "like": "ghost.eq1"}, "ghost.eq1": CLAIM},
        "ghost.x: duplicate artifact, also in ",
    ),
}


@pytest.mark.parametrize(("claims", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_a_claim(tmp_path, claims, expected):
    """A mistake in a claim is refused when the registry is read, not at the end of a build."""
    artifacts = {
        "ghost.x": {"title": "T", "section": "s", "table": "activation_rates", "from": "none"}
    }
    with pytest.raises(InputError) as error:
        registry(tmp_path, {"nets": experiment()}, artifacts, claims)
    assert one_line(error).startswith(f"{tmp_path}/workflow/claims/ghost.yaml: ")
    assert expected in one_line(error)


def test_a_claim_in_two_files(tmp_path):
    folder = workflow(tmp_path / "workflow", claims={"ghost.eq1": CLAIM})
    (folder / "claims" / "lalc.yaml").write_bytes((folder / "claims" / "ghost.yaml").read_bytes())
    with pytest.raises(
        InputError, match=r"lalc\.yaml: ghost\.eq1: duplicate claim, also in .*ghost\.yaml"
    ):
        Registry(folder)


def test_a_claim_with_a_title_is_an_artifact(tmp_path):
    """Its table holds the claim's comparisons, unless the claim names another table. A claim that
    is `like` it does not become a second artifact."""
    own = {"table": "activation_rates", "from": "none", "caption": "Rates."}
    claims = {
        "ghost.eq1": {**TITLED, "artifact": own},
        "ghost.rem3_9": {**TITLED, "runs": ["nets/a"]},
        "ghost.rem3_5": CLAIM,
        "E-G9": {"like": "ghost.eq1"},
    }
    reg = registry(tmp_path, {"nets": experiment()}, {}, claims)
    assert list(reg.artifacts) == ["ghost.eq1", "ghost.rem3_9"]
    first, second = reg.artifacts.values()
    assert (first.kind, first.table, first.caption, first.cells) == (
        "claim",
        "activation_rates",
        "Rates.",
        (),
    )
    assert (second.kind, second.table, second.section) == ("claim", "claim", "s")
    assert [cell.label for cell in second.cells] == ["nets/a"]
    assert (reg.claims["E-G9"].function, reg.claims["E-G9"].title) == ("eq1", "")
    assert reg.claims["E-G9"].follows_from == "ghost.eq1"


@pytest.fixture(scope="module")
def claims_csv(tmp_path_factory) -> Path:
    """claims.csv of a folder in which nothing has run, so that only the claims that need no run are
    decided."""
    here = tmp_path_factory.mktemp("claims_csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        write_claim_list(REGISTRY, "smoke", Path("results/smoke"))
    return here / "results" / "smoke" / "claims.csv"


@pytest.mark.slow
def test_every_theory_item_and_erratum_has_its_row(claims_csv):
    """claims.csv has a row for every artifact that shows a claim, and the numbers of the papers'
    errata have no gap."""
    ids = {row["id"] for row in read_claims_csv(claims_csv)}
    assert {
        f"{kind}{number}" for kind, last in ERRATA.items() for number in range(1, last + 1)
    } - WITHDRAWN <= ids
    assert not WITHDRAWN & ids
    assert {
        name for name, artifact in REGISTRY.artifacts.items() if artifact.kind == "claim"
    } <= ids


@pytest.mark.slow
def test_verdicts_are_of_the_closed_list(claims_csv):
    """Every verdict is one of VERDICTS, and that of a claim without its runs gives the reason."""
    rows = read_claims_csv(claims_csv)
    assert {row["verdict"].partition(" (")[0] for row in rows} <= set(VERDICTS)
    verdicts = {row["id"]: row["verdict"] for row in rows}
    assert verdicts["ghost.prop3_12"] == "holds"
    assert verdicts["ghost.prop3_14"] == "fails, corrected form holds"
    assert verdicts["E-G15"] == "editorial"
    assert verdicts["X1"] == "not run (no finished run)"
    assert verdicts["lalc.accum"] == "not run (not at scale smoke)"
    assert not any(row["ours"] for row in rows if row["verdict"].startswith("not run"))


def test_show_claims(ghostgrad, claims_csv):
    """`show claims` prints each claim with its numbers and ends with the counts; with --csv it
    prints the file."""
    assert "results/smoke/claims.csv: not built yet" in error_of(ghostgrad("show", "claims"))
    Path("results/smoke").mkdir(parents=True)
    Path("results/smoke/claims.csv").write_bytes(claims_csv.read_bytes())
    out = output_of(ghostgrad("show", "claims"))
    assert "- gap of a Gaussian: derived ≥ 0.19947*, ours 0.15915 ✗; corrected 0.15915 ✓" in out
    counts = count_claims(read_claims_csv(claims_csv))
    assert f"scale smoke: {counts}" in out.splitlines()
    assert out.splitlines()[-1] == LEGEND
    assert output_of(ghostgrad("show", "claims", "--csv")) == claims_csv.read_text()


DAMAGED = {
    "empty": (lambda text: "", "has other columns"),
    "header only": (lambda text: text.partition("\n")[0] + "\n", "is cut short"),
    "cut in a line": (lambda text: text[: len(text) // 2], "is cut short"),
    "byte-order mark": (lambda text: "\ufeff" + text, "has other columns"),
    "an earlier version": (lambda text: text.replace(",follows_from", "", 1), "has other columns"),
    "another verdict": (lambda text: text.replace(",holds,", ",match,"), "is damaged"),
    "text for a number": (lambda text: text.replace(",0.15915", ",0.15915x"), "is damaged"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "problem"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list_is_one_line(claims_csv, tmp_path, change, problem):
    path = tmp_path / "claims.csv"
    path.write_text(change(claims_csv.read_text()))
    with pytest.raises(InputError) as error:
        read_claims_csv(path)
    assert one_line(error) == f"{path}: {problem}; build it again with: snakemake --force {path}"


def test_a_build_ends_with_the_counts(ghostgrad, claims_csv):
    Path("results/smoke").mkdir(parents=True)
    Path("results/smoke/claims.csv").write_bytes(claims_csv.read_bytes())
    lines = overview.closing_lines(REGISTRY, "smoke", {})
    counts = count_claims(read_claims_csv(claims_csv))
    assert f"claims: {counts} (results/smoke/claims.csv, ghostgrad show claims)" in lines


@pytest.mark.slow
def test_the_page_holds_every_claim(claims_csv):
    """The page loads nothing from the network, and each verdict has the CSS class that colours
    it."""
    text = (claims_csv.parent / "claims.html").read_text()
    assert all(f"<h3>{name} <span" in text for name in REGISTRY.claims)
    assert "http" not in text
    assert (
        '<span class="verdict fails-corrected-form-holds">fails, corrected form holds</span>'
        in text
    )
    # A defect of our copy stands in a section of its own, behind all claims.
    assert text.index("Defects of our copy") < text.index("<h3>E-L1 ")


def test_findings_are_filled_from_claims_csv(claims_csv, tmp_path):
    """No placeholder is left in the text, and a claim that has not been run says so."""
    target = tmp_path / "findings.md"
    write_findings(claims_csv, target)
    text = target.read_text()
    assert "{{" not in text
    sentence = "1/2 less this variance is 0.15915, where the proposition needs at least 0.19947"
    assert sentence in " ".join(text.split())
    assert "not run" in text


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("E-G44|verdict", "no claim 'E-G44'"),
        ("E-G4|gap of a Gausian|ours", "did you mean 'gap of a Gaussian'?"),
    ],
)
def test_a_place_that_claims_csv_lacks_is_one_line(claims_csv, tmp_path, place, expected):
    """If a comparison was renamed, its placeholder would otherwise leave a gap in the text."""
    template = tmp_path / "findings.md"
    template.write_text("{{" + place + "}}")
    with pytest.raises(InputError) as error:
        write_findings(claims_csv, tmp_path / "out.md", template)
    assert expected in str(error.value)


def test_the_committed_findings_are_those_of_the_committed_claims(tmp_path):
    """docs/findings.md is generated by `make findings`."""
    root = REGISTRY.workflow.parent
    path = root / "docs" / "snapshots" / "paper" / "claims.csv"
    assert {row["scale"] for row in read_claims_csv(path)} == {"paper"}
    write_findings(path, tmp_path / "findings.md")
    assert (tmp_path / "findings.md").read_bytes() == (root / "docs" / "findings.md").read_bytes()
