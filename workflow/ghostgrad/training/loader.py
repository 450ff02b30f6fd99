"""The training and test images of a classify run, batch by batch.

Which images a step sees and how they are augmented follow from the seed, the epoch and the step alone, so that a
resumed run repeats exactly what an undisturbed one does, data-parallel processes share one batch, and images from
memory and from files make the same one.
"""

from __future__ import annotations

import atexit
import itertools
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ghostgrad.checks import InputError
from ghostgrad.data.images import Images
from ghostgrad.data.transforms import TRIES, random_resized_crop_box, resize, standardize
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import generator
from ghostgrad.runs.state import STOP_SIGNALS
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup

TEST_BATCH = 500
OPEN: WeakSet[Iterator] = WeakSet()  # with workers


class EpochSampler:
    """Which training images a step sees, and the random numbers of their augmentation."""

    def __init__(self, spec: ClassifySpec | DetectSpec, count: int, group: ProcessGroup, device: torch.device | str = "cpu"):
        self.spec, self.count, self.group, self.device = spec, count, group, device
        self.per_epoch = count // spec.batch
        if not self.per_epoch:
            raise InputError(f"{spec.data}: {count} training images do not fill one batch of {spec.batch}")
        self._shuffled = lru_cache(maxsize=1)(self.shuffle)

    def shuffle(self, epoch: int) -> Tensor:
        """The order of an epoch."""
        return torch.randperm(self.count, generator=generator(self.spec.seed, "shuffle", epoch)).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The places of this process's images (B/processes,), and of each its window's corner in the padded image,
        crop (2, n), whether it is flipped, flip (n,), and what `random_resized_crop_box` draws from, resized_crop
        (2 TRIES + 2, n)."""
        epoch, position = divmod(step, self.per_epoch)
        augment, batch = self.spec.augment, self.spec.batch
        pad = self.spec.pad if isinstance(self.spec, ClassifySpec) else 0
        rng, mine = generator(self.spec.seed, "augment", step), self.group.share(batch)
        draws = {}
        if "crop" in augment:
            draws["crop"] = torch.randint(2 * pad + 1, (2, batch), generator=rng)[:, mine]
        if "flip" in augment:
            draws["flip"] = torch.rand(batch, generator=rng)[mine] < 0.5
        if "resized_crop" in augment:
            draws["resized_crop"] = torch.rand(2 * TRIES + 2, batch, generator=rng)[:, mine]
        return self._shuffled(epoch)[position * batch :][mine], draws


class InMemoryLoader:
    """All images on the device as uint8, augmented there in whole batches."""

    def __init__(
        self, spec: ClassifySpec, images: Images, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ):
        self.spec, self.device, self.group, self.mean_std = spec, device, group, images.mean_std
        self.x, self.y = (torch.from_numpy(part).to(device) for part in (images.train_x, images.train_y))
        self.test_x, self.test_y = (torch.from_numpy(part).to(device) for part in (images.test_x, images.test_y))
        self.order = EpochSampler(spec, len(self.y), group, device)
        self.per_epoch = self.order.per_epoch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's images (B/processes, 3, H, W) and labels of one step."""
        chosen, draws = self.order(step)
        x = resize(self.x[chosen].float().div_(255), self.spec.size)
        x = augment(x, self.spec.pad, draws)
        return standardize(x, self.spec.standardize, self.mean_std), self.y[chosen]

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the test images and labels, without augmentation."""
        chunks = zip(self.test_x.split(TEST_BATCH), self.test_y.split(TEST_BATCH), strict=True)
        for x, y in itertools.islice(chunks, self.group.rank, None, self.group.size):
            x = resize(x.float().div_(255), self.spec.size)
            yield standardize(x, self.spec.standardize, self.mean_std), y


class StreamingLoader:
    """Images on disk, decoded and augmented as uint8 by worker processes that run ahead of the training."""

    def __init__(
        self, spec: ClassifySpec, images: Images, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ):
        self.spec, self.images, self.device, self.group = spec, images, device, group
        self.workers = loader_workers()
        self.order = EpochSampler(spec, len(images.train_y), group)
        self.per_epoch = self.order.per_epoch
        self._step, self._batch, self._coming = -1, None, None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's images (B/processes, 3, H, W) and labels of one step; a probe asks for a step twice."""
        if step != self._step:
            if self._coming is None or step != self._step + 1:
                batches = TrainBatches(self.spec, self.images, self.order)
                self._coming = stream(batches, itertools.count(step), self.device, self.workers)
            self._batch, self._step = next(self._coming), step
        return self._finish(*self._batch)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the test images and labels, without augmentation."""
        mine = range(self.group.rank, math.ceil(len(self.images.test_y) / TEST_BATCH), self.group.size)
        for x, y in stream(TestBatches(self.images), mine, self.device, self.workers):
            yield self._finish(x, y)

    def _finish(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return standardize(x.float().div_(255), self.spec.standardize, self.images.mean_std), y


class TrainBatches(Dataset):
    """Step -> uint8 images (B/processes, 3, H, W), augmented, and labels; an InputError is handed over, because what a
    worker raises arrives as text of many lines."""

    def __init__(self, spec: ClassifySpec, images: Images, order: EpochSampler):
        self.files, self.y, self.spec, self.order = images.train_x, torch.from_numpy(images.train_y), spec, order

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor] | InputError:
        chosen, draws = self.order(step)
        try:
            if "resized_crop" in draws:
                x = [self._cut(*one) for one in zip(chosen.tolist(), draws["resized_crop"].T.tolist(), strict=True)]
            else:
                x = [self.files[index] for index in chosen.tolist()]
        except InputError as error:
            return error
        return augment(torch.stack(x), self.spec.pad, draws), self.y[chosen]

    def _cut(self, index: int, draws: Sequence[float]) -> Tensor:
        from torchvision.transforms.v2 import functional  # torchvision takes seconds, and few runs need it

        x = self.files.decode(index)
        cut = functional.crop(x, *random_resized_crop_box(*x.shape[1:], draws))
        cut = cut.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # which the resizing would copy twice
        return functional.resize(cut, [self.spec.size] * 2, antialias=True)


class TestBatches(Dataset):
    """Number of a chunk -> uint8 images (TEST_BATCH, 3, H, W), the last fewer, and labels; errors as above."""

    def __init__(self, images: Images):
        self.files, self.y = images.test_x, torch.from_numpy(images.test_y)

    def __getitem__(self, chunk: int) -> tuple[Tensor, Tensor] | InputError:
        y = self.y[chunk * TEST_BATCH :][:TEST_BATCH]
        try:
            return torch.stack([self.files[chunk * TEST_BATCH + index] for index in range(len(y))]), y
        except InputError as error:
            return error


def open_batches(
    spec: ClassifySpec, images: Images, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
) -> InMemoryLoader | StreamingLoader:
    """The batches of a run, from memory or from files as its images are; InputError where they do not fill one."""
    loader = InMemoryLoader if isinstance(images.train_x, np.ndarray) else StreamingLoader
    return loader(spec, images, device, group)


def loader_workers() -> int:
    """GHOSTGRAD_LOADER_WORKERS, else one for each thread of the run but one; 0 decodes in the run's own process."""
    text = os.environ.get("GHOSTGRAD_LOADER_WORKERS") or str(torch.get_num_threads() - 1)
    if not text.isdecimal():
        raise InputError(f"GHOSTGRAD_LOADER_WORKERS: '{text}' is no number of processes; give 0 or more, or unset it")
    return int(text)


def stream(batches: Dataset, places: Iterable[int], device: torch.device, workers: int) -> Iterator[Any]:
    """`batches` at `places`, on the device. The workers end when the iterator is dropped, or with the process."""
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=places,
        num_workers=workers,
        worker_init_fn=_leave_signals,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,  # the list of files is shared, not copied
        generator=torch.Generator(),  # else it draws from the global one
    )
    found = _to_device(iter(loader), device)
    OPEN.add(found)
    for change in (atexit.unregister, atexit.register):  # before torch's own end, of five seconds for each worker
        change(_close)
    return found


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors in tuples, lists and dicts, on the device; what else there is, as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return type(value)(_moved(part, device) for part in value) if isinstance(value, (tuple, list)) else value


def _to_device(batches: Iterator, device: torch.device) -> Iterator[Any]:
    """What the workers of `batches` hand over. An error lets go of them first: it may be held for long."""
    told = ""
    try:
        for found in batches:
            if isinstance(found, InputError):
                raise found
            yield _moved(found, device)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        told = f"a process that reads images has ended ({str(error).splitlines()[0]})"
    finally:
        del batches
    if told:
        raise InputError(f"{told}; give the run more memory, or set GHOSTGRAD_LOADER_WORKERS to fewer")


def _close() -> None:
    for batches in list(OPEN):
        batches.close()


def _leave_signals(_worker: int) -> None:
    """Obey the run alone: where all its processes are told to stop, it needs images until it has saved itself."""
    run = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def watch() -> None:
        while signal.sigwaitinfo(STOP_SIGNALS).si_pid != run:
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def augment(x: Tensor, pad: int, draws: Mapping[str, Tensor]) -> Tensor:
    """Images (N, 3, H, W) of any type, cropped and flipped as EpochSampler has drawn; flipped in place."""
    if "crop" in draws:
        x = random_crop(x, pad, draws["crop"])
    if "flip" in draws:
        flipped = draws["flip"].nonzero().flatten().to(x.device)
        x[flipped] = x[flipped].flip(-1)
    return x


def random_crop(x: Tensor, pad: int, corners: Tensor) -> Tensor:
    """Pad (N, C, H, W) by `pad` zeros on every side and cut an H x W window from each image, its top and left edge in
    `corners` (2, N), 0 to 2 pad."""
    n, _, height, width = x.shape
    top, left = corners.to(x.device)
    windows = F.pad(x, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=x.device), :, top, left]
