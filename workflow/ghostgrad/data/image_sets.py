"""Making and loading data sets of labelled images: arrays that are read whole, and folders of
image files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ghostgrad.data import builtin, folders, manifests
from ghostgrad.data.cifar10 import cifar10
from ghostgrad.data.decoding import names_to_skip
from ghostgrad.data.folders import Folder
from ghostgrad.data.images import Images
from ghostgrad.files import write_atomically
from ghostgrad.registry.datasets import DATA_SETS, MeanStd

ARRAY_READERS: Mapping[str, Callable[[], Images]] = {
    "cifar10": cifar10,
    "digits": builtin.digits,
    "photographs": builtin.photographs,
}
"""What reads each data set of the form `arrays`. One of the form `image_folder` needs no entry."""


def load_images(
    name: str,
    manifest: Path,
    *,
    size: int = 0,
    test_side: int = 0,
    on_disk: bool = False,
    resized: bool = False,
) -> Images:
    """The images that `manifest` describes; InputError where they are damaged or have changed.

    The other arguments concern folders of image files only: images are cut to `size` while they are
    read (0: as they are), test images after their short side was resized to `test_side`; they stay
    `on_disk`; the smaller copies beside the manifest are read in the place of the originals
    (`resized`).
    """
    if DATA_SETS[name].form == "arrays":
        return _load_arrays(name, manifest)
    root = str(manifest.with_suffix("")) if resized else manifests.configured_path(name)
    folder, mean_std = load_folder(name, manifest, root)
    train, test = folder.resized(size, test_side)
    train_y, test_y, classes = folder.train_y, folder.test_y, folder.classes
    if on_disk:
        return Images(train, train_y, test, test_y, classes, mean_std)
    return Images(train.read(), train_y, test.read(), test_y, classes, mean_std)


def read_arrays(name: str) -> Images:
    """A data set of the form `arrays` from its source; InputError where it is not set, is damaged,
    or has other counts than it should."""
    images = ARRAY_READERS[name]()
    manifests.check_counts(name, images.train_y, images.test_y, images.classes)
    return images


def _arrays_manifest(name: str, images: Images) -> dict[str, Any]:
    train_x, test_x = images.in_memory()
    digest = hashlib.sha256()
    for part in (train_x, images.train_y, test_x, images.test_y):
        digest.update(np.ascontiguousarray(part).tobytes())
    return {
        "name": name,
        "train": len(train_x),
        "test": len(test_x),
        "shape": list(train_x.shape[1:]),
        "classes": images.classes,
        "sha256": digest.hexdigest(),
    }


def make_arrays(name: str, manifest: Path) -> None:
    """Read and check a data set of the form `arrays` and write its manifest. The arrays of a
    shipped one are stored beside the manifest, so that no run needs the package that ships it."""
    images = read_arrays(name)
    if DATA_SETS[name].shipped:
        (train_x, test_x), buffer = images.in_memory(), io.BytesIO()
        np.savez(
            buffer, train_x=train_x, train_y=images.train_y, test_x=test_x, test_y=images.test_y
        )
        write_atomically(manifest.with_suffix(".npz"), buffer.getvalue())
    manifests.write_manifest(manifest, _arrays_manifest(name, images))


def _load_arrays(name: str, manifest: Path) -> Images:
    arrays = manifest.with_suffix(".npz")
    stored = [arrays] if arrays.exists() else []
    try:
        expected = manifests.read_manifest(manifest)
        if stored:
            with np.load(arrays) as parts:
                mean_std = DATA_SETS[name].mean_std
                images = Images(**parts, classes=expected["classes"], mean_std=mean_std)
        else:
            images = read_arrays(name)
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile):
        raise manifests.damage(manifest, name, *stored) from None
    if _arrays_manifest(name, images) != expected:
        raise manifests.change(manifest, name, *stored)
    return images


def make_folder(name: str, manifest: Path, folder: Folder) -> None:
    """Check the images in a folder and write the manifest; InputError where it has other counts
    than it should, or damaged images that config.yaml does not ask to skip."""
    manifests.check_counts(name, folder.train_y, folder.test_y, folder.classes)
    root = folder.train.root
    if skipped := names_to_skip(name, root, folder.train.paths() + folder.test.paths()):
        folder = folders.scan(name, str(root), skipped)
    manifests.write_manifest(manifest, folder_manifest(name, folder), skipped)


def folder_manifest(name: str, folder: Folder) -> dict[str, Any]:
    """The manifest of a folder of images, with its channels' mean and deviation where they are
    measured, because the table of data sets has none."""
    content = folder.manifest(name)
    if DATA_SETS[name].mean_std is None:
        content["mean"], content["std"] = folder.measure_mean_std()
    return content


def load_folder(name: str, manifest: Path, root: str) -> tuple[Folder, MeanStd]:
    """The images below `root`, which `manifest` describes, and their channels' mean and deviation;
    InputError where they have changed."""
    try:
        expected = manifests.read_manifest(manifest)
        folder = folders.scan(name, root, frozenset(expected.get("skipped", ())))
        # A folder that was renamed holds the same data: its title is the one that was recorded.
        folder.title = expected["title"]
        mean_std = DATA_SETS[name].mean_std or (expected["mean"], expected["std"])
    except (ValueError, TypeError, KeyError):
        raise manifests.damage(manifest, name) from None
    content = folder.manifest(name)
    if content != {key: expected.get(key) for key in content}:
        raise manifests.change(manifest, name)
    return folder, mean_std
