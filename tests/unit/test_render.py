"""What people read: the forms of a table, the list of all artifacts, the last lines of a build, and
snapshots."""

from __future__ import annotations

import csv
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostgrad.checks import InputError
from ghostgrad.registry.registry import PAPERS
from ghostgrad.report import overview, tables
from ghostgrad.report.cells import (
    cell_text,
    format_estimate,
    metric_name,
    parse_row,
    pivot,
)
from ghostgrad.report.render import render_html, render_latex, render_markdown
from ghostgrad.report.snapshot import write_snapshot
from ghostgrad.report.verdicts import verdict_counts
from tests.unit.fabricate import (
    CLAIM,
    CLASSIFY,
    STEADY,
    experiment,
    publish,
    reference,
    registry,
)

NOTHING = {
    "relation": "=",
    "provenance": "printed",
    "basis": "its words",
    "tolerance": "",
    "unit": "",
    "column": "",
    "metric": "rate",
    "source": "tab. 1",
    "code": "",
}


def line(row="A", reference="", ours="", se="", n="", n_diverged="", verdict="holds", **more):
    """A row as csv.DictReader or DataFrame.to_dict gives it."""
    numbers = {"reference": reference, "ours": ours, "ours_se": se}
    numbers |= {"n": n, "n_diverged": n_diverged}
    if reference == "":
        numbers |= {"relation": "", "provenance": "", "basis": ""}
    return {**NOTHING, "row": row, **numbers, "verdict": verdict, **more}


@pytest.mark.parametrize(
    ("value", "se", "text"),
    [
        (1.2117, 0.00096, "1.21170 ± 0.00096"),
        (1.2117, 0.0012, "1.2117 ± 0.0012"),
        (98.1667, 0.5, "98.17 ± 0.50"),
        (98.1667, 5.0, "98.2 ± 5.0"),
        (51.2, 41.3, "51 ± 41"),
        (-0.0123, 0.004, "-0.0123 ± 0.0040"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (1234.0, 120.0, "1234 ± 120"),
    ],
)
def test_two_digits_of_the_standard_error(value, se, text):
    """The value is rounded to the same place as its error, which has two digits."""
    assert format_estimate(value, se) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), ""),
        (0.5, "0.5"),
        (123456.0, "1.23e5"),
        (0.000012345, "1.2345e-5"),
        (-2.0, "-2"),
        (50.0, "50"),
    ],
)
def test_a_number_without_error(value, text):
    """It has five significant digits and a short exponent; NaN is an empty text."""
    assert format_estimate(value) == text
    assert format_estimate(value, float("nan")) == text


@STEADY
@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e3))
def test_rounding_keeps_the_number(value, se):
    """Rounding moves neither the value by more than a tenth of its error nor the error by more than
    6 %."""
    shown, _, error = format_estimate(value, se).partition(" ± ")
    assert float(shown) == pytest.approx(value, abs=0.1 * se)
    assert float(error) == pytest.approx(se, rel=0.06)


CELLS = {
    "holds": (line(reference=92.5, ours=92.4, se=0.1, n=3, unit="%"), "92.5 % / 92.40 ± 0.10 % ✓"),
    "open": (line(reference=92.5, ours=92.0, verdict="open (more seeds)"), "92.5 / 92 ?"),
    "fails": (line(reference=1.5, ours=2.5, verdict="fails"), "1.5 / 2.5 ✗"),
    "bound": (line(reference=70, ours=60.5, relation="<=", unit="%"), "≤70 % / 60.5 % ✓"),
    "approximately": (line(reference=0.7, ours=0.7, relation="~"), "≈0.7 / 0.7 ✓"),
    "derived": (line(reference=0.7, ours=0.7, provenance="derived"), "0.7* / 0.7 ✓"),
    "restored": (line(reference=0.7, ours=0.7, provenance="restored"), "0.7† / 0.7 ✓"),
    "ours": (line(reference=0.7, ours=0.7, provenance="ours", unit="%"), "0.7 %‡ / 0.7 % ✓"),
    "scaled": (line(reference=1.5, ours=2.5, verdict="shown only (scaled)"), "1.5 / 2.5 ○"),
    "ours alone": (line(ours=2.5, verdict="shown only (no number in the paper)"), "– / 2.5 ○"),
    "one run": (line(ours=97.123456, n=1, verdict="shown only (scaled)"), "– / 97.1 ○"),
    "a formula": (line(ours=1.4669422, verdict="shown only (scaled)"), "– / 1.4669 ○"),
    "not run": (line(reference=70.4, verdict="not run (no data)"), "70.4 / not run"),
    "neither": (line(verdict="not run (no data)"), "– / not run"),
    "diverged": (
        line(reference=9.09, ours=10.0, n=3, n_diverged=2, verdict="holds (diverged as reported)"),
        "9.09 / div (2 of 3), 10 ✓",
    ),
    "text from a file": (
        line(reference="92.5", ours="92.4", se="", n="3", n_diverged="0"),
        "92.5 / 92.4 ✓",
    ),
}


