"""The command line: what `run`, `unlock` and `forget` do, and that a mistake is answered with one
line.

Commands run in the test process through `main`, the entry point, except in tests that are about the
process itself.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ghostgrad.analysis.tidy import read_provenance
from ghostgrad.registry.spec import run_status
from ghostgrad.runs.provenance import task_hash
from ghostgrad.runs.record import FILES
from ghostgrad.tasks.run import state_folder
from tests.unit.commands import REGISTRY, RUN, error_of, everything, output_of
from tests.unit.conftest import CONFIG
from tests.unit.fabricate import publish


def locked() -> Path:
    """Create a lock file as a killed Snakemake leaves it behind, and return its path."""
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_unlock_where_nothing_is_locked(ghostgrad):
    """With --quiet nothing is printed, because `make` calls it before every build."""
    assert output_of(ghostgrad("unlock")) == "nothing is locked\n"
    assert output_of(ghostgrad("unlock", "--quiet")) == ""


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_unlock_after_a_kill(ghostgrad, quiet):
    """The lock file exists and no process holds the flock, so the Snakemake that held it is
    dead."""
    lock = locked()
    Path(".snakemake/ghostgrad.lock").touch()
    assert (
        output_of(ghostgrad("unlock", *quiet))
        == "removed the lock of a Snakemake that was killed\n"
    )
    assert not lock.exists()


def test_unlock_beside_a_living_snakemake(ghostgrad):
    """Nothing is removed while a process holds the folder."""
    lock = locked()
    with Path(".snakemake/ghostgrad.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert "locked by a Snakemake that is running" in output_of(ghostgrad("unlock"))
    assert lock.exists()


def test_unlock_without_proof(ghostgrad):
    """The lock of a Snakemake that left no flock (another version, another file system) is kept."""
    lock = locked()
    assert "snakemake --unlock" in output_of(ghostgrad("unlock"))
    assert lock.exists()


def test_forget(ghostgrad):
    """`forget` deletes the record and the checkpoints of this run, for every spec that it has had,
    and keeps those of other variants, seeds and scales."""
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
    out = output_of(ghostgrad("forget", RUN, "--scale", "laptop"))
    gone = [
        f"state/laptop/{RUN}@0123abcd",
        f"state/laptop/{RUN}@4567cdef",
        f"results/laptop/runs/{RUN}",
    ]
    assert out.splitlines() == [f"deleted {folder}" for folder in gone]
    assert not any(Path(folder).exists() for folder in gone)
    assert other_seed.exists()
    assert other_scale.exists()
    assert all(Path(runs[name].directory, "metrics.csv").exists() for name in names[1:])
    assert len(list(Path("state/laptop/plainnet_init").iterdir())) == 5


MISTAKES = {
    "artifact": (("show", "ghost.tab6"), "no artifact 'ghost.tab6'; did you mean 'ghost.tab"),
    "artifact's case": (("show", "bnres.k"), "no artifact 'bnres.k'; did you mean 'bnres.K'?"),
    "scale": (
        ("status", "--scale", "labtop"),
        "--scale: 'labtop' is not allowed; did you mean 'laptop'?",
    ),
    "scale of show": (
        ("show", "ghost.fig5", "--scale", "papr"),
        "--scale: 'papr' is not allowed; did you mean 'paper'?",
    ),
    "scale of plan": (
        ("plan", "--scale", "x"),
        "--scale: 'x' is not allowed; valid: laptop, paper, smoke, substitute",
    ),
    "run to forget": (
        ("forget", "plainnet_init/relu-nb-s0"),
        "no run 'plainnet_init/relu-nb-s0' at scale smoke;"
        " did you mean 'plainnet_init/relu-bn-s0'?",
    ),
    "run of a scale": (
        ("run", "laptop/plainnet_init/relu-bn-s1"),
        "no run 'plainnet_init/relu-bn-s1' at scale laptop;"
        " did you mean 'plainnet_init/relu-bn-s0'?",
    ),
    "scale of a run": (
        ("run", f"labtop/{RUN}"),
        "run: 'labtop' is not a scale; did you mean 'laptop'?",
    ),
    "nothing to run": (
        ("run",),
        "run: give <scale>/<experiment>/<variant>-s<seed>, or --spec and --out",
    ),
    "spec without folder": (("run", "--spec", "{}"), "run: give <scale>/"),
    "bad spec": (
        ("run", "--spec", "{}", "--out", "x"),
        "--spec: task: 'None' is not allowed; valid: classify",
    ),
    "table of no artifact": (
        ("table", "ghost.tab9", "--scale", "smoke"),
        "no artifact 'ghost.tab9'; did you mean",
    ),
    "command": (("statsu",), "No such command 'statsu'. Did you mean 'status'?"),
    "option": (("status", "--scal", "laptop"), "No such option: --scal"),
    "no artifact": (("show",), "Missing argument"),
    "no number": (("plan", "--cores", "two"), "Invalid value for '--cores'"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(ghostgrad, arguments, expected):
    """The command exits with code 1, suggests the nearest valid value and writes nothing."""
    assert error_of(ghostgrad(*arguments)).startswith(expected)
    assert list(everything()) == ["config.yaml"]


CONFIGS = {
    "missing": (None, "config.yaml: cannot be read (No such file or directory)"),
    "broken": ("scale: [smoke\n", "config.yaml, line 2: not valid YAML"),
    "unknown key": (
        CONFIG + "state-dir: s\n",
        "config.yaml: unknown key 'state-dir'; did you mean 'state_dir'?",
    ),
    "unknown scale": (
        CONFIG.replace("smoke", "smok"),
        "config.yaml: scale: 'smok' is not allowed; did you mean 'smoke'?",
    ),
    "no such data": (
        CONFIG.replace("cifar10:", "cifar10: /no/such/folder"),
        "config.yaml: data.cifar10: no folder /no/such/folder;"
        " give the right path, or leave it empty",
    ),
}


@pytest.mark.parametrize(
    "command", [("status",), ("show", "ghost.tab1"), ("plan",), ("forget", RUN)]
)
@pytest.mark.parametrize(("text", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_bad_configuration_is_one_line(ghostgrad, command, text, expected):
    """Every command that reads config.yaml says what is wrong with it and does nothing."""
    publish(REGISTRY.run("smoke", RUN))
    Path("config.yaml").unlink() if text is None else Path("config.yaml").write_text(text)
    assert error_of(ghostgrad(*command)).startswith(expected)
    assert Path(REGISTRY.run("smoke", RUN).directory, "metrics.csv").exists()


@pytest.mark.slow
def test_a_run_computed_by_name(ghostgrad):
    """In a separate process, `ghostgrad run` publishes all files, records the hash of this code,
    and uses the state folder that Snakemake would use."""
    run = REGISTRY.run("smoke", RUN)
    command = [sys.executable, "-m", "ghostgrad", "run", f"smoke/{RUN}"]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in Path(run.directory).iterdir()) == sorted(
        {*FILES} - {"weights.pt"}
    )
    assert run_status(run) == "done"
    assert read_provenance(run)["code"] == task_hash("simulate")
    folder = state_folder(Path("state"), Path(run.directory), run.canonical, [])
    assert (folder / "record" / "metrics.csv").read_bytes() == Path(
        run.directory, "metrics.csv"
    ).read_bytes()
    (environment,) = json.loads(Path(run.directory, "env.json").read_text())
    assert environment["gpu_s"] == 0
    assert 0 < environment["peak_mb"] < 1536
    assert "1 done" in output_of(ghostgrad("status"))


def test_the_installed_command(tmp_path):
    """The script beside this Python and `python -m ghostgrad` are the same program, with the same
    exit codes."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    for command in (
        [str(Path(sys.executable).parent / "ghostgrad")],
        [sys.executable, "-m", "ghostgrad"],
    ):
        done = subprocess.run(
            [*command, "show", "ghost.tabb1"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
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
    assert f"{RUN}: a process is computing this run; stop it first" in err
    assert folder.exists()
    assert ghostgrad("forget", RUN)[0] == 0
    assert not folder.exists()
