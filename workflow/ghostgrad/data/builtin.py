"""Image data sets: made or checked once by the data rule, loaded by every run.

The manifest results/data/<name>.json holds counts, class names and a checksum, but no path: data that move rerun
nothing. `digits` are scikit-learn's 8x8 digits (Alpaydin and Kaynak 1998) as RGB images, `photographs` windows of its
two photographs; `cifar10` is read from the genuine archive layout; `imagenet` (ILSVRC 2012) and `images`, any other,
are folders of files (ghostgrad/folders.py). `coco` (COCO 2017), `scenes`, any other in its format, and `digit_scenes`,
made of the digits, are images with objects (ghostgrad/coco.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

from ghostgrad.checks import InputError, nearest
from ghostgrad.data import coco, folders
from ghostgrad.data.coco import Scenes
from ghostgrad.data.folders import Files, Folder
from ghostgrad.data.imagenet import DEVKIT
from ghostgrad.files import write_atomically
from ghostgrad.registry.spec import SHIPPED_DATA, test_side

log = logging.getLogger(__name__)

MeanStd = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, in units of 1


@dataclass
class Images:
    """A data set: uint8 images (N, 3, H, W), in memory or as files, and integer labels (N,), split into train and test.
    `channels` are the constants of `standardize` where they are not the name's."""

    train_x: np.ndarray | Files
    train_y: np.ndarray
    test_x: np.ndarray | Files
    test_y: np.ndarray
    classes: list[str]
    channels: MeanStd | None = None

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


def photographs() -> Images:
    """Windows of 224x224 from the two photographs of 640x427 that ship with scikit-learn, every 48 pixels: for networks
    at initialization, which need images of ImageNet's size and kind. The photograph is the class; every 15th window is
    a test image."""
    from sklearn.datasets import load_sample_images

    bunch, side, stride = load_sample_images(), 224, 48
    windows = [
        image[y : y + side, x : x + side].transpose(2, 0, 1)
        for image in bunch.images
        for y in range(0, image.shape[0] - side + 1, stride)
        for x in range(0, image.shape[1] - side + 1, stride)
    ]
    images = np.stack(windows)
    labels = np.repeat(np.arange(2), len(windows) // 2)
    test = np.arange(len(windows)) % 15 == 0
    return Images(images[~test], labels[~test], images[test], labels[test], ["china", "flower"])


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
    return Images(arrays[0], labels[0], arrays[1], labels[1], list(train.classes))


@dataclass(frozen=True)
class Dataset:
    """How a data set is read, and what must be found: numbers of train images, test images and classes. An external
    one is read from the folder that config.yaml gives (GHOSTGRAD_DATA_<NAME>)."""

    reader: Callable[..., Images]
    train: int
    test: int
    classes: int


DATASETS = {
    "cifar10": Dataset(cifar10, 50000, 10000, 10),
    "digits": Dataset(digits, 1497, 300, 10),
    "photographs": Dataset(photographs, 84, 6, 2),
}
FOLDERS = {"images": None, "imagenet": Dataset(folders.scan, 1281167, 50000, 1000)}  # of files; None: any counts


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's
SCENES = {"digit_scenes": None, "scenes": None, "coco": Dataset(coco.read, 118287, 5000, 80)}

# CIFAR-10's of the LALC paper (app. B), the digits' own.
CHANNELS: dict[str, MeanStd] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "digits": ((0.3054,) * 3, (0.3760,) * 3),
    "imagenet": IMAGENET,
    "photographs": IMAGENET,
    "digit_scenes": ((0.3054,) * 3, (0.3760,) * 3),
    "coco": IMAGENET,
    "scenes": IMAGENET,
}


def standardize(spec: Mapping[str, Any], x: Tensor, channels: MeanStd | None = None) -> Tensor:
    """Images (N, 3, H, W) in 0..1 as the spec asks, changed in place: per image (TensorFlow's
    per_image_standardization), per channel with `channels` or the data set's constants, or as they are."""
    match spec["standardize"]:
        case "per_image":
            values = x.flatten(1)
            deviation = values.std(dim=1, correction=0).clamp(min=values.shape[1] ** -0.5)
            return x.sub_(values.mean(dim=1)[:, None, None, None]).div_(deviation[:, None, None, None])
        case "per_channel":
            mean, deviation = (x.new_tensor(part)[:, None, None] for part in channels or CHANNELS[spec["data"]])
            return x.sub_(mean).div_(deviation)
    return x


def resize(spec: Mapping[str, Any], x: Tensor) -> Tensor:
    """Images (N, 3, H, W) at the spec's size, bilinearly; as they are where it is 0."""
    if not spec["size"]:
        return x
    import torch.nn.functional as F

    return F.interpolate(x, size=(spec["size"],) * 2, mode="bilinear", align_corners=False)


