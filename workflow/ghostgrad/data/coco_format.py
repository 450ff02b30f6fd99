"""Annotation files in COCO's format (Lin et al. 2014): reading, and the checks that pycocotools and
training rely on but do not make.

Everything is checked once, before any GPU is used: pycocotools would read beyond a mask that ends
early, torch would fail on a box of no number, and a missing image would end a run after hours.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

from ghostgrad.checks import InputError
from ghostgrad.data.decoding import READING_THREADS

if TYPE_CHECKING:
    from pycocotools.coco import COCO

REQUIRED_KEYS = {
    "images": ("file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox", "segmentation", "iscrowd", "area"),
    "categories": ("name",),
}
MAX_SIDE = 65_535  # pixels, the side of an image; JPEG's limit
MAX_REACH = 2  # sides of an image: no coordinate of a box or a polygon is farther from its corner
MAX_SHIFT = 25  # bits below the last digit of a compressed run; beyond, C's integers overflow


class ImageEntry(TypedDict):
    """An image in an annotation file; sides in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class Annotation(TypedDict):
    """An object in an annotation file; `bbox` is x, y, width, height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    segmentation: Any
    iscrowd: int
    area: float


def read_index(path: Path, key: str, digest: hashlib._Hash) -> COCO:
    """The content of an annotation file, which also enters `digest`; InputError, beginning with
    `key` of config.yaml, where it is missing, damaged or in another format."""
    from pycocotools.coco import COCO

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number in JSON")

    index = COCO()
    try:
        content = path.read_bytes()
        digest.update(content)
        index.dataset = json.loads(content, parse_constant=refuse)  # NaN, Infinity
        _create_index(index)
    except OSError as error:
        message = f"{path}: {error.strerror}; put COCO's annotation files there"
        raise InputError(f"{key}: {message}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(
            f"{key}: {path} is damaged or not in COCO's format; replace the file"
        ) from None
    if not (index.imgs and index.cats):
        missing = "categories" if index.imgs else "images"
        raise InputError(f"{key}: {path} lists no {missing}; replace the file")
    return index


def _create_index(index: COCO) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        index.createIndex()


def _entries(index: COCO, kind: str) -> list[dict[str, Any]]:
    """The images, annotations or categories as the file has them; it may leave them out."""
    content: dict[str, Any] = dict(index.dataset)
    entries: list[dict[str, Any]] = content.get(kind, [])
    return entries


def check(index: COCO, path: Path, folder: Path) -> dict[str, int]:
    """Check the annotation file at `path`, whose images lie in `folder`, and renumber its
    annotations. The file name and size in bytes of every image; InputError at the first mistake.
    """
    _check_schema(index, path)
    _check_images(index, path)
    _check_categories(index, path)
    sizes = _check_files(index, path, folder)
    _check_annotations(index, path)
    _renumber(index)
    return sizes


def _check_schema(index: COCO, path: Path) -> None:
    """Every entry has the keys that are used, and an id that is an integer and its own."""
    counts = {
        "images": len(index.imgs),
        "annotations": len(index.anns),
        "categories": len(index.cats),
    }
    for kind, keys in REQUIRED_KEYS.items():
        entries = _entries(index, kind)
        for key in keys:
            if any(key not in entry for entry in entries):
                raise InputError(
                    f"{path}: an entry of '{kind}' has no key '{key}'; replace the file"
                )
        for entry in entries:
            # type() and not isinstance: True is an int. 64 bits: what pycocotools' arrays hold.
            if type(entry["id"]) is not int or abs(entry["id"]) >= 2**63:
                message = f"{_shorten(entry['id'])} is not a valid id in '{kind}'"
                raise InputError(f"{path}: {message}; ids are 64-bit integers")
        if counts[kind] < len(entries):  # the index keeps the last one of each id
            raise InputError(
                f"{path}: two entries of '{kind}' have the same id; ids must be unique"
            )


def _check_images(index: COCO, path: Path) -> None:
    for image in index.imgs.values():
        sides = (image["height"], image["width"])
        sides_fit = all(type(side) is int and 0 < side <= MAX_SIDE for side in sides)
        if not (_is_name(image["file_name"]) and sides_fit):
            message = f"image {image['id']} has no valid file name, height or width"
            raise InputError(f"{path}: {message}; replace the file")


def _check_categories(index: COCO, path: Path) -> None:
    for category in index.cats.values():
        if not _is_name(category["name"]):
            message = f"category {category['id']} has no valid name"
            raise InputError(f"{path}: {message}; replace the file")


def _check_files(index: COCO, path: Path, folder: Path) -> dict[str, int]:
    """Every image is a file below `folder`. File name and size in bytes of each."""
    sizes = _file_sizes(folder, [image["file_name"] for image in index.imgs.values()])
    if missing := [name for name, size in sizes.items() if size is None]:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        message = f"{missing[0]}{others} not found in {folder}"
        raise InputError(f"{path}: {message}; unpack the images there")
    return {name: size for name, size in sizes.items() if size is not None}


def _file_sizes(folder: Path, names: Sequence[str]) -> dict[str, int | None]:
    """Sizes in bytes of the files with these names; None for one that does not exist."""

    def size(name: str) -> int | None:
        try:
            status = (folder / name).stat()
        except (OSError, ValueError):  # ValueError: a null character in the name
            return None
        # An absolute path would take the place of the folder's.
        is_inside = stat.S_ISREG(status.st_mode) and not os.path.isabs(name)  # noqa: PTH117
        return status.st_size if is_inside else None

    with ThreadPoolExecutor(READING_THREADS) as pool:
        return dict(zip(names, pool.map(size, names), strict=True))


def _check_annotations(index: COCO, path: Path) -> None:
    """Every object belongs to a known image and category and has a box and a mask of that image,
    and what average precision is computed from."""
    for annotation in index.anns.values():
        number = annotation["id"]
        if annotation["image_id"] not in index.imgs:
            message = f"refers to image {_shorten(annotation['image_id'])}"
            raise InputError(f"{path}: annotation {number} {message}, which is not in the file")
        if annotation["category_id"] not in index.cats:
            message = f"refers to category {_shorten(annotation['category_id'])}"
            raise InputError(f"{path}: annotation {number} {message}, which is not in the file")
        image = index.imgs[annotation["image_id"]]
        box, mask = annotation["bbox"], annotation["segmentation"]
        if not (_is_box(box, image) and _is_mask(mask, image)):
            message = f"annotation {number} has no valid box or no valid mask"
            raise InputError(f"{path}: {message}; every instance needs both")
        # COCOeval sorts objects by size into small, medium and large, and ignores crowds.
        if annotation["iscrowd"] not in (0, 1) or not _are_numbers(
            [annotation["area"]], MAX_SIDE**2
        ):
            message = f"annotation {number}: iscrowd must be 0 or 1, area a number"
            raise InputError(f"{path}: {message}; replace the file")


def _renumber(index: COCO) -> None:
    """Give the annotations the ids 1, 2, … and drop what is not used.

    COCOeval writes the id of the object that a detection was matched with into an array of floats
    in which 0 means unmatched: a detection of an object with id 0 would count as wrong.
    """
    for number, annotation in enumerate(_entries(index, "annotations"), start=1):
        annotation["id"] = number
    # loadRes copies info and categories with copy.deepcopy, which fails on deep nesting, so that
    # only what is used is kept of them; some versions of pycocotools fail without an info.
    content: Any = {"info": {}} | {kind: _entries(index, kind) for kind in REQUIRED_KEYS}
    content["categories"] = [
        {"id": category["id"], "name": category["name"]} for category in content["categories"]
    ]
    index.dataset = content
    _create_index(index)


def _shorten(value: object) -> str:
    """A value in an error message: on one line, and not a page."""
    return repr(value)[:80]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _are_numbers(values: object, largest: float) -> bool:
    """True for a list of numbers, none of them farther from 0 than `largest`. Python's integers may
    be too large for a float, and true and false are no numbers."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return False
    return not values or -largest <= min(values) <= max(values) <= largest