@pytest.mark.parametrize(("row", "text"), CELLS.values(), ids=CELLS)
def test_cell(row, text):
    """A cell is `reference / ours ± standard error`, with the mark of the provenance and the sign
    of the verdict."""
    assert cell_text(parse_row(row)) == text


def test_pivot_has_the_papers_shape():
    """There is a line per row label and a column per column label, in the order of the rows; a
    place without a number is empty."""
    rows = [line("B", 1, column="18"), line("A", 2, column="34"), line("B", 3, column="34")]
    header, body = pivot([{**row, "verdict": "not run (cited)"} for row in rows])
    assert header == ["", "18", "34"]
    assert body == [["B", "1 / not run", "3 / not run"], ["A", "", "2 / not run"]]


def test_a_column_is_headed_by_what_was_run():
    """The label stays what it is in the paper; the heading says what was run instead."""
    assert pivot([line(column="128")], {"128": "128 (here 32)"})[0] == ["", "128 (here 32)"]


def test_a_single_line_of_many_numbers_is_a_list():
    """A line with at most eight numbers stays a line."""
    rows = [line("net", index, column=f"step {index}") for index in range(9)]
    header, body = pivot(rows)
    assert header == ["", "net"]
    assert body == [[f"step {index}", f"{index} /  ✓"] for index in range(9)]
    assert len(pivot(rows[:8])[1]) == 1


def test_several_metrics_are_named():
    """A metric is named where there is more than one, or where no column label says what it is."""
    single = [line(metric="rate")]
    several = [
        line(metric="rate", column="18"),
        line(metric="growth", column="18"),
        line(metric="odd", column=""),
    ]
    assert pivot(single)[0] == ["", "factor per layer"]
    assert pivot(several)[0] == ["", "18, factor per layer", "18, growth g₁/g_L", "odd"]


ROWS = [
    line(
        "R & D <b>",
        77.1,
        77.0,
        0.1,
        3,
        0,
        column="50 %",
        unit="%",
        code="abcd0123",
        source='tab. "1"',
    ),
    line(
        "under_score",
        70,
        "",
        column="50 %",
        unit="%",
        relation="<",
        provenance="ours",
        basis="a round number | *",
        verdict="not run (data.cifar10 is not set)",
    ),
    line(
        "a^2 ~ b#",
        1.5,
        2.5,
        column="√α′",
        provenance="derived",
        basis="eq. 1",
        tolerance=0.025,
        verdict="fails",
        n=5,
        n_diverged=0,
        code="ef012345",
    ),
]


def test_markdown():
    """A heading, a table with one separator and lines of equal length, the notes of the marked
    numbers, then scale, counts, tolerance and reasons."""
    text = render_markdown("ghost.x: Title", ROWS, "laptop").splitlines()
    assert text[0] == "### ghost.x: Title"
    table = [row for row in text if row.startswith("|")]
    assert table[0] == "|  | 50 % | √α′ |"
    assert table[1] == "| --- | --- | --- |"
    assert table[2] == "| R & D <b> | 77.1 % / 77.00 ± 0.10 % ✓ |  |"
    assert {row.count("|") for row in table} == {4}
    notes = [note for note in text if note.startswith("- ")]
    assert notes == [r"- \* derived: eq. 1", r"- ‡ ours: a round number \| \*"]
    assert (
        "Scale: laptop. n = 3 to 5. Tolerance: ±0.025 (factor per layer). "
        "not run (data.cifar10 is not set). Code abcd0123, ef012345." in text
    )


