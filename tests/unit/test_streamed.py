"""Batches from files equal those from memory, for any number of workers and from any step on.

Worker processes end with their run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostgrad.data import decoding, transforms
from ghostgrad.training import loader as batches
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup
from tests.conftest import ROOT
from tests.unit.image_folder import (
    BASE,
    DECODERS,
    PADDED,
    WINDOWS,
    loaded,
    opened,
    picture,
    refused,
)

pytestmark = pytest.mark.filterwarnings(DECODERS)


@pytest.mark.parametrize(
    "changes", [{}, PADDED, {"size": 5}, {"standardize": "per_channel"}], ids=str
)
def test_memory_and_files_make_the_same_batches(root, changes, monkeypatch):
    """Both loaders agree for every augmentation that both support; here without workers."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    memory, files = (opened(root, input=kind, **changes) for kind in ("memory", "files"))
    assert (type(memory), type(files)) == (batches.InMemoryLoader, batches.StreamingLoader)
    assert memory.steps_per_epoch == files.steps_per_epoch == 2
    for step in range(5):
        assert all(torch.equal(a, b) for a, b in zip(memory(step), files(step), strict=True))
    for expected, batch in zip(memory.test_batches(), files.test_batches(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, batch, strict=True))


def stream(root: Path, steps, group: ProcessGroup = SINGLE_PROCESS, **changes) -> list[tuple]:
    source = opened(root, group, input="files", **changes)
    return [source(step) for step in steps]


def same(first: list[tuple], second: list[tuple]) -> bool:
    return all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("changes", [PADDED, WINDOWS], ids=["crop", "resized_crop"])
def test_workers_and_a_start_in_the_middle_change_nothing(root, changes, monkeypatch):
    """Two workers make the same batches as none, in whatever order the steps are asked for.

    The order is that of a run that resumes at step 3, reads a batch twice, as a probe does, and
    then goes back.
    """
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    through = stream(root, range(6), **changes)
    assert len({x.sum().item() for x, _ in through}) == 6, "every step has another batch"
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "2")
    assert same(
        stream(root, [3, 3, 4, 5, 1], **changes), [through[step] for step in (3, 3, 4, 5, 1)]
    )
    state = torch.get_rng_state()
    stream(root, [0], **changes)
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn from torch's own generator"


@pytest.mark.parametrize("changes", [PADDED, WINDOWS], ids=["crop", "resized_crop"])
def test_the_shares_of_two_processes_make_the_single_batch(root, changes, monkeypatch):
    """Each process decodes only its own images; a chunk of test images goes to one process."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    monkeypatch.setattr(batches, "TEST_BATCH", 4)
    read = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda path: read.append(path) or decode(path))
    whole = stream(root, range(3), **changes)
    read.clear()
    shares = [stream(root, range(3), ProcessGroup(rank, 2), **changes) for rank in range(2)]
    assert len([path for path in read if "train" in path.parts]) == 24 + 2 * ("size" not in changes)
    joined = [
        tuple(torch.cat(parts) for parts in zip(*pair, strict=True))
        for pair in zip(*shares, strict=True)
    ]
    assert same(joined, whole)
    sources = [opened(root, ProcessGroup(rank, 2), input="files", **changes) for rank in range(2)]
    assert sorted(len(y) for source in sources for _, y in source.test_batches()) == [2, 4]


def test_evaluation_with_resized_crop_is_the_centre_of_a_larger_image(root):
    """As in torchvision's recipe, the short side is resized to size * 256/224 before the crop."""
    picture(root / "val/ant/20.png", 20, 32, 32)
    images = loaded(root, input="files", size=14, augment=["resized_crop"])
    x = decoding.decode(images.test_x.path(0))
    larger = torch.nn.functional.interpolate(
        x[None].float(), size=(16, 16), mode="bilinear", antialias=True
    )[0]
    # One pixel is cut off at each side; at 7 of 8 pixels the centre would begin at the corner.
    assert (images.test_x[0].float() - larger[:, 1:15, 1:15]).abs().max() <= 1
    assert images.test_x.shape == (6, 3, 14, 14)


