"""`snakemake --logger ghostgrad`: the progress of the runs, and what failed.

Each finished run gets one line with its result, the totals and the time left; each failed job its
rule, its log and its command. Snakemake's full log is in .snakemake/log/ as usual.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from ghostgrad.files import read_single_row
from ghostgrad.registry.spec import SCALES
from ghostgrad.registry.tasks import RUN_RULES, TASKS

LOG_LINES = 12  # of a failed job's log

if TYPE_CHECKING:

    class RunInfo(logging.LogRecord):
        """Snakemake's record before jobs start, and again after a dry run."""

        stats: Mapping[str, int]  # rule -> number of jobs

    class ResourcesInfo(logging.LogRecord):
        cores: int  # only in the first of these records, and never on a cluster

    class JobInfo(logging.LogRecord):
        jobid: int
        rule_name: str
        wildcards: Mapping[str, str]
        log: Sequence[str]
        resources: Mapping[str, Any]

    class JobFinished(logging.LogRecord):
        job_id: int

    class JobError(logging.LogRecord):
        jobid: int
        rule_name: str
        rule_msg: str | None  # of the executor, about a job on a cluster
        log: Sequence[str] | None
        shellcmd: str | None


@dataclass
class Job:
    """A job that Snakemake has started."""

    rule: str
    wildcards: dict[str, str]
    started: float = field(default_factory=time.monotonic)

    @property
    def is_run(self) -> bool:
        return self.rule in RUN_RULES

    @property
    def target(self) -> str:
        """`<experiment>/<variant>-s<seed>` of a run; else the artifact or the data set, if any."""
        if self.is_run:
            return "{experiment}/{variant}-s{seed}".format_map(self.wildcards)
        return " ".join(
            self.wildcards[key] for key in ("artifact", "name") if key in self.wildcards
        )

    @property
    def name(self) -> str:
        """The target of a run; else the rule with its target."""
        return self.target if self.is_run else f"{self.rule} {self.target}".rstrip()


