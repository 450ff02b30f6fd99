"""What a failure shows of a job's log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from snakemake_executor_plugin_submitit import judge
from snakemake_executor_plugin_submitit.exits import Totals
from snakemake_executor_plugin_submitit.judge import own_lines

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
    """Without the banner before and the summary after."""
    assert own_lines(LOG) == ["of 7", "RuleException:", 'CalledProcessError in file "Snakefile", line 5:']


def test_a_job_that_was_killed():
    """No summary follows."""
    assert own_lines(LOG[:7]) == ["of 7"]


def test_the_last_of_two_lives():
    """A requeued job writes into the same log."""
    assert own_lines([*LOG[:6], "first life", *LOG[:6], "second life"]) == ["second life"]


def test_a_job_that_never_began():
    assert own_lines(["srun: error: no such file"]) == ["srun: error: no such file"]


@pytest.mark.parametrize(("before", "again"), [(0, True), (1, True), (2, False)])
def test_a_packed_job_at_its_own_limit_goes_on_as_often_as_an_unpacked_one(before, again):
    """The task goes on with the others; the job is submitted once more, and resumes."""
    submitted, totals = [], Totals()
    executor = SimpleNamespace(
        total=lambda rule: totals,
        settings=SimpleNamespace(max_requeues=2),
        again=lambda live, why: submitted.append(why),
    )
    request = SimpleNamespace(gpus=0, mem_mb=400)
    waiting = SimpleNamespace(rule="train", name="train (i=0)", request=request, requeues=before, log="/nowhere")
    live = SimpleNamespace(
        waiting=waiting,
        outcome=None,
        adopted=False,
        submitted=0.0,
        info=SimpleNamespace(external_jobid="7_1"),
        batch=SimpleNamespace(cluster="slurm", task_log=lambda entry: Path("/nowhere")),
        entry=None,
    )
    reason = "ran into its time limit of 3 min"
    ended = {"rc": 1, "late": True, "reason": reason, "node": "n1", "rss_mb": 9}
    ended |= {"began": 5.0, "seconds": 180.0, "lives": 1}
    judge.end(executor, live, ended)
    assert submitted == ([reason] if again else [])
    assert (live.outcome is None) == again
    assert again or f"train (i=0), slurm job 7_1 on n1: {reason}." in live.outcome
