"""Which part of an image is seen, in training and in testing. Imports nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of torchvision's RandomResizedCrop


def random_resized_crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window of 8 to 100 % of an image's area and a ratio of 3/4 to 4/3, from
    2 TRIES + 2 numbers in [0, 1). Where ten do not fit, the largest central one, as in RandomResizedCrop."""
    low, high = map(math.log, RATIO)
    for one, other in zip(draws[:TRIES], draws[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * one)
        ratio = math.exp(low + (high - low) * other)
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(draws[-2] * (height - h + 1)), int(draws[-1] * (width - w + 1)), h, w
    h, w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w
