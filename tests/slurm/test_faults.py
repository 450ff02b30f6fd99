"""Single faults of the controller, of Slurm and its nodes, of the jobs and of their requests.

Where the workflow can still succeed, all results have the bytes of an undisturbed run, and no job
has run twice at the same time. Where a job fails, the message says why.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.slurm


def finish(flow, *arguments: str, taken: int = 0) -> str:
    """Start the workflow again, let it end and return its output."""
    code, output = flow.run(*arguments)
    assert code == 0, output[-4000:]
    assert flow.problems(taken) == []
    return output


def kill(process, number: int) -> None:
    """Send a signal to the controller and its children, and wait for their end."""
    os.killpg(process.pid, number)
    process.communicate(timeout=120)


@pytest.mark.parametrize("when", ["pending", "running", "finishing"])
def test_the_controller_is_killed(training, when):
    """The next controller submits nothing twice.

    It reattaches to jobs that run and takes over those that have ended.
    """
    flow = training(jobs=10)
    process = flow.start()
    if when == "pending":
        flow.wait_until(flow.queue)
    else:
        flow.wait_until(lambda: flow.started() >= 6)
    if when == "finishing":
        flow.wait_until(lambda: any("end" in flow.events_of(i) for i in range(10)))
    kill(process, signal.SIGKILL)
    code, output = flow.run("--unlock")
    assert code == 0, output
    output = finish(flow, "--rerun-incomplete")
    assert flow.counts()["sbatch"] == 1, output[-3000:]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_lost_connection_detaches(training, number):
    """Jobs continue, the controller prints how to come back, and no unlock is needed."""
    flow = training(jobs=10)
    process = flow.start()
    flow.wait_until(lambda: flow.started() >= 4)
    os.kill(process.pid, number)
    output = process.communicate(timeout=120)[0]
    assert "continue without this process" in output, output[-3000:]
    assert flow.queue()
    finish(flow, "--rerun-incomplete")
    assert flow.counts()["sbatch"] == 1


def test_an_interrupt_cancels(training):
    """One scancel empties the queue, and the next run finishes the jobs."""
    flow = training(jobs=10)
    process = flow.start()
    flow.wait_until(lambda: flow.started() >= 4)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    flow.wait_until(lambda: not flow.queue(), 60)
    assert process.returncode != 0
    assert "submitit: cancelled" in output
    assert flow.counts()["scancel"] == 1
    assert any("end" not in flow.events_of(i) for i in range(10)), "nothing was left to cancel"
    finish(flow, "--rerun-incomplete", taken=10)
    assert flow.counts()["sbatch"] == 2


def test_a_node_dies(training):
    """Slurm requeues the jobs of a node that dies; the plugin submits nothing again."""
    flow = training(jobs=6, seconds=0.4)
    process = flow.start()
    flow.wait_until(lambda: flow.started() == 6)
    node = flow.slurm.run("squeue", "-h", "-t", "R", "-o", "%N").split()[0]
    flow.slurm.node("fail", node)
    try:
        ended(flow, process, taken=6)
    finally:
        flow.slurm.node("start", node)
    assert any(len(starts(flow, i)) > 1 for i in range(6)), "no job was on the node"
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
    """With a grace time, preempted jobs save themselves; without one they are killed.

    Slurm requeues them, they resume from their last checkpoint, and no retry is used.
    """
    flow = training(jobs=4, seconds=0.4)
    flow.slurm.run("scontrol", "update", "PartitionName=low", f"GraceTime={grace}")
    process = flow.start()
    try:
        flow.wait_until(lambda: flow.started() == 4)
        preempt(flow)
        ended(flow, process, taken=4)
    finally:
        flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=0")
    events = [word for i in range(4) for word in flow.events_of(i)]
    assert any(word.startswith("resume") for word in events)
    if grace:
        assert sum(word.startswith("saved") for word in events) >= 4


def test_a_time_limit_several_times(training):
    """At every time limit, a job saves itself, is requeued under the same id, and resumes."""
    flow = training(jobs=2, steps=60, seconds=0.4)
    process = flow.start()
    for start in (1, 2):
        flow.wait_until(lambda n=start: all(len(starts(flow, i)) == n for i in range(2)))
        approach_the_limit(flow)
        flow.wait_until(
            lambda n=start: all(
                sum(w.startswith("saved") for w in flow.events_of(i)) == n for i in range(2)
            )
        )
        for identity in flow.queue():  # an earlier EndTime also shortens the limit of later starts
            flow.slurm.run("scontrol", "update", f"JobId={identity}", "TimeLimit=10")
    ended(flow, process)
    for i in range(2):
        assert [word.partition(":")[0] for word in flow.events_of(i)] == [
            "begin",
            "saved",
            "resume",
            "saved",
            "resume",
            "end",
        ]
    assert flow.counts()["sbatch"] == 1


def approach_the_limit(flow) -> None:
    """Let the time limit of every job in the queue end in a minute."""
    for identity in flow.queue():
        flow.slurm.run("scontrol", "update", f"JobId={identity}", "EndTime=now+60")


def starts(flow, i: int) -> list[str]:
    return [word for word in flow.events_of(i) if word.startswith(("begin", "resume"))]


def test_a_time_limit_too_often(training):
    """A job that does not end within its requeues has failed, and the message says why."""
    flow = training(jobs=1, steps=200, seconds=0.4)
    process = flow.start("--submitit-max-requeues", "0")
    flow.wait_until(lambda: flow.started() == 1)
    approach_the_limit(flow)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "train (i=0), slurm job" in output
    assert "its time limit" in output


@pytest.mark.parametrize("command", [["scancel"], ["scontrol", "requeue"]])
def test_somebody_else_takes_a_job_away(training, command):
    """A cancelled job has failed and is retried; a requeued job comes back by itself."""
    flow = training(jobs=4, seconds=0.4)
    process = flow.start("--retries", "1")
    flow.wait_until(lambda: flow.started() == 4)
    flow.slurm.run(*command, flow.queue()[1])
    output = ended(flow, process, taken=1)
    assert ("cancelled from outside" in output) == (command == ["scancel"])


def test_out_of_memory(training):
    """The message gives the reason, and the retry requests more."""
    flow = training(
        jobs=2,
        steps=5,
        resources="mem_mb=lambda wildcards, attempt: 350 * attempt",
        megabytes=400,
    )
    process = flow.start("--retries", "1")
    output = ended(flow, process)
    assert output.count("out of memory") == 2, output[-3000:]
    assert "350 MB requested" in output


def ended(flow, process, taken: int = 0) -> str:
    """Wait for the workflow to succeed and return its output."""
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output[-4000:]
    assert flow.problems(taken) == []
    return output


def break_command(flow, name: str) -> None:
    """Let a command of Slurm fail as if its daemon were down."""
    path = flow.folder / ".bin" / name
    path.write_text(
        f"#!/bin/sh\necho {name} >> {flow.calls}.failed\n"
        f"echo '{name}: error: connection refused' >&2\nexit 1\n"
    )


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
def test_without_sacct(training, when):
    """squeue and scontrol answer instead, and a cancelled job is still noticed."""
    flow = training(jobs=4, seconds=0.4)
    if when == "from the start":
        break_command(flow, "sacct")
    process = flow.start("--retries", "1", "--submitit-grace", "5")
    flow.wait_until(lambda: flow.started() == 4)
    break_command(flow, "sacct")
    flow.slurm.run("scancel", flow.queue()[0])
    output = ended(flow, process, taken=1)
    assert output.count("Trying to restart job") == 1, output[-3000:]


def test_slurmctld_is_away_for_half_a_minute(training):
    """No job fails, and none starts twice."""
    flow = training(jobs=4, steps=10)
    pid = int((flow.slurm.folder / "run" / "slurmctld.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        process = flow.start()
        time.sleep(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    ended(flow, process)
    assert [starts(flow, i) for i in range(4)] == [["begin"]] * 4


COMPLAINING = """#!/bin/sh
echo "$(date +%s.%N) sbatch $*" >> {calls}
if test $(grep -c " sbatch " {calls}) -le 2; then
  {before}
  echo 'sbatch: error: Socket timed out on send/recv' >&2
  exit 1
