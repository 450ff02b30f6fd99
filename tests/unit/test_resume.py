"""A run that is killed anywhere and started again publishes the same bytes as an undisturbed
run."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from ghostgrad.checks import InputError
from ghostgrad.data.image_sets import load_images
from ghostgrad.data.make import make
from ghostgrad.files import CsvTable
from ghostgrad.registry.spec import parse_spec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State, Stopped
from ghostgrad.tasks.classify import classify
from ghostgrad.tasks.progress import Progress
from ghostgrad.training.optimizers.build import OPTIMIZERS
from tests.unit.killing import KILLED, SPECS, STEPS, Runner


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.json"
    make("digits", path)
    return path


@pytest.fixture(scope="module", params=["classify", "simulate"])
def undisturbed(request, tmp_path_factory, manifest) -> tuple[str, dict[str, bytes]]:
    runner = Runner(tmp_path_factory.mktemp(request.param), request.param, manifest)
    assert runner.start() == 0
    assert runner.starts == [0]
    return request.param, runner.files


CASES = {
    # Each list holds the plans of the processes before the last one, which is not disturbed.
    "before the first checkpoint": [{"kill_at_step": 5}, {"save_at": [4], "kill_at_step": 9}],
    "inside the first checkpoint's write": [
        {"save_at": [6], "kill_in_write": 1},
        {"save_at": [8], "kill_at_step": 10},
    ],
    "inside a later checkpoint's write": [{"save_at": [6, 11], "kill_in_write": 2}],
    "between a checkpoint's two renames": [{"save_at": [6, 11], "kill_in_rename": 2}],
    "after the last checkpoint": [{"save_at": [20], "kill_at_step": 23}],
    "at a probe's step": [{"save_at": [13], "kill_at_step": 14}],
    "between two published files": [
        {"save_at": [10], "kill_at_step": 12},
        {"kill_before_publishing": "probes.csv"},
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_undisturbed(case, undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    for plan in CASES[case]:
        assert runner.start(**plan) == KILLED
        assert not (runner.out / "metrics.csv").exists()
    assert runner.start() == 0
    assert runner.files == expected
    assert 0 < runner.starts[-1] < STEPS, (
        "the process that finished the run resumed it in the middle"
    )


# Rule -> how many times a run with it is killed, 20 in all.
KILLS = {
    "lalc": 4,
    "lars": 3,
    "clars": 3,
    "lamb": 3,
    "larc": 3,
    "sgd": 4,
}


def test_a_run_with_every_update_rule_is_killed():
    assert KILLS.keys() == OPTIMIZERS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("rule", KILLS)
def test_killed_inside_random_steps_equals_undisturbed(rule, tmp_path, manifest):
    """The kills are between gradient and update, each after a checkpoint; the steps of both are
    drawn. This covers what each rule keeps from step to step, and the probes that look at an
    update."""
    spec = {
        **SPECS["classify"],
        "optimizer": rule,
        "nesterov": rule in ("sgd", "larc", "lalc"),
        "blocks": 1,
    }
    spec |= {"warmup": 5, "micro_batch": 8, "probes": ["updates", "statistics", "gradients"]}
    spec |= {"probe_at": list(range(0, STEPS, 2)), "lr": 0.01}
    rng = random.Random(rule)
    runners = [Runner(tmp_path / name, "classify", manifest, spec) for name in ("whole", "parts")]
    for runner in runners:
        runner.output.parent.mkdir()
    assert runners[0].start() == 0
    reached = 0
    for _ in range(KILLS[rule]):
        kill = rng.randrange(reached, STEPS)
        save = rng.randint(reached, kill)
        assert runners[1].start(save_at=[save], kill_in_step=kill) == KILLED
        reached = save
    assert runners[1].start() == 0
    assert runners[1].files == runners[0].files
    assert runners[1].starts[-1] == reached


def test_killed_while_publishing_computes_nothing_again(undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    assert runner.start(kill_before_publishing="env.json") == KILLED
    assert (runner.out / "series.csv").exists()
    assert not (runner.out / "metrics.csv").exists()
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts == [0]
    assert not list(runner.out.glob(".*")), "temporary files are gone"


def test_a_lost_run_directory_is_published_again(undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    runner.start()
    for path in runner.out.iterdir():
        path.unlink()
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts == [0]
    assert not (runner.folder / "checkpoint").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_stop_signal_saves_and_exits_75(number, undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    assert runner.start(signal_at_step=11, signal=int(number)) == 75
    assert f"stopped by {signal.Signals(number).name}; state folder" in runner.output.read_text()
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts[-1] == 11


def test_the_stop_file_saves_and_exits_75(undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    stop = tmp_path / "stop"
    runner.env["SNAKEMAKE_SUBMITIT_STOP_FILE"] = str(stop)
    stop.touch()
    assert runner.start() == 75
    assert (runner.folder / "checkpoint").exists()
    stop.unlink()
    assert runner.start() == 0
    assert runner.files == expected


def test_one_of_two_processes_computes_and_both_succeed(undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    both_have_begun = tmp_path / "both have begun"
    processes = [runner.begin(wait_for=str(both_have_begun)) for _ in range(2)]
    waiting = "another process works on this run; waiting for it"
    deadline = time.monotonic() + 120
    try:
        while not (runner.output.exists() and waiting in runner.output.read_text()):
            assert time.monotonic() < deadline, "neither of them waits for the other"
            time.sleep(0.05)
    finally:
        both_have_begun.touch()
    assert [runner.end(process) for process in processes] == [0, 0]
    assert runner.files == expected
    assert runner.starts == [0], "one of them computed, the other waited and published"
    output = runner.output.read_text()
    assert output.count(waiting) == 1
    assert output.count("finished before; publishing again") == 1


def test_a_damaged_checkpoint_falls_back_to_the_one_before(undisturbed, tmp_path, manifest):
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    assert runner.start(save_at=[6, 11], kill_at_step=14) == KILLED
    checkpoint = runner.folder / "checkpoint"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(bytes(content))
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts[-1] == 6
    assert (
        "is damaged (checksum); trying the one before it" in (runner.folder / "log.txt").read_text()
    )


def test_a_damaged_checkpoint_never_replaces_the_good_one(undisturbed, tmp_path, manifest):
    """After the fallback the next save keeps the good checkpoint as the older one, even when killed
    between renames."""
    task, expected = undisturbed
    runner = Runner(tmp_path, task, manifest)
    assert runner.start(save_at=[6, 11], kill_at_step=14) == KILLED
    (runner.folder / "checkpoint").write_bytes(b"damaged\nnonsense")
    assert runner.start(save_at=[9], kill_in_rename=1) == KILLED
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts[-1] == 6


def test_a_process_of_an_older_spec_publishes_nothing(tmp_path):
    """A killed Snakemake leaves a child process behind. The registry is edited and built again
    before the child ends; the child must not overwrite the newer result."""
    target, record = tmp_path / "out", Record({"status": "done"}, CsvTable(("step",)))
    states = {name: State(tmp_path / "state" / f"a-s0@{name}") for name in ("older", "newer")}
    for name, state in states.items():
        state.mark_as_newest()
        state.folder.mkdir(parents=True, exist_ok=True)
        state.start({"code": name})
        state.finish(record, {"task": "simulate", "repeats": name})
    with pytest.raises(Stopped, match="a later start with another spec"):
        states["older"].publish(target)
    assert not target.exists()
    states["newer"].publish(target)
    assert json.loads((target / "spec.json").read_text())["repeats"] == "newer"
    states["older"].mark_as_newest()  # the edit is undone
    states["older"].publish(target)
    assert json.loads((target / "spec.json").read_text())["repeats"] == "older"


def test_a_record_that_lacks_a_file_is_computed_again(tmp_path, manifest):
    """A damaged environment.json is replaced by a new one, so that the published file can be
    read."""
    runner = Runner(tmp_path, "simulate", manifest)
    assert runner.start() == 0
    expected = runner.files
    for path in (runner.folder / "record" / "metrics.csv", runner.out / "metrics.csv"):
        path.unlink()
    (runner.folder / "environment.json").write_text('{"a":')
    assert runner.start() == 0
    assert runner.files == expected
    assert runner.starts == [0, 0]
    (runner.folder / "environment.json").write_text("")
    assert runner.start() == 0
    assert len(json.loads((runner.out / "env.json").read_text())) == 1


def earlier_running_totals(saved: dict) -> None:
    """Rename the key of the sums, as if earlier code had saved them."""
    saved["window"] = saved.pop("running_totals")


def other_columns(saved: dict) -> None:
    saved["series"] = [[0.0, 1]]


@pytest.mark.parametrize("change", [earlier_running_totals, other_columns])
def test_progress_of_other_code_is_refused(tmp_path, change):
    """Such progress is never restored, or its numbers would be taken for those of the current
    columns."""
    progress = Progress.start(("step", "at", "loss"), ("loss",))
    progress.add({"loss": 3.0}, 2)
    progress.step = 4
    progress.series.add(4, 4.0, 0.5)
    saved = progress.state_dict()
    again = Progress.start(("step", "at", "loss"), ("loss",))
    again.restore(saved, tmp_path)
    assert again.state_dict() == saved
    change(saved)
    expected = "the checkpoint was written by a different version of the code"
    with pytest.raises(InputError, match=expected) as error:
        again.restore(saved, tmp_path)
    assert "\n" not in str(error.value)
    assert again.take_means() == {"loss": 1.5}, "nothing is taken from it"


def test_a_checkpoint_of_other_code_is_one_line(tmp_path, manifest):
    runner = Runner(tmp_path, "classify", manifest)
    assert runner.start(save_at=[4], kill_at_step=6) == KILLED
    with State(runner.folder) as state:
        saved = state.load()
        saved["model"] = {f"old.{name}": value for name, value in saved["model"].items()}
        state.save(saved)
    images = load_images("digits", manifest)
    spec = parse_spec(json.dumps(SPECS["classify"]))
    with (
        State(runner.folder) as state,
        pytest.raises(InputError, match=r"by a different version of the code \(.*\); delete it"),
    ):
        classify(spec, state, torch.device("cpu"), images)
