"""Labelled images, split into train and test: what the readers of data sets return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ghostgrad.data.folders import Files
    from ghostgrad.registry.datasets import MeanStd

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]


@dataclass
class Images:
    """A data set: uint8 images (N, 3, H, W), in memory or as files on disk, and labels (N,).

    A label is the position of its class in `classes`. `mean_std` are the constants of `standardize`
    with mode per_channel; None for images that are not standardized in this way.
    """

    train_x: Pixels | Files
    train_y: Labels
    test_x: Pixels | Files
    test_y: Labels
    classes: list[str]
    mean_std: MeanStd | None = None

    def in_memory(self) -> tuple[Pixels, Pixels]:
        """The train and the test images as arrays; TypeError where they are files on disk."""
        if isinstance(self.train_x, np.ndarray) and isinstance(self.test_x, np.ndarray):
            return self.train_x, self.test_x
        raise TypeError("the images are on disk; read them with Files.read")
