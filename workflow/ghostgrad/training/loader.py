"""The training and test images of a classify run, batch by batch.

All randomness is drawn by EpochSampler from two streams (see `ghostgrad.rng`):

    shuffle, at the epoch   the order of the training images in that epoch
    augment, at the step    the crops and flips of the whole batch of that step

So what a step sees follows from the seed and the step alone. A resumed run repeats exactly what an
undisturbed one does, data-parallel processes draw for the whole batch and take their own share of
it, and images from memory and from files make the same batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ghostgrad.checks import InputError
from ghostgrad.data.images import Images, Pixels
from ghostgrad.data.transforms import TRIES, random_resized_crop_box, resize, standardize
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import generator
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup
from ghostgrad.training.workers import loader_worker_count, stream_batches

if TYPE_CHECKING:
    from ghostgrad.data.folders import Files

TEST_BATCH = 500

LabelledImages: TypeAlias = tuple[Tensor, Tensor]
"""Images (N, 3, H, W) and labels (N,)."""


class EpochSampler:
    """Which training images a step sees, and the random numbers of their augmentation.

    An epoch is `steps_per_epoch` = floor(count / batch) steps; the images that do not fill a last
    batch are left out, other ones in each epoch. Raises InputError where `count` images do not fill
    one batch.
    """

    def __init__(
        self,
        spec: ClassifySpec | DetectSpec,
        count: int,
        group: ProcessGroup,
        device: torch.device | str = "cpu",
    ):
        self.spec, self.count, self.group, self.device = spec, count, group, device
        self.steps_per_epoch = count // spec.batch
        if not self.steps_per_epoch:
            reason = f"{count} training images do not fill one batch of {spec.batch}"
            raise InputError(f"{spec.data}: {reason}")
        self._cached_order = lru_cache(maxsize=1)(self.epoch_order)

    def epoch_order(self, epoch: int) -> Tensor:
        """The indices of all training images (count,) in the order of an epoch."""
        rng = generator(self.spec.seed, "shuffle", epoch)
        # Drawn on the CPU: a generator of CUDA would give another order.
        return torch.randperm(self.count, generator=rng).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The indices (n,) of this process's n = batch/processes images of a step, and their draws.

        By kind of augmentation: crop (2, n), top and left edge of the window in the padded image;
        flip (n,), whether an image is mirrored; resized_crop (2 TRIES + 2, n), what
        `random_resized_crop_box` takes.
        """
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        augment, batch = self.spec.augment, self.spec.batch
        pad = self.spec.pad if isinstance(self.spec, ClassifySpec) else 0
        # Every process draws for the whole batch and keeps its share, so the draws of an image do
        # not depend on the number of processes. All kinds share one generator: their order matters.
        rng, share = generator(self.spec.seed, "augment", step), self.group.share(batch)
        draws = {}
        if "crop" in augment:
            draws["crop"] = torch.randint(2 * pad + 1, (2, batch), generator=rng)[:, share]
        if "flip" in augment:
            draws["flip"] = torch.rand(batch, generator=rng)[share] < 0.5
        if "resized_crop" in augment:
            draws["resized_crop"] = torch.rand(2 * TRIES + 2, batch, generator=rng)[:, share]
        return self._cached_order(epoch)[step_of_epoch * batch :][share], draws


class InMemoryLoader:
    """All images on the device as uint8, augmented there in whole batches."""

    def __init__(
        self,
        spec: ClassifySpec,
        images: Images,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
    ):
        self.spec, self.device, self.group = spec, device, group
        self.mean_std = images.mean_std
        train_x, test_x = images.in_memory()
        self.x = torch.from_numpy(train_x).to(device)
        self.y = torch.from_numpy(images.train_y).to(device)
        self.test_x = torch.from_numpy(test_x).to(device)
        self.test_y = torch.from_numpy(images.test_y).to(device)
        self.sampler = EpochSampler(spec, len(self.y), group, device)
        self.steps_per_epoch = self.sampler.steps_per_epoch

    def __call__(self, step: int) -> LabelledImages:
        """This process's images (batch/processes, 3, H, W) and labels of one step."""
        indices, draws = self.sampler(step)
        # Crops pad with 0, which is black here; padding after standardizing would be grey.
        x = resize(self.x[indices].float().div_(255), self.spec.size)
        x = augment(x, self.spec.pad, draws)
        return standardize(x, self.spec.standardize, self.mean_std), self.y[indices]

    def test_batches(self) -> Iterator[LabelledImages]:
        """This process's share of the test images and labels, without augmentation."""
        chunks = zip(self.test_x.split(TEST_BATCH), self.test_y.split(TEST_BATCH), strict=True)
        for x, y in itertools.islice(chunks, self.group.rank, None, self.group.size):
            x = resize(x.float().div_(255), self.spec.size)
            yield standardize(x, self.spec.standardize, self.mean_std), y


