"""The command line: what `status`, `show`, `plan`, `unlock` and `forget` say and do, and that a mistake is one line.

Commands run in this process through `main`, the entry point, except where the process itself is the matter.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ghostgrad.registry import PAPERS, Registry
from ghostgrad.run import state_folder
from tests.unit.fabricate import publish

REGISTRY = Registry()
CONFIG = "scale: smoke\nstate_dir: state\ncheckpoint_minutes: 5\ndata: {cifar10: }\n"
RUN = "plainnet_init/relu-bn-s0"


def told(result) -> str:
    """The output of a command that succeeded."""
    code, out, err = result
    assert (code, err) == (0, "")
    return out


def refused(result) -> str:
    """The one line of a command that failed."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("ghostgrad: ")
    assert err.count("\n") == 1
    return err.removeprefix("ghostgrad: ").rstrip("\n")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def finish_models(*accuracies) -> None:
    """bnres.tab1's runs at smoke scale: Model-1, -2, -3."""
    for number, accuracy in enumerate(accuracies, 1):
        metrics = {"test_accuracy": accuracy, "best_test_accuracy": accuracy + 1}
        publish(REGISTRY.run("smoke", f"resnet15_cifar/model{number}-s0"), metrics)


def line_of(name: str, text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [name])
    return line


def test_status_before_anything_has_run(ghostgrad):
    """A line for every artifact, planned ones too, and the number of runs."""
    out = told(ghostgrad("status"))
    assert [line.split()[0] for line in out.splitlines()[: len(REGISTRY.artifacts)]] == list(REGISTRY.artifacts)
    assert re.search(r"table +not run \(planned\)$", line_of("ghost.tab1", out))
    runs = len(REGISTRY.artifact_runs("smoke", REGISTRY.artifact("ghost.fig5")))
    assert re.search(rf"figure +0/{runs} runs +not built yet$", line_of("ghost.fig5", out))
    count = len(REGISTRY.runs("smoke"))
    assert out.endswith(f"scale smoke: {count} runs, 0 done, 0 diverged, {count} missing\n")
    assert list(everything()) == ["config.yaml"]


def test_status_of_what_is_done_and_begun(ghostgrad):
    """Done, diverged, how far a run is, and the verdicts of built tables."""
    finish_models(10.0, 11.0)
    publish(REGISTRY.run("smoke", "resnet15_cifar/model3-s0"), {"status": "diverged", "test_accuracy": 10.0})
    begun, started = (REGISTRY.run("smoke", f"plainnet_init/{name}-s0") for name in ("tanh", "selu"))
    for run in (begun, started):
        state_folder(Path("state"), Path(run.directory), run.canonical, []).mkdir(parents=True)
    folder = state_folder(Path("state"), Path(begun.directory), begun.canonical, [])
    (folder / "progress.json").write_text(json.dumps({"done": 3, "total": 8, "time": 0}))
    Path("results/smoke/tables").mkdir()
    Path("results/smoke/tables/bnres.tab1.csv").write_text("verdict\nmatch\noff\nmatch\n")
    out = told(ghostgrad("status", "--runs"))
    assert re.search(r"3/3 runs +2 match, 1 off$", line_of("bnres.tab1", out))
    states = {"resnet15_cifar/model1-s0": "done", "resnet15_cifar/model3-s0": "diverged"}
    states |= {begun.id: "3/8", started.id: "started", RUN: "missing"}
    assert {name: line_of(name, out).split()[1] for name in states} == states
    assert re.search(r"2 done, 1 diverged, \d+ missing, 2 begun\n$", out)


def test_status_sees_a_drawn_figure(ghostgrad):
    """A figure without a table has no verdicts."""
    Path("results/smoke/figures").mkdir(parents=True)
    Path("results/smoke/figures/bnres.fig5.svg").touch()
    assert line_of("bnres.fig5", told(ghostgrad("status"))).endswith("drawn")