def test_windows_have_the_area_and_the_ratio_of_random_resized_crop():
    draws = torch.rand(
        2000, 2 * transforms.TRIES + 2, generator=torch.Generator().manual_seed(0)
    ).tolist()
    boxes = np.array([transforms.random_resized_crop_box(300, 400, draw) for draw in draws])
    top, left, height, width = boxes.T
    assert (
        (top >= 0).all()
        and (left >= 0).all()
        and (top + height <= 300).all()
        and (left + width <= 400).all()
    )
    area, ratio = height * width / 120000, width / height
    assert 0.079 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35
    counts = np.histogram(area, bins=[0.08, 0.24, 0.4, 0.56])[0]  # areas at which any ratio fits
    assert counts == pytest.approx(counts.mean(), rel=0.1)
    assert np.log(ratio[area < 0.5]).mean() == pytest.approx(0, abs=0.03)
    assert transforms.random_resized_crop_box(10, 100, [0.99] * 22) == (0, 43, 10, 13), (
        "none fits: the middle, at the ratio 4/3"
    )
    assert transforms.random_resized_crop_box(100, 10, [0.99] * 22) == (43, 0, 13, 10)


REFUSED = {
    "batch": ({"batch": 21}, "images: 20 training images do not fill one batch of 21"),
    "batch of files": (
        {"batch": 21, "input": "files"},
        "images: 20 training images do not fill one batch of 21",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_batches_that_cannot_be_made_are_refused(root, changes, message):
    assert refused(opened, root, **changes).endswith(message)


def test_more_images_than_memory_are_refused(root, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _name: 50)
    assert "20 images need 0 GiB of memory" in refused(loaded, root)
    assert len(loaded(root, input="files").train_x) == 20


@pytest.mark.parametrize("text", ["two", "-1", "1.5"])
def test_a_wrong_number_of_workers(root, text, monkeypatch):
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", text)
    problem = f"'{text}' is not a number of processes; give 0 or more, or unset it"
    message = f"GHOSTGRAD_LOADER_WORKERS: {problem}"
    assert refused(opened, root, input="files") == message


def test_a_worker_that_is_killed_is_one_line(root, monkeypatch):
    """The kernel kills a worker like this when memory runs out."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "2")
    monkeypatch.setattr(batches, "augment", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    text = refused(opened(root, input="files"), 0)
    assert "a process that reads images has ended (DataLoader worker" in text
    assert text.endswith("give the run more memory, or set GHOSTGRAD_LOADER_WORKERS to fewer")
    assert multiprocessing.active_children() == [], "its fellows do not outlive it"


def first_batch(root: Path, pipe) -> None:
    """Read a batch with two workers, send their process ids, and wait to be killed."""
    os.environ["GHOSTGRAD_LOADER_WORKERS"] = "2"
    source = opened(root, input="files")
    source(0)
    pipe.send([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


@pytest.mark.slow
def test_workers_end_with_a_run_that_is_killed(root):
    """Workers check every five seconds whether their run still exists."""
    loaded(root)
    receiver, sender = multiprocessing.Pipe()
    run = multiprocessing.get_context("fork").Process(target=first_batch, args=(root, sender))
    run.start()
    workers = receiver.recv()
    run.kill()
    run.join()
    assert len(workers) == 2
    wait_for_the_end_of(workers)


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
import torch
import torch.utils.data._utils.worker as torch_worker
from ghostgrad.training import loader as batches
from ghostgrad.tasks.classify import load_data
from ghostgrad.registry.spec import parse_spec
from ghostgrad.runs.state import StopRequest

# A worker also checks by itself whether its run exists; this must not end the workers here.
torch_worker.MP_STATUS_CHECK_INTERVAL = 3600
stop = StopRequest().listen()
spec = parse_spec(sys.argv[1])
source = batches.open_loader(spec, load_data(spec, Path(sys.argv[2])), torch.device("cpu"))
source(0)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
sys.stdin.readline()
for step in range(1, 10):
    source(step)
print("stopped by", stop.signal, flush=True)
"""


@pytest.mark.slow
def test_workers_leave_a_stop_to_the_run_and_end_with_it(root):
    """Workers ignore a signal to all processes of a run, such as Slurm sends.

    The run still gets its batches after the signal, and its workers end when it ends.
    """
    loaded(root)
    text = json.dumps({"task": "classify", **BASE, "input": "files"})
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "GHOSTGRAD_LOADER_WORKERS": "2"}
    command = [sys.executable, "-c", SCRIPT, text, str(root.parent / "images.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, start_new_session=True, **pipes) as run:
        workers = [int(number) for number in run.stdout.readline().split()]
        os.killpg(run.pid, signal.SIGTERM)
        out, _ = run.communicate("go on\n", timeout=60)
    assert (run.returncode, out, len(workers)) == (0, "stopped by SIGTERM\n", 2)
    wait_for_the_end_of(workers)


def wait_for_the_end_of(processes: list[int], seconds: float = 60) -> None:
    began = time.monotonic()
    while any(status(process) not in ("", "Z") for process in processes):
        assert time.monotonic() - began < seconds, "a worker outlives its run"
        time.sleep(0.05)


def status(process: int) -> str:
    """Return the kernel's letter for the state of a process; empty if there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