class StreamingLoader:
    """Images on disk, decoded and augmented as uint8 by worker processes that run ahead."""

    def __init__(
        self,
        spec: ClassifySpec,
        images: Images,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
    ):
        self.spec, self.images, self.device, self.group = spec, images, device, group
        self.workers = loader_worker_count()
        self.sampler = EpochSampler(spec, len(images.train_y), group)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self._step = -1
        self._batch: LabelledImages | None = None
        self._upcoming: Iterator[LabelledImages] | None = None

    def __call__(self, step: int) -> LabelledImages:
        """This process's images (batch/processes, 3, H, W) and labels of one step.

        Steps are expected in order. The current one may be asked for again, as a probe does before
        its update; any other one starts the workers over.
        """
        if step != self._step or self._batch is None:
            if self._upcoming is None or step != self._step + 1:
                batches = TrainBatches(self.spec, self.images, self.sampler)
                steps = itertools.count(step)
                self._upcoming = stream_batches(batches, steps, self.device, self.workers)
            self._batch, self._step = next(self._upcoming), step
        return self._standardize(*self._batch)

    def test_batches(self) -> Iterator[LabelledImages]:
        """This process's share of the test images and labels, without augmentation."""
        chunks = math.ceil(len(self.images.test_y) / TEST_BATCH)
        share = range(self.group.rank, chunks, self.group.size)
        for x, y in stream_batches(TestBatches(self.images), share, self.device, self.workers):
            yield self._standardize(x, y)

    def _standardize(self, x: Tensor, y: Tensor) -> LabelledImages:
        # `float` makes a copy, so the uint8 batch that a probe asks for again stays as it is.
        x = x.float().div_(255)
        return standardize(x, self.spec.standardize, self.images.mean_std), y


class TrainBatches(Dataset[LabelledImages | InputError]):
    """Step -> augmented uint8 images (batch/processes, 3, H, W) and labels.

    An InputError is returned instead of raised; see `stream_batches`.
    """

    def __init__(self, spec: ClassifySpec, images: Images, sampler: EpochSampler):
        self.spec, self.sampler = spec, sampler
        self.files, self.y = _files(images.train_x), torch.from_numpy(images.train_y)

    def __getitem__(self, step: int) -> LabelledImages | InputError:
        indices, draws = self.sampler(step)
        try:
            if "resized_crop" in draws:
                boxes = draws["resized_crop"].T.tolist()
                x = [self._crop(*pair) for pair in zip(indices.tolist(), boxes, strict=True)]
            else:
                x = [self.files[index] for index in indices.tolist()]
        except InputError as error:
            return error
        return augment(torch.stack(x), self.spec.pad, draws), self.y[indices]

    def _crop(self, index: int, draws: Sequence[float]) -> Tensor:
        # Importing torchvision takes seconds, and few runs need it.
        from torchvision.transforms.v2 import functional

        x = self.files.decode(index)
        _, height, width = x.shape
        box = functional.crop(x, *random_resized_crop_box(height, width, draws))
        # Resizing works on channels-last memory. Made here, it is one copy, of the box alone.
        box = box.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        resized: Tensor = functional.resize(box, [self.spec.size] * 2, antialias=True)
        return resized


class TestBatches(Dataset[LabelledImages | InputError]):
    """Number of a chunk -> uint8 images (TEST_BATCH, 3, H, W), fewer in the last one, and labels.

    An InputError is returned instead of raised; see `stream_batches`.
    """

    def __init__(self, images: Images):
        self.files, self.y = _files(images.test_x), torch.from_numpy(images.test_y)

    def __getitem__(self, chunk: int) -> LabelledImages | InputError:
        first = chunk * TEST_BATCH
        y = self.y[first:][:TEST_BATCH]
        try:
            return torch.stack([self.files[first + index] for index in range(len(y))]), y
        except InputError as error:
            return error


def _files(x: Pixels | Files) -> Files:
    if isinstance(x, np.ndarray):
        raise TypeError("the images are in memory; read them with InMemoryLoader")
    return x


def open_loader(
    spec: ClassifySpec,
    images: Images,
    device: torch.device,
    group: ProcessGroup = SINGLE_PROCESS,
) -> InMemoryLoader | StreamingLoader:
    """The loader of a run, for images in memory or on disk.

    Raises InputError where the training images do not fill one batch.
    """
    loader = InMemoryLoader if isinstance(images.train_x, np.ndarray) else StreamingLoader
    return loader(spec, images, device, group)


def augment(x: Tensor, pad: int, draws: Mapping[str, Tensor]) -> Tensor:
    """Crop and flip images (N, 3, H, W) of any type as EpochSampler has drawn, partly in place."""
    if "crop" in draws:
        x = random_crop(x, pad, draws["crop"])
    if "flip" in draws:
        flipped = draws["flip"].nonzero().flatten().to(x.device)
        x[flipped] = x[flipped].flip(-1)
    return x


def random_crop(x: Tensor, pad: int, corners: Tensor) -> Tensor:
    """Pad images (N, C, H, W) by `pad` zeros on every side and cut an H x W window from each.

    `corners` (2, N) are the top and left edges of the windows, from 0 to 2 pad.
    """
    n, _, height, width = x.shape
    top, left = corners.to(x.device)
    # `unfold` makes views of all windows, (N, C, 2 pad + 1, 2 pad + 1, H, W), without copying;
    # the index then copies one window per image.
    windows = F.pad(x, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=x.device), :, top, left]
