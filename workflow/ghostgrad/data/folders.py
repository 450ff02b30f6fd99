"""Image data sets that are a folder of files, in the layout of torchvision's ImageFolder:
<root>/train/<class>/* and <root>/val/<class>/*, or test/<class>/* where there is no val/.
The class names, sorted, are the labels 0, 1, …
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ghostgrad.checks import InputError
from ghostgrad.data import decoding
from ghostgrad.data.decoding import READABLE, UNREADABLE
from ghostgrad.data.images import Labels, Pixels
from ghostgrad.data.transforms import resize_center_crop

if TYPE_CHECKING:
    from torch import Tensor

MEASURED = 10_000  # most training images from which the channels' mean and deviation are measured


@dataclass(frozen=True)
class Files:
    """Image files in the place of an array (N, 3, H, W): each is decoded when it is asked for.

    With a `size`, an image is cut to (3, size, size) by `resize_center_crop` with `short_side`.
    Without, all images must have the size of the image `first` (None: of their own first one).
    """

    root: Path
    # Bytes, relative to the root. A list of a million strings would be copied into every worker:
    # reading a Python object writes its reference count, and the page is no longer shared.
    names: NDArray[np.bytes_]
    size: int = 0
    short_side: int = 0
    first: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The path of an image."""
        return self.root / os.fsdecode(bytes(self.names[index]))

    def paths(self) -> list[Path]:
        """The paths of all images."""
        return [self.path(index) for index in range(len(self))]

    def decode(self, index: int) -> Tensor:
        """An image as it is in its file, uint8 (3, H, W); InputError where it is damaged."""
        return decoding.decode(self.path(index))

    def __getitem__(self, index: int) -> Tensor:
        """An image at the size that all have, uint8 (3, H, W); InputError where it is damaged, or
        where no size is set and the image has another one than the first."""
        x = self.decode(index)
        if self.size:
            return resize_center_crop(x, self.size, self.short_side)
        if x.shape != self.shape[1:]:
            first = self.first or self.path(0)
            sizes = [f"{width} x {height}" for _, height, width in (x.shape, self.shape[1:])]
            message = f"{self.path(index)}: {sizes[0]} pixels, but {first} has {sizes[1]}"
            raise InputError(f"{message}; set size in the spec to resize all of them")
        return x

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, H, W)."""
        if self.size:
            return (len(self), 3, self.size, self.size)
        channels, height, width = decoding.decode(self.first or self.path(0)).shape
        return (len(self), channels, height, width)

    def read(self) -> Pixels:
        """All images, uint8 (N, 3, H, W); InputError where they need more memory than the machine
        has."""
        import torch

        needed = int(np.prod(self.shape))
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            message = (
                f"{len(self)} images need {needed / 2**30:.0f} GiB of memory and the machine has "
                f"{memory / 2**30:.0f}"
            )
            remedy = "set a smaller size, or input: files (classify only)"
            raise InputError(f"{self.path(0).parent.parent}: {message}; {remedy}")
        images = np.empty(self.shape, dtype=np.uint8)
        # Decoding releases the interpreter's lock, so that threads of this process are enough.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for index, image in enumerate(pool.map(self.__getitem__, range(len(self)))):
                images[index] = image
        return images


@dataclass
class Folder:
    """The train and test images in a data set's folder, and their labels (N,).

    The title, by default the folder's own name, is what tables and figures show. The checksum
    covers the names and sizes in bytes of all images, not their contents: ImageNet has 138 GiB.
    """

    title: str
    classes: list[str]
    train: Files
    train_y: Labels
    test: Files
    test_y: Labels
    sha256: str

    def manifest(self, name: str) -> dict[str, Any]:
        """Title, counts, classes and checksum, for the manifest of the data set `name`."""
        return {
            "name": name,
            "title": self.title,
            "train": len(self.train),
            "test": len(self.test),
            "classes": self.classes,
            "sha256": self.sha256,
        }

    def resized(self, size: int, test_side: int) -> tuple[Files, Files]:
        """Train and test images cut to `size`, the test images after their short side was resized
        to `test_side`. With size 0, all have the size of the first training image."""
        first = self.train.path(0)
        train = replace(self.train, size=size, first=first)
        return train, replace(self.test, size=size, short_side=test_side, first=first)

    def measure_mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the training images, of values in [0,
        1].

        At most MEASURED images count, evenly spaced, each with the same weight whatever its size.
        """
        count = min(MEASURED, len(self.train))
        sums = np.zeros((2, 3))  # of values and of squares, by channel
        for index in np.linspace(0, len(self.train) - 1, count).round().astype(int):
            values = self.train.decode(index).flatten(1).numpy() / 255
            sums += values.mean(axis=1), (values**2).mean(axis=1)
        mean, square = sums / count
        # A channel of one value has no deviation; it is divided by one grey level instead.
        std = np.sqrt(np.maximum(square - mean**2, 255**-2))
        return mean.round(6).tolist(), std.round(6).tolist()