@pytest.mark.parametrize("paper", PAPERS)
def test_status_of_one_paper(ghostgrad, paper):
    """Aliases of the tiny paper count as the Ghost paper's."""
    lines = told(ghostgrad("status", "--paper", paper)).split("\n\n")[0].splitlines()
    expected = [name for name, artifact in REGISTRY.artifacts.items() if artifact.paper == paper]
    assert [line.split()[0] for line in lines] == expected


def test_status_names_the_missing_data(ghostgrad):
    """At `paper` CIFAR-10 is needed; the default scale is the configuration's."""
    out = told(ghostgrad("status", "--scale", "paper"))
    assert line_of("bnres.tab1", out).endswith("not run (data.cifar10 is not set in config.yaml)")


def test_show_a_planned_table(ghostgrad):
    """The paper's numbers and why there are none of ours; nothing is written."""
    out = told(ghostgrad("show", "ghost.tab1"))
    assert out.startswith("ghost.tab1: ImageNet top-1")
    row = next(line for line in out.splitlines() if line.strip().startswith("SeqNet"))
    assert re.findall(r"[\d.]+ %", row) == ["72.4 %", "75.7 %", "77.1 %", "76.7 %"]
    assert "not run (planned)" in out
    assert list(everything()) == ["config.yaml"]


def test_show_what_exists_of_a_built_table(ghostgrad):
    """How many runs there are, and their numbers beside the paper's; missing cells stay; nothing is written."""
    finish_models(14.5, 9.25)
    before = everything()
    out = told(ghostgrad("show", "bnres.tab1"))
    assert "2/3 runs at scale smoke" in out
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip().startswith("Model")}
    assert rows["Model-1"] == "Model-1 92.5 % / 14.5 % scaled – / 15.5 %"
    assert rows["Model-3"] == "Model-3 9.09 % / not run"
    assert "Code c0de0001." in out
    assert everything() == before


def test_show_csv(ghostgrad):
    """For pipes: a header and a line per number, nothing else."""
    finish_models(14.5, 9.25, 10.0)
    rows = list(csv.DictReader(io.StringIO(told(ghostgrad("show", "bnres.tab1", "--csv")))))
    assert [(row["row"], row["metric"], float(row["ours"]), row["verdict"]) for row in rows[:3]] == [
        ("Model-1", "test_accuracy", 14.5, "scaled"),
        ("Model-2", "test_accuracy", 9.25, "scaled"),
        ("Model-3", "test_accuracy", 10.0, "scaled"),
    ]


def test_show_csv_of_a_planned_table(ghostgrad):
    """All of the paper's numbers, without ours."""
    rows = list(csv.DictReader(io.StringIO(told(ghostgrad("show", "ghost.tab2", "--csv")))))
    assert len(rows) == 30
    assert {row["verdict"] for row in rows} == {"not run (planned)", "cited"}
    assert {row["ours"] for row in rows} == {""}


def test_show_runs(ghostgrad):
    """The tidy rows, one per finished run, whatever table there is."""
    finish_models(14.5, 9.25)
    rows = list(csv.DictReader(io.StringIO(told(ghostgrad("show", "bnres.tab1", "--runs")))))
    assert [(row["row"], row["seed"], row["status"], row["test_accuracy"]) for row in rows] == [
        ("Model-1", "0", "done", "14.5"),
        ("Model-2", "0", "done", "9.25"),
    ]


def built_table(ghostgrad, artifact: str) -> Path:
    """A table that says of itself that it is a file, and that `show` prints."""
    path = Path(f"results/smoke/tables/{artifact}.csv")
    path.parent.mkdir(parents=True)
    path.write_text("row,verdict\nfrom the file,match\n")
    assert "from the file" in told(ghostgrad("show", artifact, "--csv"))
    return path


