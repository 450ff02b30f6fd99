"""`snakemake --logger ghostgrad`: one line per finished run with totals and the time left, and for a failed job its
rule, log and command. Snakemake's full log stays in .snakemake/log/."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase

from ghostgrad.registry.tasks import RUN_RULES, TASKS

TAIL = 12  # lines of a failed job's log


@dataclass
class Job:
    rule: str
    wildcards: dict[str, str]
    log: list[str]
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        w = self.wildcards
        if self.rule in RUN_RULES:
            return f"{w['experiment']}/{w['variant']}-s{w['seed']}"
        return " ".join([self.rule, *(w[key] for key in ("artifact", "name") if key in w)])


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
        self.began = time.monotonic()
        self.total = self.done = 0
        self.spent = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            handle = getattr(self, f"_{getattr(record, 'event', None) or 'other'}", None)
            if handle is not None:
                handle(record)
        except Exception:
            self.handleError(record)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _resources_info(self, record: logging.LogRecord) -> None:
        self.cores = getattr(record, "cores", None) or self.cores

    def _run_info(self, record: logging.LogRecord) -> None:
        stats = record.stats
        self.total = sum(stats.get(rule, 0) for rule in RUN_RULES)
        if self.common_settings.dryrun and self.jobs:  # a dry run says it before and after
            self._say(record.getMessage())

    def _job_info(self, record: logging.LogRecord) -> None:
        job = self.jobs[record.jobid] = Job(record.rule_name, dict(record.wildcards.items()), list(record.log))
        if self.common_settings.dryrun and job.wildcards:
            known = {key: record.resources.get(key) for key in ("gpu", "mem_mb", "runtime")}
            asked = [f"{key}={value}" for key, value in known.items() if value is not None]
            self._say(f"{job.rule:10} {job.wildcards.get('scale', '')}/{job.name:40} {' '.join(asked)}")

    def _job_finished(self, record: logging.LogRecord) -> None:
        job = self.jobs.pop(record.job_id, None)
        if job is None or job.rule not in RUN_RULES:
            return
        seconds = time.monotonic() - job.started
        self.done += 1
        self.spent += seconds
        width = len(str(self.total))
        place = f"[{self.done:{width}}/{self.total}]"
        self._say(f"{place} {job.name:36} {_result(job):34} {_duration(seconds):>7}   {self._left()}")

    def _left(self) -> str:
        """Time left from the mean duration so far, on a cluster from how many runs have ended since the start; runs
        differ, so it is rounded."""
        left = self.total - self.done
        each = self.spent / self.done / self.cores if self.cores else (time.monotonic() - self.began) / self.done
        return f"about {_duration(left * each)} left" if left else "all runs done"

    def _job_error(self, record: logging.LogRecord) -> None:
        job = self.jobs.pop(record.jobid, None)
        name = job.name if job else record.rule_name
        logs = {path: _tail(Path(path)) for path in record.log or []}
        if any(" stopped by " in line for lines in logs.values() for line in lines[-1:]):
            self._say(f"stopped {name}; it is saved: start the same build again and it goes on")
            return
        self._say(f"FAILED {name} (rule {record.rule_name})")
        if reason := (getattr(record, "rule_msg", None) or "").partition("\n")[0]:
            self._say(f"  {reason.partition(' For further error details')[0]}")  # the executor's, of a cluster job
        for path, lines in logs.items():
            self._say(f"  log: {path}")
            for line in lines:
                self._say(f"  | {line}")
        if getattr(record, "shellcmd", None):
            self._say(f"  command: {record.shellcmd.strip()}")
        scales = [f"scale={job.wildcards['scale']}"] if job and "scale" in job.wildcards else []
        scales = scales or [word for word in sys.argv if word.startswith("scale=")]  # a data set is of no scale
        settings = " ".join([*scales[:1], "partial=true"])
        self._say(f"  the rest goes on; what exists so far: snakemake --config {settings}")

    def _other(self, record: logging.LogRecord) -> None:
        text = str(record.getMessage()) if record.msg else ""
        loud = record.levelno >= logging.WARNING and text and "CalledProcessError" not in text  # said by _job_error
        of_the_queue = text.startswith("submitit: ")
        if loud or of_the_queue or (self.common_settings.dryrun and text.startswith("Nothing to be done")):
            self._say(text)

    _error = _other


def _result(job: Job) -> str:
    """The run's outcome from its metrics.csv."""
    w = job.wildcards
    path = Path(f"results/{w['scale']}/runs/{w['experiment']}/{w['variant']}-s{w['seed']}/metrics.csv")
    try:
        header, values = (line.split(",") for line in path.read_text().splitlines()[:2])
    except (OSError, ValueError):
        return ""
    metrics = dict(zip(header, values, strict=False))
    if metrics["status"] == "diverged":
        return f"diverged at step {metrics['diverged_at']}"
    for quantity, name in filter(None, (task.result for task in TASKS.values())):
        if quantity in metrics:
            return f"{name} {float(metrics[quantity]):.1f} %"
    for quantity in ("gradient_norm", "gradient_variance"):
        if f"first_{quantity}" in metrics:
            ends = (float(metrics[f"{end}_{quantity}"]) for end in ("first", "last"))
            return quantity.replace("_", " ") + " {:.3g} to {:.3g}".format(*ends)
    return f"{metrics['repeats']} repeats" if "repeats" in metrics else ""


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-TAIL:]
    except OSError:
        return []


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