def read(name: str) -> Images:
    """A data set by name; InputError where it is not set, damaged, or has other counts than it should."""
    if name not in DATASETS:
        raise InputError(f"no data set '{name}'{nearest(name, {**DATASETS, **FOLDERS, **SCENES, **WEIGHTS})}")
    expected = DATASETS[name]
    images = expected.reader() if name in SHIPPED_DATA else expected.reader(path_of(name))
    _check_counts(name, expected, images)
    return images


def _check_counts(name: str, expected: Dataset, found: Images | Folder) -> None:
    for what, there in (("train", found.train_y), ("test", found.test_y), ("classes", found.classes)):
        if len(there) != (wanted := getattr(expected, what)):
            noun = what if what == "classes" else f"{what} images"
            where = f"scikit-learn's {name}" if name in SHIPPED_DATA else f"config.yaml: data.{name}"
            raise InputError(f"{where}: {len(there)} {noun}, expected {wanted}; is this the genuine data set?")


def _in_classes(root: Path) -> bool:
    return all(any(entry.is_dir() for entry in (root / part).glob("*")) for part in ("train", "val"))


def _scan(name: str) -> Folder:
    try:
        folder = folders.scan(name, path_of(name))
    except InputError as error:
        if name != "imagenet" or _in_classes(Path(path_of(name))):
            raise
        devkit = "" if Path(path_of(name), DEVKIT).exists() else f"put {DEVKIT} there and "
        raise InputError(f"{error}; or have it made: {devkit}run ghostgrad unpack-imagenet {path_of(name)}") from None
    if FOLDERS[name]:
        _check_counts(name, FOLDERS[name], folder)
    return folder


def _damaged(name: str, root: Path, paths: Sequence[Path]) -> frozenset[str]:
    """Names of the images that are to be left out as damaged, if config.yaml says so; InputError where there are any
    and it does not."""
    found = sorted(folders.damaged(root, paths))
    if found and os.environ.get("GHOSTGRAD_DAMAGED_IMAGES") != "skip":
        told = f"{len(found)} of {len(paths)} images are damaged, {found[0]} the first"
        raise InputError(f"config.yaml: data.{name}: {told}; get them again, or set damaged_images: skip")
    if found:
        log.warning("%s: %d damaged images are left out: %s", name, len(found), ", ".join(found[:20]))
    return frozenset(found)


def write_manifest(path: Path, content: Mapping[str, Any], skipped: Collection[str] = ()) -> None:
    """With the names of the damaged images that were left out, and their number in the title."""
    if skipped:
        title = f"{content['title']}, without {len(skipped)} damaged images"
        content = {**content, "title": title, "skipped": sorted(skipped)}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def folder_manifest(name: str, folder: Folder) -> dict[str, Any]:
    """What the manifest of a folder of images holds, with its channels' constants where they are not the name's."""
    channels = {} if name in CHANNELS else dict(zip(("mean", "std"), folder.channels(), strict=True))
    return folder.manifest(name) | channels


def _make_folder(name: str, manifest: Path) -> None:
    folder = _scan(name)
    if skipped := _damaged(name, folder.train.root, folder.train.paths() + folder.test.paths()):
        folder = folders.scan(name, path_of(name), skipped)
    write_manifest(manifest, folder_manifest(name, folder), skipped)