def test_show_prefers_the_built_table_while_it_is_the_newest(ghostgrad):
    """A table older than one of its runs is computed anew."""
    finish_models(14.5, 9.25, 10.0)
    path = built_table(ghostgrad, "bnres.tab1")
    os.utime(path, (0, 0))
    assert "from the file" not in told(ghostgrad("show", "bnres.tab1", "--csv"))


def test_a_run_of_another_spec_is_stale(ghostgrad):
    """In all three commands: it is not counted, not shown, and has to be computed again."""
    left = plan_of(told(ghostgrad("plan")), "resnet15_cifar")[1]
    publish(REGISTRY.run("smoke", "resnet15_cifar/model1-s0"), {"test_accuracy": 1.0}, lr=0.7)
    assert plan_of(told(ghostgrad("plan")), "resnet15_cifar")[1] == left
    out = told(ghostgrad("show", "bnres.tab1"))
    assert "0/3 runs at scale smoke" in out
    assert "not run (stale run)" in out
    out = told(ghostgrad("status", "--runs"))
    assert line_of("bnres.tab1", out).endswith("(before an edit: 1 stale)")
    assert line_of("resnet15_cifar/model1-s0", out).split()[-1] == "stale"
    assert out.splitlines()[-2].endswith(", 1 stale")


def test_show_counts_no_run_that_is_gone(ghostgrad):
    """The built table is newer than every run that is left, and tells of one that is not."""
    finish_models(14.5, 9.25, 10.0)
    built_table(ghostgrad, "bnres.tab1")
    shutil.rmtree(REGISTRY.run("smoke", "resnet15_cifar/model2-s0").directory)
    out = told(ghostgrad("show", "bnres.tab1"))
    assert "from the file" not in out
    assert "90.6 % / not run" in out


def test_show_csv_of_a_figure_names_its_numbers(ghostgrad):
    assert "results/smoke/figures/bnres.fig5.csv" in refused(ghostgrad("show", "bnres.fig5", "--csv"))


def test_show_makes_the_table_anew_after_an_edit_of_the_registry(ghostgrad):
    """The built table may tell of what the registry no longer says."""
    path = built_table(ghostgrad, "ghost.eq1")
    before = (REGISTRY.workflow / "experiments" / "ghost.yaml").stat().st_mtime - 1
    os.utime(path, (before, before))
    assert "from the file" not in told(ghostgrad("show", "ghost.eq1", "--csv"))


def test_show_tells_where_we_leave_the_paper(ghostgrad):
    """Expected results and deviations, with their reasons."""
    out = told(ghostgrad("show", "bnres.tab1"))
    assert "- Expected of Model-1: 92.5 %." in out
    assert "- Ours: Xavier weights are uniform (the default of TensorFlow's xavier_initializer)." in out


def plan_of(text, experiment):
    """Runs, runs left and hours left of an experiment."""
    parts = line_of(experiment, text).split()
    return int(parts[1]), int(parts[2]), float(parts[5])


def test_plan(ghostgrad):
    """Runs and hours, of all and of what is left; finished runs take no more time."""
    before = plan_of(told(ghostgrad("plan", "--scale", "laptop")), "plainnet_init")
    runs = [run for run in REGISTRY.runs("laptop") if run.experiment == "plainnet_init"]
    assert before[:2] == (len(runs), len(runs))
    assert before[2] == pytest.approx(sum(run.expect["seconds"] for run in runs) / 3600, abs=0.006)
    for run in runs[1:]:
        publish(run)
    after = plan_of(told(ghostgrad("plan", "--scale", "laptop")), "plainnet_init")
    assert after[:2] == (len(runs), 1)
    assert after[2] == pytest.approx(runs[0].expect["seconds"] / 3600, abs=0.006)


