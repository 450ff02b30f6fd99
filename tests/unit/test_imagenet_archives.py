"""Unpacking ImageNet's original archives, tested on small ones with the same layout."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import imagenet

from ghostgrad.checks import InputError
from ghostgrad.data import imagenet as archives
from ghostgrad.data.make import make
from ghostgrad.registry.datasets import DATA_SETS, Counts

WNIDS = ("n01440764", "n01443537", "n01484850")
TRUTH = (3, 1, 2, 2, 1, 3)  # ILSVRC2012_ID of the class of each validation image
INNER = 4  # a synset with children, which is not a class


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (12, 9), (shade, shade, 40)).save(out, "JPEG")
    return out.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return out.getvalue()


def devkit() -> bytes:
    kinds = [
        ("ILSVRC2012_ID", "i4"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "i4"),
    ]
    rows = [(number, wnid, f"word {wnid}", "", 0) for number, wnid in enumerate(WNIDS, start=1)]
    synsets = np.array([*rows, (INNER, "n00001740", "entity", "", 3)], dtype=kinds)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    root = "ILSVRC2012_devkit_t12/data"
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    return tar(
        {
            f"{root}/meta.mat": meta.getvalue(),
            f"{root}/ILSVRC2012_validation_ground_truth.txt": truth,
        },
        "w:gz",
    )


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with the three archives; their checksums replace the published ones."""
    inner = {
        f"{w}.tar": tar({f"{w}_{k}.JPEG": jpeg(60 * i + k) for k in range(4)})
        for i, w in enumerate(WNIDS)
    }
    val = {f"ILSVRC2012_val_{n:08}.JPEG": jpeg(200 + n) for n in range(1, len(TRUTH) + 1)}
    files = {
        archives.ARCHIVES["train"]: tar(inner),
        archives.ARCHIVES["val"]: tar(val),
        archives.DEVKIT: devkit(),
    }
    sums = {}
    for (name, content), kind in zip(files.items(), ("train", "val", "devkit"), strict=True):
        (tmp_path / name).write_bytes(content)
        sums[kind] = (name, hashlib.md5(content).hexdigest())
    monkeypatch.setattr(imagenet, "ARCHIVE_META", sums)
    small = dataclasses.replace(DATA_SETS["imagenet"], counts=Counts(12, 6, 3))
    monkeypatch.setitem(DATA_SETS, "imagenet", small)
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGENET", str(tmp_path))
    return tmp_path


def check(root: Path) -> None:
    """Every image is in the folder of its class, and the data rule accepts them."""
    for number, truth in enumerate(TRUTH, start=1):
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        assert (root / "val" / WNIDS[truth - 1] / name).read_bytes() == jpeg(200 + number)
    assert sorted(path.name for path in (root / "train").rglob("*.JPEG")) == [
        f"{wnid}_{k}.JPEG" for wnid in WNIDS for k in range(4)
    ]
    make("imagenet", root / "manifest" / "imagenet.json")
    assert not list(root.glob(".*"))


def test_archives_become_the_folders_that_are_read(root):
    with pytest.raises(InputError, match=f"no folder train in .*ghostgrad unpack-imagenet {root}$"):
        make("imagenet", root / "manifest" / "imagenet.json")
    archives.unpack(root)
    check(root)
    archives.unpack(root)
    check(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_interrupted_unpacking_starts_again(split, root, monkeypatch):
    """A split gets its name only once it is complete."""
    original = Path.rename

    def dies(self, target):
        if self.name == f".{split}":
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", dies)
        archives.unpack(root)
    assert not (root / split).exists()
    archives.unpack(root)
    check(root)


def test_a_flat_val_is_sorted_and_interrupted_sorting_is_continued(root):
    archives.unpack(root)
    for image in list((root / "val").rglob("*.JPEG")):
        image.rename(root / "val" / image.name)
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    with pytest.raises(
        InputError, match=f"val contains images but no class folders.*unpack-imagenet {root}$"
    ):
        make("imagenet", root / "manifest" / "imagenet.json")
    wnid = WNIDS[TRUTH[0] - 1]
    (root / "val" / wnid).mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").rename(
        root / "val" / wnid / "ILSVRC2012_val_00000001.JPEG"
    )
    archives.unpack(root)
    check(root)


def test_bad_archives_are_one_line(root, monkeypatch):
    train = root / archives.ARCHIVES["train"]
    content = train.read_bytes()
    for spoil, message in (
        (
            lambda: train.write_bytes(content[:-600]),
            "is not present in the root directory or is corrupted",
        ),
        (
            train.unlink,
            "img_train.tar does not exist; put the archive, or the unpacked folder, into",
        ),
    ):
        spoil()
        with pytest.raises(InputError, match=message) as error:
            archives.unpack(root)
        assert "\n" not in str(error.value)
        assert not (root / "train").exists()
    train.write_bytes(content)
    (root / archives.DEVKIT).unlink()
    with pytest.raises(
        InputError, match=r"devkit_t12\.tar\.gz does not exist; put it there, it lists the classes"
    ):
        archives.unpack(root)
    monkeypatch.setattr(archives, "SPACE_FACTOR", 1e12)
    (root / archives.DEVKIT).write_bytes(devkit())
    with pytest.raises(
        InputError, match=r"img_val\.tar needs \d+ GiB and \d+ GiB are free; free some space"
    ):
        archives.unpack(root)


@pytest.mark.parametrize(
    "error", [RuntimeError("invalid"), OSError(22, "Invalid argument"), EOFError()]
)
def test_leftovers_of_a_killed_attempt_do_no_harm(root, monkeypatch, error):
    """A partial meta file, for which torch raises various errors, is made again, and a partial
    folder is deleted before the free space is measured."""
    archives.unpack(root)
    (root / "val").rename(root / ".val")
    whole, load = (root / imagenet.META_FILE).read_bytes(), imagenet.load_meta_file
    (root / imagenet.META_FILE).write_bytes(whole[:100])

    def cut_short(folder):
        if len((root / imagenet.META_FILE).read_bytes()) < len(whole):
            raise error
        return load(folder)

    monkeypatch.setattr(imagenet, "load_meta_file", cut_short)
    asked, usage = [], archives.shutil.disk_usage
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda p: asked.append((root / ".val").exists()) or usage(p)
    )
    archives.unpack(root)
    assert asked == [False]
    check(root)


def test_a_stray_file_in_val_is_named(root):
    archives.unpack(root)
    (root / "val" / "notes_9.txt").touch()
    with pytest.raises(InputError, match=r"notes_9\.txt: not named like ILSVRC 2012's"):
        archives.unpack(root)
