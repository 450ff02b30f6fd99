"""What outlives the controller: one folder per submission, written before sbatch is called.

    <folder>/batches/<batch>/
        batch.json        the tasks of the array and their jobs: key, parameters' hash, log
        slurm_id          the array's id, as soon as sbatch has given it (else the comment finds it)
        <n>.claim         who has job n: "task …" once a task has begun it, "withdrawn" where it shall not begin
        <n>.json          how job n ended
        <n>.lives         one line per life of job n: when it began and ended
        <n>.stop          asks job n to save itself and stop (SNAKEMAKE_SUBMITIT_STOP_FILE)
        <n>.cancel        asks the task to end job n
        cancelled         where the controller cancelled the whole array
        told              one line per job whose end Snakemake has been told
        *.pkl, *.sh, …    submitit's

Every file but `told` is written once or replaced as a whole; a damaged one is treated as not there.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COMMENT = "snakemake-submitit:"


@dataclass(frozen=True)
class Entry:
    """One job in a batch."""

    n: int
    task: int  # index in the array
    key: str
    params: str
    name: str
    log: str
    resubmits: int = 0
    requeues: int = 0  # at its time limit, of the job's earlier submissions


@dataclass
class Batch:
    """One submission: a job array, or a single task."""

    folder: Path
    entries: list[Entry]
    single: bool
    request: dict[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def comment(self) -> str:
        return COMMENT + self.id

    @property
    def slurm_id(self) -> str | None:
        with contextlib.suppress(OSError):
            return (self.folder / "slurm_id").read_text().strip() or None
        return None

    def external_id(self, entry: Entry) -> str:
        """12, or 12_3 of an array."""
        return f"{self.slurm_id}" if self.single else f"{self.slurm_id}_{entry.task}"

    def result(self, n: int) -> dict[str, Any] | None:
        """How job n ended; None where it has not, or where its file is damaged."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.folder / f"{n}.json").read_text())
            return found if isinstance(found, dict) and "rc" in found else None
        return None

    def ended(self) -> set[int]:
        """The jobs that have a result file, from one look at the folder."""
        return {int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit()}

    def claim_text(self, n: int) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / f"{n}.claim").read_text() or "task"  # killed between creating and writing it
        return ""

    def begun(self, n: int) -> bool:
        return self.claim_text(n).startswith("task")

    def task_log(self, entry: Entry) -> Path:
        """submitit's log of a task: what was said before or beside its jobs."""
        name = self.external_id(entry).partition(":")[0]
        return self.folder / f"{name}_0_log.out"

    def pickled(self, entry: Entry) -> bool:
        """True where submitit has put the task in its place, from which it is read."""
        name = self.external_id(entry).partition(":")[0]
        return (self.folder / f"{name}_submitted.pkl").exists()

    def withdraw(self, n: int) -> bool:
        """Keep job n from beginning; False where a task has begun it."""
        return claim(self.folder, n, "withdrawn") or self.claim_text(n).startswith("withdrawn")

    def idle(self, task: int) -> bool:
        """True of a task none of whose jobs may run any more."""
        told = self.told()
        return all(entry.n in told for entry in self.entries if entry.task == task)

    def begun_at(self, n: int) -> float | None:
        """When job n began, by the clock of the file system; None where it has not."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{n}.claim").stat().st_mtime if self.begun(n) else None
        return None

    @property
    def cancelled(self) -> bool:
        return (self.folder / "cancelled").exists()

    def take_back(self, n: int) -> None:
        """As `withdraw`, for a job whose task is known to be dead: should it come back, it leaves the job alone."""
        replace(self.folder / f"{n}.claim", "withdrawn")

    def tell(self, entry: Entry) -> None:
        """Note that Snakemake knows how this job ended."""
        with (self.folder / "told").open("a") as stream:
            stream.write(f"{entry.n}\n")

    def told(self) -> set[int]:
        with contextlib.suppress(OSError):
            return {int(line) for line in (self.folder / "told").read_text().splitlines() if line.isdigit()}
        return set()

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        body = {"single": self.single, "cluster": self.cluster, "request": self.request}
        replace(self.folder / "batch.json", json.dumps({**body, "entries": [asdict(e) for e in self.entries]}))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def submitted(self, slurm_id: str) -> None:
        replace(self.folder / "slurm_id", slurm_id)


def claim(folder: Path, n: int, who: str) -> bool:
    """Take job n for `who`, once: True for the first who asks."""
    try:
        handle = os.open(folder / f"{n}.claim", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as stream:
        stream.write(who)
    return True


def replace(path: Path, text: str) -> None:
    """Write a file as a whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    temporary.replace(path)


class Ledger:
    """All batches of a workflow's folder."""

    def __init__(self, folder: Path):
        self.folder = folder / "batches"

    def new(self, entries: Iterable[Entry], single: bool, request: Mapping[str, Any], cluster: str) -> Batch:
        batch = Batch(self.folder / uuid.uuid4().hex[:12], list(entries), single, dict(request), cluster)
        batch.save()
        return batch

    def open_batches(self) -> tuple[list[Batch], list[Path]]:
        """Batches with a job that Snakemake has not been told of, and the folders whose batch.json cannot be read."""
        batches, damaged = [], []
        for folder in sorted(self.folder.glob("*/")) if self.folder.is_dir() else []:
            batch = read(folder)
            if batch is None:
                damaged.append(folder)
            elif {entry.n for entry in batch.entries} - batch.told():
                batches.append(batch)
        return batches, damaged


def read(folder: Path) -> Batch | None:
    """The batch of a folder; None where its batch.json is missing or damaged."""
    try:
        body = json.loads((folder / "batch.json").read_text())
        entries = [Entry(**entry) for entry in body["entries"]]
        return Batch(folder, entries, bool(body["single"]), dict(body["request"]), str(body["cluster"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def job_key(workdir: str, rule: str, outputs: Iterable[str]) -> str:
    """What makes a job the same one in another run of the workflow: where, which rule, which files."""
    return _digest(workdir, rule, *sorted(map(str, outputs)))


def params_hash(params: Any, inputs: Iterable[str]) -> str:
    """What makes it compute something else."""
    return _digest(json.dumps(params, sort_keys=True, default=_plain), *sorted(map(str, inputs)))


def _plain(value: Any) -> Any:
    """What JSON cannot say: sets in order, the rest as text without addresses, equal in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
