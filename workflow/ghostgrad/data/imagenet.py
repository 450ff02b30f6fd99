"""From ImageNet's original archives (ILSVRC 2012) to the folders that are read, by torchvision's
own functions; and from a flat val/ to the folders of its classes.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from ghostgrad.checks import InputError

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
SPACE_FACTOR = 1.05  # free space that unpacking needs, in sizes of the archive


def unpacking_hint(root: Path) -> str:
    """What to add to the error for a folder that cannot be read: the command that unpacks the
    archives there, or sorts the images. Empty where the images are in class folders already."""
    splits = (root / split for split in ARCHIVES)
    if all(any(entry.is_dir() for entry in split.glob("*")) for split in splits):
        return ""
    devkit = "" if (root / DEVKIT).exists() else f"put {DEVKIT} there and "
    return f"; or {devkit}run ghostgrad unpack-imagenet {root}"


def unpack(root: Path, report: Callable[[str], None] = print) -> None:
    """Make train/<class>/* and val/<class>/* from what lies in `root`: the archives, checked
    against their published MD5 checksums, or a val/ without class folders.

    A folder that exists is kept. An interrupted call can be repeated: a split is unpacked into a
    hidden folder and renamed when it is complete. InputError where an archive is missing or
    damaged, or the disk is too small.
    """
    for split, archive in ARCHIVES.items():
        folder = root / split
        if folder.is_dir() and split == "val" and _is_flat(folder):
            _sort_into_classes(folder, _val_classes(root), report)
        elif folder.is_dir():
            report(f"{folder} exists")
        else:
            _unpack_split(root, split, archive, report)


def _unpack_split(root: Path, split: str, archive: str, report: Callable[[str], None]) -> None:
    from torchvision.datasets import imagenet

    building = f".{split}"
    # Before the free space is checked, which what an interrupted call left would reduce.
    shutil.rmtree(root / building, ignore_errors=True)
    _check_space(root, archive)
    report(f"unpacking {root / archive}")
    if split == "train":
        with _one_line_errors(root / archive):
            imagenet.parse_train_archive(str(root), folder=building)
    else:
        classes = _val_classes(root)
        with _one_line_errors(root / archive):
            imagenet.parse_val_archive(str(root), wnids=classes, folder=building)
    folder = (root / building).rename(root / split)
    report(f"{folder}: {sum(1 for _ in folder.iterdir())} classes")


def _is_flat(folder: Path) -> bool:
    """True where images lie beside or in the place of class folders."""
    return any(entry.is_file() and not entry.name.startswith(".") for entry in folder.iterdir())


def _check_space(root: Path, archive: str) -> None:
    path = root / archive
    if not path.exists():
        message = f"{path} does not exist"
        raise InputError(f"{message}; put the archive, or the unpacked folder, into {root}")
    needed = SPACE_FACTOR * path.stat().st_size / 2**30
    free = shutil.disk_usage(root).free / 2**30
    if needed > free:
        message = f"unpacking {archive} needs {needed:.0f} GiB and {free:.0f} GiB are free"
        raise InputError(f"{root}: {message}; free some space")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn the errors of torchvision's functions on an archive into InputError, with what to do."""
    try:
        yield
    except (RuntimeError, tarfile.TarError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{path}: {reason}; download it again") from None
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{where}: {error.strerror or error}; fix it and start again") from None


def _val_classes(root: Path) -> list[str]:
    """The class of each validation image, in the order of the images' names."""
    from torchvision.datasets import imagenet

    if not (root / DEVKIT).exists():
        message = f"{root / DEVKIT} does not exist"
        raise InputError(f"{message}; put it there, it lists the classes of the validation images")
    if (root / imagenet.META_FILE).exists():
        try:
            return _load_classes(root)
        except (RuntimeError, EOFError, OSError, UnpicklingError):
            # It was cut off while it was written, and is made again from the devkit.
            (root / imagenet.META_FILE).unlink()
    with _one_line_errors(root / DEVKIT):
        imagenet.parse_devkit_archive(str(root))
    return _load_classes(root)


def _load_classes(root: Path) -> list[str]:
    from torchvision.datasets import imagenet

    classes: list[str] = imagenet.load_meta_file(str(root))[1]
    return classes


def _sort_into_classes(folder: Path, classes: list[str], report: Callable[[str], None]) -> None:
    """Move ILSVRC2012_val_00000001.JPEG, … into the folders of their classes. An interrupted call
    can be repeated: the number in its name says which class an image has."""
    images = sorted(
        entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
    )
    report(f"sorting {len(images)} images in {folder} into {len(set(classes))} classes")
    for image in images:
        number = image.stem.rpartition("_")[2]
        if not number.isdecimal() or not 0 < int(number) <= len(classes):
            message = "not named like ILSVRC 2012's images, ILSVRC2012_val_<number>.JPEG"
            raise InputError(f"{image}: {message}; remove it")
        target = folder / classes[int(number) - 1]
        target.mkdir(exist_ok=True)
        image.rename(target / image.name)
