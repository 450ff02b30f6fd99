"""The executor: gathers ready jobs, submits them in arrays, watches them, and takes up what an earlier one left.

Jobs come from Snakemake's scheduler thread (`run_jobs`); they are submitted and watched in the base class's wait
thread. A job's result file is the truth. Slurm is asked, once per round for all jobs without one, only to explain its
absence.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from snakemake_executor_plugin_submitit.outbox import Outbox

TICK = 0.25  # seconds between two looks for new jobs and results


@dataclass
class Live:
    """A job in the queue: its place in a batch, and what is known of it."""

    waiting: Any
    batch: Any
    entry: Any
    info: SubmittedJobInfo
    submitted: float
    outcome: Any = None  # True, or the text of a failure
    gone_since: float | None = None
    adopted: bool = False


class Executor(RemoteExecutor):
    """Snakemake's interface; see the module."""

    def __init__(self, workflow: Any, logger: Any):
        # The wait thread begins inside the base class's constructor and reads these.
        self.live: dict[str, Live] = {}
        self.reported: dict[Any, Live] = {}  # by job: ended, and not yet recorded by Snakemake
        self.outbox = Outbox(self)
        self.guard = threading.RLock()
        self.ready = threading.Event()
        self.closing = self.detached = False
        self.signal = 0  # that ends the controller
        self.wakeup = -1  # a pipe with the signals that have come
        self.totals: dict[str, Any] = {}  # per rule, for the summary
        self.asked_at = 0.0
        self.complained = False  # that Slurm does not answer
        self.replaced: set[str] = set()  # tasks that must not come back
        self.told_of_waiting: set[tuple[str, str]] = set()
        super().__init__(workflow, logger)

    def __post_init__(self) -> None:
        import shutil

        from snakemake_executor_plugin_submitit import adopt, submit
        from snakemake_executor_plugin_submitit.ledger import Ledger

        self.settings = self.executor_settings
        if problem := self.settings.problem():
            raise WorkflowError(f"submitit: {problem}")
        kind = self.settings.cluster
        sbatch = shutil.which("sbatch")
        if kind == "auto":
            kind = "slurm" if sbatch else "local"
        if kind == "slurm" and sbatch is None:
            raise WorkflowError("submitit: no sbatch on PATH; to run without Slurm: --submitit-cluster local")
        self.cluster = (submit.SlurmCluster if kind == "slurm" else submit.LocalCluster)(self.settings)
        self.folder = Path(self.settings.folder).absolute()
        for setting, path in (("folder", self.folder / "batches"), ("logdir", Path(self.settings.logdir))):
            try:
                path.mkdir(parents=True, exist_ok=True)
                (path / ".writable").touch()
                (path / ".writable").unlink()
            except OSError as error:
                raise WorkflowError(f"submitit: {path}: {error.strerror}; give another --submitit-{setting}") from None
        self.ledger = Ledger(self.folder)
        self.earlier = adopt.Earlier(self)
        self.ready.set()

    # --- from the scheduler's thread ---

    def run_jobs(self, jobs: list[Any]) -> None:
        from snakemake_executor_plugin_submitit import exits

        exits.install(self)  # the scheduler sets its own handlers after the executor's constructor
        ready = []
        for job in jobs:
            self.run_job_pre(job)
            if (one := self._prepared(job)) is not None:
                ready.append(one)
        self.outbox.add(ready)  # at once: however slowly they were prepared, they share arrays

    def run_job(self, job: Any) -> None:
        if (one := self._prepared(job)) is not None:
            self.outbox.add([one])

    def _prepared(self, job: Any) -> Any:
        """What is to be submitted of a job; None of one that is refused."""
        from snakemake_executor_plugin_submitit import packing
        from snakemake_executor_plugin_submitit.request import RequestError

        code = "CODE" in {trigger.name for trigger in self.workflow.dag_settings.rerun_triggers}
        try:
            return packing.waiting(job, self.format_job_exec(job), self.settings, code)
        except Exception as error:
            text = str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
            self.outbox.refuse(job, text)
            return None

    # --- from the wait thread ---

    async def sleep(self) -> None:
        """Between two rounds: submit what is ready, and come back at once where a result has come."""
        from snakemake_executor_plugin_submitit import exits

        seconds = self.settings.status_seconds if self.ready.is_set() else TICK
        end = time.monotonic() + max(1.0, seconds)
        while time.monotonic() < end and self.wait:
            await asyncio.sleep(TICK)
            exits.relay(self)
            if self.ready.is_set():
                self._guarded(self.outbox.flush)
                if self.outbox.has_refused or self._news():
                    return

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]):
        if self.ready.is_set():
            self._guarded(self._report_refused)
            self._guarded(self._look)
        for info in active_jobs:
            live = (info.aux or {}).get("live")
            if live is None or live.outcome is None or self.closing:
                yield info
                continue
            self.live.pop(live.waiting.key, None)
            self.reported[info.job] = live
            if live.outcome is True:
                self.report_job_success(info)
            else:
                self._report_failure(info, live.outcome, aux_logs=[live.waiting.log])

    # --- from the scheduler's thread, once Snakemake has recorded how a job ended: the ledger forgets it no sooner ---

    def handle_job_success(self, job: Any) -> None:
        super().handle_job_success(job)
        self._recorded(job)

    def handle_job_error(self, job: Any) -> None:
        super().handle_job_error(job)
        self._recorded(job)

    def _recorded(self, job: Any) -> None:
        if live := self.reported.pop(job, None):
            try:
                live.batch.tell(live.entry)
            except OSError as error:
                self.logger.warning(f"submitit: {live.waiting.name}: the ledger cannot be written: {error}")

    # --- from the wait thread again ---

    def _guarded(self, step: Any) -> None:
        """An exception in the wait thread would end the workflow and leave its jobs in the queue."""
        try:
            with self.guard:
                if not self.closing:
                    step()
        except Exception as error:
            import traceback

            self.logger.warning(f"submitit: {type(error).__name__}: {error}; going on\n{traceback.format_exc()}")

    def _report_refused(self) -> None:
        from snakemake_executor_plugin_submitit import packing

        for job, text in self.outbox.refused():
            job.attempt = max(job.attempt, job.restart_times + 1)  # it would be refused again
            self._report_failure(SubmittedJobInfo(job), f"{packing.title(job)} was not submitted: {text}. ")

    def _report_failure(self, info: SubmittedJobInfo, text: str, **more: Any) -> None:
        if info.job.is_group():  # whose own message leaves the reason out
            self.logger.error(text)
        self.report_job_error(info, msg=text, **more)

    def watch(self, one: Any, batch: Any, entry: Any, adopted: bool = False) -> None:
        """From now on this job is one of ours in the queue."""
        external = batch.external_id(entry)
        first = one.info is None
        info = one.info or SubmittedJobInfo(one.job, external_jobid=external, aux={})
        info.external_jobid = external
        live = Live(one, batch, entry, info, time.time(), adopted=adopted)
        info.aux["live"] = live
        one.info = info
        self.live[one.key] = live
        if first:
            self.report_job_submission(info)

    def _news(self) -> bool:
        """True where a job has ended that has not been told yet."""
        ended: dict[Any, set[int]] = {}
        for live in self.live.values():
            if live.batch.id not in ended:
                ended[live.batch.id] = live.batch.ended()
            if live.outcome is None and live.entry.n in ended[live.batch.id]:
                return True
        return False

    def _look(self) -> None:
        from snakemake_executor_plugin_submitit import judge

        judge.look(self)

    def again(self, live: Live, why: str) -> None:
        """Submit a job once more that Slurm took away; no retry of Snakemake's is used."""
        one = live.waiting
        live.batch.take_back(live.entry.n)
        live.batch.tell(live.entry)
        if one.resubmits >= self.settings.max_resubmits + one.requeues:
            live.outcome = f"{one.name}: {why}, {one.resubmits + 1} times (--submitit-max-resubmits). "
            return
        self.logger.info(f"submitit: {one.name}: {why}; submitting it again")
        one.resubmits += 1
        self.total(one.rule).resubmits += 1
        self.live.pop(one.key, None)
        self.outbox.add([one])

    def total(self, rule: str) -> Any:
        from snakemake_executor_plugin_submitit.exits import Totals

        return self.totals.setdefault(rule, Totals())

    # --- the end ---

    def cancel_jobs(self, active_jobs: Iterable[SubmittedJobInfo]) -> None:
        """All of ours, whatever the base class's list holds at this moment."""
        with self.guard:
            self.closing = True
            unsure = self.outbox.close()
            if self.detached:
                return
            batches = {live.batch.id: live.batch for live in list(self.live.values()) if live.outcome is None}
            ids = [batch.slurm_id for batch in batches.values() if batch.slurm_id]
            ids += [found for batch in unsure if (found := self._found(batch))]
            if ids and self._cancel(ids):
                for batch in batches.values():
                    (batch.folder / "cancelled").touch()
                jobs = sum(live.outcome is None for live in list(self.live.values()))
                self.logger.info(f"submitit: cancelled {jobs} jobs, {self.cluster.name} job {', '.join(ids)}")

    def _cancel(self, ids: list[str]) -> bool:
        """False, with a word, where Slurm cannot be told."""
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        for last in (False, False, True):
            try:
                self.cluster.cancel(ids)
                return True
            except ClusterError as error:
                if last:
                    self.logger.error(f"submitit: {error}; still in the queue: {' '.join(ids)}")
                else:
                    time.sleep(2)
        return False

    def _found(self, batch: Any) -> str | None:
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        with contextlib.suppress(ClusterError):
            return self.cluster.find(batch)
        return None

    def shutdown(self) -> None:
        from snakemake_executor_plugin_submitit import exits

        if self.detached:
            with self.lock:
                self.wait = False
            self.wait_thread.join()
            exits.leave(self)
        if not self.closing:  # nothing is left but after an exception
            self.cancel_jobs([])
        super().shutdown()
        exits.tidy_up(self)
