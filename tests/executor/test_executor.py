"""When the ledger learns that a job has ended."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

from snakemake_executor_plugin_submitit import Executor
from snakemake_executor_plugin_submitit.jobs import Outcome, SubmittedJobs
from snakemake_executor_plugin_submitit.ledger import BatchRequest, JobRecord, Ledger


def test_the_ledger_forgets_a_job_once_snakemake_has_recorded_its_end(tmp_path):
    """A job stays in the ledger until Snakemake has recorded its end.

    Were it removed when the end is reported, a controller that is killed between the two would
    leave a finished job that the next one runs again.
    """
    record = JobRecord(0, 0, "key", "params", "one", "log")
    batch = Ledger(tmp_path).create([record], True, BatchRequest(), "local")
    executor, job, submissions, successes = object.__new__(Executor), object(), [], []
    executor._ready, executor._guard = threading.Event(), threading.RLock()
    executor._closing, executor._unrecorded = False, {}
    executor._jobs = SubmittedJobs(submissions.append)
    executor.report_job_success = successes.append
    pending = SimpleNamespace(job=job, key="key", name="one", log="log", submission=None)
    executor._jobs.register(pending, batch, record)
    (info,) = submissions
    pending.submission.outcome = Outcome()

    async def poll() -> list:
        return [left async for left in executor.check_active_jobs([info])]

    assert asyncio.run(poll()) == []
    assert successes == [info]
    assert executor._jobs.all() == []
    assert batch.reported() == set()
    executor.handle_job_success(job)
    assert batch.reported() == {0}
