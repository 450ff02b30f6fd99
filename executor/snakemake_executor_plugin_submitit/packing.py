"""Which pending jobs share a task, and which tasks share an array.

Jobs with equal requests share an array, across rules. Short CPU jobs are packed: one
task runs several of them, one after another, so that Snakemake is imported once for all. How many
follows from their time limits and from the slots that are free, so that every slot gets work.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from snakemake_executor_plugin_submitit.cluster import Capacity
from snakemake_executor_plugin_submitit.jobs import PendingJob
from snakemake_executor_plugin_submitit.ledger import Batch, BatchRequest, JobRecord, Ledger
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import PackedJob, Task

MAX_PACK_SIZE = 50  # jobs in one task
MEMORY_BUCKET_MB = 1000  # jobs whose requests fall into one bucket may share a task
SHARED_INTERPRETER_MB = 100


@dataclass(frozen=True)
class JobArray:
    """Tasks with one request; each task runs its jobs one after another."""

    request: Request
    tasks: tuple[tuple[PendingJob, ...], ...]

    @property
    def jobs(self) -> list[PendingJob]:
        return [job for task in self.tasks for job in task]


@dataclass(frozen=True)
class PackLimits:
    """The settings of packing."""

    pack: int  # jobs per task; 0 chooses, 1 never packs
    pack_runtime: int  # minutes, of a job that is packed
    pack_minutes: int  # of a task

    @classmethod
    def from_settings(cls, settings: ExecutorSettings) -> PackLimits:
        return cls(settings.pack, settings.pack_runtime, settings.pack_minutes)


def build_arrays(
    pending: Iterable[PendingJob],
    capacity: Callable[[Request], Capacity],
    array_size: int,
    limits: PackLimits,
) -> list[JobArray]:
    """Distribute jobs over as few arrays as there are kinds of requests.

    `capacity` returns for a request how many tasks run at a time and how long each may be. No array
    has more than `array_size` tasks.
    """
    groups: dict[tuple[bool, Hashable], list[PendingJob]] = {}
    for job in pending:
        is_packed = _is_packed(job, limits)
        key = _pack_key(job.request) if is_packed else job.request
        groups.setdefault((is_packed, key), []).append(job)
    arrays = []
    for (is_packed, _), members in groups.items():
        if is_packed:
            request, tasks = _pack(members, capacity, limits)
        else:
            request, tasks = members[0].request, [(job,) for job in members]
        for first in range(0, len(tasks), array_size):
            arrays.append(JobArray(request, tuple(tasks[first : first + array_size])))
    return arrays


def _is_packed(job: PendingJob, limits: PackLimits) -> bool:
    """Return True for a short job on one CPU node that has not failed or been lost before.

    A job that has brought a task down must not take others with it again.
    """
    request = job.request
    is_first_try = job.attempt == 1 and job.resubmits == 0
    is_small = not request.gpus and request.nodes == request.tasks == 1
    is_short = request.minutes <= limits.pack_runtime
    return limits.pack != 1 and job.can_be_packed and is_first_try and is_small and is_short


def _pack_key(request: Request) -> Hashable:
    """Return what packed jobs must have in common: all but time, and memory within its bucket."""
    options = tuple((name, value) for name, value in request.options if name != "mem")
    return options, request.cpus, math.ceil(request.mem_mb / MEMORY_BUCKET_MB)


def _pack(
    members: Sequence[PendingJob], capacity: Callable[[Request], Capacity], limits: PackLimits
) -> tuple[Request, list[tuple[PendingJob, ...]]]:
    """Distribute short jobs over tasks; return the request and the tasks."""
    longest = max(job.request.minutes for job in members)
    largest = max(members, key=lambda job: job.request.mem_mb).request
    slots, max_minutes = capacity(largest)
    # No more jobs per task than it takes to give every slot one task, and never a task that is
    # longer than the settings or the partition allow.
    wanted = limits.pack or math.ceil(len(members) / max(1, slots))
    allowed = min(limits.pack_minutes, max_minutes) // longest
    pack_size = max(1, min(wanted, allowed, MAX_PACK_SIZE))
    task_count = math.ceil(len(members) / pack_size)
    # Dealt round, so that the jobs that the scheduler prefers are the first of their tasks.
    tasks = [tuple(members[start::task_count]) for start in range(task_count)]
    minutes = max(sum(job.request.minutes for job in task) for task in tasks)
    mem_mb = largest.mem_mb
    if mem_mb and pack_size > 1:
        mem_mb += SHARED_INTERPRETER_MB
    options = tuple(
        (name, f"{mem_mb}M" if name == "mem" else value) for name, value in largest.options
    )
    return replace(largest, options=options, minutes=minutes, mem_mb=mem_mb), tasks


def create_batch(
    array: JobArray, ledger: Ledger, settings: ExecutorSettings, cluster_name: str
) -> tuple[Batch, list[Task], str]:
    """Write an array to the ledger; return its batch, the tasks to pickle and its name in Slurm."""
    records: list[JobRecord] = []
    packed_jobs: list[list[PackedJob]] = []
    for index, members in enumerate(array.tasks):
        packed_jobs.append([])
        for job in members:
            number = len(records)
            records.append(_record(job, number, index))
            # A job that shares its task must not use up the time of the others.
            own_limit = job.request.minutes if len(members) > 1 else 0
            packed_jobs[-1].append(PackedJob(number, job.name, job.command, job.log, own_limit))
    request = array.request
    batch_request = BatchRequest(
        request.gpus, request.mem_mb, request.minutes, request.option("clusters")
    )
    batch = ledger.create(records, len(array.tasks) == 1, batch_request, cluster_name)
    tasks = [
        Task(
            folder=str(batch.folder),
            index=index,
            jobs=packed_jobs[index],
            cwd=str(Path.cwd()),
            minutes=request.minutes,
            signal_delay=request.warning_seconds(settings.signal_delay) or settings.signal_delay,
            stop_signal=settings.stop_signal,
            max_requeues=settings.max_requeues,
            preload=[name for name in settings.preload.split(",") if name],
            requeues=max(job.requeues for job in members),
        )
        for index, members in enumerate(array.tasks)
    ]
    return batch, tasks, settings.jobname_prefix + _array_name(array)


def _record(job: PendingJob, number: int, task: int) -> JobRecord:
    return JobRecord(
        number=number,
        task=task,
        key=job.key,
        params_hash=job.params_hash,
        name=job.name,
        log=job.log,
        resubmits=job.resubmits,
        requeues=job.requeues,
    )


def _array_name(array: JobArray) -> str:
    """Return the most frequent rule; `rule+2` where two other rules share the array."""
    rules = Counter(job.rule for job in array.jobs).most_common()
    others = f"+{len(rules) - 1}" if len(rules) > 1 else ""
    return rules[0][0] + others
