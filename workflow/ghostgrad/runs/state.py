"""A run's private folder: checkpoints, lock, log, progress and the finished record.

    <state_dir>/<scale>/<experiment>/<variant>-s<seed>@<hash8>/
        checkpoint, checkpoint.old    a line with the SHA-256 of the rest, then a torch.save'd dict
        lock                          locked (flock) by the one process that works on this run
        ../.<variant>-s<seed>.newest  the folder of the latest start; a process that computes an
                                      older spec publishes nothing
        progress.json                 done and total, for `ghostgrad status`
        log.txt                       the log of record, appended to by every process
        environment.json              one record per process start
        record/                       the finished files; they stay, so that a lost run directory is
                                      published again

Snakemake does not know this folder: it deletes a job's declared outputs when the job starts or
fails.

How a run stops: SIGTERM, SIGINT, SIGUSR2 or the stop-file only set a `StopRequest`. The task asks
it between two steps (`State.checkpoint_if_due`), which saves a checkpoint and raises `Stopped`;
`tasks.run.execute` logs that, and the command line exits with EXIT_STOPPED. Started again, the run
loads the checkpoint (`State.load`) and goes on. `detect` also asks before each test image, tasks of
random repeats ask between their chunks, and `weights` never asks. A process that waits for the lock
stops without saving, and the workers and the processes of further GPUs leave the signals to
process 0. On a cluster, the executor's `task.py` sends SIGTERM and, if the job has not ended by its
deadline, SIGKILL.
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
from types import FrameType
from typing import IO, Any, TextIO

from ghostgrad.files import write_atomically
from ghostgrad.runs.record import FILES, OPTIONAL_FILES, Record, publish

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
STOP_FILE = "SNAKEMAKE_SUBMITIT_STOP_FILE"
# The exit code of a run that has saved itself, EX_TEMPFAIL of sysexits.h: "try again later". It is
# neither 0, for the outputs do not exist, nor 1, for nothing is wrong.
EXIT_STOPPED = 75
CHECKPOINT_MINUTES = 5.0  # between two checkpoints, by default


class Stopped(Exception):
    """The run was asked to stop and has saved itself."""


class StopRequest:
    """A request to stop: false until a stop signal arrives or the stop-file appears, then true.

    It is an object, not a flag, because the stop-file has to be looked for whenever it is asked.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self.file = os.environ.get(STOP_FILE)

    def listen(self) -> StopRequest:
        """Install the signal handlers; only the main thread of a process may."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Nothing else: the handler may interrupt a step, or the writing of a checkpoint.
        self.signal = signal.Signals(number).name

    def __bool__(self) -> bool:
        if self.signal is not None:
            return True
        # os.path, which is quicker than pathlib: this is asked at every step.
        return bool(self.file and os.path.exists(self.file))  # noqa: PTH110

    @property
    def reason(self) -> str:
        """The signal's name, or the stop-file."""
        return self.signal or f"the stop-file {self.file}"


