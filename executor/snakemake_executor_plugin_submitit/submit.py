"""A batch becomes a job array: through submitit, on Slurm or, by the same path, on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakemake_executor_plugin_submitit import cluster
from snakemake_executor_plugin_submitit.cluster import ClusterError, State
from snakemake_executor_plugin_submitit.ledger import Batch
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.task import Task, _start_time


class SlurmCluster:
    """Submits to Slurm; arrays."""

    name = "slurm"

    def __init__(self, settings: Any):
        self.settings = settings
        self.slurm = cluster.Slurm(settings.status_command)
        self._size = settings.array_size

    @property
    def array_size(self) -> int:
        if not self._size:
            self._size = cluster.max_array_size()
        return self._size

    def room(self, request: Request) -> tuple[int, int]:
        """How many tasks of this request start at once, from the partition's idle CPUs, and the minutes that its time
        limit allows them."""
        partition, most = request.option("partition"), self.settings.array_parallelism
        try:
            where = ["-p", partition] if partition else []
            rows = [row.split("|") for row in cluster.run("sinfo", "-h", "-o", "%C|%l", *where).split()]
            counts = [list(map(int, count.split("/"))) for count, _ in rows]
            minutes = min(map(cluster.minutes, (limit for _, limit in rows)), default=cluster.UNLIMITED)
        except (ClusterError, ValueError):
            return self.settings.slots or most, cluster.UNLIMITED
        idle, total = (max((row[i] for row in counts), default=0) for i in (1, 3))
        return self.settings.slots or max(1, min(most, (idle or total // 4) // request.cpus)), minutes

    def fits(self, request: Request) -> bool:
        return True

    def everywhere(self) -> None:
        """From now on every cluster is asked: a job has gone to another one than this."""
        self.slurm.where = ("-M", "all")

    def submit(self, batch: Batch, tasks: Sequence[Task], request: Request, name: str) -> str:
        """The array's id. ClusterError with sbatch's complaint."""
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        more: dict[str, Any] = dict(request.options)
        more = {key: value if value != "" else True for key, value in more.items()}
        del more["nodes"]
        if "clusters" in more:
            self.everywhere()
        if not {"requeue", "no-requeue"} & more.keys():
            more["no-requeue" if self.settings.no_requeue else "requeue"] = True
        wide = request.tasks > 1 or request.nodes > 1  # the job itself calls srun, beside its own step
        step = ["--ntasks=1", "--nodes=1", *["--overlap"] * wide]
        environment = {"SLURM_NTASKS": request.tasks, "SLURM_NPROCS": request.tasks, "SLURM_NNODES": request.nodes}
        for task in tasks:
            task.environment = {name: str(value) for name, value in environment.items() if wide}
        try:
            with outside_of_a_job(request):
                executor = AutoExecutor(folder=batch.folder, cluster="slurm", slurm_max_num_timeout=10**6)
                executor.update_parameters(
                    name=name,
                    timeout_min=request.minutes,
                    nodes=request.nodes,
                    stderr_to_stdout=True,
                    slurm_comment=batch.comment,
                    slurm_signal_delay_s=request.warning(self.settings.signal_delay),
                    slurm_array_parallelism=self.settings.array_parallelism,
                    slurm_wckey="",
                    slurm_srun_args=[f"--cpus-per-task={request.cpus}", *step],
                    slurm_additional_parameters=more,
                )
                with executor.batch():
                    jobs = [executor.submit(task) for task in tasks]
                return jobs[0].job_id.partition("_")[0]
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise ClusterError(_complaint(str(error))) from None

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        return self.slurm.states(ids)

    def queued(self, ids: Sequence[str]) -> set[str]:
        """Those of the tasks that are still in the queue; ClusterError where it cannot be asked."""
        return {task for task, _ in cluster.squeue(ids, self.slurm.where)} & set(ids)

    def cancel(self, ids: Sequence[str], whole: bool = True) -> None:
        cluster.cancel(ids, self.slurm.where, whole)

    def adopt(self, batch: Batch) -> None:
        """A batch of an earlier controller's is ours now; ClusterError where nobody says whether Slurm has taken it."""
        if batch.request.get("clusters"):
            self.everywhere()
        if batch.slurm_id is None and (identity := self.find(batch)):
            batch.submitted(identity)

    def find(self, batch: Batch) -> str | None:
        """The id of a batch whose controller died before it could write it down."""
        return cluster.live_jobs(batch.comment, self.slurm.where).get(batch.comment)


SITE = {f"SBATCH_{name.upper()}": name for name in ("account", "partition", "qos", "reservation", "constraint")}


