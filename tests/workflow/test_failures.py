"""Users get one clear line when something is wrong, and finished work is never lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Checkout

ONE_LINE = [
    (
        "config.yaml",
        "state_dir: state",
        "state_dri: state",
        "config.yaml: unknown key 'state_dri'; did you mean 'state_dir'?",
    ),
    (
        "config.yaml",
        "scale: smoke",
        "scale: labtop",
        "config.yaml: scale: 'labtop' is not allowed; did you mean 'laptop'?",
    ),
    (
        "config.yaml",
        "  cifar10:",
        "  cifar10: /no/such/folder",
        "config.yaml: data.cifar10: no folder /no/such/folder",
    ),
    (
        "config.yaml",
        "checkpoint_minutes: 5",
        "checkpoint_minutes: often",
        "checkpoint_minutes: expected number, found 'often'",
    ),
    (
        "workflow/experiments/ghost.yaml",
        "tanh-bn: {activation: tanh}",
        "tanh-bn: {activatoin: tanh}",
        "workflow/experiments/ghost.yaml: experiments.plainnet_init.variants.tanh-bn: unknown key"
        " 'activatoin';"
        " did you mean 'activation'?",
    ),
    (
        "workflow/experiments/bnres.yaml",
        "      batch: 128",
        "      batch: many",
        "workflow/experiments/bnres.yaml: experiments.resnet15_cifar.base: batch: expected integer,"
        " found 'many'",
    ),
    (
        "workflow/experiments/bnres.yaml",
        "rows: {Model-1: resnet15_cifar/model1}",
        "rows: {Model-1: resnet15_cifar/modle1}",
        "artifacts.bnres.fig5.rows.Model-1: resnet15_cifar has no variant 'modle1';"
        " did you mean 'model1'?",
    ),
]


@pytest.fixture
def smoke(checkout: Checkout) -> Checkout:
    checkout.edit("config.yaml", "scale: laptop", "scale: smoke")
    return checkout


@pytest.mark.parametrize(("name", "old", "new", "message"), ONE_LINE)
def test_bad_input_is_one_line_and_exit_code_1(smoke, name, old, new, message):
    smoke.edit(name, old, new)
    done = smoke.snakemake("--cores", "1", "--quiet", "all")
    assert done.returncode == 1
    lines = [
        line for line in done.stdout.splitlines() if "Using workflow specific profile" not in line
    ]
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("ghostgrad: ")
    assert message in lines[0]
    assert not smoke.path("results").exists()


def test_an_unknown_artifact_or_run_names_the_nearest(smoke):
    done = smoke.snakemake("-n", "results/smoke/tables/ghost.fig55.csv")
    assert done.returncode == 1
    assert "ghostgrad: no artifact 'ghost.fig55'; did you mean 'ghost.fig5'?" in done.stdout
    done = smoke.snakemake("-n", "results/smoke/runs/plainnet_init/tahn-s0/metrics.csv")
    assert done.returncode == 1
    assert (
        "no run 'plainnet_init/tahn-s0' at scale smoke; did you mean 'plainnet_init/tanh-s0'?"
        in done.stdout
    )


def test_wrong_data_stop_the_build_before_any_training(smoke):
    text = smoke.path("workflow/experiments/bnres.yaml").read_text()
    start = text.index("      smoke:")
    text = text[:start] + text[start:].replace("data: digits", "data: cifar10", 1)
    smoke.path("workflow/experiments/bnres.yaml").write_text(text)
    smoke.edit("config.yaml", "  cifar10:", f"  cifar10: {smoke.folder}")
    done = smoke.snakemake(
        "results/smoke/tables/bnres.tab1.csv", "--cores", "2", "--logger", "ghostgrad"
    )
    assert done.returncode == 1
    assert "config.yaml: data.cifar10: no folder cifar-10-batches-py in" in done.stdout
    assert not smoke.path("results/smoke/runs").exists()


def test_one_run_of_many_fails_for_good(smoke):
    """The other runs finish and partial tables can be built.

    After the cause is removed, only the failed run and what depends on it are built.
    """
    targets = ["results/smoke/tables/bnres.tab1.csv", "results/smoke/figures/bnres.fig5.svg"]
    smoke.edit(
        "workflow/experiments/bnres.yaml",
        "model2: {shortcut: false,",
        "model2: {shortcut: false, batch: 5000,",
    )
    done = smoke.snakemake(*targets, "--cores", "2", "--logger", "ghostgrad")
    assert done.returncode == 1
    message = done.stdout
    assert "FAILED resnet15_cifar/model2-s0 (rule classify)" in message
    assert "log: results/smoke/logs/resnet15_cifar/model2-s0.log" in message
    assert "digits: 1497 training images do not fill one batch of 5000" in message
    assert "command: ghostgrad run results/data/digits.json --spec" in message
    runs = smoke.path("results/smoke/runs/resnet15_cifar")
    assert sorted(path.parent.name for path in runs.glob("*/metrics.csv")) == [
        "model1-s0",
        "model3-s0",
    ]
    assert smoke.path(targets[1]).exists()

    smoke.build(*targets, "--config", "partial=true")
    table = smoke.path(targets[0]).read_text()
    assert table.count("shown only (scaled)") == 4
    assert "not run (no finished run)" in table

    smoke.edit(
        "workflow/experiments/bnres.yaml", "shortcut: false, batch: 5000,", "shortcut: false,"
    )
    assert smoke.planned_jobs(*targets) == {"classify": 1, "tidy": 1, "table": 1}
    smoke.build(*targets)
    assert smoke.path(targets[0]).read_text().count("shown only (scaled)") == 6


def run_arguments(out: Path, **changes: int) -> list[str]:
    """Return the arguments of ghostgrad for a tiny simulation that is published in `out`."""
    sizes = {"depth": 2, "width": 8, "batch": 4, "repeats": 4, **changes}
    spec = {"task": "simulate", "net": "plain", **sizes, "seed": 0}
    return ["run", "--spec", json.dumps(spec), "--out", str(out)]


def test_a_full_disk_while_publishing_loses_nothing(smoke):
    out = smoke.path("results/smoke/runs/full/disk-s0")
    out.mkdir(parents=True)
    (out / ".series.csv").symlink_to("/dev/full")  # a copy is written here, then renamed
    arguments = run_arguments(out)
    done = smoke.ghostgrad(*arguments)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("ghostgrad: ")
    assert "No space left on device; free some space and run it again, nothing is lost" in last
    assert list(out.iterdir()) == [], "nothing half-written"
    assert smoke.ghostgrad(*arguments).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "env.json",
        "metrics.csv",
        "probes.csv",
        "series.csv",
        "spec.json",
    ]
    (log,) = smoke.path("state").rglob("log.txt")
    assert log.read_text().count("repeats done") == 1, "computed once"


def test_a_full_disk_under_the_log_is_one_line(smoke):
    """A line that cannot be written to the log does not print a traceback of the logging module."""
    arguments = run_arguments(smoke.path("results/smoke/runs/full/log-s0"))
    assert smoke.ghostgrad(*arguments).returncode == 0
    (log,) = smoke.path("state").rglob("log.txt")
    log.unlink()
    log.symlink_to("/dev/full")
    done = smoke.ghostgrad(*arguments)
    assert "Logging error" not in done.stdout
    assert "Traceback" not in done.stdout
    assert done.returncode == 0


def test_after_a_failed_run_of_a_new_spec_the_old_table_is_not_current(built):
    """Snakemake deletes the outputs of a failed job, but not the table made from older ones."""
    table = "results/smoke/tables/bnres.tab1.csv"
    old, edited = "model2: {shortcut: false,", "model2: {shortcut: false, batch: 5000,"
    built.edit("workflow/experiments/bnres.yaml", old, edited)
    assert built.snakemake(table, "--cores", "2").returncode == 1
    assert built.path(table).exists()
    built.edit("workflow/experiments/bnres.yaml", edited, "model2: {shortcut: false, lr: 0.05,")
    assert built.planned_jobs(table) == {"classify": 1, "tidy": 1, "table": 1}


def test_an_unknown_target_or_scale_is_one_line(smoke):
    for arguments, message in (
        (["ghots"], "ghots: no such target; did you mean 'ghost'?"),
        (
            ["-n", "ghost.fg5", "--config", "scale=paper"],
            "ghost.fg5: no such target; did you mean 'ghost.fig5'?",
        ),
        (
            ["results/smoke/tables/ghost.fig55.csv"],
            "no artifact 'ghost.fig55'; did you mean 'ghost.fig5'?",
        ),
        (
            ["--config", "scale=papr"],
            "--config or --configfile: scale: 'papr' is not allowed; did you mean 'paper'?",
        ),
    ):
        done = smoke.snakemake(*arguments, "--cores", "1")
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == f"ghostgrad: {message}"


def test_out_of_memory_is_one_line(smoke):
    """The weights exceed the address space, so the allocation fails on every machine."""
    out = smoke.path("out/huge-s0")
    done = smoke.ghostgrad(*run_arguments(out, depth=1, width=10**7, repeats=2))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("ghostgrad: out of memory: ")
    assert "Traceback" not in done.stdout


def logs(checkout: Checkout) -> str:
    """Return what the runs of a checkout have logged."""
    return "".join(log.read_text() for log in sorted(checkout.path("state").rglob("log.txt")))


def wait_until(happened: Callable[[], object], checkout: Checkout) -> None:
    """Wait until `happened()` is true; after two minutes raise a TimeoutError with the logs."""
    deadline = time.monotonic() + 120
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(logs(checkout) or "no run has begun")
        time.sleep(0.05)


def test_ctrl_c_saves_and_the_next_build_goes_on(smoke):
    """The run stops after some of its repeats, and the next build continues after them."""
    smoke.edit(
        "workflow/experiments/ghost.yaml",
        "smoke: {repeats: 8, seeds: 1",
        "smoke: {repeats: 600, seeds: 1",
    )
    target = "results/smoke/runs/plainnet_init/relu-bn-s0/metrics.csv"
    command = [sys.executable, "-m", "snakemake", target, "--cores", "1", "--logger", "ghostgrad"]
    process = subprocess.Popen(
        command,
        cwd=smoke.folder,
        env=smoke.env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    state = smoke.path("state")
    wait_until(lambda: "0 of 600 repeats done" in logs(smoke), smoke)
    time.sleep(0.5)  # the first repeats are being computed now
    os.killpg(process.pid, signal.SIGINT)
    message = process.communicate(timeout=120)[1]
    assert "stopped plainnet_init/relu-bn-s0; it is saved" in message
    assert "FAILED" not in message
    (progress,) = state.rglob("progress.json")
    saved = json.loads(progress.read_text())["done"]
    assert 0 < saved < 600
    smoke.build(target)
    (log,) = state.rglob("log.txt")
    starts = [
        int(words.split()[-1]) for words in log.read_text().split(" of 600 repeats done")[:-1]
    ]
    assert starts == [0, saved]


@pytest.mark.parametrize(
    "written", ["elsewhere/state # here", "'elsewhere/state'", '"elsewhere/state" # here']
)
def test_make_clean_keeps_what_other_scales_made(tmp_path, written):
    """`make clean` also finds a state folder that is set in config.yaml, however it is quoted."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / "config.yaml").write_text(f"scale: laptop\nstate_dir: {written}\n")
    places = [
        f"{root}/{scale}"
        for root in ("results", "elsewhere/state")
        for scale in ("smoke", "laptop", "paper")
    ]
    for name in (".venv", *places, "results/data"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("digits.json", "digits.npz", "cifar10.json"):
        (tmp_path / "results/data" / name).touch()
    subprocess.run(["make", "--quiet", "clean"], cwd=tmp_path, check=True)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {
        "Makefile",
        "config.yaml",
    }
    assert kept == {
        "elsewhere",
        "elsewhere/state",
        "elsewhere/state/paper",
        "results",
        "results/data",
        "results/data/cifar10.json",
        "results/paper",
    }


def test_after_a_kill_the_lock_goes_and_the_running_job_is_waited_for(smoke):
    """A job outlives a Snakemake that is killed.

    The next build waits for that job and computes nothing.
    """
    smoke.edit(
        "workflow/experiments/ghost.yaml",
        "smoke: {repeats: 8, seeds: 1",
        "smoke: {repeats: 600, seeds: 1",
    )
    target = "results/smoke/runs/plainnet_init/relu-bn-s0/metrics.csv"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target]
    process = subprocess.Popen(
        command,
        cwd=smoke.folder,
        env=smoke.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(smoke.path("state").rglob("environment.json")), smoke)
    assert "locked by a Snakemake that is running" in smoke.ghostgrad("unlock").stdout
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "LockException" in smoke.snakemake("--cores", "1", target).stdout
    assert "removed the lock of a Snakemake that was killed" in smoke.ghostgrad("unlock").stdout
    smoke.build(target)
    (folder,) = smoke.path("state").rglob("relu-bn-s0@*")
    assert (folder / "log.txt").read_text().count("repeats done,") == 1
    assert "nothing is locked" in smoke.ghostgrad("unlock").stdout
