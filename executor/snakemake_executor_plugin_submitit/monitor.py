"""Watches the jobs in the queue: their result files, and what the cluster says of the others."""

from __future__ import annotations

import contextlib
import enum
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from snakemake_executor_plugin_submitit.cluster import (
    ENDED,
    TAKEN_AWAY,
    Cluster,
    ClusterError,
    State,
)
from snakemake_executor_plugin_submitit.interfaces import Logger
from snakemake_executor_plugin_submitit.jobs import Outcome, SubmittedJob, SubmittedJobs
from snakemake_executor_plugin_submitit.ledger import Batch, JobResult
from snakemake_executor_plugin_submitit.processes import end_leftovers
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.submission_queue import SubmissionQueue
from snakemake_executor_plugin_submitit.usage import UsageSummary

# States of a task that has ended by its own doing.
OWN_FAILURES = ("FAILED", "OUT_OF_MEMORY", "TIMEOUT", "COMPLETED", "DEADLINE")
# Reasons for which a task does not start unless somebody does something.
BLOCKED = re.compile(
    r"[Hh]eld|PartitionNodeLimit|PartitionTimeLimit|PartitionDown|PartitionInactive|"
    r"BadConstraints|Invalid|NotAllowed|DependencyNeverSatisfied|PerJob|ReservationDeleted|Licenses"
)
LOG_TAIL_LINES = 12  # of a failed job's log, in its message
LOG_TAIL_BYTES = 2**16  # in which these lines are looked for


class Loss(enum.Enum):
    """Why a task is over although a job of it has no result; see `classify_loss`."""

    NOT_STARTED = enum.auto()  # the job never ran: submit it again
    TAKEN_AWAY = enum.auto()  # Slurm ended it, or it was saved for a requeue: submit it again
    FAILED = enum.auto()  # the job, or somebody who cancelled it, is the reason: report a failure


