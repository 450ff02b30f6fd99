"""ImageNet's original archives (ILSVRC 2012) to the folders that are read, by torchvision's own functions, and the
images of a flat val/ into the folders of their classes."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

from ghostgrad.checks import InputError

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
SPARE = 1.05  # of an archive's size


def unpack(root: Path, tell: Callable[[str], None] = print) -> None:
    """Make train/<class>/* and val/<class>/* of what lies in `root`: the archives, checked against their published MD5,
    or a val/ without class folders. What is there already stays; cut off, it begins again where it was. InputError
    where an archive is missing or damaged, or the disk has no room."""
    from torchvision.datasets import imagenet

    for split, archive in ARCHIVES.items():
        folder = root / split
        if folder.is_dir() and (split == "train" or not _flat(folder)):
            tell(f"{folder} is there")
            continue
        if folder.is_dir():
            _sort(folder, _val_classes(root), tell)
            continue
        building = f".{split}"
        shutil.rmtree(root / building, ignore_errors=True)
        _check_room(root, archive)
        tell(f"unpacking {root / archive}")
        classes = {"wnids": _val_classes(root)} if split == "val" else {}
        _with_remedy(
            lambda split=split, more=classes: getattr(imagenet, f"parse_{split}_archive")(
                str(root), folder=f".{split}", **more
            )
        )
        (root / building).rename(folder)
        tell(f"{folder}: {sum(1 for _ in folder.iterdir())} classes")


def _flat(folder: Path) -> bool:
    return any(entry.is_file() and not entry.name.startswith(".") for entry in folder.iterdir())


def _check_room(root: Path, archive: str) -> None:
    path = root / archive
    if not path.exists():
        raise InputError(f"{path}: not there; put the archive, or the unpacked folder, into {root}")
    needed, free = SPARE * path.stat().st_size / 2**30, shutil.disk_usage(root).free / 2**30
    if needed > free:
        raise InputError(f"{root}: unpacking {archive} takes {needed:.0f} GiB and {free:.0f} are free; make room")


def _with_remedy(work: Callable[[], None]) -> None:
    try:
        work()
    except (RuntimeError, tarfile.TarError, EOFError) as error:
        raise InputError(f"{str(error).splitlines()[0]} Download it again") from None
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; mend it, and begin again") from None


def _val_classes(root: Path) -> list[str]:
    """The class of each validation image, in the order of their names."""
    from torchvision.datasets import imagenet

    if not (root / DEVKIT).exists():
        raise InputError(f"{root / DEVKIT}: not there; it tells the classes of the validation images, put it there")
    if (root / imagenet.META_FILE).exists():
        try:
            return imagenet.load_meta_file(str(root))[1]
        except (RuntimeError, EOFError, OSError, UnpicklingError):  # cut off while it was written
            (root / imagenet.META_FILE).unlink()
    _with_remedy(lambda: imagenet.parse_devkit_archive(str(root)))
    return imagenet.load_meta_file(str(root))[1]


def _sort(folder: Path, classes: list[str], tell: Callable[[str], None]) -> None:
    """Move ILSVRC2012_val_00000001.JPEG, … into the folders of their classes."""
    images = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    tell(f"sorting {len(images)} images of {folder} into {len(set(classes))} classes")
    for image in images:
        number = image.stem.rpartition("_")[2]
        if not number.isdecimal() or not 0 < int(number) <= len(classes):
            raise InputError(f"{image}: not named as ILSVRC 2012's, ILSVRC2012_val_<number>.JPEG; remove it")
        target = folder / classes[int(number) - 1]
        target.mkdir(exist_ok=True)
        image.rename(target / image.name)
