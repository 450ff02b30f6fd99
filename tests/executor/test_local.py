"""`--submitit-cluster local` runs jobs without Slurm and gives each its own GPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import accumulate, pairwise
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.local import visible_gpus
from tests.conftest import ROOT
from tests.slurm.conftest import interruptible

GPUS = """
rule all:
    input: expand("out/{i}.txt", i=range(6))
rule one:
    output: "out/{i}.txt"
    resources: gpu=1, runtime=5
    shell: "echo $CUDA_VISIBLE_DEVICES $(date +%s.%N) > {output}; sleep 0.5; "
           "date +%s.%N >> {output}"
"""

FAILING = """
rule all:
    input: "there.txt", "never.txt"
rule good:
    output: "there.txt"
    shell: "touch {output}"
rule bad:
    output: "never.txt"
    log: "bad.log"
    shell: "echo what went wrong; exit 7"
"""


TRAINING = """
rule all:
    input: "out/0.txt"
rule train:
    output: "out/0.txt"
    resources: runtime=5
    shell: "{python} {script} {{output}} 40 0.2 {events}"
"""


def command(*arguments: str) -> list[str]:
    settings = ["--executor", "submitit", "--submitit-cluster", "local", "--jobs", "20"]
    return [sys.executable, "-m", "snakemake", *settings, *arguments]


def run(folder: Path, snakefile: str, *arguments: str) -> tuple[int, str]:
    (folder / "Snakefile").write_text(snakefile)
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_no_gpu_is_given_out_twice(tmp_path):
    """Of six jobs with one GPU each, no two share a GPU of a machine with two at the same time."""
    code, output = run(tmp_path, GPUS, "--submitit-local-gpus", "2", "--submitit-local-cpus", "4")
    assert code == 0, output[-3000:]
    spans: dict[str, list[tuple[float, float]]] = {}
    for path in (tmp_path / "out").glob("*.txt"):
        gpu, began, ended = path.read_text().split()
        spans.setdefault(gpu, []).append((float(began), float(ended)))
    assert set(spans) == {"0", "1"}
    for spans_of_gpu in spans.values():
        ordered = sorted(spans_of_gpu)
        assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def test_more_gpus_than_there_are(tmp_path):
    """A job that requests more GPUs than the machine has fails at once with a message that says so,
    and is not started. One that requests all of them gets them."""
    gpus = ("--submitit-local-gpus", "2")
    code, output = run(tmp_path, GPUS.replace("gpu=1", "gpu=3"), "--retries", "2", *gpus)
    assert code == 1
    refusal = "gpu: 3 requested, but this machine has 2 (--submitit-local-gpus)"
    assert f"was not submitted: {refusal}" in output
    assert "Trying to restart job" not in output, "it would be refused again"
    assert not list((tmp_path / "out").glob("*"))
    text = GPUS.replace("gpu=1", "gpu=2").replace("range(6)", "range(1)")
    code, output = run(tmp_path, text, *gpus)
    assert code == 0, output[-3000:]
    assert (tmp_path / "out" / "0.txt").read_text().split()[0] == "0,1"


def test_a_failure_is_named(tmp_path):
    """The message has the rule, the reason and the job's output; the other job's result is kept."""
    code, output = run(tmp_path, FAILING, "--keep-going")
    assert code == 1
    assert (tmp_path / "there.txt").exists()
    assert "bad, local job " in output
    assert "exit code 1" in output
    assert "  | what went wrong" in output


def test_a_bad_resource_fails_that_job_alone(tmp_path):
    """The job is not submitted, and the message has the resource, its value and what is wrong."""
    text = FAILING.replace('log: "bad.log"', 'resources: slurm_partition="a; rm -rf ~"')
    code, output = run(tmp_path, text, "--keep-going", "--retries", "2")
    assert code == 1
    assert "Trying to restart job" not in output, "it would be refused again"
    assert (tmp_path / "there.txt").exists()
    assert "was not submitted: slurm_partition: 'a; rm -rf ~' contains ';'" in output
    assert "what went wrong" not in output.replace("echo what went wrong", "")


def test_a_missing_sbatch_is_reported(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").write_text(FAILING)
    settings = ["--executor", "submitit", "--submitit-cluster", "slurm", "--jobs", "2"]
    command = [sys.executable, "-m", "snakemake", *settings]
    monkeypatch.setenv("PATH", str(tmp_path))
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    assert (
        "submitit: no sbatch on PATH; to run without Slurm: --submitit-cluster local"
        in done.stdout + done.stderr
    )


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    code, output = run(tmp_path, FAILING, "--submitit-folder", "file/x")
    assert code == 1
    assert "choose another --submitit-folder" in output


def test_a_killed_task_leaves_nothing_behind(tmp_path):
    """When the process that forks the jobs is killed, its job is ended before the retry begins."""
    events = tmp_path / "events"
    events.mkdir()
    script = ROOT / "tests" / "slurm" / "train.py"
    text = TRAINING.format(python=sys.executable, script=script, events=events)
    killer = threading.Thread(target=kill_task, args=(tmp_path, events / "0.log"))
    killer.start()
    code, output = run(tmp_path, text, "--retries", "1", "--submitit-status-seconds", "1")
    killer.join()
    assert code == 0, output[-3000:]
    assert "its task failed and it has no result" in output
    events_of_job = [
        line.split()[1].partition(":")[0] for line in (events / "0.log").read_text().splitlines()
    ]
    assert events_of_job == ["begin", "resume", "end"]


def kill_task(folder: Path, log: Path) -> None:
    """Kill the task once its job has saved a checkpoint."""
    while not log.with_suffix(".json").exists():
        time.sleep(0.1)
    subprocess.run(["pkill", "-KILL", "-f", f"submitit.core._submit {folder}"], check=True)


PLAIN = """
rule one:
    input: "in.txt"
    output: "out.txt"
    params: {params}
    shell: "echo x >> {events}; sleep {seconds}; cat in.txt > {{output}}"
