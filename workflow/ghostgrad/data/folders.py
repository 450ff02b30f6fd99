"""Image data sets that are a folder of files, in the layout of torchvision's ImageFolder: <root>/train/<class>/* and
<root>/val/<class>/*, or test/ where there is no val/. The class names, sorted, are the labels 0, 1, …

An image becomes RGB, uint8 (3, H, W), whatever its file holds; a transparent one as if it were opaque.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ghostgrad.checks import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

READABLE = ("png", "jpg", "jpeg", "webp", "gif")  # by torchvision.io
UNREADABLE = ("bmp", "tif", "tiff", "ppm", "pgm")  # images too: to leave them out silently would change the data set
PNG = b"\x89PNG\r\n\x1a\n"
ENDS = {"jpg": b"\xff\xd9", "jpeg": b"\xff\xd9"}  # what a whole file has near its end
TAIL = 1024  # bytes; more may follow
MEASURED = 10_000  # images that the mean and the standard deviation of a channel come from, at most


def decode(path: Path) -> Tensor:
    """The image in a file, uint8 (3, H, W); InputError where it is damaged."""
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_image

    if _is_png(path):
        with _png(path) as image:
            image.load()
            if image.mode == "P" and image.palette is None:
                raise ValueError("it has no palette")
            if image.mode.startswith("I"):  # 16 bits of grey
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image.info.pop("transparency", None)  # of which convert would warn
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    try:
        x = decode_image(str(path), ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].partition(".cpp:")[2].partition(", ")[2] or str(error).splitlines()[0]
        raise _unreadable(path, reason) from None
    if x.ndim != 3:
        raise InputError(f"{path}: holds {len(x)} images in one file; give each a file of its own")
    return x


def _unreadable(path: Path, reason: str | None) -> InputError:
    return InputError(f"{path}: cannot be read as an image ({reason}); replace or delete it")


def _is_png(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(PNG)) == PNG
    except OSError as error:
        raise _unreadable(path, error.strerror) from None


@contextmanager
def _png(path: Path) -> Iterator[Image.Image]:
    """A PNG whose checksums are right, by Pillow: torchvision's decoder kills the process where one is damaged. Pixels
    that its writer left out are black."""
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # limits for what strangers send
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**31
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            image.verify()  # which leaves it unreadable
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            yield image
    except UnidentifiedImageError:  # its text names a place in memory
        raise _unreadable(path, "its header or a chunk is damaged") from None
    except Exception as error:  # Pillow has many for a file that is damaged
        raise _unreadable(path, str(error) or type(error).__name__) from None


def resize_center_crop(x: Tensor, size: int, short: int = 0) -> Tensor:
    """An image with its short side resized to `short` (`size` where that is 0), bilinearly with antialias, and its
    centre cut out: (3, size, size)."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize(x, [short or size], antialias=True)
    return functional.center_crop(resized, [size, size])


def _whole(path: Path) -> bool:
    """True where a PNG's checksums are right, another file has its format's end or can be decoded without."""
    end = ENDS.get(path.suffix[1:].lower())
    try:
        if _is_png(path):
            with _png(path):
                return True
        if end:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - TAIL))
                if end in stream.read():
                    return True
        decode(path)
    except InputError:
        return False
    return True


def damaged(root: Path, paths: Sequence[Path]) -> list[str]:
    """Names, relative to `root`, of the images that end too early or cannot be read."""
    with ThreadPoolExecutor(16) as pool:  # a network file system answers many at a time
        whole = list(pool.map(_whole, paths))
    return [str(path.relative_to(root)) for path, good in zip(paths, whole, strict=True) if not good]


