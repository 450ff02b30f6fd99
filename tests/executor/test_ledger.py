"""The files of the ledger keep their form, as other versions of the plugin may read them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from snakemake_executor_plugin_submitit.ledger import (
    Batch,
    BatchRequest,
    JobRecord,
    JobResult,
    Ledger,
    claim_job,
    read_batch,
)

RECORD = {
    "number": 0,
    "task": 3,
    "key": "key",
    "params_hash": "hash",
    "name": "one (i=1)",
    "log": "/logs/one/1.log",
    "resubmits": 1,
    "requeues": 2,
}
REQUEST = {"gpus": 1, "mem_mb": 400, "minutes": 30, "clusters": None}
RESULT = {
    "exit_code": 1,
    "started_at": 5.0,
    "seconds": 7.5,
    "starts": 2,
    "max_rss_mb": 90,
    "node": "n1",
    "reason": "reached its time limit of 3 min",
    "out_of_memory": False,
    "hit_own_limit": True,
}


@pytest.fixture
def batch(tmp_path) -> Batch:
    record = JobRecord(0, 3, "key", "hash", "one (i=1)", "/logs/one/1.log", 1, 2)
    return Ledger(tmp_path).create([record], False, BatchRequest(1, 400, 30), "slurm")


def test_the_form_of_a_batch(batch):
    body = json.loads((batch.folder / "batch.json").read_text())
    assert body["jobs"] == [RECORD]
    assert (body["single"], body["cluster"]) == (False, "slurm")
    assert body["request"].items() >= REQUEST.items()
    assert read_batch(batch.folder) == batch


def test_a_request_without_the_values_of_the_local_cluster(batch):
    body = json.loads((batch.folder / "batch.json").read_text())
    (batch.folder / "batch.json").write_text(json.dumps({**body, "request": REQUEST}))
    assert read_batch(batch.folder) == batch


def test_the_form_of_a_result(batch):
    assert batch.result(0) is None
    (batch.folder / "0.json").write_text(json.dumps(RESULT))
    result = batch.result(0)
    assert result == JobResult(1, 5.0, 7.5, 2, 90, "n1", RESULT["reason"], hit_own_limit=True)
    assert asdict(result) == RESULT
    assert batch.finished_jobs() == {0}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "{}", '{"exit_code": 0}'])
def test_a_damaged_file_counts_as_missing(batch, text):
    (batch.folder / "0.json").write_text(text)
    (batch.folder / "batch.json").write_text(text)
    assert batch.result(0) is None
    assert read_batch(batch.folder) is None


def test_a_job_is_started_or_withdrawn(batch):
    """The first claim wins, until it is revoked because the task is known to be dead."""
    assert not batch.has_started(0)
    assert claim_job(batch.folder, 0, "task")
    assert not claim_job(batch.folder, 0, "task")
    assert batch.has_started(0)
    assert not batch.withdraw(0)
    batch.revoke(0)
    assert batch.withdraw(0)
    assert not batch.has_started(0)


def test_a_batch_is_open_until_every_end_is_recorded(batch, tmp_path):
    assert Ledger(tmp_path).open_batches() == ([batch], [])
    batch.mark_reported(batch.records[0])
    assert (batch.folder / "reported").read_text() == "0\n"
    assert Ledger(tmp_path).open_batches() == ([], [])