"""


def detach(folder: Path, **values: object) -> tuple[Path, str]:
    """Run a workflow whose controller gets SIGTERM, and wait until its job has ended by itself."""
    events = folder / "events"
    (folder / "in.txt").write_text("old\n")
    text = PLAIN.format(**{"events": events, "seconds": 3, "params": "lr=1", **values})
    (folder / "Snakefile").write_text(text)
    process = subprocess.Popen(
        command(), cwd=folder, preexec_fn=interruptible, start_new_session=True
    )
    wait_until(events.exists)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_until((folder / "out.txt").exists)
    wait_until(lambda: list(folder.glob(".snakemake/submitit/batches/*/0.json")))
    return events, text


def wait_until(happened) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_a_job_that_ended_alone_is_taken_over_and_recorded(tmp_path):
    """The job does not run again, and a later change of its command is noticed as usual."""
    events, text = detach(tmp_path)
    code, output = run(tmp_path, text, "--rerun-incomplete")
    assert code == 0, output[-3000:]
    assert "taken over from an earlier run" in output
    assert events.read_text() == "x\n"
    assert "Nothing to be done" in run(tmp_path, text)[1]
    code, output = run(tmp_path, text.replace("cat in.txt", "cat  in.txt"))
    assert code == 0
    assert events.read_text() == "x\nx\n", output[-3000:]


@pytest.mark.parametrize("change", ["input", "force", "output", "params", "unnamed params"])
def test_a_result_that_is_not_wanted_any_more_is_not_taken_over(tmp_path, change):
    events, text = detach(tmp_path, **({"params": "1"} if change == "unnamed params" else {}))
    options = ["--forceall"] if change == "force" else []
    if change == "input":
        (tmp_path / "in.txt").write_text("new\n")
    elif change == "output":
        (tmp_path / "out.txt").unlink()
    elif "params" in change:
        text = text.replace("params: 1", "params: 2").replace("lr=1", "lr=2")
    code, output = run(tmp_path, text, "--rerun-incomplete", *options)
    assert code == 0, output[-3000:]
    assert events.read_text() == "x\nx\n", output[-3000:]
    assert (tmp_path / "out.txt").read_text() == ("new\n" if change == "input" else "old\n")


SCRIPT = """
rule one:
    output: "out.txt"
    script: "work.py"
"""
WORK = "import time; time.sleep({seconds}); open(snakemake.output[0], 'w').write('{word}')"


def test_an_end_that_was_recorded_is_not_taken_over_again(tmp_path):
    """A ledger entry of an end that Snakemake has recorded does not replace a later run.

    A controller leaves such an entry if it is killed between Snakemake's record and the ledger's.
    Here the script has changed since.
    """
    ledger, copy = tmp_path / ".snakemake" / "submitit", tmp_path / "copy"
    (tmp_path / "Snakefile").write_text(SCRIPT)
    (tmp_path / "work.py").write_text(WORK.format(seconds=4, word="old"))
    process = subprocess.Popen(command(), cwd=tmp_path, start_new_session=True)
    wait_until(lambda: list(ledger.glob("batches/*/0.claim")))
    os.kill(process.pid, signal.SIGTERM)
    process.wait(60)
    wait_until((tmp_path / "out.txt").exists)
    wait_until(lambda: list(ledger.glob("batches/*/0.json")))
    shutil.copytree(ledger, copy)
    code, output = run(tmp_path, SCRIPT, "--rerun-incomplete")
    assert code == 0, output[-3000:]
    assert "taken over from an earlier run" in output
    shutil.rmtree(ledger)
    copy.rename(ledger)
    (tmp_path / "work.py").write_text(WORK.format(seconds=0, word="new"))
    code, output = run(tmp_path, SCRIPT)
    assert code == 0, output[-3000:]
    assert (tmp_path / "out.txt").read_text() == "new", output[-3000:]


@pytest.mark.parametrize("known", [True, False])
def test_a_gpu_of_a_reattached_job_is_not_given_away(tmp_path, known):
    """A reattached job keeps its GPU, and no job runs twice.

    If not `known`, the controller was killed before it had written the id of its batch.
    """
    events = tmp_path / "events"
    text = GPU_JOBS.format(events=events)
    (tmp_path / "Snakefile").write_text(text)
    gpu = ["--submitit-local-gpus", "1"]
    process = subprocess.Popen([*command(), *gpu], cwd=tmp_path, start_new_session=True)
    wait_until(events.exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in () if known else tmp_path.glob(".snakemake/submitit/batches/*/slurm_id"):
        path.unlink()
    subprocess.run([*command(), "--unlock"], cwd=tmp_path, check=True)
    code, output = run(tmp_path, text, "--rerun-incomplete", *gpu)
    assert code == 0, output[-3000:]
    assert most_alive(events) == 1, events.read_text()
    assert events.read_text().split().count("begin") == 2


def most_alive(events: Path) -> int:
    """Return how many jobs ran at the same time at most."""
    changes = [1 if word == "begin" else -1 for word in events.read_text().split()]
    return max(accumulate(changes))


SAVING = """
rule all:
    input: expand("out/{{i}}", i=range(2))