class LogHandler(LogHandlerBase):
    """Writes to standard error."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.cores: int | None = None  # unknown on a cluster
        self.started = time.monotonic()
        self.total_runs = 0
        self.finished_runs = 0
        self.seconds_of_runs = 0.0
        handlers = {
            LogEvent.RESOURCES_INFO: self._on_resources_info,
            LogEvent.RUN_INFO: self._on_run_info,
            LogEvent.JOB_INFO: self._on_job_info,
            LogEvent.JOB_FINISHED: self._on_job_finished,
            LogEvent.JOB_ERROR: self._on_job_error,
            LogEvent.ERROR: self._on_message,
            None: self._on_message,
        }
        # Snakemake adds the attributes of an event to a plain LogRecord, so that the handlers'
        # types hold by its documentation only.
        self.handlers = cast("dict[str | None, Callable[[logging.LogRecord], None]]", handlers)

    def emit(self, record: logging.LogRecord) -> None:
        handler = self.handlers.get(getattr(record, "event", None))
        if handler is None:  # an event that is not shown
            return
        try:
            handler(record)
        except Exception:  # as every logging handler: a message that fails must not end a build
            self.handleError(record)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _on_resources_info(self, record: ResourcesInfo) -> None:
        self.cores = getattr(record, "cores", None) or self.cores

    def _on_run_info(self, record: RunInfo) -> None:
        self.total_runs = sum(record.stats.get(rule, 0) for rule in RUN_RULES)
        if self.common_settings.dryrun and self.jobs:  # the second record, after the list of jobs
            self._print(record.getMessage())

    def _on_job_info(self, record: JobInfo) -> None:
        job = self.jobs[record.jobid] = Job(record.rule_name, dict(record.wildcards.items()))
        if self.common_settings.dryrun and job.wildcards:
            resources = {key: record.resources.get(key) for key in ("gpu", "mem_mb", "runtime")}
            asked = " ".join(
                f"{key}={value}" for key, value in resources.items() if value is not None
            )
            place = "/".join(filter(None, (job.wildcards.get("scale"), job.target)))
            self._print(f"{job.rule:10} {place:46} {asked}".rstrip())

    def _on_job_finished(self, record: JobFinished) -> None:
        job = self.jobs.pop(record.job_id, None)
        if job is None or not job.is_run:
            return
        seconds = time.monotonic() - job.started
        self.finished_runs += 1
        self.seconds_of_runs += seconds
        count = f"[{self.finished_runs:{len(str(self.total_runs))}}/{self.total_runs}]"
        columns = f"{count} {job.name:36} {run_result(job):34} {duration_text(seconds):>7}"
        self._print(f"{columns}   {self._time_left()}")

    def _time_left(self) -> str:
        """The time left, from the mean duration of the runs so far; it is rounded, because runs
        differ. On a cluster, where any number of runs may go on at a time, it follows from how many
        have finished since the start."""
        left = self.total_runs - self.finished_runs
        if left <= 0:
            return "all runs done"
        if self.cores:
            per_run = self.seconds_of_runs / self.finished_runs / self.cores
        else:
            per_run = (time.monotonic() - self.started) / self.finished_runs
        return f"about {duration_text(left * per_run)} left"

    def _on_job_error(self, record: JobError) -> None:
        job = self.jobs.pop(record.jobid, None)
        name = job.name if job else record.rule_name
        logs = {path: last_lines(Path(path)) for path in record.log or []}
        # A run that was asked to stop exits with an error code too, which is no failure.
        if any(" stopped by " in line for lines in logs.values() for line in lines[-1:]):
            self._print(f"stopped {name}; it is saved: start the same build again to continue it")
            return
        self._print(f"FAILED {name} (rule {record.rule_name})")
        reason = (getattr(record, "rule_msg", None) or "").partition("\n")[0]
        if reason:
            self._print(f"  {reason.partition(' For further error details')[0]}")
        for path, lines in logs.items():
            self._print(f"  log: {path}")
            for line in lines:
                self._print(f"  | {line}")
        command = getattr(record, "shellcmd", None)
        if command:
            self._print(f"  command: {command.strip()}")
        settings = " ".join([*_scale_setting(job, record.log or ()), "partial=true"])
        self._print(
            f"  other jobs continue; to build from what exists: snakemake --config {settings}"
        )

    def _on_message(self, record: logging.LogRecord) -> None:
        """Pass on warnings, errors and what the executor says of its queue."""
        text = record.getMessage() if record.msg else ""
        # _on_job_error has reported a failed command already.
        is_warning = record.levelno >= logging.WARNING and "CalledProcessError" not in text
        is_of_executor = text.startswith("submitit: ")
        is_up_to_date = self.common_settings.dryrun and text.startswith("Nothing to be done")
        if text and (is_warning or is_of_executor or is_up_to_date):
            self._print(text)


def _scale_setting(job: Job | None, logs: Sequence[str]) -> list[str]:
    """`scale=<scale>` of a job, from its wildcards or from its log, `results/<scale>/logs/…`; that
    of the command line for a job of no scale, such as `data`."""
    if job and "scale" in job.wildcards:
        return [f"scale={job.wildcards['scale']}"]
    for path in logs:
        folder, scale = (*Path(path).parts, "")[:2]
        if folder == "results" and scale in SCALES:
            return [f"scale={scale}"]
    return [word for word in sys.argv if word.startswith("scale=")][:1]


def run_result(job: Job) -> str:
    """The outcome of a finished run in a few words, from its metrics.csv; empty without one."""
    directory = "results/{scale}/runs/{experiment}/{variant}-s{seed}".format_map(job.wildcards)
    try:
        metrics = read_single_row(Path(directory, "metrics.csv"))
    except (OSError, ValueError):
        return ""
    if metrics.get("status") == "diverged":
        return f"diverged at step {metrics.get('diverged_at')}"
    for task in TASKS.values():
        if task.result and metrics.get(task.result[0]):
            column, name = task.result
            return f"{name} {float(metrics[column]):.1f} %"
    for quantity in ("gradient_norm", "gradient_variance"):
        first, last = (metrics.get(f"{end}_{quantity}") for end in ("first", "last"))
        if first and last:
            return f"{quantity.replace('_', ' ')} {float(first):.3g} to {float(last):.3g}"
    return f"{metrics['repeats']} repeats" if "repeats" in metrics else ""


def last_lines(path: Path) -> list[str]:
    """The end of a log; empty if there is no such file."""
    try:
        return path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def duration_text(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
