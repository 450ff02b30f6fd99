"""Run `ghostgrad …` and SIGKILL it from inside at a chosen place: python killing.py PLAN run --spec … --out …

PLAN is JSON: `save_at` (steps that are checkpointed; no others are), and one of `kill_at_step`, `kill_in_write` and
`kill_in_rename` (of the n-th checkpoint), `kill_before_publishing` (a file's name).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ghostgrad import record, state
from ghostgrad.cli import main

plan = json.loads(sys.argv.pop(1))
saves = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file that takes half of the checkpoint's data, then the process dies."""

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


def pause(self, payload, done, total, original=state.State.pause):
    self.period = 0 if done in plan.get("save_at", []) else 1e9
    if done == plan.get("kill_at_step"):
        die()
    original(self, payload, done, total)


def save(self, payload, original=state.State.save):
    global saves
    saves += 1
    original(self, payload)


def open_path(self, *arguments, original=Path.open, **options):
    stream = original(self, *arguments, **options)
    inside = self.name == ".checkpoint" and saves == plan.get("kill_in_write")
    return HalfWritten(stream) if inside else stream


def replace(self, target, original=Path.replace):
    if self.name == ".checkpoint" and saves == plan.get("kill_in_rename"):
        die()  # the older checkpoint has been moved aside, the new one is not in place
    if record_is_out(target) and Path(target).name == plan.get("kill_before_publishing"):
        die()
    return original(self, target)


def record_is_out(target) -> bool:
    return Path(target).parent.name != ".record" and Path(target).name in record.FILES


state.State.pause, state.State.save = pause, save
Path.open, Path.replace = open_path, replace
main()
