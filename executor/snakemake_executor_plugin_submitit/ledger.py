"""The ledger: what outlives the controller. One folder per submission, written before sbatch runs.

    <folder>/batches/<batch>/
        batch.json        the jobs of the array: task, key, hash of the parameters, log
        slurm_id          the array's id, as soon as sbatch has printed it; until then only the
                          job's comment in Slurm leads to it
        <n>.claim         who owns job n: "task …" once a task has started it, "withdrawn" where no
                          task may start it
        <n>.json          the result of job n
        <n>.starts        one line per start of job n: when it started and when it stopped
        <n>.stop          asks job n to save itself and exit (SNAKEMAKE_SUBMITIT_STOP_FILE)
        <n>.cancel        asks the task to end job n
        task<i>.saved     task i has stopped its jobs for a requeue
        cancelled         the controller has cancelled the whole array
        reported          one line per job whose end Snakemake has recorded
        *.pkl, *.sh, …    submitit's own files

Every file except `reported` and `<n>.starts` is written once or replaced as a whole, so that a
reader never sees half of it. A damaged file is treated as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

COMMENT_PREFIX = "snakemake-submitit:"  # of the comment that each job has in Slurm


T = TypeVar("T", bound="DataclassInstance")


def _from_json(kind: type[T], body: Mapping[str, Any]) -> T:
    """Return a dataclass from a JSON object with the names of its fields; other names are ignored.

    Raise TypeError where a field without a default is missing.
    """
    return kind(**{item.name: body[item.name] for item in fields(kind) if item.name in body})


@dataclass(frozen=True)
class JobRecord:
    """One job of a batch."""

    number: int  # within the batch
    task: int  # index of its task within the array
    key: str  # see `job_key`
    params_hash: str
    name: str
    log: str
    resubmits: int = 0
    requeues: int = 0  # at the time limit, in earlier submissions of the job


@dataclass(frozen=True)
class JobResult:
    """How a job ended, as its task has written it."""

    exit_code: int  # of Snakemake; -N after signal N
    started_at: float  # seconds since the epoch, of its first start
    seconds: float  # over all its starts
    starts: int
    max_rss_mb: int
    node: str
    reason: str = ""  # in words, where the exit code does not say enough
    out_of_memory: bool = False
    hit_own_limit: bool = False  # the job's own time limit within a task of several jobs


@dataclass
class BatchRequest:
    """What a batch asks for, per task, as far as a later controller has to know it."""

    gpus: int = 0
    mem_mb: int = 0
    minutes: int = 0
    clusters: str | None = None
    cpus: int = 1
    gpu_names: list[str] = field(default_factory=list)  # of the local cluster


@dataclass
class Batch:
    """One submission: a job array, or a single task."""

    folder: Path
    records: list[JobRecord]
    is_single_task: bool
    request: BatchRequest = field(default_factory=BatchRequest)
    cluster: str = "slurm"

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def comment(self) -> str:
        return COMMENT_PREFIX + self.id

    @property
    def slurm_id(self) -> str | None:
        with contextlib.suppress(OSError):
            return (self.folder / "slurm_id").read_text().strip() or None
        return None

    def set_slurm_id(self, slurm_id: str) -> None:
        write_atomically(self.folder / "slurm_id", slurm_id)

    def external_id(self, record: JobRecord) -> str:
        """Return the id of the job's task in the queue: `12`, or `12_3` for a task of an array."""
        return f"{self.slurm_id}" if self.is_single_task else f"{self.slurm_id}_{record.task}"

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        body = {
            "single": self.is_single_task,
            "cluster": self.cluster,
            "request": asdict(self.request),
            "jobs": [asdict(record) for record in self.records],
        }
        write_atomically(self.folder / "batch.json", json.dumps(body))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- results ---

    def result(self, number: int) -> JobResult | None:
        """Return how a job ended; None where it has not, or where its file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return _from_json(JobResult, json.loads((self.folder / f"{number}.json").read_text()))
        return None

    def finished_jobs(self) -> set[int]:
        """Return the numbers of the jobs that have a result file, from one look at the folder."""
        return {int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit()}

    def mark_reported(self, record: JobRecord) -> None:
        """Note that Snakemake knows how this job ended, so that no later controller cares for it.

        The file is the only one that grows: one short line per call, appended in a single write.
        """
        with (self.folder / "reported").open("a") as stream:
            stream.write(f"{record.number}\n")

    def reported(self) -> set[int]:
        with contextlib.suppress(OSError):
            lines = (self.folder / "reported").read_text().splitlines()
            return {int(line) for line in lines if line.isdigit()}
        return set()

    @property
    def is_open(self) -> bool:
        """True while there is a job whose end Snakemake has not recorded."""
        return bool({record.number for record in self.records} - self.reported())

    def is_idle(self, task: int) -> bool:
        """Return True for a task none of whose jobs may run any more."""
        reported = self.reported()
        return all(record.number in reported for record in self.records if record.task == task)

    # --- who may start a job ---

    def claim_text(self, number: int) -> str:
        """Return who owns a job; an empty text where nobody does yet."""
        with contextlib.suppress(OSError):
            # An empty file was left by a process that was killed between creating and writing
            # it. The task takes such a job for its own, so it counts as started.
            return (self.folder / f"{number}.claim").read_text() or "task"
        return ""

    def has_started(self, number: int) -> bool:
        return self.claim_text(number).startswith("task")

    def started_at(self, number: int) -> float | None:
        """Return when a job was started, by the clock of the file system, or None."""
        with contextlib.suppress(OSError):
            if self.has_started(number):
                return (self.folder / f"{number}.claim").stat().st_mtime
        return None

    def withdraw(self, number: int) -> bool:
        """Keep a job from being started; return False where a task has started it already."""
        if claim_job(self.folder, number, "withdrawn"):
            return True
        return self.claim_text(number).startswith("withdrawn")

    def revoke(self, number: int) -> None:
        """Withdraw a job whose task is known to be dead, whether it had been started or not.

        Should Slurm requeue the task after all, the task leaves the job alone.
        """
        write_atomically(self.folder / f"{number}.claim", "withdrawn")

    # --- other marks ---

    def request_cancel(self, number: int) -> None:
        """Ask the task to end one job and to continue with its others."""
        (self.folder / f"{number}.cancel").touch()

    def mark_cancelled(self) -> None:
        (self.folder / "cancelled").touch()

    @property
    def was_cancelled(self) -> bool:
        return (self.folder / "cancelled").exists()

    def was_saved(self, task: int) -> bool:
        """Return True where the task has stopped its jobs in order to be requeued."""
        return (self.folder / f"task{task}.saved").exists()

    # --- submitit's files ---

    def task_log(self, record: JobRecord) -> Path:
        """Return submitit's log of the task: what was printed before and beside its jobs."""
        return self.folder / f"{self._file_stem(record)}_0_log.out"

    def is_pickled(self, record: JobRecord) -> bool:
        """Return True where submitit has put the task where the node reads it.

        submitit pickles tasks under a temporary name and renames them once it knows the array's id.
        """
        return (self.folder / f"{self._file_stem(record)}_submitted.pkl").exists()

    def _file_stem(self, record: JobRecord) -> str:
        return self.external_id(record).partition(":")[0]  # a local id is <pid>:<start time>


