"""What the jobs have used, added up per rule and printed at the end of the workflow."""

from __future__ import annotations

from dataclasses import dataclass

from snakemake_executor_plugin_submitit.ledger import JobResult
from snakemake_executor_plugin_submitit.request import Request

COLUMNS = (
    "rule",
    "jobs",
    "failed",
    "hours",
    "GPU h",
    "wait s",
    "requeued",
    "resubmitted",
    "MaxRSS",
    "requested",
)


@dataclass
class RuleUsage:
    """The sums of one rule's jobs."""

    jobs: int = 0
    failed: int = 0
    seconds: float = 0.0  # over all starts of the jobs
    gpu_seconds: float = 0.0
    queue_seconds: float = 0.0  # between submission and start
    requeues: int = 0
    resubmissions: int = 0
    max_rss_mb: int = 0  # of a single process
    requested_mb: int = 0


class UsageSummary:
    """Adds up what the jobs of each rule have used."""

    def __init__(self) -> None:
        self._rules: dict[str, RuleUsage] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def of(self, rule: str) -> RuleUsage:
        return self._rules.setdefault(rule, RuleUsage())

    def add_runtime(self, rule: str, request: Request, result: JobResult) -> None:
        """Count the time of a submission, whether the job has finished in it or continues."""
        usage = self.of(rule)
        usage.seconds += result.seconds
        usage.gpu_seconds += result.seconds * request.gpus
        usage.requeues += result.starts - 1

    def add_finished(
        self, rule: str, request: Request, result: JobResult, queue_seconds: float
    ) -> None:
        """Count a job that has ended with a result."""
        usage = self.of(rule)
        usage.jobs += 1
        if result.exit_code != 0:
            usage.failed += 1
        usage.queue_seconds += queue_seconds
        usage.max_rss_mb = max(usage.max_rss_mb, result.max_rss_mb)
        usage.requested_mb = max(usage.requested_mb, request.mem_mb)

    def add_lost(self, rule: str, request: Request) -> None:
        """Count a job that has failed without a result."""
        usage = self.of(rule)
        usage.jobs += 1
        usage.failed += 1
        usage.requested_mb = max(usage.requested_mb, request.mem_mb)

    def add_resubmission(self, rule: str) -> None:
        self.of(rule).resubmissions += 1

    def table(self) -> str:
        """Return the summary as a text table with one row per rule."""
        rows: list[tuple[str, ...]] = [COLUMNS]
        for rule, usage in sorted(self._rules.items()):
            rows.append(
                (
                    rule,
                    str(usage.jobs),
                    str(usage.failed),
                    f"{usage.seconds / 3600:.2f}",
                    f"{usage.gpu_seconds / 3600:.2f}",
                    f"{usage.queue_seconds / max(1, usage.jobs):.0f}",
                    str(usage.requeues),
                    str(usage.resubmissions),
                    f"{usage.max_rss_mb} MB",
                    f"{usage.requested_mb} MB" if usage.requested_mb else "–",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
        return "resources used by the jobs\n" + "\n".join(lines)
