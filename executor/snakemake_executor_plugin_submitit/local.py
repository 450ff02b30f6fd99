"""Runs batches on this machine, through submitit's local executor, without a scheduler."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from snakemake_executor_plugin_submitit.cluster import (
    NO_LIMIT,
    UNLIMITED,
    Capacity,
    ClusterError,
    State,
)
from snakemake_executor_plugin_submitit.ledger import Batch
from snakemake_executor_plugin_submitit.processes import start_time
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Task


@dataclass
class RunningTask:
    """A local task and what it holds. One of an earlier controller has no process object here."""

    process: subprocess.Popen[bytes] | None
    cpus: int
    gpus: list[str]
    ends_by: float  # seconds since the epoch, when its time limit is over


class LocalCluster:
    """This machine as a Cluster: it shares out its CPUs, and gives no GPU to two tasks.

    A task is known as <pid>:<start time> of submitit's controller process, since pids are reused.
    """

    name = "local"
    array_size = 1

    def __init__(self, settings: ExecutorSettings) -> None:
        self._signal_delay = settings.signal_delay
        self._slots = settings.slots
        self._cpus = settings.local_cpus or os.cpu_count() or 1
        if settings.local_gpus >= 0:
            self._gpus = [str(index) for index in range(settings.local_gpus)]
        else:
            self._gpus = visible_gpus()
        self._running: dict[str, RunningTask] = {}
        self._timed_out: set[str] = set()

    def capacity(self, request: Request) -> Capacity:
        return Capacity(self._slots or max(1, self._cpus // request.cpus), UNLIMITED)

    def fits(self, request: Request) -> bool:
        """Return True where the CPUs and GPUs are free.

        A request for more CPUs than the machine has gets all of them. One for more GPUs is let
        through, so that `submit` refuses it instead of letting it wait for ever.
        """
        cpus, gpus = self._free()
        if request.gpus > len(self._gpus):
            return True
        return min(request.cpus, self._cpus) <= cpus and request.gpus <= len(gpus)

    def _free(self) -> tuple[int, list[str]]:
        """Return the CPUs and GPUs that no task holds, after a look at which tasks still run."""
        for task_id, task in list(self._running.items()):
            if not self._is_alive(task_id):
                del self._running[task_id]
                # submitit's process does not say why it has exited, but the time does.
                if time.time() >= task.ends_by:
                    self._timed_out.add(task_id)
        taken = {gpu for task in self._running.values() for gpu in task.gpus}
        cpus = self._cpus - sum(task.cpus for task in self._running.values())
        return cpus, [gpu for gpu in self._gpus if gpu not in taken]

    def submit(self, batch: Batch, tasks: Sequence[Task], request: Request, name: str) -> str:
        from submitit.local import local

        if request.gpus > len(self._gpus):
            available = f"this machine has {len(self._gpus)} (--submitit-local-gpus)"
            raise ClusterError(f"gpu: {request.gpus} requested, but {available}")
        (task,) = tasks
        # Written before the start: a later controller must know what a running task holds.
        batch.request.cpus = min(request.cpus, self._cpus)
        batch.request.gpu_names = self._free()[1][: request.gpus]
        batch.save()
        task.environment = {"CUDA_VISIBLE_DEVICES": ",".join(batch.request.gpu_names)}
        with own_sessions():
            executor = local.LocalExecutor(batch.folder, max_num_timeout=NO_LIMIT)
            executor.update_parameters(
                timeout_min=request.minutes,
                signal_delay_s=request.warning_seconds(self._signal_delay),
                stderr_to_stdout=True,
            )
            job = cast("local.LocalJob[str]", executor.submit(task))
        task_id = f"{job.job_id}:{start_time(int(job.job_id))}"
        self._book(task_id, batch, job._process)
        return task_id

    def _book(
        self, task_id: str, batch: Batch, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        """Note what a task holds while it runs."""
        started = (batch.folder / "batch.json").stat().st_mtime
        # With two seconds of slack, since submitit and the file system have clocks of their own.
        ends_by = started + 60 * batch.request.minutes - 2
        request = batch.request
        self._running[task_id] = RunningTask(process, request.cpus, request.gpu_names, ends_by)

    def reattach(self, batch: Batch) -> None:
        if batch.slurm_id is None and (task_id := self.find(batch)):
            batch.set_slurm_id(task_id)
        # Whether its jobs are still wanted or not, a task that runs holds its CPUs and GPUs.
        if batch.slurm_id and self._is_alive(batch.slurm_id):
            self._book(batch.slurm_id, batch)

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        self._free()
        states = {}
        for task_id in ids:
            if self._is_alive(task_id):
                states[task_id] = State("RUNNING")
            else:
                states[task_id] = State("TIMEOUT" if task_id in self._timed_out else "FAILED")
        return states

    def _is_alive(self, task_id: str) -> bool:
        task = self._running.get(task_id)
        # poll() also reaps a child that has exited, which would stay in /proc otherwise.
        if task and task.process:
            return task.process.poll() is None
        pid, _, started = task_id.partition(":")
        return bool(started) and start_time(int(pid)) == started

    def queued(self, ids: Sequence[str]) -> set[str]:
        return {task_id for task_id in ids if self._is_alive(task_id)}

    def cancel(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            if self._is_alive(task_id):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(task_id.partition(":")[0]), signal.SIGTERM)

    def cancel_tasks(self, ids: Sequence[str]) -> None:
        self.cancel(ids)  # every array has one task

    def find(self, batch: Batch) -> str | None:
        """Return the id of submitit's process for a batch whose folder alone is known."""
        import psutil

        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "submitit.local._local" in words and str(batch.folder) in words:
                return f"{process.pid}:{start_time(process.pid)}"
        return None


@contextlib.contextmanager
def own_sessions() -> Iterator[None]:
    """Let submitit start its local processes in sessions of their own, without our streams.

    Ctrl-C or the end of a terminal reaches every process of its session. What happens to the jobs
    is for the executor to decide, by its settings. And a process that kept our standard output
    would keep a reader of it waiting after we have detached. submitit has no option for either, so
    that its module sees another `subprocess` for the moment of the call.
    """
    from submitit.local import local

    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

    class SubprocessInOwnSession:
        Popen = functools.partial(subprocess.Popen, start_new_session=True, **streams)

        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

    local.subprocess = SubprocessInOwnSession()  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        local.subprocess = subprocess  # type: ignore[attr-defined]


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine that CUDA_VISIBLE_DEVICES allows, by number or name."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        # CUDA ignores everything from the first invalid entry on; -1 is how users hide all GPUs.
        return list(itertools.takewhile(lambda name: name != "-1", names))
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(lines))]
