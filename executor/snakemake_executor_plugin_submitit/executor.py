"""The executor: Snakemake's interface, and the wiring of the parts that do the work.

Two threads call the executor. Snakemake's scheduler thread hands over ready jobs (`run_jobs`) and
confirms that it has recorded their ends (`handle_job_success`, `handle_job_error`). The wait thread
of the base class submits the jobs and watches them (`sleep`, `check_active_jobs`).

- `SubmissionQueue` gathers jobs and submits them in arrays,
- `EarlierJobs` takes up what an earlier controller has left,
- `Monitor` notices how jobs end,
- `SubmittedJobs` knows the jobs that are in the queue,
- `SignalHandler` decides what a signal does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.logging import LoggerExecutorInterface
from snakemake_interface_executor_plugins.workflow import WorkflowExecutorInterface

from snakemake_executor_plugin_submitit.settings import ExecutorSettings

# Every start of Snakemake imports this module. What only a workflow on a cluster needs is imported
# in `__post_init__` and in the methods that run after it.
if TYPE_CHECKING:
    from snakemake_executor_plugin_submitit.cluster import Cluster
    from snakemake_executor_plugin_submitit.interfaces import Job, Logger, Workflow
    from snakemake_executor_plugin_submitit.jobs import PendingJob, SubmittedJob
    from snakemake_executor_plugin_submitit.ledger import Batch

TICK_SECONDS = 0.25  # between two looks for new jobs and results
CANCEL_ATTEMPTS = 3
CANCEL_PAUSE_SECONDS = 2


class Executor(RemoteExecutor):
    """Runs the jobs of a workflow on Slurm, or on this machine, through submitit."""

    def __init__(
        self, workflow: WorkflowExecutorInterface, logger: LoggerExecutorInterface
    ) -> None:
        # The base class starts the wait thread before it calls `__post_init__`. Until `_ready` is
        # set, that thread uses nothing but these.
        self._ready = threading.Event()
        self._guard = threading.RLock()  # one round of the wait thread, or the cancellation
        self._closing = False
        # Ended jobs whose end Snakemake has not recorded yet.
        self._unrecorded: dict[object, SubmittedJob] = {}
        self._workflow = cast("Workflow", workflow)
        self._log = cast("Logger", logger)
        super().__init__(workflow, logger)

    def __post_init__(self) -> None:
        from snakemake_executor_plugin_submitit.jobs import SubmittedJobs
        from snakemake_executor_plugin_submitit.ledger import Ledger
        from snakemake_executor_plugin_submitit.monitor import Monitor
        from snakemake_executor_plugin_submitit.reattach import EarlierJobs
        from snakemake_executor_plugin_submitit.shutdown import SignalHandler
        from snakemake_executor_plugin_submitit.submission_queue import SubmissionQueue
        from snakemake_executor_plugin_submitit.usage import UsageSummary

        self._settings = cast(ExecutorSettings, self.executor_settings)
        if problem := self._settings.find_problem():
            raise WorkflowError(f"submitit: {problem}")
        self._cluster = _choose_cluster(self._settings)
        folder = Path(self._settings.folder).absolute()
        _check_writable("folder", folder / "batches")
        _check_writable("logdir", Path(self._settings.logdir))
        settings, cluster, log = self._settings, self._cluster, self._log
        self._ledger = Ledger(folder)
        self._usage = UsageSummary()
        self._jobs = SubmittedJobs(self.report_job_submission)
        earlier = EarlierJobs(self._ledger, cluster, self._jobs, self._workflow, log)
        self._queue = SubmissionQueue(settings, cluster, self._ledger, self._jobs, earlier, log)
        self._monitor = Monitor(
            settings,
            cluster,
            self._jobs,
            self._queue,
            self._usage,
            log,
            self._workflow.execution_settings.latency_wait,
        )
        self._signals = SignalHandler(settings)
        self._ready.set()

    # --- called from the scheduler's thread ---

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        # Not in the constructor: the scheduler installs its own handlers after that.
        self._signals.install()
        pending = []
        for job in jobs:
            self.run_job_pre(job)
            if (pending_job := self._prepare(job)) is not None:
                pending.append(pending_job)
        # All at once: however long it took to prepare them, they share arrays.
        self._queue.add(pending)

    def run_job(self, job: JobExecutorInterface) -> None:
        if (pending_job := self._prepare(job)) is not None:
            self._queue.add([pending_job])

    def _prepare(self, job: JobExecutorInterface) -> PendingJob | None:
        """Return what is to be submitted for a job; None where it is refused.

        An exception in this thread would end the whole workflow, so that the error is reported
        later, from the wait thread, as that of the job.
        """
        from snakemake_executor_plugin_submitit.jobs import pending_job
        from snakemake_executor_plugin_submitit.request import RequestError

        snakemake_job = cast("Job", job)
        triggers = {trigger.name for trigger in self._workflow.dag_settings.rerun_triggers}
        try:
            command = self.format_job_exec(job)
            return pending_job(snakemake_job, command, self._settings, "CODE" in triggers)
        except RequestError as error:
            self._queue.refuse(snakemake_job, str(error))
        except Exception as error:
            self._queue.refuse(snakemake_job, f"{type(error).__name__}: {error}")
        return None

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        super().handle_job_success(job)
        self._mark_reported(job)

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        super().handle_job_error(job)
        self._mark_reported(job)

    def _mark_reported(self, job: JobExecutorInterface) -> None:
        """Note in the ledger that Snakemake has recorded the end of a job.

        Only now, and not when the end is reported: a controller that died in between would have
        neither record, and the next one would run the job again.
        """
        submitted = self._unrecorded.pop(job, None)
        if submitted is None:
            return
        try:
            submitted.batch.mark_reported(submitted.record)
        except OSError as error:
            name = submitted.pending.name
            self._log.warning(f"submitit: {name}: the ledger cannot be written: {error}")

    # --- called from the wait thread ---

    async def sleep(self) -> None:
        """Wait between two rounds: submit what is ready, and return early for a new result."""
        is_ready = self._ready.is_set()
        seconds = self._settings.status_seconds if is_ready else TICK_SECONDS
        end = time.monotonic() + max(1.0, seconds)
        while time.monotonic() < end and self.wait:
            await asyncio.sleep(TICK_SECONDS)
            if not self._ready.is_set():
                continue
            self._signals.relay()
            self._run_guarded(self._queue.flush)
            if self._queue.has_refused or self._monitor.has_new_results():
                return

    async def check_active_jobs(  # type: ignore[override]  # it is not annotated as a generator
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        from snakemake_executor_plugin_submitit.jobs import SubmittedJobs

        if self._ready.is_set():
            self._run_guarded(self._report_refused)
            self._run_guarded(self._monitor.poll)
        for info in active_jobs:
            submitted = SubmittedJobs.of(info)
            if submitted is None or submitted.outcome is None or self._closing:
                yield info
                continue
            self._jobs.remove(submitted.pending.key)
            # Before the report, since the scheduler's thread may react to it at once.
            self._unrecorded[info.job] = submitted
            if submitted.outcome.is_success:
                self.report_job_success(info)
            else:
                logs = [submitted.pending.log]
                self._report_failure(info, submitted.outcome.failure, aux_logs=logs)

    def _run_guarded(self, step: Callable[[], None]) -> None:
        """Run a step of a round, unless the executor is closing.

        An exception in the wait thread would end the workflow and leave its jobs in the queue.
        """
        try:
            with self._guard:
                if not self._closing:
                    step()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            self._log.warning(f"submitit: {problem}; continuing\n{traceback.format_exc()}")

    def _report_refused(self) -> None:
        from snakemake_executor_plugin_submitit.jobs import title

        for job, reason in self._queue.take_refused():
            job.attempt = max(job.attempt, job.restart_times + 1)  # it would be refused again
            info = SubmittedJobInfo(cast(JobExecutorInterface, job))
            self._report_failure(info, f"{title(job)} was not submitted: {reason}. ")

    def _report_failure(self, info: SubmittedJobInfo, message: str, **details: Any) -> None:
        if info.job.is_group():  # Snakemake's message for a group leaves the reason out
            self._log.error(message)
        self.report_job_error(info, msg=message, **details)

    # --- the end ---

    def cancel_jobs(self, active_jobs: Iterable[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this controller.

        `active_jobs` is not used: the base class empties its list while `check_active_jobs` runs,
        so that it may be incomplete at this moment.
        """
        # The guard waits for a submission that is under way, whose jobs are then known.
        with self._guard:
            self._closing = True
            uncertain = self._queue.close()
            if self._signals.must_detach:
                return
            unfinished = self._jobs.unfinished()
            batches = {job.batch.id: job.batch for job in unfinished}
            ids = [batch_id for batch in batches.values() if (batch_id := batch.slurm_id)]
            ids += [batch_id for batch in uncertain if (batch_id := self._find(batch))]
            if ids and self._cancel(ids):
                for batch in batches.values():
                    batch.mark_cancelled()
                what = f"{len(unfinished)} jobs, {self._cluster.name} job {', '.join(ids)}"
                self._log.info(f"submitit: cancelled {what}")

    def _cancel(self, ids: list[str]) -> bool:
        """Return False, with an error message, where the cluster does not answer."""
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        for attempt in range(1, CANCEL_ATTEMPTS + 1):
            try:
                self._cluster.cancel(ids)
                return True
            except ClusterError as error:
                if attempt == CANCEL_ATTEMPTS:
                    self._log.error(f"submitit: {error}; still in the queue: {' '.join(ids)}")
                else:
                    time.sleep(CANCEL_PAUSE_SECONDS)
        return False

    def _find(self, batch: Batch) -> str | None:
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        with contextlib.suppress(ClusterError):
            return self._cluster.find(batch)
        return None

    def shutdown(self) -> None:
        from snakemake_executor_plugin_submitit.shutdown import detach, remove_closed_batches

        if self._signals.must_detach:
            with self.lock:
                self.wait = False
            self.wait_thread.join()
            exit_status = self._signals.exit_status
            detach(self._jobs, self._cluster.name, self._workflow, self._log, exit_status)
        # After an exception Snakemake shuts down without a call of `cancel`. Otherwise no job is
        # left, and this does nothing.
        if not self._closing:
            self.cancel_jobs([])
        super().shutdown()  # type: ignore[no-untyped-call]
        if self._usage and not self._settings.no_summary:
            self._log.info(f"submitit: {self._usage.table()}")
        remove_closed_batches(self._ledger, self._settings)


def _choose_cluster(settings: ExecutorSettings) -> Cluster:
    import shutil

    from snakemake_executor_plugin_submitit.local import LocalCluster
    from snakemake_executor_plugin_submitit.slurm import SlurmCluster

    has_sbatch = shutil.which("sbatch") is not None
    if settings.cluster == "local" or (settings.cluster == "auto" and not has_sbatch):
        return LocalCluster(settings)
    if not has_sbatch:
        hint = "to run without Slurm: --submitit-cluster local"
        raise WorkflowError(f"submitit: no sbatch on PATH; {hint}")
    return SlurmCluster(settings)


def _check_writable(setting: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        hint = f"choose another --submitit-{setting}"
        raise WorkflowError(f"submitit: {path}: {error.strerror}; {hint}") from None
