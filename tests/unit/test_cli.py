"""The command line: what `status`, `show` and `plan` report about the results that exist."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from ghostgrad.registry.registry import PAPERS
from ghostgrad.registry.verdict import LEGEND
from ghostgrad.runs.provenance import code_hash, task_hash
from ghostgrad.tasks.run import state_folder
from tests.unit.commands import REGISTRY, RUN, error_of, everything, output_of
from tests.unit.fabricate import publish


def finish_models(*accuracies) -> None:
    """Publish the first of bnres.tab1's runs at smoke scale (Model-1, -2, -3) with these
    accuracies."""
    for number, accuracy in enumerate(accuracies, 1):
        metrics = {"test_accuracy": accuracy, "best_test_accuracy": accuracy + 1}
        publish(REGISTRY.run("smoke", f"resnet15_cifar/model{number}-s0"), metrics)


def line_of(name: str, text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [name])
    return line


def test_status_before_anything_has_run(ghostgrad):
    """`status` prints a line for every artifact, including those that the scale leaves out, and the
    number of runs. It writes nothing."""
    out = output_of(ghostgrad("status"))
    assert [line.split()[0] for line in out.splitlines()[: len(REGISTRY.artifacts)]] == list(
        REGISTRY.artifacts
    )
    assert re.search(r"table +not run \(not at scale smoke\)$", line_of("ghost.tab2", out))
    runs = len(REGISTRY.artifact_runs("smoke", REGISTRY.artifact("ghost.fig5")))
    assert re.search(rf"figure +0/{runs} runs +not built yet$", line_of("ghost.fig5", out))
    count = len(REGISTRY.runs("smoke"))
    assert out.endswith(f"scale smoke: {count} runs, 0 done, 0 diverged, {count} missing\n")
    assert list(everything()) == ["config.yaml"]


def test_status_of_what_is_done_and_begun(ghostgrad):
    """`status` tells done, diverged, started and missing runs apart, and shows how far a run is and
    the verdicts of built tables."""
    finish_models(10.0, 11.0)
    publish(
        REGISTRY.run("smoke", "resnet15_cifar/model3-s0"),
        {"status": "diverged", "test_accuracy": 10.0},
    )
    begun, started = (
        REGISTRY.run("smoke", f"plainnet_init/{name}-s0") for name in ("tanh", "selu")
    )
    for run in (begun, started):
        state_folder(Path("state"), Path(run.directory), run.canonical, []).mkdir(parents=True)
    folder = state_folder(Path("state"), Path(begun.directory), begun.canonical, [])
    (folder / "progress.json").write_text(json.dumps({"done": 3, "total": 8, "time": 0}))
    Path("results/smoke/tables").mkdir()
    Path("results/smoke/tables/bnres.tab1.csv").write_text("verdict\nholds\nfails\nholds\n")
    out = output_of(ghostgrad("status", "--runs"))
    assert re.search(r"3/3 runs +2 holds, 1 fails$", line_of("bnres.tab1", out))
    states = {"resnet15_cifar/model1-s0": "done", "resnet15_cifar/model3-s0": "diverged"}
    states |= {begun.id: "3/8", started.id: "started", RUN: "missing"}
    assert {name: line_of(name, out).split()[1] for name in states} == states
    assert re.search(r"2 done, 1 diverged, \d+ missing, 2 under way\n$", out)


def test_status_sees_a_drawn_figure(ghostgrad):
    """A figure without a table has no verdicts, so `status` only says that it is drawn."""
    Path("results/smoke/figures").mkdir(parents=True)
    Path("results/smoke/figures/bnres.fig5.svg").touch()
    assert line_of("bnres.fig5", output_of(ghostgrad("status"))).endswith("drawn")


@pytest.mark.parametrize("paper", PAPERS)
def test_status_of_one_paper(ghostgrad, paper):
    """The artifacts of the tiny-paper version, ghost0.…, count as the Ghost paper's."""
    lines = output_of(ghostgrad("status", "--paper", paper)).split("\n\n")[0].splitlines()
    expected = [name for name, artifact in REGISTRY.artifacts.items() if artifact.paper == paper]
    assert [line.split()[0] for line in lines] == expected