class Monitor:
    """Gives every job that has ended its outcome, and submits again what Slurm has taken away.

    A job's result file is the truth. The cluster is asked, once per round for all jobs without one,
    only to explain why it is missing.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        cluster: Cluster,
        jobs: SubmittedJobs,
        queue: SubmissionQueue,
        usage: UsageSummary,
        logger: Logger,
        latency_wait: float,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._jobs = jobs
        self._queue = queue
        self._usage = usage
        self._log = logger
        # Seconds until a file is visible on every machine of a network file system.
        self._latency_wait = 0.0 if cluster.name == "local" else latency_wait
        self._asked_at = 0.0  # monotonic time of the last query
        self._cluster_is_silent = False
        self._cancelled_tasks: set[str] = set()  # lost tasks that must not come back
        self._reported_blocks: set[tuple[str, str]] = set()

    def has_new_results(self) -> bool:
        """Return True where a job has ended that `poll` has not looked at."""
        finished: dict[str, set[int]] = {}
        for job in self._jobs.all():
            if job.batch.id not in finished:
                finished[job.batch.id] = job.batch.finished_jobs()
            if job.outcome is None and job.record.number in finished[job.batch.id]:
                return True
        return False

    def poll(self) -> None:
        """Read new results, then ask the cluster about the remaining jobs if it is time to."""
        by_batch: defaultdict[str, list[SubmittedJob]] = defaultdict(list)
        for job in self._jobs.unfinished():
            by_batch[job.batch.id].append(job)
        for members in by_batch.values():
            finished = members[0].batch.finished_jobs()
            for job in members:
                if job.record.number in finished and (result := job.result()) is not None:
                    self.finish(job, result)
        remaining = self._jobs.unfinished()  # without those that were resubmitted just now
        is_due = time.monotonic() - self._asked_at >= self._settings.status_seconds
        if remaining and is_due:
            self._ask_cluster(remaining)

    def finish(self, job: SubmittedJob, result: JobResult) -> None:
        """Give a job that has a result its outcome."""
        pending = job.pending
        self._usage.add_runtime(pending.rule, pending.request, result)
        failed_at_own_limit = result.exit_code != 0 and result.hit_own_limit
        if failed_at_own_limit and pending.requeues < self._settings.max_requeues:
            # The limit of a packed job is over, that of its task is not. Alone in its task the job
            # would have been requeued to resume, so it is submitted once more instead.
            pending.requeues += 1
            self._resubmit(job, result.reason)
            return
        # For a job that was reattached, `submitted_at` is not the time of its submission.
        waited = 0.0 if job.reattached else max(0.0, result.started_at - job.submitted_at)
        self._usage.add_finished(pending.rule, pending.request, result, waited)
        if result.exit_code == 0:
            job.outcome = Outcome()
            return
        reason = result.reason or _describe_exit(result.exit_code)
        if result.out_of_memory:
            used = f"{result.max_rss_mb} MB used when last measured"
            reason = f"out of memory: {pending.request.mem_mb} MB requested, {used}"
        job.outcome = Outcome(failure_message(job, reason, result.node))

    def _ask_cluster(self, remaining: Sequence[SubmittedJob]) -> None:
        self._asked_at = time.monotonic()
        try:
            states = self._cluster.states([job.external_id for job in remaining])
        except ClusterError as error:
            # Not a reason to give up any job. One warning is enough for a long outage.
            if not self._cluster_is_silent:
                self._log.warning(f"submitit: {error}; asking again, results are still noticed")
            self._cluster_is_silent = True
            return
        self._cluster_is_silent = False
        for job in remaining:
            state = states.get(job.external_id)
            if state is not None and state.is_alive:
                job.missing_since = None
                self._warn_if_blocked(job, state)
                continue
            # That the task is not alive is not its end yet. Time may pass between the end of a task
            # and its result file, and between PREEMPTED and the PENDING of Slurm's own requeue.
            if job.missing_since is None:
                job.missing_since = time.monotonic()
            if time.monotonic() - job.missing_since < self._patience(state):
                continue
            try:
                self._handle_lost(job, state)
            except ClusterError:  # its task could not be cancelled; the next round tries again
                continue
            except Exception as error:  # concerns this job alone, such as a deleted ledger
                message = f"{job.pending.name}: {type(error).__name__}: {error}. "
                job.outcome = Outcome(message)

    def _patience(self, state: State | None) -> float:
        """Return how many seconds to wait for the result of a task that is no longer alive."""
        grace = self._settings.grace
        if state is None or state.word not in ENDED:
            return grace  # unknown, or taken away and perhaps requeued by Slurm
        if state.word == "COMPLETED":
            return max(self._latency_wait, grace)  # there should be a result
        return max(self._latency_wait, min(grace, 2 * self._settings.status_seconds))

    def _warn_if_blocked(self, job: SubmittedJob, state: State) -> None:
        """Say once for each array and reason that a task will not start by itself."""
        block = (job.batch.id, state.reason)
        if block in self._reported_blocks or not BLOCKED.search(f"{state.word} {state.reason}"):
            return
        self._reported_blocks.add(block)
        reason = state.reason if state.reason not in ("", "None") else state.word
        where = f"{job.pending.name}, job {job.external_id}"
        self._log.warning(f"submitit: {where}, is waiting: {reason}")

    def _handle_lost(self, job: SubmittedJob, state: State | None) -> None:
        """Decide about a job whose task is over without a result of the job."""
        # One last look: the result may have become visible since the beginning of the round.
        if (result := job.result()) is not None:
            self.finish(job, result)
            return
        number = job.record.number
        # Without Slurm nobody else ends the processes of a task that was killed.
        end_leftovers(job.batch.claim_text(number))
        loss = classify_loss(job.batch, number, job.record.task, state)
        word = (state.word or state.reason) if state else "gone from the queue and from accounting"
        if state is None or state.word not in ENDED:
            # Slurm may still requeue it. It must not run beside the next submission of its jobs.
            self._cancel_lost_task(job.external_id)
        if loss is Loss.NOT_STARTED:
            self._resubmit(job, f"its task ended before the job started ({word})")
        elif loss is Loss.TAKEN_AWAY:
            node = state.node if state and state.node else "its node"
            self._resubmit(job, f"{word} on {node}")
        else:
            job.batch.revoke(number)
            self._usage.add_lost(job.pending.rule, job.pending.request)
            reason = _describe_loss(job.batch, word)
            if state and state.exit_code not in ("", "0:0"):
                reason += f" (exit code {state.exit_code})"
            job.outcome = Outcome(failure_message(job, reason, state.node if state else ""))

    def _cancel_lost_task(self, task_id: str) -> None:
        if task_id not in self._cancelled_tasks:  # once for all jobs of the task
            self._cluster.cancel_tasks([task_id])
            self._cancelled_tasks.add(task_id)

    def _resubmit(self, job: SubmittedJob, reason: str) -> None:
        """Submit a job once more without using a retry of Snakemake's."""
        pending = job.pending
        # First the old submission must not be able to run the job any more, not even for a later
        # controller; only then may the job go into another one.
        job.batch.revoke(job.record.number)
        job.batch.mark_reported(job.record)
        # Resubmissions at the job's own time limit are bounded by max_requeues already.
        if pending.resubmits >= self._settings.max_resubmits + pending.requeues:
            count = pending.resubmits + 1
            times = f"{'once' if count == 1 else f'{count} times'} (--submitit-max-resubmits)"
            job.outcome = Outcome(f"{pending.name}: {reason}, {times}. ")
            return
        self._log.info(f"submitit: {pending.name}: {reason}; submitting it again")
        pending.resubmits += 1
        self._usage.add_resubmission(pending.rule)
        self._jobs.remove(pending.key)
        self._queue.add([pending])