fi
exec {real} "$@"
"""


@pytest.mark.parametrize("taken", [False, True])
def test_sbatch_complains_twice(training, taken):
    """sbatch is tried again, and every job starts once.

    If `taken`, Slurm has accepted the array although sbatch complains.
    """
    flow = training(jobs=4, steps=5)
    real = shutil.which("sbatch", path=flow.slurm.env["PATH"])
    accepted = flow.folder / ".accepted"
    before = f'{real} "$@" >> {accepted}' if taken else ":"
    (flow.folder / ".bin" / "sbatch").write_text(
        COMPLAINING.format(calls=flow.calls, real=real, before=before)
    )
    output = ended(flow, flow.start())
    assert output.count("; trying again in ") == 2, output[-3000:]
    assert flow.counts()["sbatch"] == 3
    if taken:
        assert len(accepted.read_text().splitlines()) == 2
    else:
        assert flow.counts()["scancel"] == 0
    assert [starts(flow, i) for i in range(4)] == [["begin"]] * 4
    flow.wait_until(lambda: not flow.queue(), 60)


def test_accounting_that_answers_nothing(training):
    """An empty answer of sacct does not mean that a job has ended."""
    flow = training(jobs=2, steps=60, seconds=0.4)
    (flow.folder / ".bin" / "sacct").write_text("#!/bin/sh\nexit 0\n")
    ended(flow, flow.start("--submitit-grace", "5"))
    assert [starts(flow, i) for i in range(2)] == [["begin"]] * 2


def test_a_suspended_job(training):
    """A suspended job counts as alive, and continues later."""
    flow = training(jobs=2, seconds=0.4)
    process = flow.start("--submitit-grace", "3")
    flow.wait_until(lambda: flow.started() == 2)
    ids = flow.queue()
    for identity in ids:
        flow.slurm.run("scontrol", "suspend", identity)
    time.sleep(10)
    for identity in ids:
        flow.slurm.run("scontrol", "resume", identity)
    ended(flow, process)
    assert [starts(flow, i) for i in range(2)] == [["begin"]] * 2


def test_preempted_and_cancelled(training):
    """Where Slurm does not requeue, unfinished jobs are submitted again, without using a retry."""
    flow = training(jobs=2, seconds=0.4)
    process = flow.start("--submitit-no-requeue", "--submitit-grace", "5")
    flow.wait_until(lambda: flow.started() == 2)
    preempt(flow)
    output = ended(flow, process, taken=2)
    assert output.count("PREEMPTED on ") == 2, output[-3000:]
    assert flow.counts()["sbatch"] in (2, 3)


def test_a_pending_array_is_cancelled_from_outside(training):
    """Its jobs have failed, and are not submitted again."""
    flow = training(jobs=2, resources="mem_mb=400, slurm_extra='--begin=now+3600'")
    process = flow.start("--submitit-grace", "3")
    flow.wait_until(lambda: len(flow.queue()) == 2)
    flow.slurm.run("scancel", flow.queue()[0].partition("_")[0])
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert output.count("cancelled from outside") == 2, output[-3000:]
    assert flow.counts()["sbatch"] == 1


def test_the_reason_is_given_for_a_held_task(training):
    flow = training(jobs=1, resources="mem_mb=400, slurm_extra='--hold'")
    process = flow.start()
    flow.wait_until(flow.queue)
    flow.wait_until(lambda: flow.counts()["sacct"] >= 5)
    flow.slurm.run("scontrol", "release", flow.queue()[0])
    output = ended(flow, process)
    assert "is waiting: JobHeld" in output, output[-3000:]


def test_a_controller_that_dies_before_it_knows_the_id(training):
    """The array is found by its comment.

    While the queue does not answer, nothing is submitted.
    """
    flow = training(jobs=3, steps=30, seconds=0.4)
    process = flow.start()
    flow.wait_until(lambda: flow.started() == 3)
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
    assert flow.events_of(0).count("begin") == 1


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
    """Only the rejected job fails, with Slurm's own message."""
    flow = training(jobs=5, steps=5, resources=resources)
    code, output = flow.run("--keep-going")
    assert code == 1
    assert "train (i=3) was not submitted: " in output
    assert expected in output, output[-3000:]
    assert sorted(path.stem for path in flow.path("out").glob("*.txt")) == ["0", "1", "2", "4"]