def test_status_names_the_missing_data(ghostgrad):
    """Scale `paper` needs CIFAR-10, for which config.yaml gives no path. The option --scale takes
    precedence over the scale in config.yaml."""
    out = output_of(ghostgrad("status", "--scale", "paper"))
    assert line_of("bnres.tab1", out).endswith("not run (data.cifar10 is not set in config.yaml)")


def test_show_a_table_that_the_scale_leaves_out(ghostgrad):
    """`show` prints the paper's numbers and why there are none of ours. It writes nothing."""
    out = output_of(ghostgrad("show", "ghost.tab1"))
    assert out.startswith("ghost.tab1: ImageNet top-1")
    row = next(line for line in out.splitlines() if line.strip().startswith("SeqNet"))
    assert re.findall(r"[\d.]+ %", row) == ["72.4 %", "75.7 %", "77.1 %", "76.7 %"]
    assert "not run (not at scale smoke)" in out
    assert LEGEND in out, "glyphs are explained where they are shown"
    assert list(everything()) == ["config.yaml"]


def test_show_what_exists_of_a_built_table(ghostgrad):
    """`show` prints how many runs exist and their numbers beside the paper's, also marks the cells
    whose run is missing, and writes nothing."""
    finish_models(14.5, 9.25)
    before = everything()
    out = output_of(ghostgrad("show", "bnres.tab1"))
    assert "2/3 runs at scale smoke" in out
    rows = {
        line.split()[0]: " ".join(line.split())
        for line in out.splitlines()
        if line.strip().startswith("Model")
    }
    assert rows["Model-1"] == "Model-1 92.5 % / 14.5 ± 2.0 % ○ – / 15.5 ± 2.1 % ○"
    assert rows["Model-3"] == "Model-3 9.09 % / not run"
    assert f"Code {task_hash('classify')}/{code_hash('report.tables', 'report.render')}." in out
    assert everything() == before


def test_show_csv(ghostgrad):
    """With --csv the output can be piped: it begins with the header and has one line per number.
    Numbers for which the paper prints none are included."""
    finish_models(14.5, 9.25, 10.0)
    rows = list(csv.DictReader(io.StringIO(output_of(ghostgrad("show", "bnres.tab1", "--csv")))))
    expected = {
        ("test_accuracy", "shown only (scaled)"): (14.5, 9.25, 10.0),
        ("best_test_accuracy", "shown only (scaled)"): (15.5, 10.25, 11.0),
    }
    assert [(row["row"], row["metric"], float(row["ours"]), row["verdict"]) for row in rows] == [
        (f"Model-{number}", metric, value, verdict)
        for (metric, verdict), values in expected.items()
        for number, value in enumerate(values, 1)
    ]


def test_show_csv_of_a_table_that_the_scale_leaves_out(ghostgrad):
    """The CSV has all of the paper's numbers and none of ours."""
    rows = list(csv.DictReader(io.StringIO(output_of(ghostgrad("show", "ghost.tab2", "--csv")))))
    assert len(rows) == 30
    assert {row["verdict"] for row in rows} == {
        "not run (not at scale smoke)",
        "not run (as we read it, the paper cites this number from another work)",
    }
    assert {row["ours"] for row in rows} == {""}


def test_show_runs(ghostgrad):
    """With --runs, `show` prints the tidy rows, one per finished run."""
    finish_models(14.5, 9.25)
    rows = list(csv.DictReader(io.StringIO(output_of(ghostgrad("show", "bnres.tab1", "--runs")))))
    assert [(row["row"], row["seed"], row["status"], row["test_accuracy"]) for row in rows] == [
        ("Model-1", "0", "done", "14.5"),
        ("Model-2", "0", "done", "9.25"),
    ]