def test_plan_divides_by_cores_and_gpus(ghostgrad):
    """Core-hours and GPU-hours of the whole scale, and how long they take here."""
    out = told(ghostgrad("plan", "--scale", "paper", "--cores", "4", "--gpus", "8"))
    cpu, cpu_hours, gpu, gpu_hours = map(float, re.findall(r"(\d+\.\d+) (?:core-|GPU-)?h", out)[-4:])
    runs = [(run.resources["gpu"], run.expect["seconds"] / 3600) for run in REGISTRY.runs("paper")]
    assert cpu == pytest.approx(sum(hours for gpus, hours in runs if not gpus), abs=0.006)
    assert gpu == pytest.approx(sum(gpus * hours for gpus, hours in runs), abs=0.006)
    assert (cpu_hours, gpu_hours) == (pytest.approx(cpu / 4, abs=0.01), pytest.approx(gpu / 8, abs=0.01))
    assert "on 4 cores" in out
    assert "on 8 GPU(s)" in out


def test_plan_at_a_scale_without_runs(ghostgrad):
    """Said for each experiment."""
    out = told(ghostgrad("plan", "--scale", "substitute"))
    assert out.count("not at this scale") == len(REGISTRY.experiments)


def locked() -> Path:
    """A lock as a killed Snakemake leaves it."""
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_unlock_where_nothing_is_locked(ghostgrad):
    """With --quiet not a word: `make` calls it before every build."""
    assert told(ghostgrad("unlock")) == "nothing is locked\n"
    assert told(ghostgrad("unlock", "--quiet")) == ""


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_unlock_after_a_kill(ghostgrad, quiet):
    """The lock file is there and nobody holds the flock: the Snakemake that held it is dead."""
    lock = locked()
    Path(".snakemake/ghostgrad.lock").touch()
    assert told(ghostgrad("unlock", *quiet)) == "removed the lock of a Snakemake that was killed\n"
    assert not lock.exists()


