"""Mistakes that once passed silently, ended in a traceback or made a wrong number."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ghostgrad import figures
from ghostgrad.analysis.results import Results
from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable
from ghostgrad.registry.config import load_config
from ghostgrad.registry.registry import Registry
from ghostgrad.report import render, tables
from ghostgrad.runs.provenance import environment, task_hash
from tests.conftest import ROOT
from tests.unit.commands import refused
from tests.unit.fabricate import (
    CLASSIFY,
    SIMULATE,
    compared,
    experiment,
    finish,
    publish,
    reference,
    registry,
    table_code,
    tidy_rows,
    workflow,
)

METRICS = {"options": {"table": {"metrics": ["test_accuracy"]}}}
BUILT = {"title": "T", "section": "s", "table": "final_metrics", **METRICS}
AXES = {"method": {"sgd": {}, "tanh": {"activation": "tanh"}}, "batch": {"b8": {}}}


def test_the_difference_of_two_rows(bench):
    """Labels without columns: "Skip-SeqNet50 - SeqNet50" of ghost.fig9, and those of tab3b and lr_grid."""
    reference(bench.workflow, "ghost.x", [{"row": "A - B", "minus": "A| minus B|", "value": 0.8}])
    finish(bench, "a", [77.9])
    finish(bench, "b", [77.1])
    assert compared(bench)["A - B", ""]["ours"] == pytest.approx(0.8)


@pytest.mark.parametrize("code", ["12345e10", "00123456"])
def test_a_hash_is_no_number(bench, code):
    """One hash in sixty reads as a float or loses its zeros."""
    finish(bench, "a", [1.0], code=code)
    assert compared(bench)["A", ""]["code"] == table_code(code)


def test_a_difference_is_judged_by_its_own_cells(tmp_path, monkeypatch):
    """A third cell, scaled and of other code, has no part in it."""
    monkeypatch.chdir(tmp_path)
    variants = {"a": {}, "b": {"batch": 32}, "c": {"batch": 16, "scales": {"laptop": {"length": 1}}}}
    body = experiment(task="classify", base=dict(CLASSIFY), variants=variants, scales={"laptop": {}})
    rows = {"A": {"x": "nets/a", "y": "nets/b"}, "C": "nets/c"}
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": {**BUILT, "rows": rows}})
    reference(reg.workflow, "ghost.x", [{"row": "A", "column": "gain", "minus": "A|x minus A|y", "value": 1.0}])
    for variant, accuracy, code in (("a", 51.0, "aaaa0000"), ("b", 50.0, "aaaa0000"), ("c", 1.0, "cccc0000")):
        publish(reg.run("laptop", f"nets/{variant}-s0"), {"test_accuracy": accuracy}, code=code)
    line = compared(reg)["A", "gain"]
    assert (line["verdict"], line["code"]) == ("match", table_code("aaaa0000"))


def test_a_difference_with_a_diverged_cell(bench):
    """It is no match, whatever the last accuracy was."""
    reference(bench.workflow, "ghost.x", [{"row": "C - B", "minus": "C|left minus B|", "value": 1.0}])
    finish(bench, "b", [9.0])
    publish(bench.run("laptop", "nets/c-s0"), {"status": "diverged", "test_accuracy": 10.0})
    assert compared(bench)["C - B", ""]["verdict"] == "diverged unexpectedly"


def test_a_metric_that_no_run_has(tmp_path, monkeypatch):
    """Named, with the nearest."""
    monkeypatch.chdir(tmp_path)
    table = {**BUILT, "rows": {"A": "nets/a"}, "options": {"table": {"metrics": ["test_acuracy"]}}}
    reg = registry(tmp_path, {"nets": experiment(task="classify", base=dict(CLASSIFY))}, {"ghost.x": table})
    publish(reg.run("paper", "nets/a-s0"), {"test_accuracy": 1.0})
    with pytest.raises(InputError, match=r"^artifact ghost\.x: .*'test_acuracy'; did you mean 'test_accuracy'\?$"):
        tables.build(reg, reg.artifact("ghost.x"), "paper", None)


DAMAGED = [("spec.json", ""), ("spec.json", "[1]"), ("env.json", ""), ("env.json", "[]"), ("env.json", "[{}]")]
DAMAGED += [
    ("metrics.csv", text) for text in ("", "\n", "status\n", "status,test_accuracy\ndone,9", "status,a\ndone\n")
]


@pytest.mark.parametrize(("name", "text"), DAMAGED)
def test_tidy_names_a_damaged_file(bench, name, text):
    """With the command that mends it."""
    folder = publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0})
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=rf"^{re.escape(str(folder / name))}.*snakemake"):
        tidy_rows(bench)


CITED = {"relation": "", "unit": "", "column": "", "metric": "rate", "source": "", "code": "", "paper": 1, "ours": ""}
CITED |= {"ours_se": "", "n": "", "n_diverged": "", "verdict": "cited"}


def test_markdown_escapes_bars():
    """ghost0.propB_14's label has E|x|."""
    text = render.markdown("T", [{**CITED, "row": "E|x|"}], "laptop")
    (line,) = (line for line in text.splitlines() if line.startswith("| E"))
    assert line == r"| E\|x\| | 1 / cited |"


@pytest.mark.parametrize(
    ("label", "text"), [("{a}", r"\{a\}"), ("5 $", r"5 \$"), ("a\\b", r"a\textbackslash{}b")], ids=["{}", "$", "\\"]
)
def test_latex_escapes_braces_dollars_and_backslashes(label, text):
    """As every other special character."""
    assert f"{text} & 1 / cited" in render.latex("T", [{**CITED, "row": label}], "laptop")


@pytest.mark.parametrize("text", ["", "- a\n", "laptop\n", "3\n"])
def test_a_configuration_that_is_no_mapping(tmp_path, monkeypatch, text):
    """An empty file, a list, a word."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^config\.yaml: expected object, found "):
        load_config()


DAMAGED = {
    "not UTF-8": b"paper: {title: \xff, cite: b}\n",
    "control character": b"paper: {title: a\x00b, cite: b}\n",
    "braces without quotes": b"paper: {title: {{ t }}, cite: b}\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_not_yaml(tmp_path, data):
    """One line, whatever is wrong with it."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / "ghost.yaml").write_bytes(data)
    with pytest.raises(InputError, match=r"ghost\.yaml.*not valid YAML") as error:
        Registry(folder)
    assert "\n" not in str(error.value)


def axes(**body):
    return {"nets": experiment(**{"variants": {}, "axes": AXES, **body})}


def by_axes(**body):
    return {"ghost.x": {**BUILT, "axes": {"experiment": "nets", **body}}}


SILENT = {
    "axis of adjust": (
        axes(adjust=[{"where": {"metod": ["tanh"]}, "set": {"width": 9}}]),
        {},
        "nets.adjust.0.where: no axis 'metod'; did you mean 'method'?",
    ),
    "point of adjust": (
        axes(adjust=[{"where": {"method": ["tnh"]}, "set": {"width": 9}}]),
        {},
        "nets.adjust.0.where.method: no point 'tnh'; did you mean 'tanh'?",
    ),
    "row": (axes(), by_axes(row="metod"), "ghost.x.axes.row: nets has no axis 'metod'; did you mean 'method'?"),
    "column": (
        axes(),
        by_axes(row="method", column="bacth"),
        "ghost.x.axes.column: nets has no axis 'bacth'; did you mean 'batch'?",
    ),
    "scale of a point": (
        axes(axes={"m": {"p": {"scales": {"labtop": {"repeats": 2}}}}}),
        {},
        "nets.axes.m.p.scales: unknown key 'labtop'; did you mean 'laptop'?",
    ),
    "scales of a point": (axes(axes={"m": {"p": {"scales": 3}}}), {}, "nets.axes.m.p.scales: expected object, found 3"),
    "like in a point": (axes(axes={"m": {"p": {"like": "q"}}}), {}, "nets.axes.m.p: unknown key 'like'"),
    "only in a variant": (
        {"nets": experiment(variants={"a": {"scales": {"laptop": {"only": ["a"]}}}})},
        {},
        "nets.variants.a.scales.laptop: unknown key 'only'",
    ),
    "seed": ({"nets": experiment(base={**SIMULATE, "seed": 3})}, {}, "nets.base: 'seed' is given by"),
    "one depth in two forms": (
        {"nets": experiment(variants={"a": {"depth": 5}, "b": {"depth": 5.0}})},
        {},
        "nets/b-s0 and nets/a-s0 are the same run",
    ),
    "no variants": ({"nets": experiment(variants={})}, {}, "experiments.nets: has no variants"),
    "variant of a like": (
        {"nets": experiment(variants={"relu": {}, "x": {"like": "rel", "depth": 9}})},
        {},
        "nets.variants.x.like: 'rel' is no variant; did you mean 'relu'?",
    ),
    "id of another paper": ({}, {"gost.y": {**BUILT, "from": "none"}}, "artifacts.gost.y: 'gost' is not this paper"),
}


@pytest.mark.parametrize(("experiments", "artifacts", "expected"), SILENT.values(), ids=SILENT)
def test_a_mistake_that_was_silent(tmp_path, experiments, artifacts, expected):
    """Misspelt, these matched nothing and changed nothing; now they are one line."""
    with pytest.raises(InputError) as error:
        registry(tmp_path, experiments, artifacts)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("experiments", "artifacts"),
    [({"nets": experiment()}, {}), ({}, {"ghost.x": {**BUILT, "from": "none"}})],
    ids=["experiment", "artifact"],
)
def test_one_name_in_two_files(tmp_path, experiments, artifacts):
    """The later file does not silently win."""
    folder = workflow(tmp_path / "workflow", experiments, artifacts)
    text = (folder / "experiments" / "ghost.yaml").read_text()
    (folder / "experiments" / "lalc.yaml").write_text(text)
    with pytest.raises(InputError, match=r"lalc\.yaml: .*: duplicate .*, also in .*ghost\.yaml: "):
        Registry(folder)


def test_names_that_yaml_takes_for_numbers_or_booleans(tmp_path):
    """`128:` and `Yes:` are names as they are written."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / "ghost.yaml").write_text("""
paper: {title: t, cite: c}
experiments:
  nets:
    task: simulate
    section: s
    base: {net: plain, depth: 4, width: 8, batch: 8, repeats: 16}
    axes: {size: {128: {batch: 128}, 256: {batch: 256}}}
    resources: {gpu: 0}
    expect: {seconds: 1}
    scales: {laptop: {only: ["128"]}, smoke: {only: ["256"]}}
artifacts:
  ghost.tab5: {title: t, section: s, table: block_ratios, rows: {Yes: {No: nets/128}}}
""")
    reg = Registry(folder)
    assert [run.id for run in reg.runs("paper")] == ["nets/128-s0", "nets/256-s0"]
    assert [run.id for run in reg.runs("smoke")] == ["nets/256-s0"]
    assert reg.artifact("ghost.tab5").cells[0].label == "Yes, No"


def test_an_artifact_like_one_that_is_like_another(tmp_path):
    """The reference numbers are those of the first."""
    place = {"title": "T", "section": "s"}
    artifacts = {"ghost.x": {**BUILT, "rows": {"L": "nets/a"}}, "ghost.y": {**place, "like": "ghost.x"}}
    reg = registry(tmp_path, {"nets": experiment()}, {**artifacts, "ghost.z": {**place, "like": "ghost.y"}})
    first, last = reg.artifact("ghost.x"), reg.artifact("ghost.z")
    assert (last.cells, last.table, last.source) == (first.cells, first.table, "ghost.x")


def test_a_probe_that_a_scale_drops(tmp_path):
    """The artifact would have nothing to draw there."""
    body = experiment(task="classify", base={**CLASSIFY, "probes": ["gradients"]}, scales={"laptop": {"probes": []}})
    artifact = {**BUILT, "rows": {"A": "nets/a"}, "probes": ["gradients"]}
    with pytest.raises(InputError, match=r"'gradients' is not recorded by nets/a at scale laptop"):
        registry(tmp_path, {"nets": body}, {"ghost.x": artifact})


def test_what_a_variant_sets_survives_the_scale_of_the_one_it_is_like(tmp_path):
    """b's width is b's, at every scale; a's override of it is for a."""
    variants = {"a": {"scales": {"laptop": {"width": 4, "repeats": 2}}}, "b": {"like": "a", "width": 16}}
    reg = registry(tmp_path, {"nets": experiment(variants=variants, scales={"laptop": {}})})
    spec = reg.run("laptop", "nets/b-s0").spec
    assert (spec["width"], spec["repeats"]) == (16, 2)


def test_seeds_written_as_a_float(tmp_path):
    """YAML's 2.0 is an integer to the schema."""
    assert len(registry(tmp_path, {"nets": experiment(seeds=2.0)}).runs("paper")) == 2


def test_an_unknown_paper(ghostgrad):
    """As any other unknown name."""
    assert refused(ghostgrad("status", "--paper", "gost")).endswith("did you mean 'ghost'?")


def test_a_model_that_diverged_before_its_probes_is_drawn_and_told(tmp_path, monkeypatch):
    """Divergence is a result: panels say that the run ended before, the table that it diverged."""
    monkeypatch.chdir(tmp_path)
    reg = Registry()
    artifact = reg.artifact("bnres.fig13")
    publish(reg.run("smoke", "resnet15_cifar/model1-s0"), {"status": "diverged", "diverged_at": 2})
    figures.draw(reg, artifact, "smoke", None, tmp_path / "fig13")
    assert (tmp_path / "fig13.csv").read_text().count("\n") == 1, "the header alone"
    table = tables.build(reg, artifact, "smoke", None)
    assert table["n_diverged"].tolist() == [1, 1, 1]
    assert set(table["verdict"]) == {"scaled"}


def test_a_process_records_the_commit_that_it_runs():
    """What tidy rows name; a tree without git has none."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    found = environment("simulate", "cpu")
    assert found["commit"] == (done.stdout.strip() or None)
    assert found["code"] == task_hash("simulate") != task_hash("classify")


def test_a_file_is_read_once(bench, monkeypatch):
    """A figure asks for the probes of a cell at every position."""
    publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0}, series=CsvTable(("step",), [[1], [2]]))
    found = Results(bench, bench.artifact("ghost.x"), "laptop")
    cell = bench.artifact("ghost.x").cells[0]
    first = found.frame(cell, "series.csv")
    monkeypatch.chdir("/")
    assert found.frame(cell, "series.csv") is first
    assert first["step"].tolist() == [1, 2]