def built_table(ghostgrad, artifact: str) -> Path:
    """Write a built table that can be recognized in the output of `show`, and check that `show`
    prints it."""
    path = Path(f"results/smoke/tables/{artifact}.csv")
    path.parent.mkdir(parents=True)
    path.write_text("row,provenance,verdict\nfrom the file,printed,holds\n")
    assert "from the file" in output_of(ghostgrad("show", artifact, "--csv"))
    return path


def test_show_prefers_the_built_table_while_it_is_the_newest(ghostgrad):
    """If the built table is older than one of its runs, `show` computes the table from the runs,
    although the table is newer than the registry, the claims and the code."""
    finish_models(14.5, 9.25, 10.0)
    path = built_table(ghostgrad, "bnres.tab1")
    sources = [
        path for path in REGISTRY.workflow.rglob("*") if path.suffix in (".py", ".yaml", ".csv")
    ]
    registry_time = max(source.stat().st_mtime for source in sources)
    run = REGISTRY.run("smoke", "resnet15_cifar/model2-s0")
    os.utime(path, (registry_time + 1, registry_time + 1))
    for seconds, is_shown in ((0, True), (2, False)):
        for other in Path("results/smoke/runs").rglob("metrics.csv"):
            os.utime(other, (registry_time, registry_time))
        run_time = registry_time + seconds
        os.utime(Path(run.directory, "metrics.csv"), (run_time, run_time))
        out = output_of(ghostgrad("show", "bnres.tab1", "--csv"))
        assert ("from the file" in out) == is_shown


def test_show_does_not_print_a_table_that_older_code_made(ghostgrad):
    """Editing a table function has to show at once, as CONTRIBUTING.md promises."""
    finish_models(14.5, 9.25, 10.0)
    path = built_table(ghostgrad, "bnres.tab1")
    code = REGISTRY.workflow / "ghostgrad" / "analysis" / "measures.py"
    for run in Path("results/smoke/runs").rglob("metrics.csv"):
        os.utime(run, (0, 0))
    newest = max(source.stat().st_mtime for source in REGISTRY.workflow.rglob("*.*"))
    for table_time, is_shown in ((newest + 1, True), (code.stat().st_mtime - 1, False)):
        os.utime(path, (table_time, table_time))
        assert ("from the file" in output_of(ghostgrad("show", "bnres.tab1", "--csv"))) == is_shown