def test_the_ledger_is_truncated(training):
    """Jobs whose batch file is damaged are cancelled and submitted again.

    It is not known any more what they compute.
    """
    flow = training(jobs=6, steps=60, seconds=0.4)
    process = flow.start()
    flow.wait_until(lambda: flow.started() == 6)
    kill(process, signal.SIGKILL)
    (batch,) = flow.path(".snakemake/submitit/batches").glob("*/batch.json")
    batch.write_bytes(batch.read_bytes()[:100])
    assert flow.run("--unlock")[0] == 0
    output = finish(flow, "--rerun-incomplete", taken=6)
    assert "is damaged; cancelling" in output


def test_a_job_with_changed_parameters_is_not_reattached(training):
    """A live job that computes something else is ended before the new one starts."""
    flow = training(jobs=4, steps=40, seconds=0.4)
    process = flow.start()
    flow.wait_until(lambda: flow.started() == 4)
    kill(process, signal.SIGKILL)
    flow.path("Snakefile").write_text(flow.text.replace("lr=1", "lr=2"))
    assert flow.run("--unlock")[0] == 0
    output = finish(flow, "--rerun-incomplete", taken=4)
    assert output.count("what it computes has changed; ending job") == 4


LATER = "mem_mb=400, slurm_extra='--begin=now+3600'"


def test_a_pending_job_whose_parameters_have_changed_leaves_the_queue(training):
    flow = training(jobs=3, resources=LATER)
    process = flow.start()
    flow.wait_until(lambda: len(flow.queue()) == 3)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    flow.path("Snakefile").write_text(
        flow.text.replace("lr=1", "lr=2").replace(LATER, "mem_mb=400")
    )
    finish(flow, "--rerun-incomplete")
    assert flow.queue() == []


def test_one_pending_task_is_cancelled_from_outside(training):
    """The cancelled task has failed; the others of its array keep waiting."""
    flow = training(jobs=3, resources=LATER)
    process = flow.start("--submitit-grace", "3", "--keep-going")
    flow.wait_until(lambda: len(flow.queue()) == 3)
    flow.slurm.run("scancel", flow.queue()[1])
    flow.wait_until(lambda: flow.counts()["sacct"] >= 9)
    assert len(flow.queue()) == 2
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert output.count("cancelled from outside") == 1, output[-3000:]
    assert flow.counts()["sbatch"] == 1


@pytest.mark.parametrize("fault", ["kill the task", "scancel", "preempt", "time limit"])
def test_a_pack(training, fault):
    """A task with six jobs is taken away while the third one runs.

    Jobs that have ended do not run again, and those that have not started use no retry.
    """
    steps = 20 if fault == "time limit" else 8  # a busy Slurm checks the limits of jobs late
    flow = training(jobs=6, steps=steps, seconds=0.4, runtime=3)
    flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=20")
    taken = fault in ("kill the task", "scancel")
    process = flow.start(
        "--submitit-slots", "1", "--submitit-grace", "5", "--retries", str(int(taken))
    )
    try:
        flow.wait_until(lambda: flow.started() == 3)
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
            approach_the_limit(flow)
            flow.wait_until(
                lambda: any(
                    word.startswith("saved") for i in range(6) for word in flow.events_of(i)
                )
            )
            flow.slurm.run("scontrol", "update", f"JobId={flow.queue()[0]}", "TimeLimit=18")
        output = ended(flow, process, taken=1)
    finally:
        flow.slurm.run("scontrol", "update", "PartitionName=low", "GraceTime=0")
    assert sum(len(starts(flow, i)) for i in range(6)) == 7, [flow.events_of(i) for i in range(6)]
    assert output.count("its task ended before the job started") == (3 if taken else 0), output[
        -3000:
    ]
    assert output.count("Trying to restart job") == int(taken)
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
    shell: "cat {{input}} > {{output}}; echo {{wildcards.i}} >> {events}; "
           "test {{wildcards.i}} != {bad}"
"""


def test_groups_of_jobs_are_reattached(workflow, tmp_path):
    """Groups are recognized, although Snakemake gives a group another id in every run."""
    flow = workflow(GROUPS.format(events=tmp_path / "events", bad=9))
    process = flow.start()
    while not flow.slurm.run("squeue", "-h", "-t", "R").strip():
        time.sleep(0.2)
    kill(process, signal.SIGKILL)
    flow.run("--unlock")
    code, output = flow.run("--rerun-incomplete")
    assert code == 0, output[-3000:]
    assert sorted((tmp_path / "events").read_text().split()) == ["0", "1", "2"]
    assert flow.counts()["sbatch"] == 1


def test_the_reason_is_given_for_a_failed_group(workflow, tmp_path):
    flow = workflow(GROUPS.format(events=tmp_path / "events", bad=1))
    code, output = flow.run("--keep-going")
    assert code == 1
    assert "first+second (i=1), slurm job" in output, output[-3000:]
    assert sorted(path.name for path in flow.path("out").glob("*")) == ["0.txt", "2.txt"]
    assert len(list(flow.path(".snakemake/submitit/logs/first+second").glob("1-*.log"))) == 1
