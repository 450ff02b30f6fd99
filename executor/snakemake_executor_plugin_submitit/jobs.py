"""The jobs that this controller has in hand: those to be submitted, and those in the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import cast

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.interfaces import GroupJob, Job, SingleJob
from snakemake_executor_plugin_submitit.ledger import (
    Batch,
    JobRecord,
    JobResult,
    job_key,
    params_hash,
)
from snakemake_executor_plugin_submitit.request import Request, build_request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.snakemake_call import snakemake_arguments

LONGEST_LOG_NAME = 150  # characters
LONGEST_TITLE = 200


@dataclass(eq=False)
class PendingJob:
    """A job that is to be submitted, for the first time or again."""

    job: Job
    key: str  # see `ledger.job_key`
    params_hash: str
    name: str  # for messages: rule (wildcard=value, …)
    rule: str
    log: str
    command: str  # that runs the job on the node: a call of Snakemake
    request: Request
    can_be_packed: bool
    attempt: int = 1  # Snakemake's
    resubmits: int = 0
    requeues: int = 0  # at the time limit, over all its submissions
    submission: SubmittedJob | None = None  # the last one, where it was submitted before


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `failure` is the message for the user, empty after a success."""

    failure: str = ""

    @property
    def is_success(self) -> bool:
        return not self.failure


@dataclass(eq=False)
class SubmittedJob:
    """A job in the queue: its place in a batch, and what is known of its progress."""

    pending: PendingJob
    batch: Batch
    record: JobRecord
    info: SubmittedJobInfo
    submitted_at: float  # seconds since the epoch
    reattached: bool = False  # submitted by an earlier controller
    outcome: Outcome | None = None  # None while the job waits or runs
    missing_since: float | None = None  # monotonic time since when its task has not been alive

    @property
    def external_id(self) -> str:
        return self.info.external_jobid or ""

    def result(self) -> JobResult | None:
        return self.batch.result(self.record.number)


class SubmittedJobs:
    """The jobs in the queue, by key. Only the wait thread changes them."""

    def __init__(self, report_submission: Callable[[SubmittedJobInfo], None]) -> None:
        self._jobs: dict[str, SubmittedJob] = {}
        self._report_submission = report_submission

    def register(
        self, pending: PendingJob, batch: Batch, record: JobRecord, reattached: bool = False
    ) -> None:
        """Take a job into the queue, and tell Snakemake where it was not there before.

        The base class keeps the SubmittedJobInfo of every active job. A job that is submitted again
        therefore keeps its object, which only gets the new id.
        """
        is_first_submission = pending.submission is None
        if pending.submission is None:
            info = SubmittedJobInfo(cast(JobExecutorInterface, pending.job))
        else:
            info = pending.submission.info
        info.external_jobid = batch.external_id(record)
        submitted = SubmittedJob(pending, batch, record, info, time.time(), reattached)
        info.aux = {"submission": submitted}
        pending.submission = submitted
        self._jobs[pending.key] = submitted
        if is_first_submission:
            self._report_submission(info)

    @staticmethod
    def of(info: SubmittedJobInfo) -> SubmittedJob | None:
        """Return the job that `register` has attached to the base class's object."""
        submitted: SubmittedJob | None = (info.aux or {}).get("submission")
        return submitted

    def remove(self, key: str) -> None:
        self._jobs.pop(key, None)

    def all(self) -> list[SubmittedJob]:
        return list(self._jobs.values())

    def unfinished(self) -> list[SubmittedJob]:
        return [submitted for submitted in self.all() if submitted.outcome is None]


def pending_job(
    job: Job, command: str, settings: ExecutorSettings, hash_code: bool = False
) -> PendingJob:
    """Return what is to be submitted for a job of Snakemake's.

    `command` is the call of Snakemake that runs the job. With `hash_code`, a change of the rule's
    command or script makes it a different job. Raise RequestError where the resources of the job
    cannot be requested.
    """
    names = ("account", "partition", "qos", "reservation")
    defaults = {name: getattr(settings, name) for name in names}
    members = jobs_of(job)
    rule, wildcards = _rule_and_wildcards(job)
    key = job_key(str(Path.cwd()), rule, [path for member in members for path in member.output])
    return PendingJob(
        job=job,
        key=key,
        params_hash=params_hash([_params(member, hash_code) for member in members], job.input),
        name=title(job),
        rule=rule,
        log=str(log_path(settings.logdir, rule, wildcards, key[:8]).absolute()),
        command=command,
        request=build_request(
            job.resources, job.threads, defaults, is_mpi=bool(job.resources.get("mpi"))
        ),
        can_be_packed=not job.is_group() and snakemake_arguments(command) is not None,
        attempt=job.attempt,
    )


def jobs_of(job: Job) -> list[SingleJob]:
    """Return the members of a group, in the same order in every run; else the job itself."""
    if not job.is_group():
        return [cast(SingleJob, job)]
    return sorted(
        cast(GroupJob, job).jobs,
        key=lambda member: (member.rule.name, *map(str, member.output)),
    )


def _params(job: SingleJob, with_code: bool) -> list[object]:
    """Return what a job computes with: all params, the unnamed ones too, and its code."""
    params: list[object] = [list(job.params), dict(job.params.items())]
    if with_code:
        params += [job.rule.shellcmd, str(job.rule.script or "")]
    return params


def _rule_and_wildcards(job: Job) -> tuple[str, list[tuple[str, str]]]:
    """Return the rule, or the rules of a group joined by +, and the wildcards.

    Snakemake gives a group a random name, so that name cannot identify it in another run.
    """
    members = jobs_of(job)
    rules = dict.fromkeys(member.rule.name for member in members)
    wildcards = dict.fromkeys(pair for member in members for pair in member.wildcards.items())
    return "+".join(rules), list(wildcards)


def title(job: Job) -> str:
    """Return `rule (wildcard=value, …)`."""
    rule, wildcards = _rule_and_wildcards(job)
    values = ", ".join(f"{key}={value}" for key, value in wildcards)
    return f"{rule} ({shorten(values, LONGEST_TITLE, placeholder=' …')})" if values else rule


def log_path(logdir: str, rule: str, wildcards: Sequence[tuple[str, str]], key: str) -> Path:
    """Return <logdir>/<rule>/<wildcard values>.log, readable and safe as a file name.

    `key` is appended wherever another job could have the same name.
    """
    name = "-".join(str(value) for _, value in wildcards) or "job"
    safe = "".join(c if c.isalnum() or c in "._-+=@" else "_" for c in name)
    is_ambiguous = len(wildcards) > 1 or safe != name or "+" in rule
    if is_ambiguous or len(safe) > LONGEST_LOG_NAME:
        safe = f"{safe[:LONGEST_LOG_NAME]}-{key}"
    return Path(logdir, rule[:LONGEST_LOG_NAME], f"{safe}.log")
