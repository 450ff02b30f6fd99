"""What runs inside a Slurm task: its jobs one after another, each in its own process group.

submitit pickles the Task and calls it on the node. Snakemake is imported once, and every job is a
fork of that interpreter; a job whose command is more than `python -m snakemake …` runs in a shell
instead.

On SIGUSR2, which Slurm sends before the time limit or at a preemption, the process group of the
running job is asked to save itself, by a signal and by the file that SNAKEMAKE_SUBMITIT_STOP_FILE
names; when the group has exited, the task is requeued under its id. On SIGTERM, which `scancel` and
a preemption without warning send, the job is asked in the same way, and the task is not requeued:
whether it comes back is for Slurm and the controller to decide.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from snakemake_executor_plugin_submitit.cluster import ClusterError
from snakemake_executor_plugin_submitit.ledger import JobResult, claim_job, write_atomically
from snakemake_executor_plugin_submitit.processes import (
    SignalQueue,
    claim_of_group,
    count_oom_kills,
    end_leftovers,
    fork_with_signals_blocked,
    group_is_alive,
    kill_group,
    read_text,
    reset_signals,
)
from snakemake_executor_plugin_submitit.slurm_commands import run_command
from snakemake_executor_plugin_submitit.snakemake_call import (
    preload_modules,
    run_snakemake,
    snakemake_arguments,
)

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

STOP_FILE = "SNAKEMAKE_SUBMITIT_STOP_FILE"
REQUEUE_SECONDS = 15  # of the warning that are kept for the requeue itself
SHORTEST_SAVE_SECONDS = 5
TERM_SECONDS = 25  # Slurm's default KillWait is 30 s, after which it kills the task
KILL_SECONDS = 10  # for a group to vanish after SIGKILL


@dataclass
class PackedJob:
    """One job of a task."""

    number: int  # within the batch
    name: str
    command: str
    log: str
    minutes: int = 0  # the job's own time limit where it shares the task with others; 0 for none


class Phase(enum.Enum):
    """The state of a started job, see `Task._wait`."""

    RUNNING = enum.auto()  # nothing has asked it to stop
    ASKED = enum.auto()  # it has been asked to stop, and has until a deadline
    KILLED = enum.auto()  # the deadline has passed, and its group gets SIGKILL


@dataclass
class ChildExit:
    """How the child process of a job exited."""

    exit_code: int
    max_rss_mb: int
    hit_own_limit: bool


@dataclass
class Task:
    """Called by submitit on the node. `checkpoint` makes submitit requeue the task as it is."""

    folder: str  # of the batch
    index: int  # within the array
    jobs: list[PackedJob]
    cwd: str
    minutes: int
    signal_delay: int  # seconds before the limit at which the jobs are asked to save themselves
    stop_signal: str
    max_requeues: int
    preload: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # of the jobs
    requeues: int = 0  # at the time limit

    def __call__(self) -> str:
        # With --ntasks-per-gpu, srun may start more processes than the one it is asked for. A job
        # must run once.
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return "only the first process of a task runs its jobs"
        self._save_requested = False  # SIGUSR2 has arrived
        self._termination_requested = False  # SIGTERM has arrived
        self._saved_marker.unlink(missing_ok=True)
        with SignalQueue() as signals:
            if any(snakemake_arguments(job.command) is not None for job in self.jobs):
                preload_modules(self.preload)
            for job in self.jobs:
                if self._save_requested or self._termination_requested:
                    break
                if not self._has_result(job) and self._claim(job):
                    self._run(job, signals)
        # The queue of signals is closed: submitit's own handler is in place again for the requeue.
        if self._save_requested and not all(map(self._has_result, self.jobs)):
            self._requeue(signals)
        return f"{sum(map(self._has_result, self.jobs))} of {len(self.jobs)} jobs ended"

    def checkpoint(self) -> DelayedSubmission:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    @property
    def _saved_marker(self) -> Path:
        return Path(self.folder, f"task{self.index}.saved")

    def _path(self, job: PackedJob, kind: str) -> Path:
        return Path(self.folder, f"{job.number}.{kind}")

    def _has_result(self, job: PackedJob) -> bool:
        return self._path(job, "json").exists()

    def _claim(self, job: PackedJob) -> bool:
        """Return False for a job that a controller has withdrawn.

        A job that an earlier start of this task has claimed is still this task's: it is resumed
        after a requeue. Where Slurm tracks processes by their parents, some of that start may have
        survived, so what the claim names is killed first.
        """
        if claim_job(Path(self.folder), job.number, "task"):
            return True
        claim = read_text(self._path(job, "claim"))
        if claim.startswith("withdrawn"):
            return False
        end_leftovers(claim)
        return True

    def _run(self, job: PackedJob, signals: SignalQueue) -> None:
        """Run one job to its end and write its result, unless it is to be resumed later."""
        started_at = time.time()
        oom_kills = count_oom_kills()
        if self._path(job, "cancel").exists():
            self._write_result(job, 1, started_at)
            return
        self._path(job, "stop").unlink(missing_ok=True)  # of the start before the requeue
        if problem := _create_log(Path(job.log)):
            self._write_result(job, 1, started_at, reason=problem)
            return
        group = fork_with_signals_blocked()
        if group == 0:
            self._become_job(job)
        # Parent and child both do this; whoever comes first, a signal to the group finds it.
        with contextlib.suppress(OSError):
            os.setpgid(group, group)
        # From now on `end_leftovers` finds the group, should this process be killed.
        write_atomically(self._path(job, "claim"), claim_of_group(group))
        child = self._wait(job, group, signals)
        with self._path(job, "starts").open("a") as stream:
            stream.write(f"{started_at:.2f} {time.time():.2f}\n")
        was_stopped = self._save_requested or self._termination_requested
        if child.exit_code and was_stopped and not self._path(job, "cancel").exists():
            # The job has saved itself or was taken away, so its failure is not its own. Without a
            # result it is resumed by this task after the requeue, or submitted again. A job that
            # has succeeded in spite of the signal gets its result all the same.
            return
        reason = ""
        if child.exit_code and child.hit_own_limit:
            reason = f"reached its time limit of {job.minutes} min"
        self._write_result(
            job,
            child.exit_code,
            started_at,
            child,
            reason=reason,
            out_of_memory=bool(child.exit_code) and count_oom_kills() > oom_kills,
        )

    def _write_result(
        self,
        job: PackedJob,
        exit_code: int,
        started_at: float,
        child: ChildExit | None = None,
        reason: str = "",
        out_of_memory: bool = False,
    ) -> None:
        """Write how a job ended; its times are summed over all its starts."""
        lines = [line.split() for line in read_text(self._path(job, "starts")).splitlines()]
        # A line that was cut short, by a kill for example, is left out.
        spans = [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]
        result = JobResult(
            exit_code=exit_code,
            started_at=min([started_at, *(start for start, _ in spans)]),
            seconds=round(sum(stop - start for start, stop in spans), 2),
            starts=max(1, len(spans)),
            max_rss_mb=child.max_rss_mb if child else 0,
            node=socket.gethostname(),
            reason=reason,
            out_of_memory=out_of_memory,
            hit_own_limit=child.hit_own_limit if child else False,
        )
        write_atomically(self._path(job, "json"), json.dumps(asdict(result)))

    def _wait(self, job: PackedJob, group: int, signals: SignalQueue) -> ChildExit:
        """Wait for the end of a started job; ask it to stop, and kill it, where necessary.

        RUNNING becomes ASKED on SIGUSR2, on SIGTERM, at the job's own time limit, or when a
        controller cancels the job. ASKED becomes KILLED when the deadline passes.

        While RUNNING, the job has ended when its child process has. Once it has been asked, the
        whole group must have exited: the signal ends the shell and the Snakemake around a training
        at once, while the training itself is still saving. In KILLED there is a second deadline,
        because a process in uninterruptible sleep does not react to SIGKILL.
        """
        phase = Phase.RUNNING
        deadline = float("inf")
        own_limit = time.monotonic() + 60 * job.minutes if job.minutes else float("inf")
        hit_own_limit = False
        wait_status: int | None = None
        usage: resource.struct_rusage | None = None
        while True:
            self._note_signals(signals.wait(1.0 if phase is Phase.RUNNING else 0.2))
            hit_own_limit = hit_own_limit or time.monotonic() > own_limit
            if phase is Phase.RUNNING and self._must_stop(job, hit_own_limit):
                phase = Phase.ASKED
                deadline = time.monotonic() + self._ask_to_stop(job, group, hit_own_limit)
            if wait_status is None:  # reap the child once; a second wait4 would raise
                pid, status, resources = os.wait4(group, os.WNOHANG)
                if pid:
                    wait_status, usage = status, resources
            if wait_status is not None and (phase is Phase.RUNNING or not group_is_alive(group)):
                break
            if time.monotonic() > deadline:
                phase = Phase.KILLED
                kill_group(group, signal.SIGKILL)
                if wait_status is not None and time.monotonic() > deadline + KILL_SECONDS:
                    break  # what is left of the group cannot be killed
        kill_group(group, signal.SIGKILL)  # background processes that the job has left behind
        exit_code = os.waitstatus_to_exitcode(wait_status)
        return ChildExit(exit_code, usage.ru_maxrss // 1024 if usage else 0, hit_own_limit)

    def _note_signals(self, numbers: set[int]) -> None:
        # SIGCHLD and SIGCONT only end the wait, so that the loop looks at the child at once.
        if signal.SIGUSR2 in numbers:
            self._save_requested = True
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._termination_requested = True

    def _must_stop(self, job: PackedJob, hit_own_limit: bool) -> bool:
        was_signalled = self._save_requested or self._termination_requested
        return was_signalled or hit_own_limit or self._path(job, "cancel").exists()

    def _ask_to_stop(self, job: PackedJob, group: int, hit_own_limit: bool) -> float:
        """Ask a job to save itself and exit; return how many seconds it has for that."""
        # The file comes first: a job that looks for it when the signal arrives must find it.
        self._path(job, "stop").touch()
        # `stop_signal` is for a job that can resume. One that is being cancelled gets SIGTERM.
        can_resume = self._save_requested or hit_own_limit
        name = f"SIG{self.stop_signal}" if can_resume else "SIGTERM"
        if name != "SIGnone":
            kill_group(group, signal.Signals[name])
        if self._save_requested:
            return max(SHORTEST_SAVE_SECONDS, self.signal_delay - REQUEUE_SECONDS)
        return TERM_SECONDS

    def _become_job(self, job: PackedJob) -> NoReturn:
        """In the fork: become the job."""
        code = 1
        try:
            os.setpgid(0, 0)
            reset_signals()
            log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.cwd)
            os.environ.update(self.environment)
            os.environ[STOP_FILE] = str(self._path(job, "stop"))
            arguments = snakemake_arguments(job.command)
            if arguments is None:
                os.execv("/bin/bash", ["bash", "-c", job.command])
            code = run_snakemake(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            # os._exit, so that neither the parent's exit handlers nor submitit's code run in the
            # job. What they would flush is flushed here.
            with contextlib.suppress(Exception):
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _requeue(self, signals: SignalQueue) -> None:
        """Put the task back into the queue under its id.

        submitit's handler for SIGUSR2 does that: it calls `checkpoint`, pickles the task and calls
        `scontrol requeue`. A requeue after a preemption is not counted.
        """
        if not _is_being_preempted():
            self.requeues += 1
        if self.requeues > self.max_requeues:
            for job in self.jobs:
                if not self._has_result(job) and self._path(job, "claim").exists():
                    times = "once" if self.requeues == 1 else f"{self.requeues} times"
                    limit = f"reached its time limit of {self.minutes} min {times}"
                    reason = f"{limit} (--submitit-max-requeues)"
                    self._write_result(job, 1, time.time(), reason=reason)
            return
        # If the requeue fails, this mark tells the controller that the jobs have saved themselves:
        # it submits them again without using up a retry.
        write_atomically(self._saved_marker, str(self.requeues))
        # A checkpoint that was killed leaves its temporary file, with which submitit would refuse
        # to write another one.
        for path in Path(self.folder).glob("*.save_tmp*"):
            path.unlink(missing_ok=True)
        handler = signals.previous[signal.SIGUSR2]
        if callable(handler):
            handler(signal.SIGUSR2, None)


def _create_log(log: Path) -> str:
    """Create a job's log; return the problem where that fails, else an empty text."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        return f"its log cannot be written: {error.strerror}: {log}"
    return ""


def _is_being_preempted() -> bool:
    """Return True where Slurm takes the node for another job; else SIGUSR2 means the time limit."""
    try:
        text = run_command("scontrol", "-o", "show", "job", os.environ["SLURM_JOB_ID"])
    except (ClusterError, KeyError):
        return False
    return bool(re.search(r"\bPreemptTime=\d", text))