def checked_folder(name: str, manifest: Path, root: str) -> tuple[Folder, MeanStd]:
    """The images below `root` that `manifest` tells of, and their channels' constants; InputError where they are
    others."""
    remedy = f"delete {manifest}, and the next build renews it"
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8"))
        folder = folders.scan(name, root, frozenset(expected.get("skipped", ())))
        title = {"title": expected["title"]}  # data that were renamed are the same
        channels = CHANNELS.get(name) or (expected["mean"], expected["std"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{manifest}: {name} is damaged; {remedy}") from None
    found = {**folder.manifest(name), **title}
    if found != {key: expected.get(key) for key in found}:
        raise InputError(f"{manifest}: {name} has changed since the data rule checked it; {remedy}")
    folder.title = expected["title"]
    return folder, channels


def _load_folder(name: str, manifest: Path, spec: Mapping[str, Any]) -> Images:
    """Images in memory, or with the spec's `input: files` still on disk, cut to the spec's `size`; of `resized`, the
    copies beside the manifest."""
    root = str(manifest.with_suffix("")) if spec.get("resized") else path_of(name)
    folder, channels = checked_folder(name, manifest, root)
    train, test = folder.sized(spec.get("size", 0), test_side(spec))
    x = (train, test) if spec.get("input") == "files" else (train.read(), test.read())
    return Images(x[0], folder.train_y, x[1], folder.test_y, folder.classes, channels)


def _read_scenes(name: str, manifest: Path, skip: Collection[str] = ()) -> tuple[Scenes, dict[str, Any]]:
    """The scenes, without the images that `skip` names, and their manifest; the shipped ones lie beside it, in a folder
    of their name."""
    scenes, content = coco.read(name, str(manifest.with_suffix("")) if name in SHIPPED_DATA else path_of(name), skip)
    if expected := SCENES[name]:
        counted = {"train": scenes.train.index.imgs, "test": scenes.val.index.imgs, "classes": scenes.classes}
        for what, there in counted.items():
            if (found := len(there)) != (wanted := getattr(expected, what)):
                noun = what if what == "classes" else f"{what} images"
                raise InputError(f"config.yaml: data.{name}: {found} {noun}, expected {wanted}; is this COCO 2017?")
    scenes.channels = CHANNELS[name]
    return scenes, content


def _make_scenes(name: str, manifest: Path) -> None:
    if name in SHIPPED_DATA:
        from ghostgrad.data.digit_scenes import make

        make(manifest.with_suffix(""))
    scenes, content = _read_scenes(name, manifest)
    if skipped := _damaged(name, scenes.train.folder.parent, scenes.train.paths() + scenes.val.paths()):
        _, content = _read_scenes(name, manifest, skipped)
    write_manifest(manifest, content, skipped)


def _load_scenes(name: str, manifest: Path) -> Scenes:
    remedy = f"delete {manifest}, and the next build renews it"
    try:
        expected = dict(json.loads(manifest.read_text(encoding="utf-8")))
        skipped = frozenset(expected.pop("skipped", ()))
    except (ValueError, TypeError):
        raise InputError(f"{manifest}: {name} is damaged; {remedy}") from None
    scenes, found = _read_scenes(name, manifest, skipped)
    if {**found, "title": ""} != {**expected, "title": ""}:  # data that were renamed are the same
        raise InputError(f"{manifest}: {name} has changed since the data rule checked it; {remedy}")
    return scenes


def vgg19_bn(path: str) -> dict[str, Tensor]:
    """The state dict of torchvision's VGG19-BN from the file vgg19_bn-c79401a0.pth; 16 BN layers, features.1 to .50."""
    import torch

    key = "config.yaml: data.vgg19_bn"
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        found = [name for name in weights if name.endswith(".running_var")]
    except OSError as error:
        raise InputError(f"{key}: {path}: {error.strerror}; give the file vgg19_bn-c79401a0.pth") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError):
        raise InputError(f"{key}: {path} is not a state dict of torch; download vgg19_bn-c79401a0.pth again") from None
    if len(found) != 16:
        raise InputError(f"{key}: {path} has {len(found)} BN layers, expected VGG19-BN's 16")
    return weights


WEIGHTS = {"vgg19_bn": vgg19_bn}


def _make_weights(name: str, manifest: Path) -> None:
    path = path_of(name)
    weights = WEIGHTS[name](path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    write_manifest(manifest, {"name": name, "tensors": len(weights), "sha256": digest})


def _load_weights(name: str, manifest: Path) -> dict[str, Tensor]:
    path = path_of(name)
    if json.loads(manifest.read_text())["sha256"] != hashlib.sha256(Path(path).read_bytes()).hexdigest():
        raise InputError(f"config.yaml: data.{name}: {path} is another file than {manifest} tells of; delete that")
    return WEIGHTS[name](path)


def path_of(name: str) -> str:
    """Where config.yaml says that a data set lies; InputError where it says nothing."""
    path = os.environ.get(f"GHOSTGRAD_DATA_{name.upper()}")
    if not path:
        raise InputError(f"config.yaml: data.{name} is not set; give the path that holds it")
    return path


def make(name: str, manifest: Path) -> None:
    """Read and check a data set or published weights, write the manifest, and for a data set that ships inside a
    package the arrays beside it, so that the runs need not import that package."""
    for kinds, of_kind in ((WEIGHTS, _make_weights), (FOLDERS, _make_folder), (SCENES, _make_scenes)):
        if name in kinds:
            of_kind(name, manifest)
            return
    images = read(name)
    if name in SHIPPED_DATA:
        arrays = io.BytesIO()
        np.savez(arrays, **{k: v for k, v in vars(images).items() if isinstance(v, np.ndarray)})
        write_atomically(manifest.with_suffix(".npz"), arrays.getvalue())
    write_manifest(manifest, images.manifest(name))


def load(
    name: str, manifest: Path, spec: Mapping[str, Any] = MappingProxyType({})
) -> Images | Scenes | dict[str, Tensor]:
    """The data set or the weights that `manifest` describes, images as the run's `spec` asks; InputError if what is
    there now is damaged or another one."""
    if name in WEIGHTS:
        return _load_weights(name, manifest)
    if name in FOLDERS:
        return _load_folder(name, manifest, spec)
    if name in SCENES:
        return _load_scenes(name, manifest)
    arrays = manifest.with_suffix(".npz")
    remedy = f"delete {manifest}{f' and {arrays}' * arrays.exists()}, and the next build renews it"
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8"))
        if arrays.exists():
            with np.load(arrays) as stored:
                images = Images(**stored, classes=expected["classes"])
        else:
            images = read(name)
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile):
        raise InputError(f"{manifest}: {name} is damaged; {remedy}") from None
    if images.manifest(name) != expected:
        raise InputError(f"{manifest}: {name} has changed since the data rule checked it; {remedy}")
    return images
