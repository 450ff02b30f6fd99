"""A run's private folder: checkpoints, lock, log, progress and the finished record.

    <state_dir>/<scale>/<experiment>/<variant>-s<seed>@<hash8>/
        checkpoint, checkpoint.old   digest line, then a torch.save'd dict; written aside and renamed
        lock                         held (flock) by the one process that works on this run
        ../.<variant>-s<seed>.newest the folder of the latest start; a process of an older spec publishes nothing
        progress.json                done and total, for `ghostgrad status`
        log.txt                      the log of record, appended to by every process
        environment.json             one record per process start
        record/                      the finished files; they stay, so that a lost run directory is published again

Snakemake never learns of this folder: it deletes a job's declared outputs when the job starts or fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ghostgrad.files import write_atomically
from ghostgrad.runs.record import FILES, OPTIONAL_FILES, Record, publish

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
STOP_FILE = "SNAKEMAKE_SUBMITIT_STOP_FILE"
EXIT_STOPPED = 75  # EX_TEMPFAIL: saved, run it again to go on


class Stopped(Exception):
    """The run was asked to stop and has saved itself."""


class StopRequest:
    """True once SIGTERM, SIGINT or SIGUSR2 arrived or the stop-file appeared."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self.file = os.environ.get(STOP_FILE)

    def listen(self) -> StopRequest:
        for number in STOP_SIGNALS:
            signal.signal(number, self._arrived)
        return self

    def _arrived(self, number: int, _frame: Any) -> None:
        self.signal = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.signal is not None or bool(self.file and os.path.exists(self.file))  # noqa: PTH110  once a step

    @property
    def reason(self) -> str:
        return self.signal or f"the stop-file {self.file}"


def peak_mb(maxrss: int) -> int:
    """Peak memory of this process: the kernel's mark where it keeps one, else getrusage's, in which on Linux the
    process that this one was forked from counts too."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(found[1]) // 2**10
    return maxrss // (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB here


class State:
    """The state folder of one run, locked while it is entered."""

    def __init__(self, folder: Path, stop: StopRequest | None = None, checkpoint_minutes: float = 5):
        self.folder = folder
        self.stop = StopRequest() if stop is None else stop  # one that has not come is false
        self.period = 60 * checkpoint_minutes
        self._lock = None
        self._saved_at = time.monotonic()
        self._reported_at = 0.0

    def __enter__(self) -> State:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("a+")
        waiting = False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    log.info("another process works on this run; waiting for it")
                    waiting = True
                if self.stop:
                    raise Stopped(self.stop.reason) from None
                time.sleep(0.2)
        self._saved_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @contextlib.contextmanager
    def _newest(self) -> Iterator[TextIO]:
        path = self.folder.with_name(f".{self.folder.name.partition('@')[0]}.newest")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            yield stream

    def mark_as_newest(self) -> None:
        """From now on the run directory is to hold this spec: one that a killed Snakemake left behind may still be
        computing an older one."""
        with self._newest() as stream:
            stream.truncate(0)
            stream.write(self.folder.name)

    def busy(self) -> bool:
        """True while another process holds the lock."""
        try:
            with (self.folder / "lock").open("a+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    @property
    def record(self) -> Path:
        return self.folder / "record"

    @property
    def finished(self) -> bool:
        return all((self.record / name).exists() for name in FILES if name not in OPTIONAL_FILES)

    def save(self, payload: Mapping[str, Any]) -> None:
        """Write a checkpoint; the one before it stays as checkpoint.old."""
        import torch

        buffer = io.BytesIO()
        torch.save(dict(payload), buffer)
        data = buffer.getvalue()
        path, old = self.folder / "checkpoint", self.folder / "checkpoint.old"
        temporary = self.folder / ".checkpoint"
        try:
            with temporary.open("wb") as stream:
                stream.write(hashlib.sha256(data).hexdigest().encode() + b"\n")
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None; a damaged one is passed over with a warning."""
        import torch

        for name in ("checkpoint", "checkpoint.old"):
            path = self.folder / name
            if not path.exists():
                continue
            digest, _, data = path.read_bytes().partition(b"\n")
            if hashlib.sha256(data).hexdigest().encode() != digest:
                older = "starting over" if name == "checkpoint.old" else "trying the one before it"
                log.warning("%s is damaged (checksum); %s", path, older)
                path.unlink()  # it must not become checkpoint.old and push out the good one
                continue
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return None

    def checkpoint_if_due(self, payload: Callable[[], Mapping[str, Any]], done: int, total: int) -> None:
        """To be called between two steps: saves when it is time, saves and raises Stopped when asked to stop."""
        now = time.monotonic()
        if self.stop:
            self.save(payload())
            self.report(done, total)
            raise Stopped(self.stop.reason)
        if now - self._saved_at >= self.period:
            self.save(payload())
        if now - self._reported_at >= 10:
            self.report(done, total)

    def report(self, done: int, total: int) -> None:
        """Tell `ghostgrad status` how far the run is."""
        self._reported_at = time.monotonic()
        write_atomically(self.folder / "progress.json", json.dumps({"done": done, "total": total, "time": time.time()}))

    def start(self, environment: Mapping[str, Any]) -> None:
        """Append this process's environment."""
        self._environments = [*self.environments(), dict(environment)]
        self._started = time.monotonic()
        self._write_environments()

    def environments(self) -> list[dict]:
        """One record per process start; empty where the file is missing or damaged."""
        path = self.folder / "environment.json"
        with contextlib.suppress(OSError, ValueError):
            if isinstance(found := json.loads(path.read_text()), list):
                return found
        return []

    def _write_environments(self) -> None:
        write_atomically(self.folder / "environment.json", json.dumps(self._environments, indent=1) + "\n")

    def stopwatch(self, gpus: int = 0, **extra: Any) -> None:
        """Add this process's costs to its environment: wall, CPU and GPU seconds (of GPUs held), peak memory."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.monotonic() - self._started
        self._environments[-1].update(
            wall_s=round(wall, 2),
            gpu_s=round(gpus * wall, 2),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
            peak_mb=peak_mb(usage.ru_maxrss),
            **extra,
        )
        self._write_environments()

    def finish(self, record: Record, spec: Mapping[str, Any], weights: bool = False) -> None:
        """Turn the run into its record, with its weights where they are asked for; from here on it is never computed
        again."""
        building = self.folder / ".record"
        shutil.rmtree(building, ignore_errors=True)
        for name, text in record.files(spec).items():
            write_atomically(building / name, text)
        if weights:
            import torch

            buffer = io.BytesIO()
            torch.save({"spec": dict(spec), "status": record.metrics["status"], "state": record.weights}, buffer)
            write_atomically(building / "weights.pt", buffer.getvalue())
        shutil.rmtree(self.record, ignore_errors=True)  # one that lacks a file
        building.rename(self.record)

    def publish(self, target: Path) -> None:
        """Copy the record and the environments to the run directory, then drop the checkpoints.

        Raises Stopped where the run has been started with another spec since.
        """
        shutil.copyfile(self.folder / "environment.json", self.record / "env.json")
        with self._newest() as stream:
            if stream.read() not in ("", self.folder.name):
                raise Stopped("a later start with another spec")
            publish(self.record, target)
        for name in ("checkpoint", "checkpoint.old", ".checkpoint", "progress.json"):
            (self.folder / name).unlink(missing_ok=True)
