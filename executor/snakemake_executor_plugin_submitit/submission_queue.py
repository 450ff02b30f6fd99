"""Jobs on their way to the cluster: waiting to share an array, or in one that was not accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from snakemake_executor_plugin_submitit.cluster import Cluster, ClusterError
from snakemake_executor_plugin_submitit.interfaces import Job, Logger
from snakemake_executor_plugin_submitit.jobs import Outcome, PendingJob, SubmittedJobs
from snakemake_executor_plugin_submitit.ledger import Batch, Ledger
from snakemake_executor_plugin_submitit.packing import (
    JobArray,
    PackLimits,
    build_arrays,
    create_batch,
)
from snakemake_executor_plugin_submitit.reattach import EarlierJobs
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm_commands import is_transient

LONGEST_WAIT = 2.0  # seconds that a job waits for others to share its array
CAPACITY_RETRY_SECONDS = 1  # between two tries to start an array for which there is no room
QUERY_RETRY_SECONDS = 2  # between two tries to find out what the queue holds
LONGEST_RETRY_PAUSE = 300  # seconds between two calls of sbatch


@dataclass(eq=False)
class DelayedArray:
    """An array that is submitted again later."""

    array: JobArray
    attempt: int
    due: float  # monotonic time
    batch: Batch | None = None  # one that Slurm may have accepted although sbatch failed


class SubmissionQueue:
    """Gathers pending jobs and submits them in arrays.

    The scheduler's thread adds jobs, and must not wait for Slurm; the wait thread submits them in
    `flush`. The lock therefore only guards the lists, and is never held during a submission.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        cluster: Cluster,
        ledger: Ledger,
        jobs: SubmittedJobs,
        earlier: EarlierJobs,
        logger: Logger,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._ledger = ledger
        self._jobs = jobs
        self._earlier = earlier
        self._log = logger
        self._lock = threading.Lock()
        self._pending: list[PendingJob] = []
        self._first_added = self._last_added = 0.0  # monotonic times of the pending jobs
        self._refused: list[tuple[Job, str]] = []
        self._delayed: list[DelayedArray] = []  # used by the wait thread and `close`

    def add(self, jobs: Sequence[PendingJob], delay: float = 0.0) -> None:
        """Add jobs to submit, after about `delay` seconds or together with jobs added later."""
        with self._lock:
            self._last_added = time.monotonic() + delay
            if delay or not self._pending:
                self._first_added = self._last_added
            self._pending += jobs

    def refuse(self, job: Job, reason: str) -> None:
        """Note that a job will not be submitted."""
        with self._lock:
            self._refused.append((job, reason))

    @property
    def has_refused(self) -> bool:
        return bool(self._refused)

    def take_refused(self) -> list[tuple[Job, str]]:
        """Return the jobs that were refused since the last call, each with the reason."""
        with self._lock:
            refused, self._refused = self._refused, []
            return refused

    def close(self) -> list[Batch]:
        """Submit nothing more; return the batches that Slurm may have accepted all the same."""
        with self._lock:
            self._pending = []
        uncertain = [delayed.batch for delayed in self._delayed if delayed.batch is not None]
        self._delayed = []
        return uncertain

    def flush(self) -> None:
        """Submit what has waited long enough."""
        now = time.monotonic()
        for delayed in [delayed for delayed in self._delayed if delayed.due <= now]:
            self._delayed.remove(delayed)
            self._submit_again(delayed)
        for array in self._next_arrays():
            self._submit(array)

    def _next_arrays(self) -> list[JobArray]:
        """Return the arrays of the jobs that are due and not in the queue already."""
        taken = self._take_due()
        ready: list[PendingJob] = []
        try:
            if taken:
                # Before anything is submitted: what did an earlier controller leave in the queue?
                self._earlier.read_ledger()
            ready = self._earlier.take_replaced() + [job for job in taken if self._is_new(job)]
            self._earlier.settle()
            if not ready:
                return []
            limits = PackLimits.from_settings(self._settings)
            return build_arrays(ready, self._cluster.capacity, self._cluster.array_size, limits)
        except ClusterError:
            # While the queue cannot be read, a submission could be the second one of its job.
            self.add(ready or taken, delay=QUERY_RETRY_SECONDS)
        except Exception as error:
            for job in ready or taken:
                self._give_up(job, f"{type(error).__name__}: {error}")
        return []

    def _take_due(self) -> list[PendingJob]:
        """Take all pending jobs, once none has been added for a while or the first is old enough.

        Snakemake hands over jobs in fragments, which belong into one array. To wait for long would
        not help: it may offer nothing more until one of these jobs ends.
        """
        debounce = self._settings.debounce
        now = time.monotonic()
        with self._lock:
            is_quiet = now - self._last_added >= debounce
            is_old = now - self._first_added >= min(4 * debounce, LONGEST_WAIT)
            if not self._pending or not (is_quiet or is_old):
                return []
            taken, self._pending = self._pending, []
            return taken

    def _is_new(self, job: PendingJob) -> bool:
        """Return False for a job that an earlier controller has submitted, or that must wait."""
        try:
            return not self._earlier.takes(job)
        except Exception as error:
            is_explained = isinstance(error, RuntimeError)
            self._give_up(job, str(error) if is_explained else f"{type(error).__name__}: {error}")
        return False

    def _give_up(self, job: PendingJob, reason: str) -> None:
        """Report that a job is not submitted, or not again."""
        if job.submission is None:
            self.refuse(job.job, reason)
        else:
            # Snakemake believes it to be running, so that it ends as a job that was submitted.
            message = f"{job.name}: not submitted again: {reason}. "
            job.submission.outcome = Outcome(message)

    def _submit(self, array: JobArray, attempt: int = 0) -> None:
        """Submit an array in one call of sbatch, or put it off.

        The order protects against a death of the controller at any point: the ledger knows the
        batch before sbatch runs, and the comment leads from the ledger to the job in Slurm until
        the id is written.
        """
        if not self._cluster.fits(array.request):
            due = time.monotonic() + CAPACITY_RETRY_SECONDS
            self._delayed.append(DelayedArray(array, attempt, due))
            return
        batch: Batch | None = None
        try:
            batch, tasks, name = create_batch(
                array, self._ledger, self._settings, self._cluster.name
            )
            batch_id = self._cluster.submit(batch, tasks, array.request, name)
        except Exception as error:  # sbatch's complaint, a full disk, …; it concerns this array
            self._handle_rejection(array, batch, attempt, str(error))
            return
        try:
            batch.set_slurm_id(batch_id)
        except OSError as error:
            # A job whose id is not written would be lost: no controller could find it again.
            self._cluster.cancel([batch_id])
            self._handle_rejection(array, batch, attempt, str(error))
            return
        self._log_submission(array, batch_id)
        for record, job in zip(batch.records, array.jobs, strict=True):
            self._jobs.register(job, batch, record)

    def _log_submission(self, array: JobArray, batch_id: str) -> None:
        jobs, task_count = array.jobs, len(array.tasks)
        what = jobs[0].name
        if len(jobs) > 1:
            what = f"{len(jobs)} jobs in {task_count} task{'s' if task_count > 1 else ''}"
        self._log.info(f"submitit: {what} submitted as {self._cluster.name} job {batch_id}")

    def _handle_rejection(
        self,
        array: JobArray,
        batch: Batch | None,
        attempt: int,
        complaint: str,
        is_query: bool = False,
    ) -> None:
        """Try again later where the complaint may pass by itself; else give up the array's jobs.

        With `is_query`, the complaint is about the question whether the batch was accepted, which
        has to be answered in any case. The batch is kept, since it may be in the queue.
        """
        may_pass = is_query or is_transient(complaint)
        if may_pass and attempt + 1 < self._settings.submit_attempts:
            pause = min(LONGEST_RETRY_PAUSE, 2 ** (attempt + 1))
            self._log.warning(f"submitit: {complaint}; trying again in {pause} s")
            due = time.monotonic() + pause
            self._delayed.append(DelayedArray(array, attempt + 1, due, batch))
            return
        reason = complaint
        if batch is not None:
            batch.remove()
            reason = f"{complaint} (requested: {array.request})"
        for job in array.jobs:
            self._give_up(job, reason)

    def _submit_again(self, delayed: DelayedArray) -> None:
        """Submit an array that was put off, without letting it into the queue twice.

        sbatch may fail with a timeout although Slurm has accepted the array. Such an array is found
        by its comment and cancelled. A task of it that starts nevertheless finds nothing to run:
        submitit puts the pickles in place only once it knows the array's id.
        """
        if delayed.batch is not None:
            try:
                batch_id = self._cluster.find(delayed.batch)
                if batch_id is not None:
                    self._cluster.cancel([batch_id])
            except ClusterError as error:
                self._handle_rejection(
                    delayed.array, delayed.batch, delayed.attempt, str(error), is_query=True
                )
                return
            delayed.batch.remove()
        self._submit(delayed.array, delayed.attempt)
