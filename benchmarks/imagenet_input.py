"""Images a second and core of ImageNet's input, beside torchvision's reference pipeline (goal: 1.5 times as many).

Ours: torchvision.io's decoder, a random window, resized and flipped as uint8 in the worker, normalized on the device.
The reference's: PIL, RandomResizedCrop, flip, ToTensor, Normalize. Both in one process on one thread, on the same JPEGs
of ImageNet's typical size, 500 x 375 and about 110 KB, cut from scikit-learn's two photographs.

    python benchmarks/imagenet_input.py [--images 128] [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ghostgrad.data import folders
from ghostgrad.data.images import Images
from ghostgrad.data.transforms import standardize
from ghostgrad.registry.datasets import IMAGENET_MEAN_STD
from ghostgrad.registry.spec import expand
from ghostgrad.training import loader as batches

SIDE, WIDTH, HEIGHT, QUALITY = 224, 500, 375, 98
SPEC = {
    "model": "resnet50",
    "data": "images",
    "input": "files",
    "augment": ["resized_crop", "flip"],
    "size": SIDE,
    "standardize": "per_channel",
    "batch": 32,
    "length": 1,
    "lr": 0.1,
    "seed": 0,
}


def write(root: Path, count: int) -> int:
    """An ImageFolder of windows of the photographs; mean size of a file in bytes."""
    rng, sizes = np.random.default_rng(0), []
    photographs = load_sample_images().images
    for split, number in (("train", count), ("val", 2)):
        for index in range(number):
            image = Image.fromarray(photographs[index % 2])
            image = image.resize((round(image.width * 1.1), round(image.height * 1.1)))
            x, y = (
                int(rng.integers(0, room + 1))
                for room in (image.width - WIDTH, image.height - HEIGHT)
            )
            path = root / split / str(index % 2) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.crop((x, y, x + WIDTH, y + HEIGHT)).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return round(statistics.mean(sizes))


def ours(root: Path) -> Callable[[], int]:
    """An epoch as a worker and the device do it."""
    spec = expand("classify", SPEC)
    found = folders.scan("images", str(root))
    train, test = found.resized(SIDE, 256)
    images = Images(train, found.train_y, test, found.test_y, found.classes, IMAGENET_MEAN_STD)
    order = batches.EpochSampler(spec, len(found.train_y), batches.SINGLE_PROCESS)
    training = batches.TrainBatches(spec, images, order)

    def epoch() -> int:
        for step in range(order.per_epoch):
            x, _ = training[step]
            standardize(x.float().div_(255), spec.standardize, IMAGENET_MEAN_STD)
        return order.per_epoch * spec.batch

    return epoch


def reference(root: Path) -> Callable[[], int]:
    steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(*IMAGENET_MEAN_STD)]
    folder = ImageFolder(str(root / "train"), transforms.Compose(steps))

    def epoch() -> int:
        count = len(folder) // SPEC["batch"] * SPEC["batch"]
        for start in range(0, count, SPEC["batch"]):
            torch.stack([folder[index][0] for index in range(start, start + SPEC["batch"])])
        return count

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), given.images)
        ways, rates = (
            {"ours": ours(Path(folder)), "reference": reference(Path(folder))},
            {"ours": [], "reference": []},
        )
        for _ in range(given.rounds + 1):
            for name, epoch in ways.items():
                began = time.perf_counter()
                rates[name].append(epoch() / (time.perf_counter() - began))
    ratios = [
        mine / theirs
        for mine, theirs in zip(rates["ours"][1:], rates["reference"][1:], strict=True)
    ]
    for name, found in rates.items():
        print(
            f"{name:10} {statistics.median(found[1:]):7.1f} images/s and core, JPEGs of {size / 1000:.0f} KB"
        )
    low, high = min(ratios), max(ratios)
    print(f"ratio {statistics.median(ratios):.2f} (rounds {low:.2f} to {high:.2f}; goal: 1.5)")


if __name__ == "__main__":
    main()
