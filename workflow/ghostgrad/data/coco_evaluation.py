"""COCO's average precision, by its own pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostgrad.data.coco import Scenes, Split

if TYPE_CHECKING:
    from torch import Tensor

# Positions in COCOeval.stats, all for objects of every size and at most 100 detections an image.
POSITIONS = {"ap": 0, "ap50": 1, "ap75": 2}
KINDS = ("box", "mask")  # overlap of boxes, or of masks
METRICS = tuple(f"{kind}_{name}" for kind in KINDS for name in POSITIONS)
MASK_THRESHOLD = 0.5  # probability from which a pixel belongs to an object


def detection_results(
    scenes: Scenes, image_id: int, detections: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """The output of torchvision's detector for one image in COCO's result format: boxes (n, 4),
    labels (n,), scores (n,) and mask probabilities (n, 1, H, W)."""
    from pycocotools import mask

    categories = {label: category for category, label in scenes.labels.items()}
    boxes = detections["boxes"].double().clone()
    boxes[:, 2:] -= boxes[:, :2]  # from the second corner to sides
    masks = (detections["masks"][:, 0] > MASK_THRESHOLD).permute(1, 2, 0).byte().cpu().numpy()
    # mask.encode takes (H, W, n) by columns and fails on no masks.
    runs = mask.encode(np.asfortranarray(masks)) if len(boxes) else []
    labels, scores = detections["labels"].tolist(), detections["scores"].tolist()
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "bbox": box,
            "score": score,
            "segmentation": run,
        }
        for box, label, score, run in zip(boxes.tolist(), labels, scores, runs, strict=True)
    ]


def average_precision(split: Split, results: list[dict[str, Any]]) -> dict[str, float]:
    """METRICS in percent over the images of a split, from the detections in COCO's result format.

    AP is the mean over the IoU thresholds 0.5, 0.55, …, 0.95, AP50 and AP75 are those at 0.5 and
    0.75. All are 0 without detections, which loadRes does not accept.
    """
    from pycocotools.cocoeval import COCOeval

    if not results:
        return dict.fromkeys(METRICS, 0.0)
    precisions = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and tables
        loaded = split.index.loadRes(results)
        for kind in KINDS:
            evaluation = COCOeval(split.index, loaded, "bbox" if kind == "box" else "segm")
            evaluation.params.imgIds = split.ids  # without those that were skipped
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            for key, position in POSITIONS.items():
                precisions[f"{kind}_{key}"] = 100 * float(evaluation.stats[position])
    return precisions