def claim_job(folder: Path, number: int, owner: str) -> bool:
    """Claim a job for `owner`; return True only for the first caller.

    The exclusive creation of the file decides between a task that starts the job and a controller
    that withdraws it at the same moment.
    """
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        handle = os.open(folder / f"{number}.claim", flags, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as stream:
        stream.write(owner)
    return True


def write_atomically(path: Path, text: str) -> None:
    """Write a file such that readers see the old or the new content, and never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    temporary.replace(path)


class Ledger:
    """All batches in a workflow's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "batches"

    def create(
        self,
        records: Iterable[JobRecord],
        is_single_task: bool,
        request: BatchRequest,
        cluster: str,
    ) -> Batch:
        """Create a batch and write it to its folder."""
        folder = self.folder / uuid.uuid4().hex[:12]
        batch = Batch(folder, list(records), is_single_task, request, cluster)
        batch.save()
        return batch

    def folders(self) -> list[Path]:
        return sorted(self.folder.glob("*/")) if self.folder.is_dir() else []

    def open_batches(self) -> tuple[list[Batch], list[Path]]:
        """Return the batches that are still open, and the folders whose batch.json is damaged."""
        batches, damaged = [], []
        for folder in self.folders():
            batch = read_batch(folder)
            if batch is None:
                damaged.append(folder)
            elif batch.is_open:
                batches.append(batch)
        return batches, damaged


def read_batch(folder: Path) -> Batch | None:
    """Return the batch of a folder; None where its batch.json is missing or damaged."""
    try:
        body = json.loads((folder / "batch.json").read_text())
        return Batch(
            folder,
            [_from_json(JobRecord, record) for record in body["jobs"]],
            bool(body["single"]),
            _from_json(BatchRequest, body["request"]),
            str(body["cluster"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def job_key(workdir: str, rule: str, outputs: Iterable[str]) -> str:
    """Return what identifies a job in every run of the workflow: folder, rule and output files."""
    return _digest(workdir, rule, *sorted(map(str, outputs)))


def params_hash(params: object, inputs: Iterable[str]) -> str:
    """Return a hash that changes when the job would compute something else."""
    return _digest(json.dumps(params, sort_keys=True, default=_to_json), *sorted(map(str, inputs)))


def _to_json(value: object) -> list[str] | str:
    """Return an equivalent that is the same in every process, for values that JSON cannot hold.

    Sets are sorted, and the address in a default repr is removed.
    """
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
