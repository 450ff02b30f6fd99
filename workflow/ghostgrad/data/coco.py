"""Images with objects in COCO's format and layout (Lin et al. 2014).

<root>/train2017/*, val2017/*                 images
<root>/annotations/instances_train2017.json   and instances_val2017.json
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostgrad.checks import InputError
from ghostgrad.data import coco_format, decoding
from ghostgrad.data.coco_format import Annotation
from ghostgrad.registry.datasets import DATA_SETS, MeanStd

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from torch import Tensor

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": "train2017", "val": "val2017"}
# Pixels, the smallest side of a box that can be learned. Boxes are stored by their corners, and at
# twice the largest side of an image, which a corner may reach, the steps of float32 are 2**-7.
MIN_BOX_SIDE = 0.01


@dataclass
class Split:
    """The images of one split: their folder, the annotation file, and the ids of those in use."""

    folder: Path
    index: COCO
    ids: list[int]

    def path(self, image_id: int) -> Path:
        """The file of an image."""
        return self.folder / self.index.imgs[image_id]["file_name"]

    def paths(self) -> list[Path]:
        """The files of the images in use."""
        return [self.path(image_id) for image_id in self.ids]


@dataclass
class Scenes:
    """Training and test images with their objects.

    `labels` maps the id of a category, which may have gaps, to 1, 2, …; label 0 is the background.
    `mean_std` are the mean and the standard deviation of each channel, of values in [0, 1].
    """

    train: Split
    val: Split
    classes: list[str]
    labels: dict[int, int]
    mean_std: MeanStd


def read(name: str, root: str, skip: Collection[str] = ()) -> tuple[Scenes, dict[str, Any]]:
    """The data set `name` below `root`, without the images named in `skip`, and its manifest.

    The manifest's checksum covers the annotation files and the names and sizes in bytes of the
    images, not their contents. InputError where something is missing or damaged.
    """
    key, digest = f"config.yaml: data.{name}", hashlib.sha256()
    train = _read_split("train", Path(root), skip, key, digest)
    val = _read_split("val", Path(root), skip, key, digest)
    train_categories, val_categories = (
        {category["id"]: category["name"] for category in split.index.cats.values()}
        for split in (train, val)
    )
    if train_categories != val_categories:
        message = "train and val have different categories"
        raise InputError(f"{key}: {message}; both annotation files must list the same ones")
    labels = {category: label for label, category in enumerate(sorted(train_categories), start=1)}
    classes = [train_categories[category] for category in labels]
    mean_std = DATA_SETS[name].mean_std
    if mean_std is None:
        raise ValueError(f"{name}: the table of data sets has no mean and deviation")
    manifest = {
        "name": name,
        "title": Path(os.path.abspath(root)).name,  # noqa: PTH100  resolve() would follow a link
        "train": len(train.ids),
        "test": len(val.ids),
        "classes": classes,
        "sha256": digest.hexdigest(),
    }
    return Scenes(train, val, classes, labels, mean_std), manifest


def _read_split(
    split: str, root: Path, skip: Collection[str], key: str, digest: hashlib._Hash
) -> Split:
    """One split; the bytes of its annotation file enter `digest`, then each image's name and
    size."""
    images = SPLIT_FOLDERS[split]
    folder, path = root / images, root / "annotations" / f"instances_{images}.json"
    if not folder.is_dir():
        raise InputError(f"{key}: no folder {images} in {root}; put COCO's {split} images there")
    index = coco_format.read_index(path, key, digest)
    sizes = coco_format.check(index, path, folder)
    # os.path joins a hundred thousand names much faster than Path does.
    names = {
        image_id: os.path.join(images, image["file_name"])  # noqa: PTH118
        for image_id, image in sorted(index.imgs.items())
    }
    # A file name may be any path to its file, such as ./a/../b.png.
    skipped = {os.path.normpath(name) for name in skip}
    ids = [image_id for image_id, name in names.items() if os.path.normpath(name) not in skipped]
    if not any(is_usable(entry) for image_id in ids for entry in index.imgToAnns[image_id]):
        message = "contains only crowds and empty boxes"
        raise InputError(f"{path}: {message}; there is nothing to learn or to measure")
    for image_id in ids:
        size = sizes[index.imgs[image_id]["file_name"]]
        digest.update(b"%s\0%d\n" % (os.fsencode(names[image_id]), size))
    return Split(folder, index, ids)


def is_usable(annotation: Annotation) -> bool:
    """False for a crowd, and for a box that has no area once its corners are float32: nothing can
    be learned from them."""
    corner, sides = np.asarray(annotation["bbox"], dtype=np.float32).reshape(2, 2)
    return not annotation["iscrowd"] and bool((corner + sides - corner).min() > MIN_BOX_SIDE)


def with_objects(split: Split) -> Split:
    """The images that have an object to learn from, as Detectron trains on; logs how many have
    none."""
    ids = [
        image_id for image_id in split.ids if any(map(is_usable, split.index.imgToAnns[image_id]))
    ]
    if len(ids) < len(split.ids):
        without, total = len(split.ids) - len(ids), len(split.ids)
        log.info("skipping %d of %d training images without a usable object", without, total)
    return Split(split.folder, split.index, ids)


def read_target(scenes: Scenes, split: Split, image_id: int) -> dict[str, Tensor]:
    """The usable objects of an image as torchvision's detectors take them: boxes (n, 4) as x1, y1,
    x2, y2 in pixels, labels (n,) and masks (n, H, W), uint8. ValueError for an image without usable
    objects; see `with_objects`."""
    import torch

    annotations = [entry for entry in split.index.imgToAnns[image_id] if is_usable(entry)]
    boxes = torch.tensor([entry["bbox"] for entry in annotations], dtype=torch.float32)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # from sides to the second corner
    masks = np.stack([split.index.annToMask(entry) for entry in annotations])
    labels = torch.tensor([scenes.labels[entry["category_id"]] for entry in annotations])
    return {"boxes": boxes, "labels": labels, "masks": torch.from_numpy(masks)}


def read_image(split: Split, image_id: int) -> Tensor:
    """An image, uint8 (3, H, W); InputError where it is damaged or not of the size in the
    annotation file, for which its boxes and masks are made."""
    path, entry = split.path(image_id), split.index.imgs[image_id]
    x = decoding.decode(path)
    if tuple(x.shape[1:]) != (entry["height"], entry["width"]):
        found = f"{x.shape[2]} x {x.shape[1]} pixels"
        expected = f"{entry['width']} x {entry['height']}"
        raise InputError(f"{path}: {found}, but the annotations say {expected}; replace the image")
    return x