rule one:
    output: "out/{{i}}"
    params: {params}
    resources: gpu=1
    shell: "trap 'sleep 3; echo end >> {events}; exit 1' TERM; echo begin >> {events}; "
           "sleep {seconds} & wait $!; echo end >> {events}; touch {{output}}"
"""


def test_a_gpu_of_a_job_that_is_being_ended_is_not_given_away(tmp_path):
    events = tmp_path / "events"
    (tmp_path / "Snakefile").write_text(SAVING.format(events=events, params="lr=1", seconds=30))
    gpu = ["--submitit-local-gpus", "1"]
    process = subprocess.Popen([*command(), *gpu], cwd=tmp_path, start_new_session=True)
    wait_until(events.exists)
    os.kill(process.pid, signal.SIGTERM)
    process.wait(60)
    code, output = run(
        tmp_path, SAVING.format(events=events, params="lr=2", seconds=4), "--rerun-incomplete", *gpu
    )
    assert code == 0, output[-3000:]
    assert "what it computes has changed" in output
    assert most_alive(events) == 1, events.read_text()


def test_jobs_of_the_other_cluster_are_not_run_beside_it(tmp_path):
    """Jobs that may still run on Slurm are not started by a later --submitit-cluster local."""
    detach(tmp_path)
    (batch,) = (tmp_path / ".snakemake" / "submitit" / "batches").glob("*/batch.json")
    batch.write_text(batch.read_text().replace('"cluster": "local"', '"cluster": "slurm"'))
    (batch.parent / "0.json").unlink()
    code, output = run(tmp_path, (tmp_path / "Snakefile").read_text(), "--rerun-incomplete")
    assert code == 1
    assert "it may still run as slurm job" in output, output[-3000:]


GPU_JOBS = """
rule all:
    input: expand("out/{{i}}", i=range(2))
rule one:
    output: "out/{{i}}"
    resources: gpu=1
    shell: "echo begin >> {events}; sleep 4; echo end >> {events}; "
           "echo $CUDA_VISIBLE_DEVICES > {{output}}"
"""


def test_two_hang_ups_are_one(tmp_path):
    """A closing terminal sends several signals; the command to continue is printed nevertheless."""
    (tmp_path / "Snakefile").write_text(
        GPU_JOBS.format(events=tmp_path / "events").replace("gpu=1", "gpu=0")
    )
    process = subprocess.Popen(
        command(),
        cwd=tmp_path,
        preexec_fn=interruptible,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until((tmp_path / "events").exists)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        os.kill(process.pid, number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGHUP
    assert "continue without this process" in output
    line = output[output.rindex("taken over: snakemake ") :].splitlines()[0]
    printed_command = line.removeprefix("taken over: ").split()
    done = subprocess.run([sys.executable, "-m", *printed_command], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "events").read_text().split().count("begin") == 2


def test_a_job_that_runs_out_of_time_says_so(tmp_path):
    code, output = run(tmp_path, FOREVER, "--submitit-status-seconds", "1")
    assert code == 1
    assert "its time limit of 1 min" in output, output[-3000:]


FOREVER = """
rule one:
    output: "out.txt"
    resources: runtime=1
    shell: "sleep 300"
"""


def test_an_unwritable_log_fails_the_job(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "bad").touch()
    code, output = run(tmp_path, FAILING, "--submitit-logdir", "logs")
    assert code == 1
    assert "its log cannot be written: " in output, output[-3000:]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (["--submitit-array-parallelism", "0"], "--submitit-array-parallelism: 0 is less than 1"),
        (
            ["--submitit-preload", "nowhere.at.all"],
            "--submitit-preload: no module named 'nowhere.at.all'",
        ),
    ],
)
def test_invalid_settings_are_refused(tmp_path, setting, expected):
    code, output = run(tmp_path, FAILING, *setting)
    assert code == 1
    assert f"submitit: {expected}" in output


@pytest.mark.parametrize(
    ("visible", "expected"), [("0,1", ["0", "1"]), ("-1", []), ("", []), ("0,-1,1", ["0"])]
)
def test_cuda_visible_devices_names_the_gpus(monkeypatch, visible, expected):
    """CUDA ignores every entry from -1 on, and users set -1 to hide all GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected
