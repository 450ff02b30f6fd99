"""What the ledger is told, and when."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

from snakemake_executor_plugin_submitit import Executor
from snakemake_executor_plugin_submitit.executor import Live
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger


def test_the_ledger_forgets_a_job_once_snakemake_has_recorded_its_end(tmp_path):
    """Not when the end is reported: a controller that leaves in between would run the job again."""
    batch = Ledger(tmp_path).new([Entry(0, 0, "key", "params", "one", "log")], True, {}, "local")
    executor, job = object.__new__(Executor), object()
    waiting = SimpleNamespace(key="key", name="one", log="log")
    live = Live(waiting, batch, batch.entries[0], None, 0.0, outcome=True)
    info = SimpleNamespace(job=job, aux={"live": live})
    executor.ready, executor.guard, executor.closing = threading.Event(), threading.RLock(), False
    executor.live, executor.reported, reports = {"key": live}, {}, []
    executor.report_job_success = reports.append

    async def poll() -> list:
        return [left async for left in executor.check_active_jobs([info])]

    assert asyncio.run(poll()) == []
    assert reports == [info]
    assert batch.told() == set()
    executor.handle_job_success(job)
    assert batch.told() == {0}
