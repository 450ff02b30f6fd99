"""Which part of an image a network sees, in training and in testing, and in which units.

torch and torchvision are imported where they are used: both take seconds, and what checks a data
set or prints a table needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ghostgrad.registry.datasets import MeanStd

# torchvision's RandomResizedCrop: parts of the area, ratios of width to height, attempts.
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10


def random_resized_crop_box(
    height: int, width: int, draws: Sequence[float]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random box with 8 to 100 % of an image's area and a ratio of
    width to height from 3/4 to 4/3, as in torchvision's RandomResizedCrop.

    `draws` are 2 TRIES + 2 numbers in [0, 1): areas, ratios, and the position (top, left). They are
    drawn for a whole batch beforehand, so that the box of an image depends neither on how many
    attempts another image takes nor on the worker that cuts it. If no attempt fits into the image,
    the box is the largest central one whose ratio is in the range.
    """
    low, high = map(math.log, RATIO)
    for area_draw, ratio_draw in zip(draws[:TRIES], draws[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area_draw)
        ratio = math.exp(low + (high - low) * ratio_draw)  # uniform in its logarithm
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(draws[-2] * (height - h + 1)), int(draws[-1] * (width - w + 1)), h, w
    h, w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def standardize(x: Tensor, mode: str, mean_std: MeanStd | None = None) -> Tensor:
    """Standardize images (N, 3, H, W) with values in [0, 1], in place.

    Mode per_image subtracts each image's mean and divides by max(its standard deviation,
    1/sqrt(number of values)), as TensorFlow's per_image_standardization does: an image of one
    colour is not blown up. Mode per_channel uses `mean_std`, ValueError without it. Mode none
    changes nothing.
    """
    if mode == "per_image":
        values = x.flatten(1)
        std = values.std(dim=1, correction=0).clamp(min=values.shape[1] ** -0.5)
        return x.sub_(values.mean(dim=1)[:, None, None, None]).div_(std[:, None, None, None])
    if mode == "per_channel":
        if mean_std is None:
            raise ValueError("standardizing per channel needs each channel's mean and deviation")
        channel_mean, channel_std = (x.new_tensor(part)[:, None, None] for part in mean_std)
        return x.sub_(channel_mean).div_(channel_std)
    return x


def resize(x: Tensor, size: int) -> Tensor:
    """Float images (N, 3, H, W) resized to (N, 3, size, size), bilinearly without antialias; size 0
    leaves them as they are.

    For images of one size that lie in memory. Images on disk are resized as uint8 while they are
    read, by `resize_center_crop`, which rounds to whole grey levels.
    """
    if not size:
        return x
    import torch.nn.functional as F

    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def resize_center_crop(x: Tensor, size: int, short_side: int = 0) -> Tensor:
    """The centre (3, size, size) of an image (3, H, W) whose short side is first resized to
    `short_side` (0: to `size`), bilinearly with antialias, as in torchvision's recipes.

    The result for a uint8 image is uint8: a quarter of a float's memory between the processes that
    decode and the one that trains.
    """
    from torchvision.transforms.v2 import functional

    resized = functional.resize(x, [short_side or size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped
