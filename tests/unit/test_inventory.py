"""The registry against the papers: every artifact is listed, and every number of their tables is in
workflow/reference.

The ids and numbers below were read from the papers' text, not from the files under test."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from packaging.markers import Marker

from ghostgrad.analysis import measures
from ghostgrad.data.coco_evaluation import METRICS
from ghostgrad.files import CsvTable
from ghostgrad.registry.reference import COLUMNS
from ghostgrad.registry.registry import PAPERS, Registry
from ghostgrad.report import tables
from ghostgrad.tasks import initialize, sample
from tests.conftest import ROOT
from tests.unit.fabricate import publish

REGISTRY = Registry()
REFERENCE = ROOT / "workflow" / "reference"

IDS = {
    "ghost": """fig1_left fig1_right fig2 fig3 fig4_left fig4_right fig5 fig6 fig7 fig8 fig9 fig10
        tab1 tab2 tab3a tab3b tab3c tab4 tab5 lr_grid eq1 c1_maxpool relu_ratios
        def3_1 prop3_4 cor3_7 prop3_8 prop3_12 prop3_14 cor3_15 prop3_17 prop4_1
        fc_module c2_conceal c3 propC_2 c_gradnorm101 rem3_5 rem3_9 rem3_16 a_depth
        b2_resnet_orth s6_vgg_input c_plain50""",
    "ghost0": "fig1_left fig1_right fig2 fig3 propB_14",
    "lalc": """fig1a fig1b fig2 fig3 fig4a fig4b fig5 tab_acc tab_eta prop1 thm1 cor1 cor2 thm2
        rate claims clars_cost self_disable abl_norm decay accum instability large_batch
        large_scaling nesterov scaling small_batch too_large warmup""",
    "bnres": """fig1 fig2 fig3 fig4 fig5 fig6 fig7 fig8 fig9 fig10 fig11 fig12 fig13 fig14 fig15
        tab1 eq4 eq5 eq8 eq9 eq10 eq11 eq12 eq13 eq14 eq19 eq21 eq22 eq27 eq30 eq32 eq33
        eq34 eq35 eq36 eq37 eq38 eq39 eq40 appE disc indep K batch_shape dip distance
        eq22_conv faster gradient_range init init_shape no_pattern order resnet99 trend""",
}
ALL_IDS = [f"{paper}.{name}" for paper, names in IDS.items() for name in names.split()]

# Artifact -> how many numbers stand beside ours: those that the papers print, and what follows from
# them.
COUNTS = {
    "ghost.tab1": 18,  # 14 cells, and SeqNet less ResNet
    "ghost.tab2": 30,
    "ghost.tab3a": 6,  # three cells, "higher than 70%", and two differences
    "ghost.tab3b": 6,  # three cells, two differences, and SeqNet101's +0.1 %
    "ghost.tab3c": 5,  # three cells and two differences
    "ghost.tab4": 9,
    "ghost.tab5": 5,  # three cells and two differences
    "ghost.fig9": 2,
    "ghost.lr_grid": 1,
    "ghost.eq1": 3,
    "ghost.fig5": 3,  # the rate of each curve with BN
    "ghost0.fig2": 2,  # as ghost.fig6
    "ghost0.fig3": 3,  # as ghost.fig5
    "ghost.fig6": 2,  # alpha, and the fitted rate, which should equal it
    "ghost.fc_module": 2,  # untied, k = 2 and 4
    "ghost.prop3_17": 6,  # forward and backward at three depths: a difference of 0
    "ghost.c1_maxpool": 2,
    "ghost.relu_ratios": 2,
    "lalc.fig1a": 3,  # vanilla networks, two transformers
    "lalc.fig1b": 2,  # none without an activation, none with DropOut
    "lalc.fig2": 3,  # the variance of each histogram
    "bnres.tab1": 3,
    "bnres.fig13": 3,  # "atmost 1.0" at three steps
}


def test_every_reference_file_has_a_count():
    assert {path.stem for path in (ROOT / "workflow/reference").glob("*.csv")} == set(COUNTS)


TAB2 = "APb APb50 APb75 APm APm50 APm75"
# Artifact -> lines of "label: numbers" under a line of column (or metric) names, as the papers
# print them. Differences of two of these cells are in the files too, and are not repeated here.
PRINTED = {
    "ghost.tab1": """18 34 50 101
        ResNet: 69.8 73.3 77.4 78.8
        DiracNet: 70.4 72.8 NA NA
        ISONet: 68.1 70.9 71.2 71.0
        SeqNet: 72.4 75.7 77.1 76.7""",
    "ghost.tab2": f"""{TAB2}
        ResNet50 BN 2X: 38.6 59.8 42.1 34.5 56.4 36.3
        ResNet50 GN 2X: 40.3 61.0 44.0 35.7 57.9 37.7
        SeqNet50 2X: 39.8 59.5 43.1 35.3 57.4 37.8
        ResNet50 GN 3X: 40.8 61.6 44.4 36.1 58.5 38.2
        SeqNet50 3X: 40.6 60.7 44.9 36.0 58.2 38.5""",
    "ghost.tab3a": """top1
        R-Init: 77.1
        O-Init: 77.0
        L-Init: 77.0
        untied: 70""",
    "ghost.tab3b": """top1
        No Bias: 77.1
        Use Bias: 77.0
        Use BatchNorm: 76.8
        SeqNet101 Use BatchNorm - SeqNet101 No Bias: 0.1""",
    "ghost.tab3c": """top1
        First: 77.1
        Second: 76.7
        Third: 77.0""",
    "ghost.tab5": """Conv4_tied Conv4_untied
        Conv2 tied: 76.7 77.1
        Conv2 untied: NA 76.9""",
    "ghost.eq1": """r
        SELU: 1.072
        Tanh: 1.178
        ReLU: 1.467""",
    "ghost.c1_maxpool": """R_f R_b
        2x2 max-pool: 0.492 0.25""",
    "ghost.fig9": """top1
        Skip-SeqNet50: 77.9
        Skip-SeqNet50 - SeqNet50: 0.8""",
    "ghost.lr_grid": """top1
        SeqNet101 per-stage - SeqNet101 0.01: 0.4""",
    "bnres.tab1": """test_accuracy
        Model-1: 92.5
        Model-2: 90.6
        Model-3: 9.09""",
}
# Layers -> without, with orthogonal regularization, improvement.
TAB4 = {"34": (73.7, 75.3, 1.6), "50": (75.7, 77.1, 1.4), "101": (75.6, 76.7, 1.1)}

ARTIFACTS = list(REGISTRY.artifacts.values())
FILES = sorted(path.stem for path in REFERENCE.glob("*.csv"))


def numbers(artifact: str) -> list[dict[str, str]]:
    with (REFERENCE / f"{artifact}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_artifacts_are_the_results_of_the_papers():
    """The list of artifacts is the list of what the papers report."""
    assert sorted(REGISTRY.artifacts) == sorted(ALL_IDS)


@pytest.mark.parametrize("name", ALL_IDS)
def test_every_artifact_has_a_title_a_place_in_its_paper_and_a_form(name):
    artifact = REGISTRY.artifact(name)
    assert artifact.title
    assert re.match(r"00[0124] ", artifact.section), "where the paper has it"
    assert artifact.paper in PAPERS
    assert artifact.has_table or artifact.has_figure


@pytest.mark.parametrize(
    ("alias", "name"),
    [("fig1_left", "fig1_left"), ("fig1_right", "fig1_right"), ("fig2", "fig6"), ("fig3", "fig5")],
)
def test_the_tiny_papers_figures_are_those_of_the_full_one(alias, name):
    """The tiny paper (000) numbers its figures differently; the alias has the same runs, functions
    and numbers, but its own places and words."""
    tiny, full = REGISTRY.artifact(f"ghost0.{alias}"), REGISTRY.artifact(f"ghost.{name}")
    for what in ("cells", "table", "figure", "options", "source", "kind"):
        assert getattr(tiny, what) == getattr(full, what), what
    assert tiny.caption != full.caption
    if full.table is None or full.id not in FILES:
        return
    words = {"source", "basis"}  # of which each version of the paper has its own
    ours, theirs = (
        [{key: row[key] for key in row if key not in words} for row in numbers(artifact.reference)]
        for artifact in (tiny, full)
    )
    assert ours == theirs
    assert all(row["source"].startswith("000 ") for row in numbers(tiny.reference))


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_number_is_there(name, count):
    """No number is missing, and none is there twice."""
    keys = [(row["row"], row["column"], row["metric"]) for row in numbers(name)]
    assert (len(keys), len(set(keys))) == (count, count)


def printed(name: str) -> dict[tuple[str, str], float]:
    """(label, column or metric) -> number of one of the tables above."""
    head, *lines = (line.strip() for line in PRINTED[name].splitlines())
    cells = {}
    for line in lines:
        label, _, values = line.rpartition(": ")
        for column, value in zip(head.split(), values.split(), strict=True):
            if value != "NA":
                cells[label, column.replace("Conv4_", "Conv4 ")] = float(value)
    return cells


def implied(name: str, row: dict[str, str]) -> float | None:
    """The difference of two cells that PRINTED has; None for a number that the paper prints."""
    if not row["minus"]:
        return None
    terms = (term.split("|") for term in row["minus"].split(" minus "))
    cells = [printed(name).get((label, column or row["metric"])) for label, column in terms]
    return None if None in cells else round(cells[0] - cells[1], 3)


@pytest.mark.parametrize("name", PRINTED)
def test_the_numbers_are_the_papers(name):
    """Each cell equals the printed number, to the digit."""
    recorded = {
        (row["row"], row["column"] or row["metric"]): float(row["value"])
        for row in numbers(name)
        if implied(name, row) is None
    }
    assert recorded == printed(name)


@pytest.mark.parametrize("name", PRINTED)
def test_differences_follow_from_the_printed_cells(name):
    """A difference that the paper leaves to the reader is that of its two cells."""
    for row in numbers(name):
        if (difference := implied(name, row)) is not None:
            assert float(row["value"]) == pytest.approx(difference)
            assert row["provenance"] == "derived"


def test_the_tolerance_of_an_effect_is_at_most_the_effect():
    """A difference of the wrong sign by more than what rounding explains does not match."""
    effects = [row for name in FILES for row in numbers(name) if row["minus"]]
    assert len(effects) >= 16
    for row in effects:
        assert float(row["tolerance"]) <= max(0.1, abs(float(row["value"])) / 2)


def test_table_4_is_the_papers():
    """There are three columns; the third is the difference of the other two, which the file must
    name."""
    expected = {}
    for layers, (without, with_it, gain) in TAB4.items():
        expected[layers, "- OrthReg", ""] = without
        expected[layers, "+ OrthReg", ""] = with_it
        expected[layers, "Improvement", f"{layers}|+ OrthReg minus {layers}|- OrthReg"] = gain
    recorded = {
        (row["row"], row["column"], row["minus"]): float(row["value"])
        for row in numbers("ghost.tab4")
    }
    assert recorded == expected


@pytest.mark.parametrize(
    "name",
    [
        *(f"ghost.{name}" for name in ("tab1", "tab3a", "tab3b", "tab3c", "tab4", "tab5")),
        "ghost.fig9",
        "ghost.lr_grid",
    ],
)
def test_differences_name_both_cells(name):
    """A row `A - B` is A minus B; a column of differences takes both cells from its own row."""
    rows = [row for row in numbers(name) if row["minus"]]
    assert rows
    for row in rows:
        first, second = (cell.split("|")[0] for cell in row["minus"].split(" minus "))
        assert row["row"] == (f"{first} - {second}" if first != second else first)


def test_the_bound_is_a_bound():
    """The paper says "cannot reach a validation accuracy higher than 70%"."""
    (row,) = (row for row in numbers("ghost.tab3a") if row["row"] == "untied")
    assert row["relation"] == "<="


def test_what_the_paper_cites_is_marked():
    """Other people's numbers (DiracNet, ISONet and the Mask R-CNN baselines) are marked, and none
    of the authors' own."""
    cited = {(name, row["row"]) for name in FILES for row in numbers(name) if row["cited"]}
    baselines = {("ghost.tab2", f"ResNet50 {kind}") for kind in ("BN 2X", "GN 2X", "GN 3X")}
    assert cited == {("ghost.tab1", "DiracNet"), ("ghost.tab1", "ISONet")} | baselines


def test_what_the_paper_saw_diverge_is_marked():
    """The paper says that Model-3's loss "had quickly become undefined"."""
    diverging = [(name, row["row"]) for name in FILES for row in numbers(name) if row["diverges"]]
    assert diverging == [("bnres.tab1", "Model-3")]


@pytest.mark.parametrize("name", FILES)
def test_reference_file_is_well_formed(name):
    """The file belongs to an artifact, and each row has a number, a relation, a metric and its
    place in the paper."""
    artifact = REGISTRY.artifact(name)
    assert artifact.reference == name
    with (REFERENCE / f"{name}.csv").open(encoding="utf-8") as stream:
        assert next(stream).strip().split(",") == list(COLUMNS)
    for row in numbers(name):
        assert None not in row
        assert re.match(r"00[0124] ", row["source"])
        assert row["relation"] in ("", "=", "~", "<", "<=", ">", ">=")
        assert "to be attributed" not in row["basis"]
        assert row["cited"] in ("", "yes")
        assert row["diverges"] in ("", "yes")
        assert row["row"]
        assert row["metric"]
        assert math.isfinite(float(row["value"]))
        assert all(float(row[key]) >= 0 for key in ("std", "tolerance") if row[key])


@pytest.mark.parametrize(
    "artifact",
    [a for a in ARTIFACTS if a.cells and a.source in FILES],
    ids=lambda artifact: artifact.id,
)
def test_every_reference_key_has_a_cell(artifact):
    """The number of a label without runs would show "not run" forever. A difference names two such
    labels; cited numbers need none."""
    cells = {(cell.row, cell.column) for cell in artifact.cells}
    rows = [row for row in numbers(artifact.source) if not row["cited"]]
    named = [(row["row"], row["column"]) for row in rows if not row["minus"]]
    named += [
        tuple(cell.split("|"))
        for row in rows
        if row["minus"]
        for cell in row["minus"].split(" minus ")
    ]
    assert named
    assert set(named) <= cells


def fabricated_series(run) -> CsvTable | None:
    """A series.csv with every column of a block of repeats, positive and with some spread."""
    place, places = "place", 4
    match run.task:
        case "simulate":
            place, places = (
                "layer",
                run.spec.depth * (2 if run.spec.net == "seqnet" else 1) + 1,
            )
            names = ["gradient_norm", "forward_variance", "backward_variance"]
            names += [
                f"{what}_{way}" for what in ("block", "branch") for way in ("forward", "backward")
            ]
        case "sample":
            names = sample.QUANTITIES[run.spec.quantity].columns
        case "initialize":
            names, places = initialize.COLUMNS, 8  # three scales of two blocks
        case _:
            return None
    values = np.random.default_rng(0).lognormal(sigma=0.1, size=(8, places, len(names)))
    rows = [
        [repeat, index, *values[repeat, index].tolist()]
        for repeat in range(8)
        for index in range(places)
    ]
    return CsvTable(("repeat", place, *names), rows)


TABLES = [a for a in ARTIFACTS if a.table not in (None, "claim")]  # test_claims.py tests the claims


@pytest.mark.parametrize("artifact", TABLES, ids=lambda artifact: artifact.id)
def test_every_number_of_a_built_table_is_measured(artifact, tmp_path, monkeypatch):
    """When all of its runs exist, no row of a built table says "not run", except for variants that
    the scale leaves out: the table function yields every metric, row and column."""
    monkeypatch.chdir(tmp_path)
    runs = {scale: REGISTRY.artifact_runs(scale, artifact) for scale in ("smoke", "paper")}
    scale = "smoke" if runs["smoke"] or not artifact.cells else "paper"
    for run in runs[scale]:
        accuracy = {"test_accuracy": 50.0, "best_test_accuracy": 60.0, "train_accuracy": 70.0}
        names, places = (
            ("bn_offset_mean", "gradient_variance", *measures.STATISTICS),
            getattr(run.spec, "probe_at", ()),
        )
        probes = [[at, at, name, k, 0.5] for at in places for name in names for k in range(3)]
        metrics = {"classify": accuracy, "detect": dict.fromkeys(METRICS, 40.0)}.get(run.task, {})
        publish(run, metrics, fabricated_series(run), probes=probes)
    table = tables.build(REGISTRY, artifact, scale, None)
    assert len(table) >= (len(numbers(artifact.source)) if artifact.source in FILES else 1)
    missing = {verdict for verdict in table["verdict"] if verdict.startswith("not run")}
    assert missing <= {"not run (not at scale smoke)"}


@pytest.mark.parametrize("name", ["ghost.eq1", "ghost.c1_maxpool", "ghost.relu_ratios"])
def test_what_needs_no_run_matches_the_paper(name):
    """Quadrature reproduces every printed digit."""
    table = tables.build(REGISTRY, REGISTRY.artifact(name), "laptop", None)
    verdicts = table[table["reference"].notna()]["verdict"].tolist()
    assert verdicts == ["holds"] * COUNTS[name]


def locked(python: str) -> dict[str, str]:
    """Package -> version of requirements.lock for a Python on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    environment |= {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+))?", line)
        if match and (not match[3] or Marker(match[3].strip()).evaluate(environment)):
            assert match[1] not in pins, f"{match[1]} is pinned twice"
            pins[match[1]] = match[2]
    return pins


@pytest.mark.parametrize("method", ["sgd", "warmup", "lalc"])
def test_the_rows_with_a_constant_bn_batch_differ_by_it_alone(method):
    """BN sees 2,048 images in the sweep at batch 2k, and 1,024 from 4k up and in these rows."""
    variants = ("-2k", "_bn1024-2k", "-4k")
    runs = {variant: f"cifar_sweep/{method}{variant}-s0" for variant in variants}
    specs = {variant: REGISTRY.run("paper", run).spec for variant, run in runs.items()}
    assert specs["_bn1024-2k"] == replace(specs["-2k"], micro_batch=1024)
    assert specs["-2k"].micro_batch == 0
    assert specs["-4k"].micro_batch == 1024
    at_other_scales = [run.id for scale in ("laptop", "substitute") for run in REGISTRY.runs(scale)]
    assert runs["_bn1024-2k"] not in at_other_scales


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_locked_versions(path):
    """`--software-deployment-method conda` and `make` compute with the same packages."""
    channels = yaml.safe_load(path.read_text())["dependencies"]
    (python,) = (
        entry.split("=")[1]
        for entry in channels
        if isinstance(entry, str) and entry.startswith("python=")
    )
    (pins,) = (entry["pip"] for entry in channels if isinstance(entry, dict))
    assert pins
    versions = locked(python)
    assert pins == [f"{name}=={versions[name]}" for name in (pin.split("==")[0] for pin in pins)]
