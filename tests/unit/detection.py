"""A small detector and small data sets of images with objects, for the tests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torchvision.io import write_png

from ghostgrad.data.make import make
from ghostgrad.registry.datasets import DATA_SETS, Counts

SIDE = 40  # of the images of write_coco_folder, in pixels
TRAIN = "annotations/instances_train2017.json"
SPEC = {
    "task": "detect",
    "model": "seqnet18",
    "data": "digit_scenes",
    "cifar_stem": True,
    "small_stem": True,
    "stem_filters": 4,
    "fpn_channels": 8,
    "head_features": 8,
    "anchor_sizes": [12, 14, 16, 20, 24],
    "proposals": 20,
    "rois": 8,
    "min_size": 64,
    "max_size": 64,
    "batch": 2,
    "length": 6,
    "lr": 0.02,
    "lr_boundaries": [4],
    "warmup": 2,
    "eval_every": 4,
    "seed": 1,
}


def small_scenes(folder: Path) -> Path:
    """Make digit_scenes with few scenes and return the path of its manifest."""
    with pytest.MonkeyPatch.context() as patch:
        small = dataclasses.replace(DATA_SETS["digit_scenes"], counts=Counts(10, 5, 10))
        patch.setitem(DATA_SETS, "digit_scenes", small)
        make("digit_scenes", folder / "digit_scenes.json")
    return folder / "digit_scenes.json"


def square(x: int, y: int, side: int) -> dict:
    """A square mask in COCO's compressed form."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    run = rle.encode(mask)
    return {"size": run["size"], "counts": run["counts"].decode()}


def write_coco_folder(root: Path) -> None:
    """A data set in COCO's layout with three images per split, crowds and an empty box."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split / "deep").mkdir(parents=True)
        names = {7: "1.png", 14: "2.png", 21: "deep/3.png"}
        images = [
            {"id": n, "file_name": name, "height": SIDE, "width": SIDE} for n, name in names.items()
        ]
        for image in images:
            write_png(
                torch.zeros(3, SIDE, SIDE, dtype=torch.uint8),
                str(root / split / image["file_name"]),
            )
        base = {
            "bbox": [4.0, 4.0, 8.0, 8.0],
            "area": 64.0,
            "segmentation": square(4, 4, 8),
            "iscrowd": 0,
        }
        annotations = [
            {"id": 1, "image_id": 7, "category_id": 3, **base},
            {"id": 2, "image_id": 7, "category_id": 90, **base, "iscrowd": 1},
            {"id": 3, "image_id": 14, "category_id": 90, **base, "iscrowd": 1},
            {"id": 4, "image_id": 14, "category_id": 90, **base, "bbox": [4.0, 4.0, 0.0, 8.0]},
        ]
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def change(path: Path, key: str, place: int, **values) -> None:
    """Change an entry in an annotation file."""
    content = json.loads(path.read_text())
    content[key][place] |= values
    path.write_text(json.dumps(content))