def _is_box(box: object, image: ImageEntry) -> bool:
    limit = MAX_REACH * max(image["height"], image["width"])
    return isinstance(box, list) and _are_numbers(box, limit) and len(box) == 4


def _is_mask(mask: object, image: ImageEntry) -> bool:
    """True for polygons, the first with three points or more, or for run lengths that cover all the
    image's pixels.

    A later polygon of two points encloses nothing and does no harm; pycocotools decides by the
    first one, and takes four numbers for a box.
    """
    sides = [image["height"], image["width"]]
    if isinstance(mask, list):
        limit = MAX_REACH * max(sides)
        polygons = all(
            _are_numbers(points, limit) and len(points) >= 4 and len(points) % 2 == 0
            for points in mask
        )
        return polygons and bool(mask) and len(mask[0]) >= 6
    if not isinstance(mask, Mapping) or mask.get("size") != sides:
        return False
    counts = mask.get("counts")
    runs = decode_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return False
    return sum(runs) == math.prod(sides)


def decode_runs(text: str) -> list[int] | None:
    """The run lengths in COCO's compressed form, as rleFrString in pycocotools' maskApi.c reads
    them; None where the text is damaged.

    A character holds 5 bits of a number, lowest first, and a sixth that says whether more follow.
    From the fourth run on, the number is the difference to the run two before. pycocotools does
    not notice when the text ends early, and leaves the rest of the mask as it finds the memory.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > MAX_SHIFT:
            return None
        value, shift = value | (digit & 31) << shift, shift + 5
        if digit & 32:  # more bits follow
            continue
        if digit & 16:  # the sign bit of two's complement
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs
