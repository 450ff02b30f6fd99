"""What runs inside a Slurm task: its jobs one after another, each a forked child in a process group of its own.

The task is pickled by submitit and called on the node. With several jobs, or one, Snakemake is imported once and every
job is a fork of that interpreter; a job whose command is more than `python -m snakemake …` runs in a shell instead.

SIGUSR2 (before the time limit, or at preemption): the running job's group is told to save itself, by a signal and by
the file that SNAKEMAKE_SUBMITIT_STOP_FILE names; when the group has gone, the task is requeued under its id. SIGTERM
(scancel, or preemption without warning): the same without the requeue, which is not ours to decide.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import select
import shlex
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.cluster import ClusterError, run
from snakemake_executor_plugin_submitit.ledger import claim, replace

STOP_FILE = "SNAKEMAKE_SUBMITIT_STOP_FILE"
WARM = (
    "snakemake.cli:get_argument_parser",  # reads the plugins, which is most of a start
    "smart_open",
    "snakemake.storage",
    "snakemake.executors.local",
    "snakemake.scheduling.greedy",
    "snakemake.scheduling.milp",
)
MARGIN = 15  # seconds of the warning that are left for the requeue itself
KILL_SECONDS = 10  # for a group to vanish after SIGKILL
TERM_SECONDS = 25  # Slurm's KillWait is 30 s where nobody has changed it


@dataclass
class Work:
    """One job of a task."""

    n: int
    name: str
    command: str
    log: str
    minutes: int = 0  # its own time limit, where it shares the task's with others

    @property
    def arguments(self) -> list[str] | None:
        """Snakemake's arguments, or None where the command is something else than `python -m snakemake …`."""
        try:
            words = shlex.split(self.command)
        except ValueError:
            return None
        plain = words[1:3] == ["-m", "snakemake"] and not {"&&", "||", ";", "|"} & set(words)
        return words[3:] if plain else None