def classify_loss(batch: Batch, number: int, task: int, state: State | None) -> Loss:
    """Return why a task is over although one of its jobs has no result.

    A task that has ended by itself, or was cancelled, before any of its jobs started is a failure
    of each of them: to submit them again would end in the same way. Where other jobs of the task
    have started, the one that ran is to blame, and those after it are not.
    """
    word = state.word if state else ""
    task_has_started = any(
        batch.has_started(record.number) for record in batch.records if record.task == task
    )
    is_to_blame = not task_has_started and word in (*OWN_FAILURES, "CANCELLED")
    if not batch.has_started(number) and not is_to_blame:
        return Loss.NOT_STARTED
    # A job that was saved comes back from where it was, unless somebody has cancelled it.
    was_saved = batch.was_saved(task) and word != "CANCELLED"
    if state is not None and (word in TAKEN_AWAY or was_saved):
        return Loss.TAKEN_AWAY
    return Loss.FAILED


def _describe_loss(batch: Batch, word: str) -> str:
    reasons = {
        "TIMEOUT": f"reached its time limit of {batch.request.minutes} min",
        "OUT_OF_MEMORY": f"out of memory: {batch.request.mem_mb} MB requested",
        "CANCELLED": "cancelled from outside",
        "COMPLETED": "its task ended and it has no result",
        "FAILED": "its task failed and it has no result",
    }
    return reasons.get(word, word)


def _describe_exit(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code > 0 else f"killed by signal {-exit_code}"


def failure_message(job: SubmittedJob, reason: str, node: str) -> str:
    """Return rule and wildcards, id in the queue, node, reason and the last lines of the log."""
    name, log = job.pending.name, Path(job.pending.log)
    where = f" on {node}" if node else ""
    lines = [f"{name}, {job.batch.cluster} job {job.external_id}{where}: {reason}.", f"Log: {log}"]
    # For a job that never started, the log of its task says more than its own.
    for path in (log, job.batch.task_log(job.record)):
        with contextlib.suppress(OSError):
            if text := strip_snakemake_lines(_read_tail(path).splitlines()):
                lines += [f"  | {line}" for line in text[-LOG_TAIL_LINES:]]
                break
    return "\n".join(lines) + "\n"


def _read_tail(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return stream.read().decode(errors="replace")


def strip_snakemake_lines(log: list[str]) -> list[str]:
    """Return what the job itself has printed.

    Removed are submitit's lines and what the Snakemake around the job prints before and after it.
    A requeued job appends to its log, so that only the part after the last start counts.
    """
    log = [
        line for line in log if not line.startswith(("submitit INFO", "Will exit after finishing"))
    ]
    starts = [index for index, line in enumerate(log) if line.startswith("    resources: ")]
    first = starts[-1] + 1 if starts else 0
    errors = [index for index, line in enumerate(log) if line.startswith("Error in rule ")]
    ends = [index for index in errors if index > first]
    # The line before "Error in rule" is its date.
    return log[first : ends[0] - 1 if ends else None]
