"""Faults: each ends with every result there once, with an undisturbed run's bytes, and no job that ran twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.slurm


def finish(flow, *arguments: str, taken: int = 0) -> str:
    """Start the workflow again and let it end; what it said."""
    code, said = flow.run(*arguments)
    assert code == 0, said[-4000:]
    assert flow.problems(taken) == []
    return said


def kill(process, number: int) -> None:
    os.killpg(process.pid, number)
    process.communicate(timeout=120)


@pytest.mark.parametrize("when", ["pending", "running", "finishing"])
def test_the_controller_is_killed(training, when):
    """The next one adopts what runs, takes over what has ended, and submits nothing twice."""
    flow = training(jobs=10)
    process = flow.start()
    if when == "pending":
        flow.until(flow.queue)
    else:
        flow.until(lambda: flow.begun() >= 6)
    if when == "finishing":
        flow.until(lambda: any("end" in flow.said(i) for i in range(10)))
    kill(process, signal.SIGKILL)
    code, said = flow.run("--unlock")
    assert code == 0, said
    said = finish(flow, "--rerun-incomplete")
    assert flow.counts()["sbatch"] == 1, said[-3000:]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_lost_connection_detaches(training, number):
    """Jobs go on, the controller says how to come back, and needs no unlock."""
    flow = training(jobs=10)
    process = flow.start()
    flow.until(lambda: flow.begun() >= 4)
    os.kill(process.pid, number)
    said = process.communicate(timeout=120)[0]
    assert "go on without this process" in said, said[-3000:]
    assert flow.queue()
    finish(flow, "--rerun-incomplete")
    assert flow.counts()["sbatch"] == 1


def test_an_interrupt_cancels(training):
    """Nothing stays in the queue; one scancel; the next run resumes what had been saved."""
    flow = training(jobs=10)
    process = flow.start()
    flow.until(lambda: flow.begun() >= 4)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    flow.until(lambda: not flow.queue(), 60)
    assert "cancelled" in said
    assert flow.counts()["scancel"] == 1
    finish(flow, "--rerun-incomplete", taken=10)


def test_a_node_dies(training):
    """Slurm requeues its jobs, which resume; those on other nodes are left alone."""
    flow = training(jobs=6, seconds=0.4)
    process = flow.start()
    flow.until(lambda: flow.begun() == 6)
    node = flow.slurm.run("squeue", "-h", "-t", "R", "-o", "%N").split()[0]
    flow.slurm.node("fail", node)
    try:
        ended(flow, process, taken=6)
    finally:
        flow.slurm.node("start", node)
    assert flow.counts()["sbatch"] == 1


def preempt(flow, seconds: int = 3) -> None:
    flow.slurm.run(
        "sbatch",
        "-p",
        "high",
        "-N4",
        "--exclusive",
        "-o",
        "/dev/null",
        "--wrap",
        f"sleep {seconds}",
    )


@pytest.mark.parametrize("grace", [0, 20])
def test_preemption(training, grace):
    """With a grace time jobs save themselves; without one they are killed and go on from their last checkpoint. Slurm
    requeues them; no retry is used."""
    flow = training(jobs=4, seconds=0.4)
    flow.slurm.run("scontrol", "update", "PartitionName=low", f"GraceTime={grace}")
    process = flow.start()
    try:
        flow.until(lambda: flow.begun() == 4)
        preempt(flow)
        ended(flow, process, taken=4)
    finally:
        flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=0")
    said = [word for i in range(4) for word in flow.said(i)]
    assert any(word.startswith("resume") for word in said)
    if grace:
        assert sum(word.startswith("saved") for word in said) >= 4


def test_a_time_limit_several_times(training):
    """The job saves itself, is requeued under its id and resumes; the requeues are counted and bounded."""
    flow = training(jobs=2, steps=60, seconds=0.4)
    process = flow.start()
    for life in (1, 2):
        flow.until(lambda n=life: all(len(alive(flow, i)) == n for i in range(2)))
        near_the_limit(flow)
        flow.until(
            lambda n=life: all(
                sum(w.startswith("saved") for w in flow.said(i)) == n for i in range(2)
            )
        )
        for identity in flow.queue():  # an earlier end also shortens the limit of the lives to come
            flow.slurm.run("scontrol", "update", f"JobId={identity}", "TimeLimit=10")
    ended(flow, process)
    for i in range(2):
        assert [word.partition(":")[0] for word in flow.said(i)] == [
            "begin",
            "saved",
            "resume",
            "saved",
            "resume",
            "end",
        ]
    assert flow.counts()["sbatch"] == 1


def near_the_limit(flow) -> None:
    for identity in flow.queue():
        flow.slurm.run("scontrol", "update", f"JobId={identity}", "EndTime=now+60")


def alive(flow, i: int) -> list[str]:
    return [word for word in flow.said(i) if word.startswith(("begin", "resume"))]


def test_a_time_limit_too_often(training):
    """A job that does not come to an end within its requeues has failed, and says why."""
    flow = training(jobs=1, steps=200, seconds=0.4)
    process = flow.start("--submitit-max-requeues", "0")
    flow.until(lambda: flow.begun() == 1)
    near_the_limit(flow)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "train (i=0), slurm job" in said
    assert "its time limit" in said


@pytest.mark.parametrize("command", [["scancel"], ["scontrol", "requeue"]])
def test_somebody_else_takes_a_job_away(training, command):
    """A cancelled one has failed and is retried; a requeued one comes back by itself."""
    flow = training(jobs=4, seconds=0.4)
    process = flow.start("--retries", "1")
    flow.until(lambda: flow.begun() == 4)
    flow.slurm.run(*command, flow.queue()[1])
    said = ended(flow, process, taken=1)
    assert ("cancelled from outside" in said) == (command == ["scancel"])


def test_out_of_memory(training):
    """The reason is told, and the retry asks for more."""
    flow = training(
        jobs=2,
        steps=5,
        resources="mem_mb=lambda wildcards, attempt: 350 * attempt",
        events_more=" 400",
    )
    process = flow.start("--retries", "1")
    said = ended(flow, process)
    assert said.count("out of memory") == 2, said[-3000:]
    assert "350 MB requested" in said


def ended(flow, process, taken: int = 0) -> str:
    """What the workflow said, which ended well."""
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said[-4000:]
    assert flow.problems(taken) == []
    return said


def out_of_order(flow, name: str) -> None:
    """The command answers that its daemon is down."""
    path = flow.folder / ".bin" / name
    path.write_text(
        f"#!/bin/sh\necho {name} >> {flow.calls}.failed\necho '{name}: error: connection refused' >&2\nexit 1\n"
    )


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
def test_without_sacct(training, when):
    """squeue and scontrol answer; a cancelled job is still noticed."""
    flow = training(jobs=4, seconds=0.4)
    if when == "from the start":
        out_of_order(flow, "sacct")
    process = flow.start("--retries", "1", "--submitit-grace", "5")
    flow.until(lambda: flow.begun() == 4)
    out_of_order(flow, "sacct")
    flow.slurm.run("scancel", flow.queue()[0])
    said = ended(flow, process, taken=1)
    assert said.count("Trying to restart job") == 1, said[-3000:]


def test_slurmctld_is_away_for_half_a_minute(training):
    """No job fails, none is submitted twice."""
    flow = training(jobs=4, steps=10)
    pid = int((flow.slurm.folder / "run" / "slurmctld.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        process = flow.start()
        time.sleep(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    ended(flow, process)
    assert [alive(flow, i) for i in range(4)] == [["begin"]] * 4


COMPLAINING = """#!/bin/sh
echo "$(date +%s.%N) sbatch $*" >> {calls}
{before}
test $(grep -c " sbatch " {calls}) -gt 2 || {{ echo 'sbatch: error: Socket timed out on send/recv' >&2; exit 1; }}
exec {real} "$@"
"""


@pytest.mark.parametrize("taken", [False, True])
def test_sbatch_complains_twice(training, taken):
    """It is tried again with growing pauses; where Slurm has taken the array all the same, that one is cancelled."""
    flow = training(jobs=4, steps=5)
    real = shutil.which("sbatch", path=flow.slurm.env["PATH"])
    before = f'{real} "$@" >/dev/null' if taken else ""
    (flow.folder / ".bin" / "sbatch").write_text(
        COMPLAINING.format(calls=flow.calls, real=real, before=before)
    )
    said = ended(flow, flow.start())
    assert said.count("; trying again in ") == 2, said[-3000:]
    assert [alive(flow, i) for i in range(4)] == [["begin"]] * 4


def test_accounts_that_answer_nothing(training):
    """sacct without a row is no proof of an end."""
    flow = training(jobs=2, steps=60, seconds=0.4)
    (flow.folder / ".bin" / "sacct").write_text("#!/bin/sh\nexit 0\n")
    ended(flow, flow.start("--submitit-grace", "5"))
    assert [alive(flow, i) for i in range(2)] == [["begin"]] * 2


def test_a_suspended_job(training):
    """It is alive, and goes on."""
    flow = training(jobs=2, seconds=0.4)
    process = flow.start("--submitit-grace", "3")
    flow.until(lambda: flow.begun() == 2)
    ids = flow.queue()
    for identity in ids:
        flow.slurm.run("scontrol", "suspend", identity)
    time.sleep(10)
    for identity in ids:
        flow.slurm.run("scontrol", "resume", identity)
    ended(flow, process)
    assert [alive(flow, i) for i in range(2)] == [["begin"]] * 2


def test_preempted_and_cancelled(training):
    """Where Slurm does not requeue, what had not ended is submitted again, together or each alone, without a retry."""
    flow = training(jobs=2, seconds=0.4)
    process = flow.start("--submitit-no-requeue", "--submitit-grace", "5")
    flow.until(lambda: flow.begun() == 2)
    preempt(flow)
    said = ended(flow, process, taken=2)
    assert said.count("PREEMPTED on ") == 2, said[-3000:]
    assert flow.counts()["sbatch"] in (2, 3)


def test_a_pending_array_is_cancelled_from_outside(training):
    """It has failed; it is not put back."""
    flow = training(jobs=2, resources="mem_mb=400, slurm_extra='--begin=now+3600'")
    process = flow.start("--submitit-grace", "3")
    flow.until(lambda: len(flow.queue()) == 2)
    flow.slurm.run("scancel", flow.queue()[0].partition("_")[0])
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert said.count("cancelled from outside") == 2, said[-3000:]
    assert flow.counts()["sbatch"] == 1


def test_a_held_task_says_why_it_waits(training):
    flow = training(jobs=1, resources="mem_mb=400, slurm_extra='--hold'")
    process = flow.start()
    flow.until(flow.queue)
    time.sleep(8)
    flow.slurm.run("scontrol", "release", flow.queue()[0])
    said = ended(flow, process)
    assert "is waiting: JobHeld" in said, said[-3000:]


def test_a_controller_that_dies_before_it_knows_the_id(training):
    """Its jobs are found by their comment; while the queue does not answer nothing is submitted."""
    flow = training(jobs=3, steps=30, seconds=0.4)
    process = flow.start()
    flow.until(lambda: flow.begun() == 3)
    kill(process, signal.SIGKILL)
    (known,) = flow.path(".snakemake/submitit/batches").glob("*/slurm_id")
    known.unlink()
    assert flow.run("--unlock")[0] == 0
    squeue = flow.folder / ".bin" / "squeue"
    text = squeue.read_text()
    squeue.write_text("#!/bin/sh\nexit 1\n")
    process = flow.start("--rerun-incomplete")
    time.sleep(8)
    squeue.write_text(text)
    ended(flow, process)
    assert flow.counts()["sbatch"] == 1


@pytest.mark.parametrize(
    "resources", ["gpu=2, tasks_per_gpu=1", "tasks=4, nodes=2", "gres='gpu:1'"]
)
def test_a_job_of_several_tasks_runs_once(training, resources):
    flow = training(jobs=1, steps=5, resources=f"mem_mb=400, {resources}")
    ended(flow, flow.start())
    assert flow.said(0).count("begin") == 1


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            "mem_mb=400, slurm_partition=lambda w: 'nowhere' if w.i == '3' else 'low'",
            "nvalid partition",
        ),
        (
            "mem_mb=400, gpu=lambda w: 99 if w.i == '3' else 0",
            "Requested node configuration is not available",
        ),
        (
            "mem_mb=lambda w: 10**9 if w.i == '3' else 400",
            "emory specification can not be satisfied",
        ),
    ],
)
def test_sbatch_rejects_one_of_many(training, resources, expected):
    """That one fails alone, with Slurm's own words."""
    flow = training(jobs=5, steps=5, resources=resources)
    code, said = flow.run("--keep-going")
    assert code == 1
    assert "train (i=3) was not submitted: " in said
    assert expected in said, said[-3000:]
    assert sorted(path.stem for path in flow.path("out").glob("*.txt")) == ["0", "1", "2", "4"]


