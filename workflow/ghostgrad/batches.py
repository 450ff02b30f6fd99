"""The training and test images of a classify run, batch by batch.

Which images a step sees and how they are augmented follow from the seed, the epoch and the step alone, so that a
resumed run repeats exactly what an undisturbed one does, and data-parallel processes share one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostgrad.checks import InputError
from ghostgrad.data import Images, standardize
from ghostgrad.parallel import ALONE, Group
from ghostgrad.rng import generator

TEST_BATCH = 500


class InMemory:
    """All images on the device as uint8, augmented there in whole batches."""

    def __init__(self, spec: Mapping[str, Any], images: Images, device: torch.device, group: Group = ALONE):
        self.spec, self.device, self.group = spec, device, group
        self.x, self.y = (torch.from_numpy(part).to(device) for part in (images.train_x, images.train_y))
        self.test_x, self.test_y = (torch.from_numpy(part).to(device) for part in (images.test_x, images.test_y))
        self.per_epoch = len(self.y) // spec["batch"]
        if not self.per_epoch:
            raise InputError(f"{spec['data']}: {len(self.y)} training images do not fill one batch of {spec['batch']}")
        self._order = lru_cache(maxsize=1)(self._shuffle)

    def _shuffle(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.y), generator=generator(self.spec["seed"], "shuffle", epoch)).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's images (B/processes, 3, H, W) and labels of one step."""
        epoch, position = divmod(step, self.per_epoch)
        batch = self.spec["batch"]
        rng, mine = generator(self.spec["seed"], "augment", step), self.group.share(batch)
        chosen = self._order(epoch)[position * batch :][mine]
        x = resize(self.spec, self.x[chosen].float() / 255)
        if "crop" in self.spec["augment"]:
            x = random_crop(
                x, self.spec["pad"], torch.randint(2 * self.spec["pad"] + 1, (2, batch), generator=rng)[:, mine]
            )
        if "flip" in self.spec["augment"]:
            flip = (torch.rand(batch, generator=rng)[mine] < 0.5).to(self.device)
            x = torch.where(flip[:, None, None, None], x.flip(-1), x)
        return standardize(self.spec, x), self.y[chosen]

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the test images and labels, without augmentation."""
        for x, y in list(zip(self.test_x.split(TEST_BATCH), self.test_y.split(TEST_BATCH), strict=True))[
            self.group.rank :: self.group.size
        ]:
            yield standardize(self.spec, resize(self.spec, x.float() / 255)), y


def resize(spec: Mapping[str, Any], x: Tensor) -> Tensor:
    """Images (N, 3, H, W) at the spec's size, bilinearly; as they are where it is 0."""
    if not spec["size"]:
        return x
    return F.interpolate(x, size=(spec["size"],) * 2, mode="bilinear", align_corners=False)


def random_crop(x: Tensor, pad: int, corners: Tensor) -> Tensor:
    """Pad (N, C, H, W) by `pad` zeros on every side and cut an H x W window from each image, its top and left edge in
    `corners` (2, N), 0 to 2 pad."""
    n, _, height, width = x.shape
    top, left = corners.to(x.device)
    windows = F.pad(x, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=x.device), :, top, left]
