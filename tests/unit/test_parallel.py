"""Data-parallel runs, computed by gloo processes on the CPU. They are compared with one process
that accumulates micro-batches, are killed and resumed, and lose a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ghostgrad.data.make import make
from ghostgrad.runs.state import State
from tests.unit.killing import KILLED, SPECS, Runner

pytestmark = pytest.mark.slow  # every test starts several processes

STEPS = 12
CLASSIFY = {
    **SPECS["classify"],
    "batch": 24,
    "length": STEPS,
    "lr_boundaries": [8],
    "probe_at": [0, 3, 12],
}
CLASSIFY |= {"probes": ["gradients", "updates", "statistics"], "eval_every": 4}
RULES = {
    "sgd": {},
    "sgd without BN": {"batch_norm": False},
    "clars": {"optimizer": "clars"},
    "lalc": {"optimizer": "lalc", "nesterov": True},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.json"
    make("digits", path)
    return path


def ended(folder: Path, manifest: Path, processes: int, **changes) -> dict:
    """The checkpoint that a run saves after its last step, because it is stopped there."""
    (own := folder / str(processes)).mkdir()
    runner = Runner(own, "classify", manifest, {**CLASSIFY, **changes}, processes)
    assert (
        runner.start(signal_at_step=changes.get("length", STEPS), signal=int(signal.SIGTERM)) == 75
    )
    with State(runner.folder) as state:
        return state.load()


def trained(saved: dict) -> dict[str, torch.Tensor]:
    """The weights, without BN's running statistics."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name, value in saved["model"].items() if not name.endswith(statistics)}


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_are_one_that_adds_up_two_micro_batches(rule, tmp_path, manifest):
    """They agree bit by bit, because a + b is b + a. Only BN's running statistics, and with them
    what is measured on test images, are those of process 0's micro-batches alone."""
    one, two = (ended(tmp_path, manifest, n, micro_batch=12, **RULES[rule]) for n in (1, 2))
    assert [(row[:6]) for row in two["series"]] == [(row[:6]) for row in one["series"]]
    assert two["probes"] == one["probes"]
    assert len(one["series"]) == 3
    weights = trained(one)
    assert all(torch.equal(value, weights[name]) for name, value in trained(two).items())
    if "without BN" in rule:
        test = torch.tensor([[row[6:] for row in saved["series"]] for saved in (one, two)])
        torch.testing.assert_close(test[1], test[0])
    else:
        seen = [saved["model"]["head.0.0.num_batches_tracked"].item() for saved in (one, two)]
        assert seen == [2 * STEPS, STEPS]


@pytest.mark.parametrize(("processes", "micro", "rule"), [(2, 6, "clars"), (3, 4, "lalc")])
def test_more_micro_batches_are_summed_in_another_order(processes, micro, rule, tmp_path, manifest):
    changes = {"micro_batch": micro, "length": 3, "eval_every": 1, "lr": 0.01, **RULES[rule]}
    one, two = (ended(tmp_path, manifest, n, **changes) for n in (1, processes))
    losses, right = ([[row[k] for row in saved["series"]] for saved in (one, two)] for k in (4, 5))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert right[1] == right[0]
    for name, value in trained(two).items():
        torch.testing.assert_close(value, one["model"][name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, manifest) -> dict[int, dict[str, bytes]]:
    """What runs of two and of three processes publish."""
    published = {}
    for processes in (2, 3):
        runner = Runner(
            tmp_path_factory.mktemp("whole"), "classify", manifest, resumable(processes), processes
        )
        assert runner.start() == 0
        published[processes] = runner.files
    return published


def resumable(processes: int) -> dict:
    return {**CLASSIFY, "micro_batch": 24 // processes // 2, "optimizer": "clars"}


def gone(pids: list[int]) -> bool:
    """True if these processes end within 20 seconds."""
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize(("processes", "how"), [(2, "SIGKILL"), (2, "SIGTERM"), (3, "SIGKILL")])
def test_ended_and_resumed_equals_undisturbed(processes, how, undisturbed, tmp_path, manifest):
    """No process is left behind either."""
    runner = Runner(tmp_path, "classify", manifest, resumable(processes), processes)
    stop = {"signal_at_step": 7, "signal": int(signal.SIGTERM)}
    plan = {"save_at": [5], "kill_at_step": 7} if how == "SIGKILL" else stop
    names = [tmp_path / name for name in ("first", "second")]
    assert runner.start(**plan, followers=str(names[0])) == (KILLED if how == "SIGKILL" else 75)
    assert runner.start(followers=str(names[1])) == 0
    assert runner.files == undisturbed[processes]
    assert runner.starts == [0, 5 if how == "SIGKILL" else 7]
    for name in names:
        pids = [int(word) for word in name.read_text().split()]
        assert len(pids) == processes - 1
        assert gone(pids)


def test_another_number_of_processes_is_one_line(tmp_path, manifest):
    spec = {**CLASSIFY, "micro_batch": 12}
    runner = Runner(tmp_path, "classify", manifest, spec, processes=2)
    assert runner.start(save_at=[2], kill_at_step=3) == KILLED
    for processes, expected in (
        (1, "not 1"),
        (2, "saved by 3 process(es), one per GPU, not 2"),
    ):
        again = Runner(tmp_path, "classify", manifest, spec, processes)
        again.output = tmp_path / f"{processes}.txt"
        if processes == 2:
            saved_by(again, 3)
        process = again.begin()
        process.join(300)
        assert process.exitcode == 1
        assert again.output.read_text().count("\n") == 1
        assert expected in again.output.read_text()


def saved_by(runner: Runner, processes: int) -> None:
    with State(runner.folder) as state:
        state.save({**state.load(), "processes": processes})


def spawned(pid: int) -> list[int]:
    """The data-parallel processes that a process has started."""
    children = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [n for n in children if "spawn_main" in Path(f"/proc/{n}/cmdline").read_text()]


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="child processes are looked up in Linux's /proc"
)
def test_a_lost_process_ends_the_run_with_an_error(tmp_path, manifest):
    """The processes are started by spawn here, as `ghostgrad run` starts them."""
    spec = {**CLASSIFY, "micro_batch": 12, "length": 10**6, "eval_every": 0, "probes": []}
    runner = Runner(tmp_path, "classify", manifest, spec, 2)
    with runner.output.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ghostgrad", *runner.arguments],
            env={**os.environ, **runner.env},
            stdout=output,
            stderr=output,
        )
    while "steps done" not in runner.output.read_text():
        assert process.poll() is None, runner.output.read_text()
        time.sleep(0.1)
    (child,) = spawned(process.pid)
    os.kill(child, signal.SIGKILL)
    assert process.wait(60) == 1
    lines = runner.output.read_text().splitlines()
    assert lines[-1] == "ghostgrad: a data-parallel process ended (exit code -9); see above"
    assert "Traceback" not in "".join(lines)
    assert gone([child])


def test_the_environment_records_the_number_of_processes(tmp_path, manifest):
    runner = Runner(
        tmp_path,
        "classify",
        manifest,
        {**CLASSIFY, "micro_batch": 12, "length": 1, "probes": []},
        2,
    )
    assert runner.start() == 0
    (environment,) = json.loads((runner.out / "env.json").read_text())
    assert environment["device"] == "2 x cpu, 1 thread(s)"
