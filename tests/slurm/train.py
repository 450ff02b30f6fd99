"""A job that trains from checkpoints: train.py OUT STEPS SECONDS EVENTS [MEGABYTES].

It appends begin, resume, saved and end to EVENTS/<name>.log, where Snakemake does not touch them,
and two_alive if another process of the same job is still running. Its result depends on every step
in order. On SIGTERM, or when the stop file exists, it saves its state and exits.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

out, steps, seconds, events = (
    Path(sys.argv[1]),
    int(sys.argv[2]),
    float(sys.argv[3]),
    Path(sys.argv[4]),
)
ballast = bytearray(2**20 * int(sys.argv[5]) if len(sys.argv) > 5 else 0)
ballast[:: 2**12] = b"\1" * len(ballast[:: 2**12])
state, log = (
    events / f"{out.stem}.json",
    os.open(events / f"{out.stem}.log", os.O_APPEND | os.O_CREAT | os.O_WRONLY),
)
stop_file = Path(os.environ.get("SNAKEMAKE_SUBMITIT_STOP_FILE", "/nonexistent"))
asked = False


def on_term(*_: object) -> None:
    global asked
    asked = True


def say(what: str) -> None:
    os.write(log, f"{time.time():.3f} {what} {os.getpid()}\n".encode())


def save(step: int, value: str) -> None:
    temporary = state.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps([step, value]))
    temporary.replace(state)


signal.signal(signal.SIGTERM, on_term)
lock = (events / f"{out.stem}.lock").open("w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    say("two_alive")
    sys.exit(3)
step, value = json.loads(state.read_text()) if state.exists() else (0, out.stem)
say(f"resume:{step}" if step else "begin")
while step < steps:
    if asked or stop_file.exists():
        save(step, value)
        say(f"saved:{step}")
        sys.exit(1)
    time.sleep(seconds)
    step, value = step + 1, hashlib.sha256(f"{value} {step}".encode()).hexdigest()
    if step % 5 == 0 or step == steps:
        save(step, value)
out.write_text(f"{value}\n")
say("end")
