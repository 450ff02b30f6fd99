"""Annotation files in COCO's format: what is refused, and how compressed masks are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from ghostgrad.checks import InputError
from ghostgrad.data import coco_format
from ghostgrad.data.make import make
from tests.unit.detection import SIDE, TRAIN, change, square


def test_compressed_runs_are_read_as_pycocotools_does():
    rng = np.random.default_rng(0)
    for density in (0.001, 0.02, 0.3, 0.9):
        mask = np.asfortranarray(rng.random((37, 53)) < density, dtype=np.uint8)
        flat = mask.flatten("F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        wanted = np.diff([0, *edges, flat.size]).tolist()
        assert (
            coco_format.decode_runs(rle.encode(mask)["counts"].decode())
            == [0] * int(flat[0]) + wanted
        )


def edited(key: str, place: int, **values) -> Callable[[Path], None]:
    """A function that changes an entry in the annotations of the training images."""
    return lambda root: change(root / TRAIN, key, place, **values)


def without(key: str, name: str) -> Callable[[Path], None]:
    """A function that removes a key from the first entry in the annotations of the training
    images."""

    def drop(root: Path) -> None:
        content = json.loads((root / TRAIN).read_text())
        del content[key][0][name]
        (root / TRAIN).write_text(json.dumps(content))

    return drop


IMAGE = "image 7 has no valid file name, height or width"
BOX_OR_MASK = "annotation 1 has no valid box or no valid mask"
CROWD_AND_AREA = "annotation 1: iscrowd must be 0 or 1, area a number"
FORMAT = "damaged or not in COCO's format"
NOT_FOUND = "not found in .*train2017; unpack the images there"
EMPTY = "contains only crowds and empty boxes"
RUNS = square(4, 4, 8)["counts"]
BAD = {
    "no annotations": (
        lambda root: (root / TRAIN).unlink(),
        "No such file or directory; put COCO's annotation",
    ),
    "cut short": (lambda root: (root / TRAIN).write_text('{"images": ['), FORMAT),
    "no number": (edited("annotations", 0, area=float("nan")), FORMAT),
    "deep": (lambda root: (root / TRAIN).write_text('{"images": ' + "[" * 100_000), FORMAT),
    "another format": (lambda root: (root / TRAIN).write_text('{"images": 3}'), FORMAT),
    "no images": (
        lambda root: (root / TRAIN).write_text('{"images": [], "categories": []}'),
        "lists no images",
    ),
    "an image is missing": (
        lambda root: (root / "train2017" / "2.png").unlink(),
        rf"2\.png {NOT_FOUND}",
    ),
    "a folder for an image": (edited("images", 1, file_name="deep"), rf"deep {NOT_FOUND}"),
    "an empty file name": (edited("images", 0, file_name=""), IMAGE),
    "text for an id": (
        edited("annotations", 0, id="1"),
        "'1' is not a valid id in 'annotations'; ids are 64-bit integers",
    ),
    "an id too large": (
        edited("images", 0, id=2**63),
        "9223372036854775808 is not a valid id in 'images'; ids are 64-bit integers",
    ),
    "an unknown category of two lines": (
        edited("annotations", 0, category_id="a\nb"),
        r"refers to category 'a\\nb', which is not in the file",
    ),
    "a file name of two lines": (edited("images", 0, file_name="a\nb"), IMAGE),
    "a side too large": (edited("images", 0, height=65_536), IMAGE),
    "true for a side": (edited("images", 0, height=True), IMAGE),
    "a number for a name": (edited("categories", 0, name=5), "category 90 has no valid name"),
    "an id twice": (
        edited("annotations", 0, id=2),
        "two entries of 'annotations' have the same id; ids must be unique",
    ),
    "an image twice": (
        edited("images", 0, id=14),
        "two entries of 'images' have the same id; ids must be unique",
    ),
    "an area without end": (edited("annotations", 0, area=10**400), CROWD_AND_AREA),
    "an unknown category": (
        edited("annotations", 0, category_id=5),
        "annotation 1 refers to category 5, which is not in the file",
    ),
    "an unknown image": (
        edited("annotations", 0, image_id=5),
        "annotation 1 refers to image 5, which is not in the file",
    ),
    "no mask": (edited("annotations", 0, segmentation=[]), BOX_OR_MASK),
    "other categories": (
        edited("categories", 0, name="x"),
        "train and val have different categories",
    ),
    "no iscrowd": (
        without("annotations", "iscrowd"),
        "an entry of 'annotations' has no key 'iscrowd'",
    ),
    "no area": (without("annotations", "area"), "an entry of 'annotations' has no key 'area'"),
    "no height": (without("images", "height"), "an entry of 'images' has no key 'height'"),
    "no name": (without("categories", "name"), "an entry of 'categories' has no key 'name'"),
    "no file name": (edited("images", 0, file_name=None), IMAGE),
    "a file elsewhere": (
        lambda root: change(root / TRAIN, "images", 0, file_name=str(root / "train2017/1.png")),
        rf"1\.png {NOT_FOUND}",
    ),
    "text for iscrowd": (edited("annotations", 0, iscrowd="0"), CROWD_AND_AREA),
    "no number for an area": (edited("annotations", 0, area=None), CROWD_AND_AREA),
    **{
        f"{name} for a mask": (edited("annotations", 0, segmentation=mask), BOX_OR_MASK)
        for name, mask in {
            "another size": {"size": [5, 5], "counts": [25]},
            "too few pixels": {"size": [SIDE, SIDE], "counts": [5, 5]},
            "a number of runs": {"size": [SIDE, SIDE], "counts": 7},
            "nothing": [[None] * 6],
            "text in a polygon": [["1"] * 6],
            "a point a billion pixels away": [[0, 0, 9, 0, 1e9, 9]],
            "runs that end early": {"size": [SIDE, SIDE], "counts": RUNS[:-3]},
            "a last run without its end": {"size": [SIDE, SIDE], "counts": RUNS + "P"},
            "a character of no run": {
                "size": [SIDE, SIDE],
                "counts": RUNS[:-1] + chr(ord(RUNS[-1]) + 64),
            },
            "a run of seven digits": {"size": [SIDE, SIDE], "counts": "0" + "PPPPPP0" + "Pb1"},
            "a negative run": {"size": [SIDE, SIDE], "counts": [1700, -100]},
        }.items()
    },
    "a box far outside": (
        edited("annotations", 0, bbox=[4.0, 4.0, 2 * SIDE + 1.0, 8.0]),
        BOX_OR_MASK,
    ),
    "no box": (edited("annotations", 0, bbox=None), BOX_OR_MASK),
    "text for a box": (edited("annotations", 0, bbox=["1"] * 4), BOX_OR_MASK),
    "two points": (edited("annotations", 0, segmentation=[[1, 1, 2, 2]]), BOX_OR_MASK),
    "text for a mask": (edited("annotations", 0, segmentation="x"), BOX_OR_MASK),
    "crowds alone": (edited("annotations", 0, iscrowd=1), EMPTY),
    "a box too small": (edited("annotations", 0, bbox=[4.0, 4.0, 1e-7, 8.0]), EMPTY),
    "no folder": (lambda root: (root / "val2017").rename(root / "val"), "no folder val2017 in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, coco_folder, tmp_path):
    spoil, message = BAD[case]
    spoil(coco_folder)
    with pytest.raises(InputError, match=message) as error:
        make("scenes", tmp_path / "scenes.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "scenes.json").exists()