DAMAGED_TABLES = {
    "cut short": lambda text: text[: len(text) // 2].encode(),
    "empty": lambda text: b"",
    "header only": lambda text: text.splitlines()[0].encode() + b"\n",
    "another format": lambda text: b"<html>\n",
    "binary": lambda text: b"\xff\xfe",
}


@pytest.mark.parametrize("damage", DAMAGED_TABLES)
def test_a_damaged_table_is_computed_from_the_runs(ghostgrad, damage):
    """`show` prints no half of a table, and `status` is not ended by one."""
    finish_models(14.5, 9.25, 10.0)
    path = built_table(ghostgrad, "bnres.tab1")
    path.write_bytes(DAMAGED_TABLES[damage](path.read_text()))
    newest = max(source.stat().st_mtime for source in REGISTRY.workflow.rglob("*.*"))
    os.utime(path, (newest + 1, newest + 1))
    rows = list(csv.DictReader(output_of(ghostgrad("show", "bnres.tab1", "--csv")).splitlines()))
    assert {row["row"] for row in rows} == {"Model-1", "Model-2", "Model-3"}
    assert "from the file" not in str(rows)
    assert "bnres.tab1" in output_of(ghostgrad("status"))


def test_a_run_of_another_spec_is_stale(ghostgrad):
    """All three commands treat it as missing: `plan` plans it again, `show` leaves its number out,
    and `status` does not count it as done."""
    before = output_of(ghostgrad("plan"))
    publish(REGISTRY.run("smoke", "resnet15_cifar/model1-s0"), {"test_accuracy": 1.0}, lr=0.7)
    assert output_of(ghostgrad("plan")) == before
    out = output_of(ghostgrad("show", "bnres.tab1"))
    assert "0/3 runs at scale smoke" in out
    assert "not run (stale run)" in out
    out = output_of(ghostgrad("status", "--runs"))
    assert line_of("bnres.tab1", out).endswith("; 1 stale (spec has changed)")
    assert line_of("resnet15_cifar/model1-s0", out).split()[-1] == "stale"
    assert out.splitlines()[-2].endswith(", 1 stale")


def test_runs_of_different_code_are_named(ghostgrad):
    """They keep their numbers, but whoever edits the modules of a task can see which runs were
    computed before the edit."""
    finish_models(14.5, 9.25)
    assert "different code" not in output_of(ghostgrad("status", "--runs"))
    assert "different code" not in output_of(ghostgrad("show", "bnres.tab1"))
    publish(
        REGISTRY.run("smoke", "resnet15_cifar/model2-s0"), {"test_accuracy": 9.0}, code="c0de0001"
    )
    out = output_of(ghostgrad("status", "--runs"))
    assert line_of("bnres.tab1", out).endswith("; 1 computed by different code")
    assert line_of("bnres.fig9", out).endswith("; 1 computed by different code")
    assert "different code" not in line_of("bnres.fig13", out)
    assert line_of("resnet15_cifar/model2-s0", out).endswith("done, different code")
    assert line_of("resnet15_cifar/model1-s0", out).endswith("done")
    assert "different code: 1, computed by a version of the task's code" in out.splitlines()[-1]
    assert "ghostgrad forget <run> --scale smoke, then build" in out.splitlines()[-1]
    assert "different code: 1, computed by a version" in output_of(ghostgrad("show", "bnres.tab1"))


@pytest.mark.parametrize("text", ["[]", "3", "[3]", "", "[{}]"])
def test_a_run_with_a_damaged_environment_is_damaged(ghostgrad, text):
    """Such a run has no provenance, so it does not count as done."""
    finish_models(14.5)
    Path(REGISTRY.run("smoke", "resnet15_cifar/model1-s0").directory, "env.json").write_text(text)
    out = output_of(ghostgrad("status", "--runs"))
    assert line_of("resnet15_cifar/model1-s0", out).endswith("damaged")
    assert "0 done" in out


def test_show_counts_no_run_that_is_gone(ghostgrad):
    """The built table is newer than all remaining runs but still holds the number of a deleted one,
    so `show` must not use it."""
    finish_models(14.5, 9.25, 10.0)
    built_table(ghostgrad, "bnres.tab1")
    shutil.rmtree(REGISTRY.run("smoke", "resnet15_cifar/model2-s0").directory)
    out = output_of(ghostgrad("show", "bnres.tab1"))
    assert "from the file" not in out
    assert "90.6 % / not run" in out


def test_show_csv_of_a_figure_names_its_numbers(ghostgrad):
    assert "results/smoke/figures/bnres.fig5.csv" in error_of(
        ghostgrad("show", "bnres.fig5", "--csv")
    )


def test_show_recomputes_the_table_after_an_edit_of_the_registry(ghostgrad):
    """A built table that is older than the registry may show what the registry no longer says."""
    path = built_table(ghostgrad, "ghost.eq1")
    before = (REGISTRY.workflow / "experiments" / "ghost.yaml").stat().st_mtime - 1
    os.utime(path, (before, before))
    assert "from the file" not in output_of(ghostgrad("show", "ghost.eq1", "--csv"))


def test_show_tells_where_we_leave_the_paper(ghostgrad):
    """`show` lists the results that the paper expects and where ours deviates from it."""
    out = output_of(ghostgrad("show", "bnres.tab1"))
    assert "- Expected of Model-1: 92.5 %." in out
    assert (
        "- Ours: Xavier weights are uniform (the default of TensorFlow's xavier_initializer)."
        in out
    )


def test_an_unknown_paper(ghostgrad):
    """It is answered with the nearest valid name, like any other unknown name."""
    assert error_of(ghostgrad("status", "--paper", "gost")).endswith("did you mean 'ghost'?")
