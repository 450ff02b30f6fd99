"""`digit_scenes`: scikit-learn's digits pasted into scenes, with boxes and masks, in COCO's format
and layout.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghostgrad.data.builtin import grey_digits
from ghostgrad.data.coco import SPLIT_FOLDERS
from ghostgrad.data.images import Labels, Pixels

SIDE = 64  # pixels, of a scene
OBJECTS = (2, 5)  # least and most digits that are tried in a scene
INK = 48  # grey level from which a pixel belongs to the digit


def make(root: Path, train_count: int, test_count: int) -> None:
    """Write `train_count` training and `test_count` test scenes below `root`, all or none. A digit
    of the training scenes is in no test scene."""
    grey, labels, test = grey_digits()
    building = root.with_name(f".{root.name}")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    splits = (("train", train_count, ~test), ("val", test_count, test))
    for seed, (split, count, chosen) in enumerate(splits):
        rng = np.random.default_rng(seed)
        _write(building, split, count, grey[chosen], labels[chosen], rng)
    shutil.rmtree(root, ignore_errors=True)
    building.rename(root)


def _write(
    root: Path, split: str, count: int, grey: Pixels, labels: Labels, rng: np.random.Generator
) -> None:
    """Write the scenes of one split and their annotation file."""
    import torch
    from torchvision.io import write_png

    folder = root / SPLIT_FOLDERS[split]
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        scene, objects = _draw_scene(grey, labels, rng)
        name = f"{image_id:06}.png"
        write_png(torch.from_numpy(scene).expand(3, -1, -1), str(folder / name))
        images.append({"id": image_id, "file_name": name, "height": SIDE, "width": SIDE})
        for entry in objects:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotations.append({**ids, **entry})
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{SPLIT_FOLDERS[split]}.json"
    path.write_text(json.dumps(content))


def _draw_scene(
    grey: Pixels, labels: Labels, rng: np.random.Generator
) -> tuple[Pixels, list[dict[str, Any]]]:
    """A dark, noisy scene (SIDE, SIDE) with digits of 16 or 24 pixels that do not overlap, and
    their annotations without ids.

    Every digit draws its kind, its scale and its position from `rng`, in this order, also where its
    place is taken and it is left out; the scenes are the same in every build.
    """
    scene = rng.integers(0, 24, (SIDE, SIDE), dtype=np.uint8)
    taken = np.zeros((SIDE, SIDE), dtype=bool)
    objects: list[dict[str, Any]] = []
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1], endpoint=True)):
        index, scale = rng.integers(len(labels)), rng.integers(2, 3, endpoint=True)
        digit = np.kron(grey[index], np.ones((scale, scale), dtype=np.uint8))
        y, x = rng.integers(0, SIDE - len(digit), 2, endpoint=True)
        place = np.s_[y : y + len(digit), x : x + len(digit)]
        if taken[place].any():
            continue
        ink = digit >= INK
        taken[place] = True
        scene[place][ink] = digit[ink]
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[place] = ink
        # The box encloses the ink, which is smaller than the digit's square.
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        objects.append(
            {
                "category_id": int(labels[index]) + 1,
                "bbox": [float(value) for value in box],
                "area": int(ink.sum()),
                "segmentation": {"size": [SIDE, SIDE], "counts": _run_lengths(mask)},
            }
        )
    return scene, objects


def _run_lengths(mask: NDArray[np.uint8]) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, beginning with a run of zeros."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths
