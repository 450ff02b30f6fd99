"""A small detector and small scenes, for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostgrad.data import digit_scenes
from ghostgrad.data.make import make

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
    """The manifest of digit_scenes with fewer scenes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, "COUNTS", {"train": 10, "val": 5})
        make("digit_scenes", folder / "digit_scenes.json")
    return folder / "digit_scenes.json"
