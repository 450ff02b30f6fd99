"""What an earlier run of the workflow left in the queue: live jobs are adopted, finished ones taken over, and what now
would compute something else is ended. Nothing is submitted twice."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import cluster
from snakemake_executor_plugin_submitit.cluster import ClusterError
from snakemake_executor_plugin_submitit.ledger import COMMENT, Batch, Entry
from snakemake_executor_plugin_submitit.packing import jobs_of
from snakemake_executor_plugin_submitit.task import end_leftovers

PATIENCE = 40  # seconds that a task with other jobs has to end one of them, before all of it is cancelled
PAUSE = 2  # seconds between two looks at jobs that are to end


@dataclass
class Ending:
    """A job that waits until its earlier version has ended."""

    one: Any
    batch: Batch
    entry: Entry
    since: float
    cancelled: bool


class Earlier:
    """The ledger's open batches, read when the first job is to be submitted."""

    def __init__(self, executor: Any):
        self.executor = executor
        self._found: dict[str, tuple[Batch, Entry]] | None = None
        self._elsewhere: dict[str, Batch] = {}  # of another cluster
        self._ending: list[Ending] = []
        self._idle: list[str] = []
        self._adopted: list[tuple[str, str]] = []
        self._looked = 0.0

    def read(self) -> None:
        """Read the ledger, once; ClusterError where it cannot be told yet what runs."""
        if self._found is None:
            self._found = self._read()

    def takes(self, one: Any) -> bool:
        """True where this job needs no submission now: it is adopted, or waits for another version of it to end."""
        if one.key not in self._found:
            return False
        batch, entry = self._found[one.key]
        if one.key in self._elsewhere:
            raise RuntimeError(
                f"it may still run as {batch.cluster} job {batch.slurm_id}; start with --submitit-cluster "
                f"{batch.cluster}, or delete {batch.folder}"
            )
        adopted = self._decide(one, batch, entry)
        del self._found[one.key]
        return adopted

    def _decide(self, one: Any, batch: Batch, entry: Entry) -> bool:
        result = batch.result(entry.n)
        same = entry.params == one.params and not self._older_than_inputs(one, batch, entry)
        if result is not None:
            if result["rc"] or not same or self._forced(one) or not self._unrecorded(one):
                batch.tell(entry)
                return False
        elif batch.slurm_id is None:  # its controller died between sbatch and writing the id down
            end_leftovers(batch.claim_text(entry.n))
            batch.take_back(entry.n)
            batch.tell(entry)
            return False
        identity = batch.external_id(entry)
        if result is None and not batch.pickled(entry):  # and before submitit had put its tasks where they look
            self.executor.cluster.cancel([identity], whole=False)
            batch.take_back(entry.n)
            batch.tell(entry)
            return False
        if result is None and (batch.cancelled or not same):
            return self._end(one, batch, entry)
        self._adopted.append((one.name, identity))
        one.resubmits, one.requeues = entry.resubmits, entry.requeues
        self.executor.watch(one, batch, entry, adopted=True)
        return True

    def _older_than_inputs(self, one: Any, batch: Batch, entry: Entry) -> bool:
        """True where an input has changed since the job began, and that is a reason to run it."""
        triggers = {trigger.name for trigger in self.executor.workflow.dag_settings.rerun_triggers}
        began = batch.begun_at(entry.n)
        if not began or "MTIME" not in triggers:
            return False
        files = [Path(path) for path in one.job.input if not getattr(path, "is_ancient", False)]
        return any(path.is_file() and path.stat().st_mtime > began for path in files)

    def _unrecorded(self, one: Any) -> bool:
        """True where all outputs are there and marked incomplete: Snakemake has not recorded what made them."""
        incomplete = self.executor.workflow.persistence.incomplete

        async def whole() -> bool:
            return all([len(await incomplete(job)) == len(job.output) for job in jobs_of(one.job)])

        with ThreadPoolExecutor(1) as pool:  # this thread's event loop is running
            return pool.submit(asyncio.run, whole()).result()

    def _forced(self, one: Any) -> bool:
        """True where the command line asks for this job to be run, whatever exists."""
        settings = self.executor.workflow.dag_settings
        names = {*one.rule.split("+"), *map(str, one.job.output)}
        forced = {*map(str, settings.forcerun), *map(str, settings.targets if settings.forcetargets else ())}
        return settings.forceall or bool(names & forced)

    def _end(self, one: Any, batch: Batch, entry: Entry) -> bool:
        """End a job that must not go on; False where it has not begun and now never will."""
        identity = batch.external_id(entry)
        if batch.withdraw(entry.n):
            batch.tell(entry)
            if batch.idle(entry.task):
                self._idle.append(identity)
            return False
        if not batch.cancelled:
            self.executor.logger.info(f"submitit: {one.name}: what it computes has changed; ending job {identity}")
            (batch.folder / f"{entry.n}.cancel").touch()
        alone = sum(other.task == entry.task for other in batch.entries) == 1
        if alone and not batch.cancelled:
            self.executor.cluster.cancel([identity], whole=False)
        self._ending.append(Ending(one, batch, entry, time.monotonic(), alone or batch.cancelled))
        return True

    def sweep(self) -> None:
        """Say what was taken over, and cancel the tasks that have nothing left to run."""
        adopted, self._adopted = self._adopted, []
        if adopted:
            what = adopted[0][0] if len(adopted) == 1 else f"{len(adopted)} jobs"
            ids = ", ".join(dict.fromkeys(identity.partition("_")[0] for _, identity in adopted))
            self.executor.logger.info(f"submitit: {what}: taken over from an earlier run, job {ids}")
        if self._idle:
            self.executor.cluster.cancel(self._idle, whole=False)
            self._idle = []

    def ended(self) -> list[Any]:
        """The jobs whose earlier versions have ended by now."""
        if not self._ending or time.monotonic() - self._looked < PAUSE:
            return []
        self._looked = time.monotonic()
        done = [ending for ending in self._ending if self._has_ended(ending)]
        self._ending = [ending for ending in self._ending if ending not in done]
        return [ending.one for ending in done]

    def _has_ended(self, ending: Ending) -> bool:
        batch, entry = ending.batch, ending.entry
        identity = batch.external_id(entry)
        if batch.result(entry.n) is None:
            try:
                if self.executor.cluster.queued([identity]):
                    if not ending.cancelled and time.monotonic() - ending.since > PATIENCE:
                        self.executor.cluster.cancel([identity], whole=False)
                        ending.cancelled = True
                    return False
            except ClusterError:
                return False
            end_leftovers(batch.claim_text(entry.n))
            batch.take_back(entry.n)
        batch.tell(entry)
        return True

    def _read(self) -> dict[str, tuple[Batch, Entry]]:
        batches, damaged = self.executor.ledger.open_batches()
        if damaged and self.executor.cluster.name == "slurm":
            self._end_unknown([COMMENT + folder.name for folder in damaged])
        found = {}
        for batch in batches:
            told = batch.told()
            left = {entry.key: (batch, entry) for entry in batch.entries if entry.n not in told}
            if batch.cluster != self.executor.cluster.name:
                ended = batch.ended()
                self._elsewhere |= {key: batch for key, (_, entry) in left.items() if entry.n not in ended}
            else:
                self.executor.cluster.adopt(batch)  # its tasks hold CPUs and GPUs, whether they are wanted or not
            found |= left
        return found

    def _end_unknown(self, comments: list[str]) -> None:
        """Jobs whose batch cannot be read: what they compute is not known, so they must not go on beside new ones.
        ClusterError until they have ended."""
        live = cluster.live_jobs(COMMENT)
        ids = [live[comment] for comment in comments if comment in live]
        if ids:
            self.executor.logger.warning(f"submitit: the ledger of job(s) {' '.join(ids)} is damaged; cancelling them")
            cluster.cancel(ids)
            raise ClusterError("waiting for their end")
