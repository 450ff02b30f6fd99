"""Image data sets: made or checked once by the data rule, loaded whole by every run.

The manifest results/data/<name>.json holds counts, shape, class names and a checksum, but no path: data that move
rerun nothing. `digits` are scikit-learn's 8x8 digits (Alpaydin and Kaynak 1998) as RGB images; `cifar10` is read from
the genuine archive layout.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ghostgrad.checks import InputError, nearest
from ghostgrad.record import write

DATASETS = ("cifar10", "digits")
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


@dataclass
class Images:
    """A data set in memory: uint8 images (N, 3, H, W) and integer labels (N,), split into train and test."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: list[str]

    def manifest(self, name: str) -> dict:
        digest = hashlib.sha256()
        for part in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(np.ascontiguousarray(part).tobytes())
        return {
            "name": name,
            "train": len(self.train_x),
            "test": len(self.test_x),
            "shape": list(self.train_x.shape[1:]),
            "classes": self.classes,
            "sha256": digest.hexdigest(),
        }


def digits() -> Images:
    """1,797 handwritten digits, 8x8, shipped with scikit-learn: grey levels 0..16 become RGB 0..255. Every sixth image
    is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[:, None], 3, axis=1)
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(labels)) % 6 == 0
    return Images(images[~test], labels[~test], images[test], labels[test], [str(n) for n in range(10)])


def cifar10(root: str) -> Images:
    """CIFAR-10 (Krizhevsky 2009) from `root`/cifar-10-batches-py, its files checked against their published MD5."""
    from torchvision.datasets import CIFAR10

    key = "config.yaml: data.cifar10"
    folder = Path(root) / CIFAR10.base_folder
    if not folder.is_dir():
        raise InputError(f"{key}: no folder {CIFAR10.base_folder} in {root}; unpack cifar-10-python.tar.gz there")
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], None]]:
        if not (folder / name).is_file():
            raise InputError(f"{key}: {folder / name} is missing; unpack cifar-10-python.tar.gz again")
    try:
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    except RuntimeError:
        raise InputError(f"{key}: a file in {folder} is damaged (MD5); unpack cifar-10-python.tar.gz again") from None
    arrays = [np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)) for part in (train, test)]
    labels = [np.asarray(part.targets, dtype=np.int64) for part in (train, test)]
    if train.classes != CIFAR10_CLASSES:
        raise InputError(f"{key}: {len(train.classes)} classes {train.classes}, expected the 10 of CIFAR-10")
    if (len(labels[0]), len(labels[1])) != (50000, 10000):
        found = f"{len(labels[0])} train and {len(labels[1])} test images"
        raise InputError(f"{key}: {found}, expected 50000 and 10000; is this the genuine archive?")
    return Images(arrays[0], labels[0], arrays[1], labels[1], list(train.classes))


def read(name: str) -> Images:
    """A data set by name; an external one from the path that config.yaml gives (GHOSTGRAD_DATA_<NAME>)."""
    if name == "digits":
        return digits()
    if name not in DATASETS:
        raise InputError(f"no data set '{name}'{nearest(name, DATASETS)}")
    path = os.environ.get(f"GHOSTGRAD_DATA_{name.upper()}")
    if not path:
        raise InputError(f"config.yaml: data.{name} is not set; give the folder that holds it")
    return cifar10(path)


def make(name: str, manifest: Path) -> None:
    """Read and check a data set, write its manifest, and for one that ships inside a package the arrays beside it, so
    that the runs need not import that package."""
    images = read(name)
    if name == "digits":
        arrays = manifest.with_suffix(".npz")
        arrays.parent.mkdir(parents=True, exist_ok=True)
        temporary = arrays.with_name(f".{arrays.name}")
        with temporary.open("wb") as stream:
            np.savez(stream, **{k: v for k, v in vars(images).items() if k != "classes"})
        temporary.replace(arrays)
    write(manifest, json.dumps(images.manifest(name), indent=1) + "\n")


def load(name: str, manifest: Path) -> Images:
    """The data set that `manifest` describes; InputError if what is there now is another one."""
    expected = json.loads(manifest.read_text(encoding="utf-8"))
    arrays = manifest.with_suffix(".npz")
    if arrays.exists():
        with np.load(arrays) as stored:
            images = Images(**stored, classes=expected["classes"])
    else:
        images = read(name)
    if images.manifest(name) != expected:
        raise InputError(f"{manifest}: {name} has changed since the data rule checked it; delete this file to renew it")
    return images
