"""Images with objects in COCO's format and layout (Lin et al. 2014), and its evaluation, by COCO's own pycocotools.

<root>/train2017/*, val2017/*                 images
<root>/annotations/instances_train2017.json   and instances_val2017.json
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ghostgrad.checks import InputError
from ghostgrad.data.folders import decode

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from torch import Tensor

log = logging.getLogger(__name__)

SPLITS = {"train": "train2017", "val": "val2017"}
# What COCOeval.summarize puts first, of detections of every size and at most 100 an image.
PRECISIONS = {"ap": 0, "ap50": 1, "ap75": 2}
METRICS = tuple(f"{kind}_{name}" for kind in ("box", "mask") for name in PRECISIONS)
NEEDED = {
    "images": ("file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox", "segmentation", "iscrowd", "area"),
    "categories": ("name",),
}
LAST = 25  # bits below a compressed run's last digit: beyond it the C code's integers overflow
THRESHOLD = 0.5  # of a mask's probability
SMALLEST = 0.01  # pixels; float32 has steps of that size where the largest images end
LARGEST = 65_535  # pixels, an image's side; JPEG's limit
OUTSIDE = 2  # longest sides from an image's corner: no box or polygon of an image is farther


@dataclass
class Split:
    """The images of one split: their folder, COCO's index of them, and the ids of those that are used."""

    folder: Path
    index: COCO
    ids: list[int]

    def path(self, image: int) -> Path:
        return self.folder / self.index.imgs[image]["file_name"]

    def paths(self) -> list[Path]:
        return [self.path(image) for image in self.ids]


