"""Learning rates by update (001 app. B, 004 app. G)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any


def learning_rate(spec: Mapping[str, Any], step: int, length: int, warmup: int, boundaries: Sequence[int]) -> float:
    """gamma of the update that follows `step` updates; all positions in updates.

    Warm-up: gamma_max t/T_w at update t = 1, …, T_w. Then `step`: gamma_max times lr_factor for every boundary that
    `step` has reached, or the value of `lr_values` that belongs to the last of them (TensorFlow's piecewise constant);
    `cosine`: gamma_max (1 + cos(pi s))/2, s from 0 to 1 over the updates that warm-up leaves, without restarts.
    """
    if step < warmup:
        return spec["lr"] * (step + 1) / warmup
    if spec["schedule"] == "cosine":
        return spec["lr"] * (1 + math.cos(math.pi * (step - warmup) / max(1, length - warmup))) / 2
    reached = bisect_right(sorted(boundaries), step)
    if spec["lr_values"]:
        return [spec["lr"], *spec["lr_values"]][reached]
    return spec["lr"] * spec["lr_factor"] ** reached