def test_the_ledger_is_truncated(training):
    """What its jobs compute is not known any more: they are cancelled, and submitted anew."""
    flow = training(jobs=6, seconds=0.4)
    process = flow.start()
    flow.until(lambda: flow.begun() == 6)
    kill(process, signal.SIGKILL)
    (batch,) = flow.path(".snakemake/submitit/batches").glob("*/batch.json")
    batch.write_bytes(batch.read_bytes()[:100])
    assert flow.run("--unlock")[0] == 0
    said = finish(flow, "--rerun-incomplete", taken=6)
    assert "is damaged; cancelling" in said


def test_changed_parameters_are_not_adopted(training):
    """A live job that computes something else is ended first."""
    flow = training(jobs=4, steps=40, seconds=0.4)
    process = flow.start()
    flow.until(lambda: flow.begun() == 4)
    kill(process, signal.SIGKILL)
    flow.path("Snakefile").write_text(flow.text.replace("lr=1", "lr=2"))
    assert flow.run("--unlock")[0] == 0
    said = finish(flow, "--rerun-incomplete", taken=4)
    assert said.count("what it computes has changed; ending job") == 4


LATER = "mem_mb=400, slurm_extra='--begin=now+3600'"


def test_a_pending_job_whose_parameters_have_changed_leaves_the_queue(training):
    flow = training(jobs=3, resources=LATER)
    process = flow.start()
    flow.until(lambda: len(flow.queue()) == 3)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    flow.path("Snakefile").write_text(
        flow.text.replace("lr=1", "lr=2").replace(LATER, "mem_mb=400")
    )
    finish(flow, "--rerun-incomplete")
    assert flow.queue() == []


