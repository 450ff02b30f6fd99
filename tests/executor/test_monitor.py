"""What the monitor makes of a job's result, of a lost task, and of a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from snakemake_executor_plugin_submitit import monitor
from snakemake_executor_plugin_submitit.cluster import State
from snakemake_executor_plugin_submitit.jobs import SubmittedJobs
from snakemake_executor_plugin_submitit.ledger import (
    BatchRequest,
    JobRecord,
    JobResult,
    Ledger,
    claim_job,
)
from snakemake_executor_plugin_submitit.monitor import (
    Loss,
    Monitor,
    classify_loss,
    strip_snakemake_lines,
)
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.usage import UsageSummary

LOG = """Building DAG of jobs...

[Sun Nov 22 21:43:53 2026]
localrule one:
    output: out/7.txt
    resources: tmpdir=/tmp, mem_mb=600
of 7
RuleException:
CalledProcessError in file "Snakefile", line 5:
[Sun Nov 22 21:43:53 2026]
Error in rule one:
    message: None
Shutting down, this might take some time.
""".splitlines()


def test_the_jobs_own_words():
    """Snakemake's banner before the output of a job and its summary after it are removed."""
    words = ["of 7", "RuleException:", 'CalledProcessError in file "Snakefile", line 5:']
    assert strip_snakemake_lines(LOG) == words


def test_a_job_that_was_killed():
    """The log of a job that was killed ends without a summary."""
    assert strip_snakemake_lines(LOG[:7]) == ["of 7"]


def test_the_last_of_two_starts():
    """A requeued job appends to its log, of which only the last start is shown."""
    log = [*LOG[:6], "first start", *LOG[:6], "second start"]
    assert strip_snakemake_lines(log) == ["second start"]


def test_a_job_that_never_started():
    assert strip_snakemake_lines(["srun: error: no such file"]) == ["srun: error: no such file"]


def watched_job(
    folder: Path,
    settings: ExecutorSettings,
    queue: list,
    states: Callable[[list[str]], dict[str, State]] | None = None,
) -> tuple[Monitor, SimpleNamespace]:
    """A monitor and the one job in the queue that it watches, which is task 1 of Slurm's job 7.

    Jobs that it submits again go to `queue`; `states` is how it asks Slurm.
    """
    record = JobRecord(0, 1, "key", "params", "train (i=0)", "/nowhere")
    batch = Ledger(folder).create([record], False, BatchRequest(), "slurm")
    batch.set_slurm_id("7")
    pending = SimpleNamespace(
        job=None,
        key="key",
        rule="train",
        name="train (i=0)",
        request=SimpleNamespace(gpus=0, mem_mb=400),
        resubmits=0,
        requeues=0,
        log="/nowhere",
        submission=None,
    )
    jobs = SubmittedJobs(lambda info: None)
    jobs.register(pending, batch, record)
    watching = Monitor(
        settings,
        SimpleNamespace(name="slurm", states=states),
        jobs,
        SimpleNamespace(add=queue.extend),
        UsageSummary(),
        SimpleNamespace(info=lambda message: None),
        latency_wait=0,
    )
    return watching, pending


def test_slurm_is_asked_once_per_interval(tmp_path, monkeypatch):
    """However often the monitor looks for results, two queries are `status_seconds` apart."""
    asked = []
    clock = SimpleNamespace(now=1000.0)

    def states(identities: list[str]) -> dict[str, State]:
        asked.append(clock.now)
        return {identity: State("RUNNING") for identity in identities}

    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: clock.now))
    watching, _ = watched_job(tmp_path, ExecutorSettings(status_seconds=2), [], states)
    for tick in range(20):
        clock.now = 1000 + tick / 2
        watching.poll()
    assert asked == [1000, 1002, 1004, 1006, 1008]


@pytest.mark.parametrize(("requeues", "is_resubmitted"), [(0, True), (1, True), (2, False)])
def test_a_packed_job_at_its_own_limit_is_submitted_again_up_to_max_requeues(
    tmp_path, requeues, is_resubmitted
):
    """An unpacked job would be requeued as often.

    Its task goes on with the other jobs and cannot be requeued for it.
    """
    queue = []
    watching, pending = watched_job(tmp_path, ExecutorSettings(max_requeues=2), queue)
    pending.requeues, submission = requeues, pending.submission
    reason = "reached its time limit of 3 min"
    result = JobResult(1, 5.0, 180.0, 1, 9, "n1", reason, hit_own_limit=True)
    watching.finish(submission, result)
    assert queue == ([pending] if is_resubmitted else [])
    assert (submission.outcome is None) == is_resubmitted
    failure = f"train (i=0), slurm job 7_1 on n1: {reason}."
    assert is_resubmitted or failure in submission.outcome.failure


CANCELLED, FAILED, PREEMPTED = State("CANCELLED"), State("FAILED"), State("PREEMPTED")


@pytest.mark.parametrize(
    ("started", "saved", "state", "expected"),
    [
        ([], False, PREEMPTED, Loss.NOT_STARTED),
        ([], False, None, Loss.NOT_STARTED),
        ([], False, FAILED, Loss.FAILED),
        ([], False, CANCELLED, Loss.FAILED),
        ([0], False, FAILED, Loss.NOT_STARTED),
        ([0], False, CANCELLED, Loss.NOT_STARTED),
        ([1], False, FAILED, Loss.FAILED),
        ([1], False, CANCELLED, Loss.FAILED),
        ([1], False, PREEMPTED, Loss.TAKEN_AWAY),
        ([1], True, FAILED, Loss.TAKEN_AWAY),
        ([1], True, CANCELLED, Loss.FAILED),
        ([1], True, None, Loss.FAILED),
    ],
)
def test_why_a_job_of_a_task_that_is_over_has_no_result(tmp_path, started, saved, state, expected):
    """The second of two jobs in a task is classified; a job of another task makes no difference."""
    records = [JobRecord(n, n // 2, f"key{n}", "params", "one", "log") for n in range(3)]
    batch = Ledger(tmp_path).create(records, False, BatchRequest(), "slurm")
    for number in [*started, 2]:
        claim_job(batch.folder, number, "task")
    if saved:
        (batch.folder / "task0.saved").touch()
    assert classify_loss(batch, 1, 0, state) is expected