@contextlib.contextmanager
def outside_of_a_job(request: Request) -> Iterator[None]:
    """Hide the variables of the Slurm job that the controller itself may run in: sbatch would take them for options,
    and believe them rather than its script. A site's SBATCH_ defaults stay where the job does not say otherwise."""
    kept = {"SLURM_CONF", *(name for name, option in SITE.items() if request.option(option) is None)}
    hidden = {k: v for k, v in os.environ.items() if k.startswith(("SLURM_", "SBATCH_")) and k not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _complaint(text: str) -> str:
    """sbatch's own words of submitit's exception."""
    lines = [line.strip() for line in text.splitlines() if "sbatch: " in line or "error:" in line.lower()]
    return "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines) or text.strip()[:500]


@dataclass
class Running:
    """A local task; one that was adopted has no process here."""

    process: Any
    cpus: int
    gpus: list[str]
    limit: float  # when its time is over


@dataclass
class LocalCluster:
    """Submits to this machine: as many tasks at a time as there are CPUs and GPUs, no GPU given out twice."""

    settings: Any
    name = "local"
    array_size = 1
    all_cpus: int = 0
    all_gpus: list[str] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)  # ended at their time limit

    def __post_init__(self) -> None:
        self.all_cpus = self.settings.local_cpus or os.cpu_count() or 1
        given = self.settings.local_gpus
        self.all_gpus = [str(i) for i in range(given)] if given >= 0 else visible_gpus()

    def _free(self) -> tuple[int, list[str]]:
        """CPUs and GPUs that no task holds."""
        for identity, task in list(self.running.items()):
            if not self._lives(identity):
                del self.running[identity]
                if time.time() >= task.limit:
                    self.late.add(identity)
        taken = {gpu for task in self.running.values() for gpu in task.gpus}
        cpus = self.all_cpus - sum(task.cpus for task in self.running.values())
        return cpus, [gpu for gpu in self.all_gpus if gpu not in taken]

    def room(self, request: Request) -> tuple[int, int]:
        return max(1, self.all_cpus // request.cpus), cluster.UNLIMITED

    def fits(self, request: Request) -> bool:
        """True where its CPUs and GPUs are free, and of what can never be: `submit` refuses that. More CPUs than the
        machine has are taken for all of them."""
        cpus, gpus = self._free()
        enough = min(request.cpus, self.all_cpus) <= cpus and request.gpus <= len(gpus)
        return enough or request.gpus > len(self.all_gpus)

    def submit(self, batch: Batch, tasks: Sequence[Task], request: Request, name: str) -> str:
        from submitit.local import local

        if request.gpus > len(self.all_gpus):
            has = f"this machine has {len(self.all_gpus)} (--submitit-local-gpus)"
            raise ClusterError(f"gpu: {request.gpus} asked for, {has}")
        (task,) = tasks
        gpus = self._free()[1][: request.gpus]
        batch.request |= {"cpus": min(request.cpus, self.all_cpus), "gpu_names": gpus}
        batch.save()
        task.environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        with outside_of_the_terminal(local):
            executor = local.LocalExecutor(batch.folder, max_num_timeout=10**6)
            executor.update_parameters(
                timeout_min=request.minutes,
                signal_delay_s=request.warning(self.settings.signal_delay),
                stderr_to_stdout=True,
            )
            job = executor.submit(task)
        identity = f"{job.job_id}:{_start_time(int(job.job_id))}"
        self._book(identity, batch, job._process)
        return identity

    def _book(self, identity: str, batch: Batch, process: Any = None) -> None:
        asked, began = batch.request, (batch.folder / "batch.json").stat().st_mtime
        limit = began + 60 * asked["minutes"] - 2
        self.running[identity] = Running(process, asked.get("cpus", 1), asked.get("gpu_names", []), limit)

    def adopt(self, batch: Batch) -> None:
        if batch.slurm_id is None and (identity := self.find(batch)):
            batch.submitted(identity)
        if batch.slurm_id and self._lives(batch.slurm_id):
            self._book(batch.slurm_id, batch)

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        self._free()
        ended = {one: "TIMEOUT" if one in self.late else "FAILED" for one in ids}
        return {one: State("RUNNING" if self._lives(one) else ended[one]) for one in ids}

    def _lives(self, identity: str) -> bool:
        task = self.running.get(identity)
        if task and task.process:
            return task.process.poll() is None
        pid, _, started = identity.partition(":")
        return bool(started) and _start_time(int(pid)) == started

    def queued(self, ids: Sequence[str]) -> set[str]:
        return {one for one in ids if self._lives(one)}

    def cancel(self, ids: Sequence[str], whole: bool = True) -> None:
        for identity in ids:
            if self._lives(identity):
                _signal(int(identity.partition(":")[0]))

    def find(self, batch: Batch) -> str | None:
        """The controller process, submitit's, of a batch of which only the folder is known."""
        import psutil

        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "submitit.local._local" in words and str(batch.folder) in words:
                return f"{process.pid}:{_start_time(process.pid)}"
        return None


@contextlib.contextmanager
def outside_of_the_terminal(local: Any) -> Iterator[None]:
    """Sessions of their own for submitit's local controllers: a hang-up or Ctrl-C of the terminal is the executor's to
    act upon, and a pipe from it ends with it."""
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

    class Sessions:
        Popen = functools.partial(subprocess.Popen, start_new_session=True, **nothing)

        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

    local.subprocess = Sessions()
    try:
        yield
    finally:
        local.subprocess = subprocess


def _signal(pid: int) -> None:
    import signal

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def visible_gpus() -> list[str]:
    """The GPUs of this machine, or those that CUDA_VISIBLE_DEVICES leaves of them, by number or name."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))]