class Page(HTMLParser):
    """Collects the text of cells and every attribute; fails on tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.attributes, self.kinds = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [value for _, value in attributes]
        if tag == "meta":
            return
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.kinds.append(dict(attributes).get("class"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_html_is_whole_and_escaped():
    """A label cannot break the page; the verdict is the class of a cell. Whose number it is, the
    tolerance and the code are its hint."""
    text = render_html('T <i> & "q"', ROWS, "laptop")
    page = Page(text)
    assert page.cells[:5] == ["", "50 %", "√α′", "R & D <b>", "77.1 % / 77.00 ± 0.10 % ✓"]
    assert page.kinds[4:] == ["holds", None, None, "not-run", None, None, None, "fails"]
    assert 'holds; = 77.1 is printed: its words; tab. "1"; code abcd0123' in page.attributes
    hint = "fails; = 1.5 is derived: eq. 1; tolerance ±0.025; tab. 1; code ef012345"
    assert hint in page.attributes
    assert "<li>* derived: eq. 1</li>" in text
    assert "<b>" not in text
    assert "&lt;70 %‡ / not run" in text
    assert "<title>T &lt;i&gt; &amp; &#34;q&#34;</title>" in text


def test_html_needs_nothing_from_elsewhere():
    """A page is read offline, from a cluster's file system: it has no address, script, linked style
    sheet or image."""
    text = render_html("T", ROWS, "laptop")
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(", text)


def unescaped(text, character):
    return len(re.findall(rf"(?<!\\){re.escape(character)}", text))


def test_latex_is_balanced_and_escaped():
    """The table compiles as it is: environments and dollars pair up, and no character of a label is
    a command."""
    lines = render_latex("ghost.x: T_1 of R_b/R_f", ROWS, "laptop").splitlines()
    assert lines[:2] == [r"\begin{table}", r"\centering"]
    caption = lines[2]
    assert caption.startswith(
        r"\caption{ghost.x: T\_1 of $R_b$/$R_f$. Each cell: the number of the statement / ours "
    )
    assert caption.endswith("not run (data.cifar10 is not set). Code abcd0123, ef012345.}")
    assert caption.isascii()
    assert lines[3] == r"\begin{tabular}{lrr}"
    assert lines[-4:] == [
        r"\end{tabular}",
        r"\par\footnotesize * derived: eq. 1",
        r"\par\footnotesize $\ddagger$ ours: a round number | *",
        r"\end{table}",
    ]
    assert [text for text in lines if text.endswith("rule")] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]
    body = [text for text in lines if text.endswith(r"\\")]
    assert len(body) == 1 + len(ROWS)
    for text in body:
        assert unescaped(text, "&") == 2
        assert unescaped(text, "$") % 2 == 0
        assert unescaped(text, "{") == unescaped(text, "}")
        outside = re.sub(r"\$[^$]*\$", "", text)
        assert [c for c in "%#_^<>~" if unescaped(outside, c)] == []
        assert outside.isascii()
    assert body[1] == r"R \& D $<$b$>$ & 77.1 \% / 77.00 $\pm$ 0.10 \% $\checkmark$ &  \\"
    assert body[3].endswith(r"& 1.5* / 2.5 $\times$ \\")


def test_a_built_table_renders_as_the_file_does(tmp_path, monkeypatch):
    """`show` reads the CSV and the rule has the DataFrame; both give the same pages."""
    reg = finished(tmp_path, monkeypatch)
    frame = tables.build(reg, reg.artifact("ghost.x"), "laptop", None)
    direct = frame.astype(object).where(frame.notna(), "").to_dict("records")
    frame.to_csv("table.csv", index=False)
    with Path("table.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    for form in (render_markdown, render_html, render_latex):
        assert form("T", direct, "laptop") == form("T", read, "laptop")


def finished(tmp_path, monkeypatch):
    """A registry of one table, one figure and one claim that was not run; the only run of the table
    matches the paper."""
    monkeypatch.chdir(tmp_path)
    variants = {"a": {}, "b": {"lr": 0.2}}
    body = experiment(
        task="classify", base=dict(CLASSIFY), variants=variants, scales={"laptop": {"seeds": 1}}
    )
    options = {"table": {"metrics": ["test_accuracy"]}}
    place = {"title": "T & <T>", "section": "s"}
    table = {**place, "rows": {"A": "nets/a"}, "table": "final_metrics", "options": options}
    figure = {**place, "rows": {"A": "nets/a"}, "figure": "gradient_norms"}
    own = {"rows": {"A": "nets/b"}, "table": "final_metrics", "options": options}
    claims = {
        "ghost.rem3_16": CLAIM,
        "ghost.z": {"like": "ghost.rem3_16", **place, "artifact": own},
    }
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": table, "ghost.y": figure}, claims)
    reference(
        reg.workflow,
        "ghost.x",
        [{"row": "A", "value": 92.5}, {"row": "B", "value": 1, "cited": "yes"}],
    )
    publish(reg.run("laptop", "nets/a-s0"), {"test_accuracy": 92.5})
    frame = tables.build(reg, reg.artifact("ghost.x"), "laptop", None)
    Path("results/laptop/tables").mkdir()
    frame.to_csv("results/laptop/tables/ghost.x.csv", index=False)
    return reg


def test_files_of_an_artifact(tmp_path, monkeypatch):
    """A table has four forms; a figure has three, and the numbers that it shows."""
    reg = finished(tmp_path, monkeypatch)
    names = {
        key: [Path(name).suffix for name in overview.artifact_files(a, "laptop")]
        for key, a in reg.artifacts.items()
    }
    tables_, figures_ = [".csv", ".md", ".tex", ".html"], [".svg", ".pdf", ".png", ".csv"]
    assert names == {"ghost.x": tables_, "ghost.y": figures_, "ghost.z": tables_}
    assert (
        overview.artifact_files(reg.artifact("ghost.y"), "laptop")[0]
        == "results/laptop/figures/ghost.y.svg"
    )


def test_the_list_of_all_artifacts(tmp_path, monkeypatch):
    """artifacts.csv has status, verdicts or reason, and files of every artifact, built or not."""
    reg = finished(tmp_path, monkeypatch)
    overview.write_overview(reg, "laptop", {"ghost.z": "no data"})
    with Path("results/laptop/artifacts.csv").open(newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert tuple(rows["ghost.x"]) == overview.COLUMNS
    summary = {
        key: (row["kind"], row["status"], row["verdicts"], row["reason"])
        for key, row in rows.items()
    }
    assert summary == {
        "ghost.x": ("table", "built", "1 open, 1 not run", ""),
        "ghost.y": ("figure", "built", "", ""),
        "ghost.z": ("claim", "not run", "", "no data"),
    }
    assert (
        rows["ghost.x"]["files"]
        == "tables/ghost.x.csv tables/ghost.x.md tables/ghost.x.tex tables/ghost.x.html"
    )


def test_the_page_of_all_artifacts(tmp_path, monkeypatch):
    """It has a section per paper with counts, is escaped and needs nothing from elsewhere."""
    reg = finished(tmp_path, monkeypatch)
    overview.write_overview(reg, "laptop", {"ghost.z": "no data"})
    text = Path("results/laptop/artifacts.html").read_text()
    cells = Page(text).cells
    assert cells[:5] == ["ghost.x", "table", "T & <T>", "s", "1 open, 1 not run"]
    assert cells[9::5] == ["drawn", "not run (no data)"]
    assert "2 of 3 artifacts built at scale laptop." in text
    assert text.count("0 of 0 artifacts built") == len(PAPERS) - 1
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", text)


def test_the_last_lines_of_a_build(tmp_path, monkeypatch):
    """They say how much is there, the verdicts of all tables but those that repeat another one,
    what is left to build, and each reason once with the artifacts that it holds back."""
    reg = finished(tmp_path, monkeypatch)
    first = "1 of 3 artifacts are in results/laptop/; numbers: 1 open, 1 not run"
    for name in overview.artifact_files(reg.artifact("ghost.x"), "laptop"):
        Path(name).touch()
    remaining = "1 more can be built: snakemake --config scale=laptop"
    assert overview.closing_lines(reg, "laptop", {"ghost.z": "no data"}) == [
        first,
        remaining,
        "not run (no data): ghost.z",
    ]
    reg.artifacts["ghost.again"] = dataclasses.replace(reg.artifact("ghost.x"), id="ghost.again")
    for name in overview.artifact_files(reg.artifact("ghost.again"), "laptop"):
        Path(name).write_bytes(Path(name.replace("again", "x")).read_bytes())
    lines = overview.closing_lines(reg, "laptop", {"ghost.z": "no data"})
    assert lines[0] == "2 of 4 artifacts are in results/laptop/; numbers: 1 open, 1 not run"


def test_the_last_lines_shorten_long_lists(tmp_path, monkeypatch):
    """Four artifacts are named and the others counted; the table of an artifact that was not run is
    not counted."""
    reg = finished(tmp_path, monkeypatch)
    reasons = {f"ghost.more{index}": "no data" for index in range(6)}
    reg.artifacts |= dict.fromkeys(reasons, reg.artifact("ghost.z"))
    reasons["ghost.x"] = "no finished run"
    lines = overview.closing_lines(reg, "laptop", reasons)
    assert lines[0] == "0 of 9 artifacts are in results/laptop/; numbers: none"
    assert (
        lines[2]
        == "not run (no data): ghost.more0, ghost.more1, ghost.more2, ghost.more3 and 2 more"
    )
    assert lines[3] == "not run (no finished run): ghost.x"


def test_verdicts_of_a_missing_table():
    """A missing table counts nothing and is no error."""
    assert verdict_counts([Path("no/such/table.csv")]) == ""


def test_verdicts_are_counted_in_the_order_of_the_list(tmp_path):
    """Verdicts are counted in the order of VERDICTS, without their reasons."""
    verdicts = [
        "not run (no data)",
        "fails",
        "holds",
        "shown only (scaled)",
        "holds (diverged as reported)",
        "fails (diverged)",
        "not run (data)",
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["verdict", *verdicts]) + "\n")
    assert verdict_counts([path]) == "2 holds, 2 fails, 1 shown only, 2 not run"


def test_a_snapshot_holds_what_was_measured_and_built(tmp_path, monkeypatch):
    """It does not matter which target built them; tables and figures of what was not run stay out,
    and the index lists them with the reason."""
    reg = finished(tmp_path, monkeypatch)
    for name in ("ghost.x", "ghost.z"):
        for file in map(Path, overview.artifact_files(reg.artifact(name), "laptop")):
            file.write_text(f"### {name}\n\nthe table\n")
    target = tmp_path / "docs"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(
        InputError, match="docs: contains something other than a snapshot of scale laptop"
    ):
        write_snapshot(reg, "laptop", target)
    (target / "README.md").write_text("# Snapshot of scale laptop\n")
    # A file of somebody else's beside those of an earlier snapshot is not deleted.
    with pytest.raises(InputError, match=r"scale laptop \(old\); name another folder"):
        write_snapshot(reg, "laptop", target)
    (target / "old").rename(tmp_path / "old")
    (target / "tables").mkdir()
    (target / "tables" / "ghost.old.md").touch()
    assert write_snapshot(reg, "laptop", target) == ["ghost.x"], (
        "ghost.y was not drawn, ghost.z not run"
    )
    kept = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert kept == {"README.md", "tables/ghost.x.csv", "tables/ghost.x.md"}
    text = (target / "README.md").read_text()
    assert "## ghost.x\n\n**T & <T>**" in text
    assert re.search(r"Made from commit [0-9a-f]{40}(-dirty)? by `ghostgrad snapshot", text)
    index = [row for row in text.splitlines() if row.startswith("| ")]
    assert index[2:5] == [
        "| [ghost.x](#ghostx) | T & <T> | drawn |",
        "| ghost.y | T & <T> | not run (not built) |",
        "| ghost.z | T & <T> | not run (no finished run) |",
    ]


def test_nothing_replaces_no_snapshot(tmp_path, monkeypatch):
    reg = finished(tmp_path, monkeypatch)
    target = tmp_path / "docs"
    target.mkdir()
    (target / "README.md").write_text("# Snapshot of scale laptop\n")
    with pytest.raises(InputError) as error:
        write_snapshot(reg, "laptop", target)
    remedy = "build it with: make SCALE=laptop"
    assert str(error.value) == f"results/laptop: nothing is built; {remedy}"
    assert (target / "README.md").exists()


def test_metrics_have_names_for_people():
    assert metric_name("train_accuracy") == "training accuracy"
    assert metric_name("weight_variance, step 390") == "variance of the weights, step 390"
    assert metric_name("R_b(net)") == "R_b(net)"


CITED = line(reference=1, verdict="not run (cited)")


def test_markdown_escapes_bars():
    """A bar in a label, such as E|x| of ghost0.propB_14, does not end the cell."""
    text = render_markdown("T", [{**CITED, "row": "E|x|"}], "laptop")
    (line,) = (line for line in text.splitlines() if line.startswith("| E"))
    assert line == r"| E\|x\| | 1 / not run |"


@pytest.mark.parametrize(
    ("label", "text"),
    [("{a}", r"\{a\}"), ("5 $", r"5 \$"), ("a\\b", r"a\textbackslash{}b")],
    ids=["{}", "$", "\\"],
)
def test_latex_escapes_braces_dollars_and_backslashes(label, text):
    """These are escaped like every other special character."""
    assert f"{text} & 1 / not run" in render_latex("T", [{**CITED, "row": label}], "laptop")