@dataclass
class Scenes:
    """Training and test images with their objects. `labels` maps a category's id, which may have gaps, to 1, 2, …;
    label 0 is the background. `channels` are mean and standard deviation of each, in units of 1."""

    train: Split
    val: Split
    classes: list[str]
    labels: dict[int, int]
    channels: tuple[Iterable[float], Iterable[float]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's


def read(name: str, root: str, skip: Collection[str] = ()) -> tuple[Scenes, dict[str, Any]]:
    """The data set `name` below `root`, without the images whose names `skip` holds, and its manifest, whose checksum
    is over the annotations and the images' names and sizes in bytes; InputError where something is missing or damaged.
    """
    key = f"config.yaml: data.{name}"
    folder, digest, splits = Path(root), hashlib.sha256(), {}
    for split, images in SPLITS.items():
        if not (folder / images).is_dir():
            raise InputError(f"{key}: no folder {images} in {root}; put COCO's {split} images there")
        path = folder / "annotations" / f"instances_{images}.json"
        index = _index(path, key, digest)
        sizes = _check(index, path, folder / images)
        names = {number: os.path.join(images, image["file_name"]) for number, image in sorted(index.imgs.items())}  # noqa: PTH118
        left_out = set(map(os.path.normpath, skip))
        ids = [number for number, name in names.items() if os.path.normpath(name) not in left_out]
        splits[split] = Split(folder / images, index, ids)
        if not any(usable(one) for number in ids for one in index.imgToAnns[number]):
            raise InputError(f"{path}: names no object but crowds and empty boxes; nothing can be learned or measured")
        for number in ids:
            digest.update(b"%s\0%d\n" % (os.fsencode(names[number]), sizes[index.imgs[number]["file_name"]]))
    categories = {split: {c["id"]: c["name"] for c in found.index.cats.values()} for split, found in splits.items()}
    if categories["train"] != categories["val"]:
        raise InputError(f"{key}: train and val have other categories; both annotation files need the same ones")
    labels = {category: label for label, category in enumerate(sorted(categories["train"]), start=1)}
    scenes = Scenes(splits["train"], splits["val"], [categories["train"][category] for category in labels], labels)
    counts = {"train": len(scenes.train.ids), "test": len(scenes.val.ids)}
    title = Path(os.path.abspath(root)).name  # noqa: PTH100
    return scenes, {"name": name, "title": title, **counts, "classes": scenes.classes, "sha256": digest.hexdigest()}


def _index(path: Path, key: str, digest: hashlib._Hash) -> COCO:
    from pycocotools.coco import COCO

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        content = path.read_bytes()
        digest.update(content)
        index = COCO()
        index.dataset = json.loads(content, parse_constant=refuse)
        _create_index(index)
    except OSError as error:
        raise InputError(f"{key}: {path}: {error.strerror}; put COCO's annotation files there") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{key}: {path} is damaged or not in COCO's format; get it again") from None
    if not (index.imgs and index.cats):
        raise InputError(f"{key}: {path} names no {'categories' if index.imgs else 'images'}; get it again")
    return index


def _create_index(index: COCO) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()


def _check(index: COCO, path: Path, folder: Path) -> dict[str, int]:
    """Name and size in bytes of every image. InputError for one whose file is missing, for an object of an unknown
    image or category or without a box and a mask, and where nothing is said of what training or evaluation asks for.
    The annotations are numbered anew: COCOeval takes an id of 0 for none."""
    for kind, known in (("images", index.imgs), ("annotations", index.anns), ("categories", index.cats)):
        entries = index.dataset.get(kind, ())
        for key in NEEDED[kind]:
            if any(key not in one for one in entries):
                raise InputError(f"{path}: one of its {kind} has no '{key}'; get it again")
        if odd := [one["id"] for one in entries if type(one["id"]) is not int or abs(one["id"]) >= 2**63]:
            raise InputError(f"{path}: {_shown(odd[0])} is the id of one of its {kind}; ids are integers of 64 bits")
        if len(known) < len(entries):
            raise InputError(f"{path}: two of its {kind} have the same id; give each its own")
    for image in index.imgs.values():
        name, sides = image["file_name"], (image["height"], image["width"])
        if not (_is_name(name) and all(type(side) is int and 0 < side <= LARGEST for side in sides)):
            raise InputError(f"{path}: image {image['id']} has no file name or no size; get it again")
    if odd := [one["id"] for one in index.cats.values() if not _is_name(one["name"])]:
        raise InputError(f"{path}: category {odd[0]} has no name; get it again")
    sizes = _sizes(folder, [image["file_name"] for image in index.imgs.values()])
    if missing := [name for name, size in sizes.items() if size is None]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path}: {missing[0]}{more} of its images are not in {folder}; unpack them there")
    for one in index.anns.values():
        if one["image_id"] not in index.imgs or one["category_id"] not in index.cats:
            what = "image" if one["image_id"] not in index.imgs else "category"
            raise InputError(f"{path}: annotation {one['id']} is of {what} {_shown(one[f'{what}_id'])}, which it lacks")
        image = index.imgs[one["image_id"]]
        if not (_is_box(one["bbox"], image) and _is_mask(one["segmentation"], image)):
            raise InputError(f"{path}: annotation {one['id']} has no box or no mask of its image; instances need both")
        if one["iscrowd"] not in (0, 1) or not _numbers([one["area"]], LARGEST**2):
            raise InputError(f"{path}: annotation {one['id']}: iscrowd is 0 or 1, area a number; get it again")
    for number, one in enumerate(index.dataset.get("annotations", ()), start=1):
        one["id"] = number
    # loadRes copies these two deeply, however deep they are, and some versions of it want an info
    index.dataset = {"info": {}} | {kind: index.dataset.get(kind, []) for kind in NEEDED}
    index.dataset["categories"] = [{"id": one["id"], "name": one["name"]} for one in index.dataset["categories"]]
    _create_index(index)
    return sizes