@dataclass
class Task:
    """Called by submitit on the node; `checkpoint` makes submitit requeue it as it is."""

    folder: str
    index: int
    jobs: list[Work]
    cwd: str
    minutes: int
    signal_delay: int = 90
    stop_signal: str = "TERM"
    max_requeues: int = 100
    preload: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    requeues: int = 0  # at the time limit

    def __call__(self) -> str:
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return "a job runs once, whatever srun makes of its tasks"  # with --ntasks-per-gpu more than asked for
        self._asked = self._ending = False
        self._saved.unlink(missing_ok=True)
        with Signals() as signals:
            if any(work.arguments is not None for work in self.jobs):
                self._warm()
            for work in self.jobs:
                if self._asked or self._ending or self._over(work) or not self._claim(work):
                    continue
                self._run(work, signals)
        if self._asked and not all(map(self._over, self.jobs)):
            self._requeue(signals)
        return f"{sum(map(self._over, self.jobs))} of {len(self.jobs)} jobs ended"

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    @property
    def _saved(self) -> Path:
        return Path(self.folder, f"task{self.index}.saved")

    def _path(self, work: Work, kind: str) -> Path:
        return Path(self.folder, f"{work.n}.{kind}")

    def _over(self, work: Work) -> bool:
        return self._path(work, "json").exists()

    def _warm(self) -> None:
        for name in (*WARM, *self.preload):
            module, _, function = name.partition(":")
            try:
                found = importlib.import_module(module)
                if function:
                    getattr(found, function)()
            except Exception as error:  # the jobs go without, or say it themselves
                print(f"submitit: {name} was not loaded: {type(error).__name__}: {error}", file=sys.stderr)
        gc.freeze()  # a collection in a fork would copy every page

    def _claim(self, work: Work) -> bool:
        """False for a job that has been withdrawn. One that an earlier life of this task began is ours still."""
        if claim(Path(self.folder), work.n, "task"):
            return True
        claimed = _read(str(self._path(work, "claim")))
        if claimed.startswith("withdrawn"):
            return False
        end_leftovers(claimed)
        return True

    def _run(self, work: Work, signals: Signals) -> None:
        began, killed = time.time(), _oom_kills()
        if self._path(work, "cancel").exists():
            self._note(work, 1, began)
            return
        self._path(work, "stop").unlink(missing_ok=True)
        try:
            Path(work.log).parent.mkdir(parents=True, exist_ok=True)
            Path(work.log).touch()
        except OSError as error:
            self._note(work, 1, began, reason=f"its log cannot be written: {error.strerror}: {work.log}")
            return
        group = signals.fork()
        if group == 0:
            self._child(work)
        with contextlib.suppress(OSError):  # whoever of the two is first: a signal to the group must find it
            os.setpgid(group, group)
        replace(self._path(work, "claim"), f"task {socket.gethostname()} {group} {_start_time(group)}")
        status, usage, late = self._wait(work, group, signals)
        with self._path(work, "lives").open("a") as stream:
            stream.write(f"{began:.2f} {time.time():.2f}\n")
        code = os.waitstatus_to_exitcode(status)
        if code and (self._asked or self._ending) and not self._path(work, "cancel").exists():
            return  # it has saved itself, or was taken away: no end of its own
        out_of_memory = bool(code) and _oom_kills() > killed
        reason = f"ran into its time limit of {work.minutes} min" if late and code else ""
        self._note(work, code, began, usage, reason, out_of_memory, late)

    def _note(
        self,
        work: Work,
        code: int,
        began: float,
        usage: Any = None,
        reason: str = "",
        out_of_memory: bool = False,
        late: bool = False,
    ) -> None:
        lines = map(str.split, _read(str(self._path(work, "lives"))).splitlines())
        lives = [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]
        result = {
            "rc": code,
            "began": min([began, *(first for first, _ in lives)]),
            "seconds": round(sum(last - first for first, last in lives), 2),
            "lives": max(1, len(lives)),
            "rss_mb": usage.ru_maxrss // 1024 if usage else 0,
            "node": socket.gethostname(),
            "reason": reason,
            "out_of_memory": out_of_memory,
            "late": late,
        }
        replace(self._path(work, "json"), json.dumps(result))

    def _wait(self, work: Work, group: int, signals: Signals) -> tuple[int, Any, bool]:
        """Until the child has ended and, where it was told to stop, its whole group; whether it ran out of its time."""
        status, usage, deadline, late = None, None, None, False
        limit = time.monotonic() + 60 * work.minutes if work.minutes else float("inf")
        while True:
            for number in signals.wait(0.2 if deadline else 1.0):
                if number == signal.SIGUSR2:
                    self._asked = True
                elif number in (signal.SIGTERM, signal.SIGINT):
                    self._ending = True
            late = late or time.monotonic() > limit
            if deadline is None and (self._asked or self._ending or late or self._path(work, "cancel").exists()):
                wait = max(5, self.signal_delay - MARGIN) if self._asked else TERM_SECONDS
                deadline = time.time() + wait
                self._path(work, "stop").touch()
                gentle = f"SIG{self.stop_signal}" if self._asked or late else "SIGTERM"
                if gentle != "SIGnone":
                    _kill_group(group, getattr(signal, gentle))
            if status is None:
                pid, found, resources = os.wait4(group, os.WNOHANG)
                if pid:
                    status, usage = found, resources
            if status is not None and (deadline is None or not _group_lives(group)):
                break
            if deadline is not None and time.time() > deadline:
                _kill_group(group, signal.SIGKILL)
                if status is not None and time.time() > deadline + KILL_SECONDS:
                    break  # what is left of the group cannot be killed
        _kill_group(group, signal.SIGKILL)  # what it left behind
        return status, usage, late

    def _child(self, work: Work) -> None:
        """In the fork: become the job. Never returns."""
        code = 1
        try:
            os.setpgid(0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGCONT):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
            _die_with_parent()
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            log = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, nothing), (1, log), (2, log)):
                os.dup2(source, target)
            os.chdir(self.cwd)
            os.environ.update(self.environment)
            os.environ[STOP_FILE] = str(self._path(work, "stop"))
            arguments = work.arguments
            if arguments is None:
                os.execv("/bin/bash", ["bash", "-c", work.command])
            code = _snakemake(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                import logging

                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _requeue(self, signals: Signals) -> None:
        """Back into the queue under the same id, by submitit's handler, whose `checkpoint` pickles this task."""
        self.requeues += not _preempted()
        if self.requeues > self.max_requeues:
            for work in self.jobs:
                if not self._over(work) and self._path(work, "claim").exists():
                    times = f"{self.requeues} times (--submitit-max-requeues)"
                    reason = f"ran into its time limit of {self.minutes} min {times}"
                    self._note(work, 1, time.time(), reason=reason)
            return
        # Should the requeue fail, the controller submits what is left, and charges nobody.
        replace(self._saved, str(self.requeues))
        stale = Path(self.folder).glob("*.save_tmp*")
        for path in stale:  # of a checkpoint that was killed; submitit would refuse to write another
            path.unlink(missing_ok=True)
        handler = signals.previous[signal.SIGUSR2]
        if callable(handler):
            handler(signal.SIGUSR2, None)


def _oom_kills() -> int:
    """How many processes of this task's cgroup the kernel has killed for memory: they say no more than "Killed"."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in (f"memory{path}/memory.oom_control", f"{path.lstrip('/')}/memory.events"):
            if ("memory" in controllers.split(",")) == name.startswith("memory/"):
                found = re.search(r"^oom_kill (\d+)", _read(f"/sys/fs/cgroup/{name}"), re.MULTILINE)
                if found:
                    return int(found[1])
    return 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _preempted() -> bool:
    """True where Slurm takes this task's node for another job; else its warning is that of the time limit."""
    try:
        said = run("scontrol", "-o", "show", "job", os.environ["SLURM_JOB_ID"])
    except (ClusterError, KeyError):
        return False
    return bool(re.search(r"\bPreemptTime=\d", said))


def _snakemake(arguments: list[str]) -> int:
    from snakemake.cli import main
    from snakemake.persistence import PersistenceBase

    async def left_to_the_controller(self: Any, job: Any) -> None:
        """It unmarks the outputs and records what made them. Were they unmarked here, a job that ends while no
        controller lives would never be asked for again, and have no record."""

    PersistenceBase.finished = left_to_the_controller
    sys.argv = ["snakemake", *arguments]
    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


class Signals:
    """Signals that wake the task up: they come out of `wait`, in a place where something can be done about them."""

    NUMBERS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGCONT)

    def __enter__(self) -> Signals:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        self._write, self._wakeup = write, signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.previous = {number: signal.signal(number, lambda *_: None) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self.previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> set[int]:
        """The signals that have come, after at most so many seconds."""
        select.select([self._read], [], [], seconds)
        try:
            return set(os.read(self._read, 512))
        except BlockingIOError:
            return set()

    def fork(self) -> int:
        """os.fork with every signal held back in the child, until it has its own handlers."""
        sys.stdout.flush()
        sys.stderr.flush()
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        return pid


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_leftovers(claim: str) -> None:
    """Kill the processes of a job on this machine that have outlived its task: the group that its claim names, whose
    leader is that process still or has gone."""
    words = claim.split()
    if len(words) == 4 and words[1] == socket.gethostname() and _start_time(int(words[2])) in (words[3], ""):
        _kill_group(int(words[2]), signal.SIGKILL)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _start_time(pid: int) -> str:
    """Of a process, in clock ticks; tells it from a later one with the same number."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if fields else ""
