"""What a failure shows of a job's log."""

from __future__ import annotations

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
