"""`digit_scenes`: scikit-learn's digits pasted into scenes with boxes and masks, in COCO's format and layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from ghostgrad.data.coco import SPLITS

SIDE, COUNTS, OBJECTS = 64, {"train": 400, "val": 60}, (2, 5)
INK = 48  # grey level from which a pixel belongs to the digit


def make(root: Path) -> None:
    """Write both splits; a digit of the training images is in no test image. Whole, or not at all."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey, labels = np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target
    test = np.arange(len(labels)) % 6 == 0
    building = root.with_name(f".{root.name}")
    shutil.rmtree(building, ignore_errors=True)
    for seed, (split, chosen) in enumerate((("train", ~test), ("val", test))):
        _write(building, split, grey[chosen], labels[chosen], np.random.default_rng(seed))
    shutil.rmtree(root, ignore_errors=True)
    building.rename(root)


def _write(root: Path, split: str, grey: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    import torch
    from torchvision.io import write_png

    folder = root / SPLITS[split]
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(1, COUNTS[split] + 1):
        scene, objects = _scene(grey, labels, rng)
        name = f"{number:06}.png"
        write_png(torch.from_numpy(scene).expand(3, -1, -1), str(folder / name))
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        for one in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **one})
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{SPLITS[split]}.json").write_text(json.dumps(content))


def _scene(grey: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """A dark, noisy scene (SIDE, SIDE) with digits of 16 or 24 pixels, none above another, and their annotations."""
    scene = rng.integers(0, 24, (SIDE, SIDE), dtype=np.uint8)
    taken, objects = np.zeros((SIDE, SIDE), dtype=bool), []
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
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        objects.append(
            {
                "category_id": int(labels[index]) + 1,
                "bbox": [float(value) for value in box],
                "area": int(ink.sum()),
                "segmentation": {"size": [SIDE, SIDE], "counts": _runs(mask)},
            }
        )
    return scene, objects


def _runs(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths
