"""Slurm is called rarely, every job runs once, and array tasks have the right states and logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ONE_STAGE = """
rule all:
    input: expand("out/{{i}}.txt", i=range({n}))
rule one:
    output: "out/{{i}}.txt"
    shell: "echo {{wildcards.i}} > {{output}}"
"""

TWO_STAGES = """
rule all:
    input: expand("b/{{i}}.txt", i=range({n}))
rule first:
    output: "a/{{i}}.txt"
    shell: "echo {{wildcards.i}} > {{output}}"
rule second:
    input: "a/{{i}}.txt"
    output: "b/{{i}}.txt"
    shell: "cat {{input}} > {{output}}"
"""

LOCAL_ENDS = """
localrules: make, gather
rule gather:
    input: expand("copy/{i}.txt", i=range(1, 5))
    output: "all.txt"
    shell: "cat {input} > {output}"
rule make:
    output: expand("number/{i}.txt", i=range(1, 5))
    shell: "for i in 1 2 3 4; do echo $i > number/$i.txt; done"
rule copy:
    input: "number/{i}.txt"
    output: "copy/{i}.txt"
    resources: runtime=5
    shell: "cp {input} {output}"
"""

SOME_FAIL = """
rule all:
    input: expand("out/{i}.txt", i=range(12))
rule one:
    output: "out/{i}.txt"
    shell: "echo of {wildcards.i}; test {wildcards.i} != 3 -a {wildcards.i} != 7 && "
           "echo {wildcards.i} > {output}"
"""


def test_equal_ready_jobs_are_one_sbatch(workflow):
    flow = workflow(ONE_STAGE.format(n=200))
    code, output = flow.run()
    assert code == 0, output[-3000:]
    assert [flow.path(f"out/{i}.txt").read_text() for i in range(200)] == [
        f"{i}\n" for i in range(200)
    ]
    assert flow.counts()["sbatch"] <= 2
    assert flow.counts()["sacct"] >= 1


def test_a_second_stage_is_submitted_in_few_arrays(workflow):
    flow = workflow(TWO_STAGES.format(n=100))
    code, output = flow.run()
    assert code == 0, output[-3000:]
    assert flow.counts()["sbatch"] <= 100 // 2


def test_the_right_tasks_fail(workflow):
    """The other tasks succeed, so no task touches the output of another."""
    flow = workflow(SOME_FAIL)
    code, output = flow.run("--keep-going")
    assert code == 1
    existing = sorted(int(path.stem) for path in flow.path("out").glob("*.txt"))
    assert existing == [i for i in range(12) if i not in (3, 7)]
    for i in (3, 7):
        assert f"one (i={i}), slurm job" in output
        assert f"  | of {i}" in output
    logs = re.findall(r"^Log: (.+)$", output, re.MULTILINE)
    assert [Path(log).name for log in sorted(logs)] == ["3.log", "7.log"]
    assert all(Path(log).exists() for log in logs)
    assert "one (i=4), slurm job" not in output


@pytest.mark.parametrize("size", [0, 1, 3])
def test_four_jobs_between_local_rules(workflow, size):
    """As in the array test of the official Slurm plugin, each task gets its own job."""
    flow = workflow(LOCAL_ENDS)
    code, output = flow.run("--submitit-pack", "1", "--submitit-array-size", str(size))
    assert code == 0, output[-3000:]
    assert flow.path("all.txt").read_text() == "1\n2\n3\n4\n"
    assert flow.counts()["sbatch"] == {0: 1, 1: 4, 3: 2}[size]


def test_fewer_jobs_at_a_time_than_there_are(workflow):
    """The executor never waits for jobs that the scheduler will not hand over."""
    flow = workflow(ONE_STAGE.format(n=12))
    code, output = flow.run("--jobs", "4")
    assert code == 0, output[-3000:]
    assert len(list(flow.path("out").glob("*.txt"))) == 12


def test_unpacked_arrays(workflow):
    """Each job is a separate task, although a single slot would make one pack of all of them."""
    flow = workflow(SOME_FAIL)
    code, output = flow.run("--keep-going", "--submitit-pack", "1", "--submitit-slots", "1")
    assert code == 1
    assert "12 jobs in 12 tasks submitted as slurm job" in output, output[-3000:]
    assert len(list(flow.path("out").glob("*.txt"))) == 10
    assert flow.counts()["sbatch"] == 1


def test_a_cluster_by_name(workflow):
    """Once a job names a cluster, sacct is asked for all clusters."""
    flow = workflow(SOME_FAIL.replace("rule one:", "rule one:\n    resources: clusters='test'"))
    code, output = flow.run("--keep-going", "--submitit-pack", "1")
    assert code == 1
    assert len(list(flow.path("out").glob("*.txt"))) == 10, output[-3000:]
    options = [
        line.split()[2:4] for line in flow.calls.read_text().splitlines() if " sacct " in line
    ]
    assert options == [["-M", "all"]] * max(1, len(options))