def scan(name: str, root: str, skip: Collection[str] = ()) -> Folder:
    """List the images of the data set `name` below `root`, without those named in `skip`.

    InputError where a folder is missing, train and test have different classes, a class has no
    image, or a file cannot be listed.
    """
    key = f"config.yaml: data.{name}"
    try:
        train = _split_folder(Path(root), ("train",), key)
        test = _split_folder(Path(root), ("val", "test"), key)
        classes, test_classes = _class_names(train, key), _class_names(test, key)
        for class_name in sorted(set(classes) ^ set(test_classes)):
            present, absent = (train, test) if class_name in classes else (test, train)
            message = f"class '{class_name}' is in {present} but not in {absent}"
            raise InputError(f"{key}: {message}; both must have the same classes")
        digest = hashlib.sha256()
        train_x, train_y = _list_images(Path(root), train, classes, skip, key, digest)
        test_x, test_y = _list_images(Path(root), test, classes, skip, key, digest)
    except OSError as error:
        raise InputError(f"{key}: {error.filename}: {error.strerror}; fix or delete it") from None
    title = Path(os.path.abspath(root)).name  # noqa: PTH100  resolve() would follow a link
    return Folder(title, classes, train_x, train_y, test_x, test_y, digest.hexdigest())


def _split_folder(root: Path, names: tuple[str, ...], key: str) -> Path:
    """The first of the folders `names` that exists in `root`."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    places = " or ".join(f"{name}/<class>/" for name in names)
    missing = f"no folder {' or '.join(names)} in {root}"
    raise InputError(f"{key}: {missing}; put the images into {places}")


def _class_names(folder: Path, key: str) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        flat = any(_is_image(str(entry)) for entry in entries)
        found = "images but no class folders" if flat else "no class folders"
        remedy = "sort the images into one folder per class, <class>/<image>"
        raise InputError(f"{key}: {folder} contains {found}; {remedy}")
    if count := sum(_is_image(str(entry)) for entry in entries if entry.is_file()):
        message = f"{folder} contains {count} images beside its class folders"
        raise InputError(f"{key}: {message}; sort or remove them")
    return classes


def _is_image(name: str) -> bool:
    """True for a name with the suffix of an image; InputError for a format that cannot be read."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in UNREADABLE:
        raise InputError(f"{name}: {suffix.upper()} cannot be read; convert it to PNG")
    return suffix in READABLE


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of every image below `folder`, at any depth. Hidden files and folders
    and files that are not images are skipped; links are followed."""
    for place, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            # os.path, because making a million Path objects takes longer than listing the files.
            path = os.path.join(place, name)  # noqa: PTH118
            if not name.startswith(".") and _is_image(path):
                yield path, os.stat(path).st_size  # noqa: PTH116


def _list_images(
    root: Path,
    folder: Path,
    classes: list[str],
    skip: Collection[str],
    key: str,
    digest: hashlib._Hash,
) -> tuple[Files, Labels]:
    """The images of a split and their labels, in the order of classes and names; names and sizes
    enter `digest`."""
    names: list[bytes] = []
    counts = []
    for class_name in classes:
        paths = ((os.path.relpath(path, root), size) for path, size in _walk(folder / class_name))
        images = sorted((name, size) for name, size in paths if name not in skip)
        if not images:
            message = f"no images in {folder / class_name}"
            raise InputError(
                f"{key}: {message}; a class needs at least one ({', '.join(READABLE)})"
            )
        for name, size in images:
            digest.update(b"%s\0%d\n" % (os.fsencode(name), size))
        names += [os.fsencode(name) for name, _ in images]
        counts.append(len(images))
    return Files(root, np.array(names)), np.repeat(np.arange(len(classes)), counts)
