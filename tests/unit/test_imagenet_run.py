"""A run of the `imagenet` experiment as at paper scale, except that it is shorter and that its
images and batches are smaller."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ghostgrad.data.make import make
from ghostgrad.registry.registry import load_registry
from tests.unit.image_folder import CLASSES, DECODERS, picture
from tests.unit.killing import KILLED, Runner

pytestmark = pytest.mark.filterwarnings(DECODERS)
SMALLER = {
    "data": "images",
    "size": 32,
    "batch": 8,
    "micro_batch": 4,
    "length": 3,
    "warmup": 1,
    "probe_at": [0, 1, 3],
}
TRAIN, VAL = 27, 6


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Path:
    """The manifest of a folder of JPEGs, each of a different size and some of them grey."""
    root = tmp_path / "insects"
    for index in range(TRAIN + VAL):
        split, mode = "train" if index < TRAIN else "val", "L" if index % 5 == 0 else "RGB"
        path = root / split / CLASSES[index % 2] / f"{index:02}.JPEG"
        picture(path, index, 40 + 3 * index, 110 - 2 * index, mode)
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(root))
    make("images", tmp_path / "images.json")
    return tmp_path / "images.json"


@pytest.mark.slow
def test_jpegs_killed_and_resumed_equal_undisturbed(tmp_path, manifest):
    """A run that gets a SIGKILL between gradient and update, and later a SIGTERM, as Slurm sends
    it, publishes the same bytes as an undisturbed run, its weights included."""
    spec = {
        **load_registry().run("paper", "imagenet/seqnet18-s0").spec.stored(),
        **SMALLER,
        "probe_batches": 2,
    }
    whole, parts = (
        Runner(tmp_path / name, "classify", manifest, spec) for name in ("whole", "parts")
    )
    for runner in (whole, parts):
        runner.output.parent.mkdir()
        runner.arguments += ["--files", "metrics.csv weights.pt"]
        runner.env |= {"GHOSTGRAD_LOADER_WORKERS": "1"}
    assert whole.start() == 0
    assert parts.start(save_at=[4], kill_in_step=5) == KILLED
    assert parts.start(signal_at_step=7, signal=int(signal.SIGTERM)) == 75
    assert parts.start() == 0
    assert parts.starts == [0, 4, 7]
    assert parts.files == whole.files
    assert (parts.out / "weights.pt").read_bytes() == (whole.out / "weights.pt").read_bytes()