def test_one_pending_task_is_cancelled_from_outside(training):
    """It has failed; the others wait on."""
    flow = training(jobs=3, resources=LATER)
    process = flow.start("--submitit-grace", "3", "--keep-going")
    flow.until(lambda: len(flow.queue()) == 3)
    flow.slurm.run("scancel", flow.queue()[1])
    flow.until(lambda: flow.counts()["sacct"] >= 9)
    assert len(flow.queue()) == 2
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert said.count("cancelled from outside") == 1, said[-3000:]
    assert flow.counts()["sbatch"] == 1


@pytest.mark.parametrize("fault", ["kill the task", "scancel", "preempt", "time limit"])
def test_a_pack(training, fault):
    """Six jobs in one task, taken away while the third runs: what had ended does not run again, what had not begun is
    not charged with a retry."""
    steps = (
        20 if fault == "time limit" else 8
    )  # a busy Slurm takes long to look at its jobs' limits
    flow = training(jobs=6, steps=steps, seconds=0.4, runtime=3)
    flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=20")
    taken = fault in ("kill the task", "scancel")
    process = flow.start(
        "--submitit-slots", "1", "--submitit-grace", "5", "--retries", str(int(taken))
    )
    try:
        flow.until(lambda: flow.begun() == 3)
        time.sleep(1)
        if fault == "kill the task":
            subprocess.run(
                ["pkill", "-KILL", "-f", f"submitit.core._submit {flow.folder}"], check=True
            )
        elif fault == "scancel":
            flow.slurm.run("scancel", flow.queue()[0])
        elif fault == "preempt":
            preempt(flow)
        else:
            near_the_limit(flow)
            flow.until(
                lambda: any(word.startswith("saved") for i in range(6) for word in flow.said(i))
            )
            flow.slurm.run("scontrol", "update", f"JobId={flow.queue()[0]}", "TimeLimit=18")
        said = ended(flow, process, taken=1)
    finally:
        flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=0")
    assert sum(len(alive(flow, i)) for i in range(6)) == 7, [flow.said(i) for i in range(6)]
    assert said.count("its task ended before the job started") == (3 if taken else 0), said[-3000:]
    assert said.count("Trying to restart job") == int(taken)
    if not taken:
        assert flow.counts()["sbatch"] == 1


