"""Run `ghostgrad …` in a separate process and kill or stop it from inside at a chosen place.

Every process is forked from a server that has imported torch, which saves some seconds each. What
happens to it is described by a plan, with these keys:

save_at                 the steps at which a checkpoint is saved, instead of at an interval
kill_at_step            SIGKILL at this step, before its checkpoint is saved
kill_in_step            SIGKILL in this step of a training, between gradient and update
kill_in_write           SIGKILL in the middle of writing the n-th checkpoint
kill_in_rename          SIGKILL before the n-th checkpoint is renamed to its final name
kill_before_publishing  SIGKILL before this file of the record is published
signal_at_step          the step at which the process receives `signal`
signal_at_pause         the same, as a count of the calls of `checkpoint_if_due`
wait_for                a file that must exist before a step is done
followers               a file for the process ids of the other processes of a data-parallel run

In a data-parallel run, the plan applies to process 0.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

from ghostgrad.cli.commands import main
from ghostgrad.runs import record, state
from ghostgrad.tasks import blocks
from ghostgrad.training import distributed as parallel
from ghostgrad.training import engine

context = multiprocessing.get_context("forkserver")
# Modules that every process would otherwise import when it makes its first optimizer and models,
# which takes some seconds.
LATE = [
    "torch.optim.sgd",
    "torch._dynamo",
    "ghostgrad.models.preact_resnet",
    "ghostgrad.models.plain",
    "ghostgrad.tasks.run",
]
context.set_forkserver_preload(["tests.unit.killing", "ghostgrad.tasks.classify", *LATE])
STEPS = 24  # of both runs
SPECS = {
    "classify": {
        "task": "classify",
        "model": "preact_resnet",
        "data": "digits",
        "blocks": 2,
        "filters": 4,
        "init": "xavier_uniform",
        "augment": ["crop", "flip"],
        "pad": 1,
        "standardize": "per_image",
        "batch": 16,
        "length": STEPS,
        "lr": 0.05,
        "lr_boundaries": [15],
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "eval_every": 7,
        "probes": ["gradients", "activations", "bn_offset", "weight_norm"],
        "probe_at": [0, 3, 13, 24],
        "seed": 3,
    },
    "simulate": {
        "task": "simulate",
        "net": "residual",
        "depth": 6,
        "width": 64,
        "batch": 32,
        "repeats": STEPS,
        "seed": 2,
    },
}
PUBLISHED_FILES = ("spec.json", "metrics.csv", "series.csv", "probes.csv")
KILLED = -signal.SIGKILL
plan: dict = {}
saves = pauses = 0
inside = False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file that writes half of the checkpoint's data and then kills the process."""

    def __init__(self, stream):
        self.stream = stream
        self.writes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.writes == 2:
            self.stream.write(data[: len(data) // 2])
            self.stream.flush()
            os.fsync(self.stream.fileno())
            die()
        self.stream.write(data)


def checkpoint_if_due(self, payload, done, total, original=state.State.checkpoint_if_due):
    global inside, pauses
    pauses += 1
    inside = done == plan.get("kill_in_step")
    if "followers" in plan:
        Path(plan["followers"]).write_text(
            " ".join(str(process.pid) for process in multiprocessing.active_children())
        )
    self.period = 0 if done in plan.get("save_at", []) else 1e9
    if done == plan.get("kill_at_step"):
        die()
    if done == plan.get("signal_at_step") or pauses == plan.get("signal_at_pause"):
        os.kill(os.getpid(), plan["signal"])
    while "wait_for" in plan and not Path(plan["wait_for"]).exists():
        time.sleep(0.02)
    original(self, payload, done, total)


def save(self, payload, original=state.State.save):
    global saves
    saves += 1
    original(self, payload)


def backward(self, x, y, step, original=engine.Network.forward_backward):
    result = original(self, x, y, step)
    if inside:
        die()
    return result


def open_path(self, *arguments, original=Path.open, **options):
    stream = original(self, *arguments, **options)
    inside = self.name == ".checkpoint" and saves == plan.get("kill_in_write")
    return HalfWritten(stream) if inside else stream


def replace(self, target, original=Path.replace):
    if self.name == ".checkpoint" and saves == plan.get("kill_in_rename"):
        die()  # the older checkpoint has been moved aside, the new one is not in place yet
    if record_is_out(target) and Path(target).name == plan.get("kill_before_publishing"):
        die()
    return original(self, target)


def record_is_out(target) -> bool:
    return Path(target).parent.name != ".record" and Path(target).name in record.FILES


def child(own_plan: dict, arguments: list[str], env: dict[str, str], output: str) -> None:
    """The main function of the forked process: patches the library, then runs `ghostgrad
    <arguments>`."""
    plan.update(own_plan)
    os.environ.update(env)
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    # One repeat at a time, so that a simulation has as many steps as repeats.
    blocks.MEMORY["cpu"] = 1
    engine.Network.forward_backward = backward
    other_context = parallel.mp.get_context
    parallel.mp.get_context = lambda method: context if method == "spawn" else other_context(method)
    state.State.checkpoint_if_due, state.State.save = checkpoint_if_due, save
    Path.open, Path.replace = open_path, replace
    sys.argv = ["ghostgrad", *arguments]
    main()


class Runner:
    """Starts processes for one run with a separate state folder."""

    def __init__(
        self,
        folder: Path,
        task: str,
        manifest: Path,
        spec: dict | None = None,
        processes: int = 1,
        more: tuple[Path, ...] = (),
    ):
        self.out = folder / "results" / "smoke" / "runs" / "experiment" / "variant-s0"
        self.state_root = folder / "state"
        self.output = folder / "output.txt"
        inputs = [str(path) for path in (manifest, *more)] if task != "simulate" else []
        self.arguments = [
            "run",
            *inputs,
            "--spec",
            json.dumps(spec or SPECS[task]),
            "--out",
            str(self.out),
        ]
        self.arguments += ["--gpus", str(processes)] if processes > 1 else []
        self.env = {"GHOSTGRAD_STATE_DIR": str(self.state_root), "GHOSTGRAD_DEVICE": "cpu"}

    def begin(self, **plan):
        # A forked process would otherwise have the environment with which the fork server started.
        env = {
            name: value for name, value in os.environ.items() if name.startswith("GHOSTGRAD_")
        } | self.env
        process = context.Process(target=child, args=(plan, self.arguments, env, str(self.output)))
        process.start()
        return process

    def end(self, process) -> int:
        process.join(300)
        assert process.exitcode in (0, 75, KILLED), self.output.read_text()
        return process.exitcode

    def start(self, **plan) -> int:
        return self.end(self.begin(**plan))

    @property
    def folder(self) -> Path:
        (folder,) = self.state_root.rglob("variant-s0@*")
        return folder

    @property
    def starts(self) -> list[int]:
        """The step from which each process that computed started or resumed the run."""
        text = (self.folder / "log.txt").read_text()
        return [int(n) for n in re.findall(r"(\d+) of \d+ (?:steps|repeats) done", text)]

    @property
    def files(self) -> dict[str, bytes]:
        return {name: (self.out / name).read_bytes() for name in PUBLISHED_FILES}
