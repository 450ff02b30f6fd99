"""Data sets: scikit-learn's digits and photographs, and CIFAR-10 in the layout of its genuine
archive, with random images."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from ghostgrad.checks import InputError
from ghostgrad.data.image_sets import load_images, read_arrays
from ghostgrad.data.make import make


def test_digits_are_the_1797_images_as_rgb(tmp_path):
    manifest = tmp_path / "digits.json"
    make("digits", manifest)
    content = json.loads(manifest.read_text())
    assert (content["train"], content["test"], content["shape"], content["classes"]) == (
        1497,
        300,
        [3, 8, 8],
        list("0123456789"),
    )
    images = load_images("digits", manifest)
    assert images.train_x.dtype == np.uint8
    assert images.train_x.max() == 255
    assert (images.train_x[:, 0] == images.train_x[:, 2]).all()
    assert np.bincount(images.train_y).min() > 130, "every class occurs"
    assert str(tmp_path) not in manifest.read_text(), "a manifest names no path"


def test_photographs_are_windows_of_two(tmp_path):
    """Each image is a window of scikit-learn's photograph of its class, and no test image is a
    training image."""
    from sklearn.datasets import load_sample_images

    make("photographs", tmp_path / "photographs.json")
    images = load_images("photographs", tmp_path / "photographs.json")
    whole = dict(zip(images.classes, load_sample_images().images, strict=True))
    assert images.train_x.shape == (84, 3, 224, 224)
    assert images.test_x.shape == (6, 3, 224, 224)
    assert np.bincount(images.train_y).tolist() == [42, 42]
    assert np.bincount(images.test_y).tolist() == [3, 3]
    cut = {
        name: {
            window.transpose(2, 0, 1).tobytes()
            for row in np.lib.stride_tricks.sliding_window_view(photograph, (224, 224, 3))[
                ::48, ::48, 0
            ]
            for window in row
        }
        for name, photograph in whole.items()
    }
    parts = ((images.train_x, images.train_y), (images.test_x, images.test_y))
    seen = {name: set() for name in cut}
    for x, y in ((x, y) for part in parts for x, y in zip(*part, strict=True)):
        seen[images.classes[y]].add(x.tobytes())
    assert {name: len(windows) for name, windows in cut.items()} == {"china": 45, "flower": 45}
    assert seen == cut, "all windows, each once, so that no test image is a training image"


def test_changed_arrays_are_refused(tmp_path):
    manifest = tmp_path / "digits.json"
    make("digits", manifest)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "sha256": "0" * 64}))
    with pytest.raises(
        InputError,
        match=r"digits has changed since the data rule checked it; delete .*digits\.json and",
    ):
        load_images("digits", manifest)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_manifest_or_array_file_is_one_line(tmp_path, suffix, keep):
    """The file is empty or cut short. The message names both files; once these are deleted, they
    can be made again."""
    manifest = tmp_path / "digits.json"
    make("digits", manifest)
    path, arrays = manifest.with_suffix(suffix), manifest.with_suffix(".npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError) as error:
        load_images("digits", manifest)
    assert str(error.value).startswith(
        f"{manifest}: digits is damaged; delete {manifest} and {arrays} and build again"
    )
    manifest.unlink()
    arrays.unlink()
    make("digits", manifest)
    assert len(load_images("digits", manifest).test_y) == 300


@pytest.mark.parametrize("name", [".digits.npz", ".digits.json"])
def test_a_full_disk_leaves_no_partial_file(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")  # the temporary file, which is renamed at the end
    with pytest.raises(OSError, match="No space left on device"):
        make("digits", tmp_path / "digits.json")
    assert not (tmp_path / "digits.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def archive(
    root: Path, monkeypatch, train: int = 50000, test: int = 10000, classes: list[str] | None = None
) -> Path:
    """Write a cifar-10-batches-py folder in the genuine layout, and replace the published checksums
    with those of its files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        path = folder / name
        path.write_bytes(pickle.dumps(content))
        return [name, hashlib.md5(path.read_bytes()).hexdigest()]

    def batch(n: int) -> dict:
        images = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        return {"data": images, "labels": rng.integers(0, 10, n).tolist()}

    lists = [write(f"data_batch_{i}", batch(train // 5)) for i in range(1, 6)]
    monkeypatch.setattr(CIFAR10, "train_list", lists)
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch(test))])
    name, digest = write(
        "batches.meta", {"label_names": classes or [f"class {n}" for n in range(10)]}
    )
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    monkeypatch.setenv("GHOSTGRAD_DATA_CIFAR10", str(root))
    return folder


def test_cifar10_is_read_from_the_genuine_layout(tmp_path, monkeypatch):
    folder = archive(tmp_path / "here", monkeypatch)
    manifest = tmp_path / "cifar10.json"
    make("cifar10", manifest)
    images = load_images("cifar10", manifest)
    raw = pickle.loads((folder / "data_batch_1").read_bytes())
    assert images.train_x.shape == (50000, 3, 32, 32)
    assert (images.train_x[7].ravel() == raw["data"][7]).all(), (
        "channel, row, column, as in the archive"
    )
    assert images.train_y[:10].tolist() == raw["labels"][:10]
    assert not manifest.with_suffix(".npz").exists(), "external data are not copied"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 5000}, "5000 train images, expected 50000; is this the genuine data set?"),
        ({"test": 500}, "500 test images, expected 10000; is this the genuine data set?"),
        ({"classes": ["cat", "dog"]}, "2 classes, expected 10; is this the genuine data set?"),
    ],
)
def test_wrong_counts_and_classes_are_one_line(changes, message, tmp_path, monkeypatch):
    archive(tmp_path, monkeypatch, **{"train": 50000, "test": 10000, **changes})
    with pytest.raises(InputError, match=re.escape(f"config.yaml: data.cifar10: {message}")):
        read_arrays("cifar10")


def test_a_damaged_or_missing_file_is_one_line(tmp_path, monkeypatch):
    folder = archive(tmp_path, monkeypatch, train=500, test=100)
    (folder / "data_batch_3").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"data.cifar10: a file in .* is damaged \(MD5\)"):
        read_arrays("cifar10")
    (folder / "data_batch_3").unlink()
    with pytest.raises(InputError, match=r"data_batch_3 is missing; unpack"):
        read_arrays("cifar10")


def test_unset_and_unknown_data_sets(monkeypatch, tmp_path):
    monkeypatch.delenv("GHOSTGRAD_DATA_CIFAR10", raising=False)
    with pytest.raises(InputError, match=r"config\.yaml: data\.cifar10 is not set"):
        read_arrays("cifar10")
    with pytest.raises(InputError, match="no data set 'digit'; did you mean 'digits'"):
        make("digit", tmp_path / "digit.json")
