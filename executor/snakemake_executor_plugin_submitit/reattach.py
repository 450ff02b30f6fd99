"""Takes up what an earlier controller has left in the queue, so that nothing is submitted twice.

A job that still runs is reattached, and one that has finished meanwhile is taken over. A job that
would compute something else now is ended first, and then submitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from snakemake_executor_plugin_submitit import slurm_commands
from snakemake_executor_plugin_submitit.cluster import Cluster, ClusterError
from snakemake_executor_plugin_submitit.interfaces import Logger, Workflow
from snakemake_executor_plugin_submitit.jobs import PendingJob, SubmittedJobs, jobs_of
from snakemake_executor_plugin_submitit.ledger import COMMENT_PREFIX, Batch, JobRecord, Ledger
from snakemake_executor_plugin_submitit.processes import end_leftovers

# A task with several jobs has so long to end one of them before it is cancelled as a whole.
CANCEL_SECONDS = 40
CHECK_SECONDS = 2  # between two looks at the jobs that are to end


@dataclass(eq=False)
class ReplacedJob:
    """A pending job that waits until its earlier version has ended."""

    pending: PendingJob
    batch: Batch
    record: JobRecord
    since: float  # monotonic time
    task_is_cancelled: bool


class EarlierJobs:
    """The jobs of earlier controllers, from the ledger's open batches."""

    def __init__(
        self,
        ledger: Ledger,
        cluster: Cluster,
        jobs: SubmittedJobs,
        workflow: Workflow,
        logger: Logger,
    ) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._jobs = jobs
        self._workflow = workflow
        self._log = logger
        self._is_read = False
        self._unclaimed: dict[str, tuple[Batch, JobRecord]] = {}  # by key
        self._on_other_cluster: set[str] = set()  # keys of jobs that may still run there
        self._replaced: list[ReplacedJob] = []
        self._checked_at = 0.0  # monotonic time
        self._idle_tasks: list[str] = []
        self._reattached: list[tuple[str, str]] = []  # name and task of those not logged yet

    def read_ledger(self) -> None:
        """Read the ledger when the first job is to be submitted.

        Raise ClusterError while it cannot be known what is in the queue.
        """
        if self._is_read:
            return
        batches, damaged = self._ledger.open_batches()
        if damaged and self._cluster.name == "slurm":
            self._cancel_unknown([COMMENT_PREFIX + folder.name for folder in damaged])
        # Collected first, and kept only once all batches are read: ClusterError starts over.
        unclaimed: dict[str, tuple[Batch, JobRecord]] = {}
        on_other_cluster: set[str] = set()
        for batch in batches:
            reported = batch.reported()
            records = [record for record in batch.records if record.number not in reported]
            unclaimed |= {record.key: (batch, record) for record in records}
            if batch.cluster == self._cluster.name:
                self._cluster.reattach(batch)
            else:
                finished = batch.finished_jobs()
                on_other_cluster |= {r.key for r in records if r.number not in finished}
        self._unclaimed, self._on_other_cluster = unclaimed, on_other_cluster
        self._is_read = True

    def _cancel_unknown(self, comments: list[str]) -> None:
        """Cancel the jobs whose batch cannot be read; raise ClusterError until they have ended.

        What they compute is not known, so they must not run beside new ones.
        """
        live = slurm_commands.live_jobs(COMMENT_PREFIX)
        ids = [live[comment] for comment in comments if comment in live]
        if ids:
            names = " ".join(ids)
            self._log.warning(f"submitit: the ledger of job(s) {names} is damaged; cancelling them")
            slurm_commands.cancel(ids)
            raise ClusterError("waiting for the end of jobs whose ledger is damaged")

    def takes(self, pending: PendingJob) -> bool:
        """Return True where a job needs no submission now.

        It is reattached, or waits for the end of another version of itself. Raise RuntimeError
        where it may still run on another cluster.
        """
        if pending.key not in self._unclaimed:
            return False
        batch, record = self._unclaimed[pending.key]
        if pending.key in self._on_other_cluster:
            raise RuntimeError(
                f"it may still run as {batch.cluster} job {batch.slurm_id}; start with "
                f"--submitit-cluster {batch.cluster}, or delete {batch.folder}"
            )
        takes = self._decide(pending, batch, record)
        del self._unclaimed[pending.key]
        return takes

    def _decide(self, pending: PendingJob, batch: Batch, record: JobRecord) -> bool:
        """Return True where the earlier submission of the job makes a new one unnecessary."""
        result = batch.result(record.number)
        is_same = record.params_hash == pending.params_hash
        is_same = is_same and not self._is_older_than_inputs(pending, batch, record)
        if result is not None:
            is_wanted = is_same and not self._is_forced(pending)
            if result.exit_code or not is_wanted or not self._is_unrecorded(pending):
                batch.mark_reported(record)
                return False
        else:
            if batch.slurm_id is None:
                # Its controller died between sbatch and the note of the id, and there is no such
                # job in the queue: sbatch had not succeeded, or the job is over.
                end_leftovers(batch.claim_text(record.number))
                self._abandon(batch, record)
                return False
            if not batch.is_pickled(record):
                # Its controller died between sbatch and the renaming of the pickles. The task
                # cannot start its jobs, now or later, even if the cluster does not cancel it.
                with contextlib.suppress(ClusterError):
                    self._cluster.cancel_tasks([batch.external_id(record)])
                self._abandon(batch, record)
                return False
            if batch.was_cancelled or not is_same:
                return self._replace(pending, batch, record)
        self._reattached.append((pending.name, batch.external_id(record)))
        pending.resubmits, pending.requeues = record.resubmits, record.requeues
        self._jobs.register(pending, batch, record, reattached=True)
        return True

    @staticmethod
    def _abandon(batch: Batch, record: JobRecord) -> None:
        batch.revoke(record.number)
        batch.mark_reported(record)

    def _is_older_than_inputs(self, pending: PendingJob, batch: Batch, record: JobRecord) -> bool:
        """Return True where an input has changed since the job started, and that matters."""
        triggers = {trigger.name for trigger in self._workflow.dag_settings.rerun_triggers}
        started_at = batch.started_at(record.number)
        if not started_at or "MTIME" not in triggers:
            return False
        inputs = pending.job.input
        files = [Path(path) for path in inputs if not getattr(path, "is_ancient", False)]
        return any(path.is_file() and path.stat().st_mtime > started_at for path in files)

    def _is_unrecorded(self, pending: PendingJob) -> bool:
        """Return True where all outputs exist and are marked incomplete.

        Snakemake has then not recorded the job that made them. Where it has, the entry in the
        ledger is left from a controller that was killed between Snakemake's record and the
        ledger's, and the job runs now for a reason of Snakemake's.
        """
        incomplete_outputs = self._workflow.persistence.incomplete

        async def are_all_incomplete() -> bool:
            for job in jobs_of(pending.job):
                if len(await incomplete_outputs(job)) != len(job.output):
                    return False
            return True

        # It runs in another thread, because the event loop of this one is running.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, are_all_incomplete()).result()

    def _is_forced(self, pending: PendingJob) -> bool:
        """Return True where the command line asks for this job even if its outputs exist."""
        settings = self._workflow.dag_settings
        names = {*pending.rule.split("+"), *map(str, pending.job.output)}
        forced = set(map(str, settings.forcerun))
        if settings.forcetargets:
            forced |= set(map(str, settings.targets))
        return settings.forceall or bool(names & forced)

    def _replace(self, pending: PendingJob, batch: Batch, record: JobRecord) -> bool:
        """End a job that must not continue.

        Return False where it has not started, and now never will; then the new version can be
        submitted at once. Else the new version waits in `take_replaced`.
        """
        task_id = batch.external_id(record)
        if batch.withdraw(record.number):
            batch.mark_reported(record)
            if batch.is_idle(record.task):
                self._idle_tasks.append(task_id)
            return False
        if not batch.was_cancelled:
            change = "what it computes has changed; ending job"
            self._log.info(f"submitit: {pending.name}: {change} {task_id}")
            batch.request_cancel(record.number)
        # The other jobs of the task may still be wanted. The task itself ends this one then.
        is_alone = sum(other.task == record.task for other in batch.records) == 1
        is_cancelled = batch.was_cancelled
        if is_alone and not is_cancelled:
            # Where the cluster does not answer, `_has_ended` cancels the task later.
            with contextlib.suppress(ClusterError):
                self._cluster.cancel_tasks([task_id])
                is_cancelled = True
        self._replaced.append(ReplacedJob(pending, batch, record, time.monotonic(), is_cancelled))
        return True

    def settle(self) -> None:
        """Log what was reattached, and cancel the tasks that have no job left to run."""
        reattached, self._reattached = self._reattached, []
        if reattached:
            what = reattached[0][0] if len(reattached) == 1 else f"{len(reattached)} jobs"
            ids = ", ".join(dict.fromkeys(task_id.partition("_")[0] for _, task_id in reattached))
            self._log.info(f"submitit: {what}: taken over from an earlier run, job {ids}")
        if self._idle_tasks:
            with contextlib.suppress(ClusterError):  # the next call tries again
                self._cluster.cancel_tasks(self._idle_tasks)
                self._idle_tasks = []

    def take_replaced(self) -> list[PendingJob]:
        """Return the pending jobs whose earlier versions have ended by now."""
        now = time.monotonic()
        if not self._replaced or now - self._checked_at < CHECK_SECONDS:
            return []
        self._checked_at = now
        ended = [replaced for replaced in self._replaced if self._has_ended(replaced)]
        self._replaced = [replaced for replaced in self._replaced if replaced not in ended]
        return [replaced.pending for replaced in ended]

    def _has_ended(self, replaced: ReplacedJob) -> bool:
        batch, record = replaced.batch, replaced.record
        if batch.result(record.number) is None:
            task_id = batch.external_id(record)
            try:
                is_queued = bool(self._cluster.queued([task_id]))
                is_overdue = time.monotonic() - replaced.since > CANCEL_SECONDS
                if is_queued and is_overdue and not replaced.task_is_cancelled:
                    self._cluster.cancel_tasks([task_id])
                    replaced.task_is_cancelled = True
            except ClusterError:
                return False  # asked again in the next round
            if is_queued:
                return False
            # The task is gone. Neither what it has left behind nor a requeue may run the job.
            end_leftovers(batch.claim_text(record.number))
            batch.revoke(record.number)
        batch.mark_reported(record)
        return True