def _sizes(folder: Path, names: Sequence[str]) -> dict[str, int | None]:
    """In bytes, of the files with these names; None of one that is not there."""

    def size(name: str) -> int | None:
        try:
            found = (folder / name).stat()
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) and not os.path.isabs(name) else None  # noqa: PTH117

    with ThreadPoolExecutor(16) as pool:  # a network file system answers many at a time
        return dict(zip(names, pool.map(size, names), strict=True))


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _numbers(values: Any, largest: float) -> bool:
    """A list of numbers, none farther from 0 than `largest`."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return False
    return not values or -largest <= min(values) <= max(values) <= largest


def _is_box(box: Any, image: Mapping[str, Any]) -> bool:
    return _numbers(box, OUTSIDE * max(image["height"], image["width"])) and len(box) == 4


def _is_mask(mask: Any, image: Mapping[str, Any]) -> bool:
    """Polygons, the first of three points or more, or run lengths of all the image's pixels. A later one of two points
    encloses nothing and does no harm; as the first, pycocotools takes it for a box."""
    sides = [image["height"], image["width"]]
    if isinstance(mask, list):
        far = OUTSIDE * max(sides)
        polygons = all(_numbers(p, far) and len(p) >= 4 and len(p) % 2 == 0 for p in mask)
        return polygons and bool(mask) and len(mask[0]) >= 6
    if not isinstance(mask, dict) or mask.get("size") != sides:
        return False
    counts = mask.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    return whole and sum(runs) == math.prod(sides)


def _runs(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed form, as maskApi.c's rleFrString reads them; None where it is damaged.
    pycocotools takes what ends early for whole and leaves the rest of the mask as it finds the memory."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > LAST:
            return None
        value, shift = value | (digit & 31) << shift, shift + 5
        if digit & 32:  # more follows
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def usable(one: Mapping[str, Any]) -> bool:
    """False of a crowd and of a box that has no area in float32: nothing can be learned from them."""
    corner, sides = np.float32(one["bbox"]).reshape(2, 2)
    return not one["iscrowd"] and bool((corner + sides - corner).min() > SMALLEST)


def with_objects(split: Split) -> Split:
    """The images that have an object to learn from, as Detectron trains on; how many have none is logged."""
    ids = [image for image in split.ids if any(map(usable, split.index.imgToAnns[image]))]
    if len(ids) < len(split.ids):
        without, count = len(split.ids) - len(ids), len(split.ids)
        log.info("%d of %d training images have no usable object and are left out", without, count)
    return Split(split.folder, split.index, ids)


def target(scenes: Scenes, split: Split, image: int) -> dict[str, Tensor]:
    """torchvision's target: boxes (n, 4) as x1, y1, x2, y2, labels (n,) and masks (n, H, W)."""
    import torch

    found = [one for one in split.index.imgToAnns[image] if usable(one)]
    boxes = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = np.stack([split.index.annToMask(one) for one in found])
    labels = torch.tensor([scenes.labels[one["category_id"]] for one in found])
    return {"boxes": boxes, "labels": labels, "masks": torch.from_numpy(masks)}


def image(split: Split, number: int) -> Tensor:
    """The image with this id, uint8 (3, H, W); InputError where its size is not the annotations'."""
    x, said = decode(split.path(number)), split.index.imgs[number]
    if tuple(x.shape[1:]) != (said["height"], said["width"]):
        told = f"{x.shape[2]} x {x.shape[1]} pixels, but the annotations say {said['width']} x {said['height']}"
        raise InputError(f"{split.path(number)}: {told}; get it again")
    return x


def results(scenes: Scenes, number: int, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """A detector's boxes (n, 4), labels, scores and mask probabilities (n, 1, H, W) of one image in COCO's result
    format."""
    from pycocotools import mask

    category = {label: one for one, label in scenes.labels.items()}
    boxes = found["boxes"].double().clone()
    boxes[:, 2:] -= boxes[:, :2]
    masks = (found["masks"][:, 0] > THRESHOLD).permute(1, 2, 0).byte().cpu().numpy()
    runs = mask.encode(np.asfortranarray(masks)) if len(boxes) else []
    parts = zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), runs, strict=True)
    return [
        {"image_id": number, "category_id": category[label], "bbox": box, "score": score, "segmentation": run}
        for box, label, score, run in parts
    ]


def average_precision(split: Split, detections: list[dict[str, Any]]) -> dict[str, float]:
    """METRICS in percent over the images of a split: AP is the mean over IoU 0.5, 0.55, …, 0.95; 0 without
    detections."""
    from pycocotools.cocoeval import COCOeval

    if not detections:
        return dict.fromkeys(METRICS, 0.0)
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = split.index.loadRes(detections)
        for kind, name in (("box", "bbox"), ("mask", "segm")):
            evaluation = COCOeval(split.index, loaded, name)
            evaluation.params.imgIds = split.ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            found |= {f"{kind}_{key}": 100 * float(evaluation.stats[place]) for key, place in PRECISIONS.items()}
    return found