def peak_mb(maxrss: int) -> int:
    """The peak memory of this process in MiB; `maxrss` is what getrusage reports.

    On Linux that includes the process that this one was forked from, so the kernel's own mark is
    used where there is one.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if mark := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(mark[1]) // 2**10
    return maxrss // (2**20 if sys.platform == "darwin" else 2**10)  # macOS: bytes; Linux: KiB


class State:
    """The state folder of one run, locked while the context lasts."""

    def __init__(
        self,
        folder: Path,
        stop: StopRequest | None = None,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ):
        self.folder = folder
        self.stop = StopRequest() if stop is None else stop  # `or` would replace it: it is false
        self.period = 60 * checkpoint_minutes  # seconds between checkpoints
        self._lock: IO[str] | None = None
        self._saved_at = time.monotonic()
        self._reported_at = 0.0
        self._environments: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def __enter__(self) -> State:
        # The kernel releases a flock when its process ends in any way, SIGKILL included: a lock
        # cannot be left behind, as a file that merely exists could be.
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("a+")
        is_waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not is_waiting:
                    log.info("another process works on this run; waiting for it")
                    is_waiting = True
                if self.stop:
                    raise Stopped(self.stop.reason) from None
                time.sleep(0.2)  # not a blocking flock, which a stop-file could not end
        self._lock = lock
        self._saved_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def _newest(self) -> Iterator[TextIO]:
        """The file that names the newest start of this run, whatever its spec, under a lock."""
        path = self.folder.with_name(f".{self.folder.name.partition('@')[0]}.newest")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            yield stream

    def mark_as_newest(self) -> None:
        """Let only processes with this spec publish from now on. A process that a killed Snakemake
        left behind may still compute an older one, and would overwrite the newer result."""
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
        """The folder of the finished files."""
        return self.folder / "record"

    @property
    def finished(self) -> bool:
        """True if the record has every file that it must have."""
        return all((self.record / name).exists() for name in FILES if name not in OPTIONAL_FILES)

    def save(self, payload: Mapping[str, Any]) -> None:
        """Write a checkpoint; the one before it stays as checkpoint.old."""
        import torch

        buffer = io.BytesIO()
        torch.save(dict(payload), buffer)
        data = buffer.getvalue()
        # The file is written aside, synchronized and renamed: at every moment, `checkpoint` or
        # `checkpoint.old` is whole, even if the machine loses power. The older one is kept for a
        # file that the file system damages later, which the digest shows.
        digest = hashlib.sha256(data).hexdigest().encode() + b"\n"
        older = self.folder / "checkpoint.old"
        write_atomically(self.folder / "checkpoint", digest, data, previous=older)
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None; a damaged one is passed over with a
        warning."""
        import torch

        for name in ("checkpoint", "checkpoint.old"):
            path = self.folder / name
            if not path.exists():
                continue
            digest, _, data = path.read_bytes().partition(b"\n")
            if hashlib.sha256(data).hexdigest().encode() != digest:
                older = "starting over" if name == "checkpoint.old" else "trying the one before it"
                log.warning("%s is damaged (checksum); %s", path, older)
                path.unlink()  # or the next save would replace the good checkpoint.old by it
                continue
            payload: dict[str, Any] = torch.load(
                io.BytesIO(data), map_location="cpu", weights_only=True
            )
            return payload
        return None

    def checkpoint_if_due(
        self, payload: Callable[[], Mapping[str, Any]], done: int, total: int
    ) -> None:
        """Save what `payload` returns if the time for it has come; to be called between two steps.

        Where the run is asked to stop, it saves in any case and raises Stopped.
        """
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
        progress = {"done": done, "total": total, "time": time.time()}
        write_atomically(self.folder / "progress.json", json.dumps(progress), durable=False)

    def start(self, environment: Mapping[str, Any]) -> None:
        """Append this process's environment, and start to measure its costs."""
        self._environments = [*self.environments(), dict(environment)]
        self._started = time.monotonic()
        self._write_environments()

    def environments(self) -> list[dict[str, Any]]:
        """One record per process start; empty where the file is missing or damaged."""
        path = self.folder / "environment.json"
        with contextlib.suppress(OSError, ValueError):
            if isinstance(records := json.loads(path.read_text()), list):
                return records
        return []

    def _write_environments(self) -> None:
        text = json.dumps(self._environments, indent=1) + "\n"
        write_atomically(self.folder / "environment.json", text)

    def add_costs(self, gpus: int, gpu_peak_mb: int | None) -> None:
        """Add this process's costs to its environment: wall and CPU seconds, GPU seconds of the
        `gpus` that it held, peak memory in MiB."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.monotonic() - self._started
        self._environments[-1].update(
            wall_s=round(wall, 2),
            gpu_s=round(gpus * wall, 2),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
            peak_mb=peak_mb(usage.ru_maxrss),
            gpu_peak_mb=gpu_peak_mb,
        )
        self._write_environments()

    def finish(self, record: Record, spec: Mapping[str, Any], weights: bool = False) -> None:
        """Turn the run into its record, with its weights if they are asked for; from now on it is
        never computed again."""
        # A folder cannot be replaced by another in one step, so it is complete before its rename,
        # and a folder of that name counts as finished only with all of its files.
        building = self.folder / ".record"
        shutil.rmtree(building, ignore_errors=True)
        for name, text in record.files(spec).items():
            write_atomically(building / name, text)
        if weights:
            import torch

            status = record.metrics["status"]
            buffer = io.BytesIO()
            torch.save({"spec": dict(spec), "status": status, "state": record.weights}, buffer)
            write_atomically(building / "weights.pt", buffer.getvalue())
        shutil.rmtree(self.record, ignore_errors=True)  # one that lacks a file
        building.rename(self.record)

    def publish(self, target: Path) -> None:
        """Copy the record and the environments to the run directory, then delete the checkpoints.

        Raises Stopped if the run has been started with another spec since.
        """
        shutil.copyfile(self.folder / "environment.json", self.record / "env.json")
        with self._newest() as stream:  # locked, so that no newer start gets between the two
            if stream.read() not in ("", self.folder.name):
                raise Stopped("a later start with another spec")
            publish(self.record, target)
        for name in ("checkpoint", "checkpoint.old", ".checkpoint", "progress.json"):
            (self.folder / name).unlink(missing_ok=True)
