"""A small folder of images, and how a run reads it, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostgrad.checks import InputError
from ghostgrad.data.images import Images
from ghostgrad.data.make import make
from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.base import Spec
from ghostgrad.tasks.classify import load_data
from ghostgrad.training import loader as batches
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup
from tests.unit.fabricate import one_line

# torchvision will leave decoding to TorchCodec; see CHANGELOG.md.
DECODERS = "ignore:The image decoding and encoding capabilities:DeprecationWarning"
CPU = torch.device("cpu")
BASE = {"model": "preact_resnet", "data": "images", "batch": 8, "length": 5, "lr": 0.1, "seed": 3}
CLASSES = ("ant", "bee")
PADDED = {"augment": ["crop", "flip"], "pad": 2}
WINDOWS = {"augment": ["resized_crop", "flip"], "size": 6}


def spec(**changes) -> Spec:
    return expand("classify", {**BASE, **changes})


def picture(path: Path, seed: int, width: int = 8, height: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def loaded(root: Path, **changes) -> Images:
    """The images, as read by a run whose spec has these changes."""
    manifest = root.parent / "images.json"
    if not manifest.exists():
        make("images", manifest)
    return load_data(spec(**changes), manifest)


def opened(root: Path, group: ProcessGroup = SINGLE_PROCESS, **changes):
    return batches.open_loader(spec(**changes), loaded(root, **changes), CPU, group)


def refused(call, *arguments, **keywords) -> str:
    """The one-line message with which a call refuses its input."""
    with pytest.raises(InputError) as error:
        call(*arguments, **keywords)
    return one_line(error)