@dataclass(frozen=True)
class Files:
    """Image files in the place of an array (N, 3, H, W): each is decoded when it is asked for, and cut to `size`
    (`short` as in `resize_center_crop`); where that is 0, all have the size of the image `first`, their own first unless given."""

    root: Path
    names: np.ndarray  # bytes, relative to the root: a list of a million strings would be copied into every worker
    size: int = 0
    short: int = 0
    first: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[index]))

    def paths(self) -> list[Path]:
        return [self.path(index) for index in range(len(self))]

    def decode(self, index: int) -> Tensor:
        """An image as it is in its file."""
        return decode(self.path(index))

    def __getitem__(self, index: int) -> Tensor:
        """An image at the size of all; InputError where no size is set and it has another one than the first."""
        x = self.decode(index)
        if self.size:
            return resize_center_crop(x, self.size, self.short)
        if x.shape != self.shape[1:]:
            found, first = (f"{width} x {height}" for _, height, width in (x.shape, self.shape[1:]))
            where = f"{self.path(index)}: {found} pixels, but {self.first or self.path(0)} has {first}"
            raise InputError(f"{where}; set the spec's key size: to resize all of them")
        return x

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, H, W)."""
        image = (3, self.size, self.size) if self.size else decode(self.first or self.path(0)).shape
        return (len(self), *image)

    def read(self) -> np.ndarray:
        """All images, uint8 (N, 3, H, W); InputError where the memory of this machine does not hold them."""
        import torch

        needed, there = np.prod(self.shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            told = f"{len(self)} images take {needed / 2**30:.0f} GiB of memory and {there / 2**30:.0f} are there"
            raise InputError(f"{self.path(0).parent.parent}: {told}; set the spec's key input: to files")
        images = np.empty(self.shape, dtype=np.uint8)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for index, image in enumerate(pool.map(self.__getitem__, range(len(self)))):
                images[index] = image
        return images


@dataclass
class Folder:
    """What lies in a data set's folder: train and test images, their labels (N,), and the checksum over names and
    sizes in bytes, not contents (of which ImageNet has 138 GiB)."""

    title: str
    classes: list[str]
    train: Files
    train_y: np.ndarray
    test: Files
    test_y: np.ndarray
    sha256: str

    def manifest(self, name: str) -> dict:
        """Counts, classes and checksum; the title, the folder's own name, is for display."""
        counts = {"train": len(self.train), "test": len(self.test)}
        return {"name": name, "title": self.title, **counts, "classes": self.classes, "sha256": self.sha256}

    def sized(self, size: int, short: int) -> tuple[Files, Files]:
        """Train and test images cut to `size`, the test images from those of a short side `short`; where `size` is 0,
        of the size of the first training image."""
        first = self.train.path(0)
        return replace(self.train, size=size, first=first), replace(self.test, size=size, short=short, first=first)

    def channels(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the training images, in units of 1; of at most 10,000 at
        even distances, every image with the same weight."""
        count = min(MEASURED, len(self.train))
        sums = np.zeros((2, 3))
        for index in np.linspace(0, len(self.train) - 1, count).round().astype(int):
            values = self.train.decode(index).flatten(1).numpy() / 255
            sums += values.mean(axis=1), (values**2).mean(axis=1)
        mean, square = sums / count
        deviation = np.sqrt(np.maximum(square - mean**2, 255**-2))  # a channel of one value is divided by a grey level
        return mean.round(6).tolist(), deviation.round(6).tolist()


def scan(name: str, root: str, skip: Collection[str] = ()) -> Folder:
    """List the images of the data set `name` below `root`, without those whose names `skip` holds; InputError where the
    layout is another one."""
    key = f"config.yaml: data.{name}"
    try:
        train, test = _split(Path(root), ("train",), key), _split(Path(root), ("val", "test"), key)
        classes, found = _classes(train, key), _classes(test, key)
        for one in sorted(set(classes) ^ set(found)):
            here, there = (train, test) if one in classes else (test, train)
            raise InputError(f"{key}: class '{one}' is in {here} and not in {there}; both need the same classes")
        digest = hashlib.sha256()
        parts = [part for folder in (train, test) for part in _files(Path(root), folder, classes, skip, key, digest)]
    except OSError as error:
        raise InputError(f"{key}: {error.filename}: {error.strerror}; mend or delete it") from None
    return Folder(Path(os.path.abspath(root)).name, classes, *parts, digest.hexdigest())  # noqa: PTH100


def _split(root: Path, names: tuple[str, ...], key: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/<class>/" for name in names)
    raise InputError(f"{key}: no folder {' or '.join(names)} in {root}; put the images into {wanted}")


def _classes(folder: Path, key: str) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        flat = "images and no folders of classes" if any(map(_is_image, map(str, entries))) else "no folders of classes"
        raise InputError(f"{key}: {folder} holds {flat}; sort the images into one folder per class, <class>/<image>")
    if beside := sum(_is_image(str(entry)) for entry in entries if entry.is_file()):
        raise InputError(f"{key}: {folder} holds {beside} images beside its folders of classes; sort or remove them")
    return classes


def _is_image(name: str) -> bool:
    suffix = name.rpartition(".")[2].lower()
    if suffix in UNREADABLE:
        raise InputError(f"{name}: {suffix.upper()} cannot be read; convert it to PNG")
    return suffix in READABLE


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of every image below `folder`, however deep; hidden files and others are left out."""
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118  a million times
            if not name.startswith(".") and _is_image(path):
                yield path, os.stat(path).st_size  # noqa: PTH116


def _files(
    root: Path, folder: Path, classes: list[str], skip: Collection[str], key: str, digest: hashlib._Hash
) -> tuple[Files, np.ndarray]:
    """The images of a split and their labels; names and sizes go into `digest`."""
    names: list[bytes] = []
    counts = []
    for one in classes:
        paths = ((os.path.relpath(path, root), size) for path, size in _walk(folder / one))
        found = sorted((name, size) for name, size in paths if name not in skip)
        if not found:
            raise InputError(f"{key}: no images in {folder / one}; a class has at least one ({', '.join(READABLE)})")
        for name, size in found:
            digest.update(b"%s\0%d\n" % (os.fsencode(name), size))
        names += [os.fsencode(name) for name, _ in found]
        counts.append(len(found))
    return Files(root, np.array(names)), np.repeat(np.arange(len(classes)), counts)