GROUPS = """
rule all:
    input: expand("out/{{i}}.txt", i=range(3))
rule first:
    output: "begin/{{i}}.txt"
    group: "both"
    shell: "sleep 5; echo {{wildcards.i}} > {{output}}"
rule second:
    input: "begin/{{i}}.txt"
    output: "out/{{i}}.txt"
    group: "both"
    shell: "cat {{input}} > {{output}}; echo {{wildcards.i}} >> {events}; test {{wildcards.i}} != {bad}"
"""


def test_groups_of_jobs_are_adopted(workflow, tmp_path):
    """Though Snakemake gives a group another id in every run."""
    flow = workflow(GROUPS.format(events=tmp_path / "events", bad=9))
    process = flow.start()
    while not flow.slurm.run("squeue", "-h", "-t", "R").strip():
        time.sleep(0.2)
    kill(process, signal.SIGKILL)
    flow.run("--unlock")
    code, said = flow.run("--rerun-incomplete")
    assert code == 0, said[-3000:]
    assert sorted((tmp_path / "events").read_text().split()) == ["0", "1", "2"]
    assert flow.counts()["sbatch"] == 1


def test_why_a_group_failed_is_said(workflow, tmp_path):
    flow = workflow(GROUPS.format(events=tmp_path / "events", bad=1))
    code, said = flow.run("--keep-going")
    assert code == 1
    assert "first+second (i=1), slurm job" in said, said[-3000:]
    assert sorted(path.name for path in flow.path("out").glob("*")) == ["0.txt", "2.txt"]
    assert len(list(flow.path(".snakemake/submitit/logs/first+second").glob("1-*.log"))) == 1
