"""The smaller copy of a folder of images: what it contains, and what a run reads from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostgrad.checks import InputError
from ghostgrad.data import decoding, resized
from ghostgrad.data.make import make
from ghostgrad.registry.compatibility import check_together
from ghostgrad.tasks.classify import load_data
from tests.unit.image_folder import CLASSES, DECODERS, picture, spec

pytestmark = pytest.mark.filterwarnings(DECODERS)
SHORT = 16
SIZES = {
    "wide.JPEG": (60, 40),
    "high.jpg": (20, 50),
    "small.jpg": (14, 30),
    "wide.png": (48, 24),
    "a.gif": (32, 32),
}


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Path:
    """The manifest of a folder with an image of each kind in every class."""
    root = tmp_path / "insects"
    for seed, (split, name) in enumerate((s, c) for s in ("train", "test") for c in CLASSES):
        for file, (width, height) in SIZES.items():
            picture(root / split / name / file, seed, width, height)
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(root))
    make("images", tmp_path / "data" / "images.json")
    return tmp_path / "data" / "images.json"


def copied(manifest: Path) -> Path:
    copy = manifest.with_name(f"images-{SHORT}.json")
    resized.make("images", SHORT, manifest, copy, threads=2)
    return copy


def test_short_sides_are_at_most_the_given_length(manifest):
    folder = copied(manifest).with_suffix("")
    for name, (width, height) in SIZES.items():
        file = folder / "train" / "bee" / (name if name != "a.gif" else "a.gif.png")
        scale = min(1, SHORT / min(width, height))
        with Image.open(file) as image:
            assert image.size == (int(width * scale), int(height * scale))
            assert image.format == ("JPEG" if "jp" in name.lower() else "PNG")
    original = manifest.parent.parent / "insects" / "train" / "bee"
    assert (folder / "train" / "bee" / "small.jpg").read_bytes() == (
        original / "small.jpg"
    ).read_bytes()
    with Image.open(original / "wide.png") as image:
        expected = np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR)).astype(int)
    with Image.open(folder / "train" / "bee" / "wide.png") as image:
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1


def test_the_manifest_describes_the_copy(manifest):
    original, copy = (json.loads(path.read_text()) for path in (manifest, copied(manifest)))
    assert copy["title"] == f"insects, short side {SHORT}"
    assert {key: original[key] for key in ("name", "train", "test", "classes")} == {
        key: copy[key] for key in ("name", "train", "test", "classes")
    }
    assert original["sha256"] != copy["sha256"]


def test_a_run_reads_the_copy(manifest):
    copy = copied(manifest)
    settings = spec(resized=SHORT, size=12, input="files", augment=["resized_crop"], batch=4)
    images = load_data(settings, copy)
    assert Path(images.train_x.root) == copy.with_suffix("")
    assert images.classes == list(CLASSES)
    assert images.train_x[0].shape == (3, 12, 12)


def test_an_interrupted_copy_is_continued(manifest, monkeypatch):
    """Images that were copied are not copied again; partial files are replaced."""
    done, calls, original = copied(manifest), [], decoding.decode
    wanted = {path: path.read_bytes() for path in done.with_suffix("").rglob("*.*")}
    done.unlink()
    for name in ("wide.JPEG", "wide.png"):
        (done.with_suffix("") / "test" / "ant" / name).unlink()
    (done.with_suffix("") / "test" / "ant" / ".wide.png").write_bytes(b"half")
    monkeypatch.setattr(decoding, "decode", lambda path: calls.append(path.name) or original(path))
    copied(manifest)
    assert {*calls} >= {"wide.JPEG", "wide.png"}
    assert calls.count("high.jpg") == 2, "in train, to measure the channels, and that is all"
    assert {path: path.read_bytes() for path in done.with_suffix("").rglob("*.*")} == wanted


def test_a_copy_of_other_images_is_replaced(manifest):
    copied(manifest)
    old = manifest.parent.parent / "insects" / "train" / "ant" / "wide.JPEG"
    old.unlink()
    picture(old.with_name("new.png"), 77, 50, 50)
    make("images", manifest)
    names = {path.name for path in copied(manifest).with_suffix("").rglob("train/ant/*")}
    assert "new.png" in names
    assert "wide.JPEG" not in names


def test_images_that_changed_since_the_manifest_are_refused(manifest):
    picture(manifest.parent.parent / "insects" / "train" / "ant" / "new.png", 77)
    with pytest.raises(InputError, match="images has changed since the data rule checked it"):
        copied(manifest)


def test_a_damaged_copy_is_made_again(manifest):
    copy = copied(manifest)
    broken = copy.with_suffix("") / "train" / "ant" / "wide.JPEG"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    with pytest.raises(
        InputError, match="1 damaged copies were deleted; build again to make new ones"
    ):
        copied(manifest)
    copied(manifest)
    assert broken.read_bytes() == good


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": "digits", "resized": 64},
            "resized: data digits is not a folder of images; set data to images or imagenet",
        ),
        (
            {"resized": 240, "size": 224, "input": "files", "augment": ["resized_crop"]},
            "resized: 240 is smaller than 256, the side that test images would be enlarged to",
        ),
        (
            {"resized": 64, "size": 128},
            "resized: 64 is smaller than 128, the side that test images would be enlarged to",
        ),
    ],
)
def test_useless_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_together(spec(**changes), 0, "nets.a")