def test_unlock_beside_a_living_snakemake(ghostgrad):
    """Nothing is removed while a process holds the folder."""
    lock = locked()
    with Path(".snakemake/ghostgrad.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert "locked by a Snakemake that is running" in told(ghostgrad("unlock"))
    assert lock.exists()


def test_unlock_without_proof(ghostgrad):
    """A lock of a Snakemake that left no flock (another version, another file system) is not touched."""
    lock = locked()
    assert "snakemake --unlock" in told(ghostgrad("unlock"))
    assert lock.exists()


def test_forget(ghostgrad):
    """Record and checkpoints of this run go, whatever spec they are from; those of every other run stay."""
    names = ("relu-bn", "relu-bn-40", "relu")
    runs = {name: REGISTRY.run("laptop", f"plainnet_init/{name}-s0") for name in names}
    for run in runs.values():
        publish(run)
        for suffix in ("0123abcd", "4567cdef"):
            Path(f"state/laptop/{run.id}@{suffix}/record").mkdir(parents=True)
    other_seed = Path("state/laptop/plainnet_init/relu-bn-s01@0123abcd")
    other_scale = Path("state/smoke/plainnet_init/relu-bn-s0@0123abcd")
    for folder in (other_seed, other_scale):
        folder.mkdir(parents=True)
    out = told(ghostgrad("forget", RUN, "--scale", "laptop"))
    gone = [f"state/laptop/{RUN}@0123abcd", f"state/laptop/{RUN}@4567cdef", f"results/laptop/runs/{RUN}"]
    assert out.splitlines() == [f"deleted {folder}" for folder in gone]
    assert not any(Path(folder).exists() for folder in gone)
    assert other_seed.exists()
    assert other_scale.exists()
    assert all(Path(runs[name].directory, "metrics.csv").exists() for name in names[1:])
    assert len(list(Path("state/laptop/plainnet_init").iterdir())) == 5


MISTAKES = {
    "artifact": (("show", "ghost.tab6"), "no artifact 'ghost.tab6'; did you mean 'ghost.tab"),
    "artifact's case": (("show", "bnres.k"), "no artifact 'bnres.k'; did you mean 'bnres.K'?"),
    "scale": (("status", "--scale", "labtop"), "--scale: 'labtop' is not allowed; did you mean 'laptop'?"),
    "scale of show": (
        ("show", "ghost.fig5", "--scale", "papr"),
        "--scale: 'papr' is not allowed; did you mean 'paper'?",
    ),
    "scale of plan": (("plan", "--scale", "x"), "--scale: 'x' is not allowed; valid: laptop, paper, smoke, substitute"),
    "run to forget": (
        ("forget", "plainnet_init/relu-nb-s0"),
        "no run 'plainnet_init/relu-nb-s0' at scale smoke; did you mean 'plainnet_init/relu-bn-s0'?",
    ),
    "run of a scale": (
        ("run", "laptop/plainnet_init/relu-bn-s1"),
        "no run 'plainnet_init/relu-bn-s1' at scale laptop; did you mean 'plainnet_init/relu-bn-s0'?",
    ),
    "scale of a run": (("run", f"labtop/{RUN}"), "run: 'labtop' is no scale; did you mean 'laptop'?"),
    "nothing to run": (("run",), "run: give <scale>/<experiment>/<variant>-s<seed>, or --spec and --out"),
    "spec without folder": (("run", "--spec", "{}"), "run: give <scale>/"),
    "bad spec": (
        ("run", "--spec", "{}", "--out", "x"),
        "--spec: task: 'None' is not allowed; valid: classify",
    ),
    "table of no artifact": (("table", "ghost.tab9", "--scale", "smoke"), "no artifact 'ghost.tab9'; did you mean"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(ghostgrad, arguments, expected):
    """Exit code 1, the nearest valid value, and nothing written."""
    assert refused(ghostgrad(*arguments)).startswith(expected)
    assert list(everything()) == ["config.yaml"]


CONFIGS = {
    "missing": (None, "config.yaml: cannot be read (No such file or directory)"),
    "broken": ("scale: [smoke\n", "config.yaml, line 2: not valid YAML"),
    "unknown key": (CONFIG + "state-dir: s\n", "config.yaml: unknown key 'state-dir'; did you mean 'state_dir'?"),
    "unknown scale": (
        CONFIG.replace("smoke", "smok"),
        "config.yaml: scale: 'smok' is not allowed; did you mean 'smoke'?",
    ),
    "no such data": (
        CONFIG.replace("cifar10:", "cifar10: /no/such/folder"),
        "config.yaml: data.cifar10: no folder /no/such/folder; give the right path, or leave it empty",
    ),
}


@pytest.mark.parametrize("command", [("status",), ("show", "ghost.tab1"), ("plan",), ("forget", RUN)])
@pytest.mark.parametrize(("text", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_bad_configuration_is_one_line(ghostgrad, command, text, expected):
    """Every command that reads config.yaml says what is wrong with it and does nothing."""
    publish(REGISTRY.run("smoke", RUN))
    Path("config.yaml").unlink() if text is None else Path("config.yaml").write_text(text)
    assert refused(ghostgrad(*command)).startswith(expected)
    assert Path(REGISTRY.run("smoke", RUN).directory, "metrics.csv").exists()


def test_the_installed_command(tmp_path):
    """The script beside this Python and `python -m ghostgrad` are the same program, with the same exit codes."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    for command in ([str(Path(sys.executable).parent / "ghostgrad")], [sys.executable, "-m", "ghostgrad"]):
        done = subprocess.run(
            [*command, "show", "ghost.tabb1"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "ghostgrad: no artifact 'ghost.tabb1'; did you mean 'ghost.tab1'?\n"


def test_forget_refuses_a_run_that_is_being_computed(ghostgrad):
    """Deleting its lock would let a second process work on the same run."""
    run = REGISTRY.run("smoke", RUN)
    folder = state_folder(Path("state"), Path(run.directory), run.canonical, [])
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = ghostgrad("forget", RUN)
    assert code == 1
    assert f"{RUN}: a process works on it at this moment; stop that first" in err
    assert folder.exists()
    assert ghostgrad("forget", RUN)[0] == 0
    assert not folder.exists()
