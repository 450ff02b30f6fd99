"""Images per second and core of ImageNet's input pipeline, beside torchvision's reference pipeline.

The goal is 1.5 times as many.

Ours decodes with torchvision.io, cuts a random window, resizes and flips it as uint8 in the worker,
and normalizes it on the device. The reference uses PIL and RandomResizedCrop, flip, ToTensor and
Normalize. Both run in one process on one thread, on the same JPEGs of ImageNet's typical size: 500
x 375 pixels and about 110 KB, cut from scikit-learn's two photographs.

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
    """Write an ImageFolder of windows of the photographs; return the mean file size in bytes."""
    rng, sizes = np.random.default_rng(0), []
    photographs = load_sample_images().images
    for split, number in (("train", count), ("val", 2)):
        for index in range(number):
            image = Image.fromarray(photographs[index % 2])
            image = image.resize((round(image.width * 1.1), round(image.height * 1.1)))
            x, y = (
                int(rng.integers(0, margin + 1))
                for margin in (image.width - WIDTH, image.height - HEIGHT)
            )
            path = root / split / str(index % 2) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.crop((x, y, x + WIDTH, y + HEIGHT)).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return round(statistics.mean(sizes))


def ours(root: Path) -> Callable[[], int]:
    """Return a function that reads an epoch as a worker and the device do.

    It returns the number of images.
    """
    spec = expand("classify", SPEC)
    scanned = folders.scan("images", str(root))
    train, test = scanned.resized(SIDE, 256)
    images = Images(
        train, scanned.train_y, test, scanned.test_y, scanned.classes, IMAGENET_MEAN_STD
    )
    order = batches.EpochSampler(spec, len(scanned.train_y), batches.SINGLE_PROCESS)
    training = batches.TrainBatches(spec, images, order)

    def epoch() -> int:
        for step in range(order.steps_per_epoch):
            x, _ = training[step]
            standardize(x.float().div_(255), spec.standardize, IMAGENET_MEAN_STD)
        return order.steps_per_epoch * spec.batch

    return epoch


def reference(root: Path) -> Callable[[], int]:
    """Return a function that does the same as that of `ours` with torchvision's transforms."""
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
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), options.images)
        pipelines = {"ours": ours(Path(folder)), "reference": reference(Path(folder))}
        speeds: dict[str, list[float]] = {name: [] for name in pipelines}
        for _ in range(options.rounds + 1):
            for name, epoch in pipelines.items():
                started = time.perf_counter()
                speeds[name].append(epoch() / (time.perf_counter() - started))
    ratios = [
        our_speed / reference_speed
        for our_speed, reference_speed in zip(
            speeds["ours"][1:], speeds["reference"][1:], strict=True
        )
    ]
    for name, values in speeds.items():
        speed = statistics.median(values[1:])
        print(f"{name:10} {speed:7.1f} images/s per core, JPEGs of {size / 1000:.0f} KB")
    low, high = min(ratios), max(ratios)
    print(f"ratio {statistics.median(ratios):.2f} (rounds {low:.2f} to {high:.2f}; goal: 1.5)")


if __name__ == "__main__":
    main()
