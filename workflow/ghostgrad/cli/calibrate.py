"""`ghostgrad calibrate`: how many images per second the training runs of a scale process on this
machine's device; and the counts of their networks, for workflow/networks.csv."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.cli.estimates import (
    CALIBRATION_COLUMNS,
    CLASSES,
    CPU,
    MASKED_FRACTION,
    SCENE,
    Counts,
    TrainingSpec,
    architecture,
    image_side,
    micro_batch,
    read_calibration,
    training_spec,
    workload,
)
from ghostgrad.data.images import Images
from ghostgrad.files import write_atomically
from ghostgrad.models import mask_rcnn
from ghostgrad.models.build import build_network
from ghostgrad.models.counts import count_detector, count_network
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import generator
from ghostgrad.tasks import classify, detect
from ghostgrad.tasks.run import translate_torch_errors
from ghostgrad.training.distributed import SINGLE_PROCESS
from ghostgrad.training.engine import Network, configure
from ghostgrad.training.optimizers.build import build_optimizer
from ghostgrad.training.optimizers.lars import CLARS
from ghostgrad.training.per_sample import SampleNorms

log = logging.getLogger(__name__)
WARM_UP_STEPS = 3  # compilation, and the choice of convolution algorithms
Step = Callable[[int], None]


def workloads(runs: Iterable[RunSpec]) -> dict[str, TrainingSpec]:
    """What there is to measure of these runs: one spec per workload, with the images that a process
    computes at a time as its batch."""
    specs: dict[str, TrainingSpec] = {}
    for run in runs:
        spec = training_spec(run)
        if spec and spec.length:
            batch = micro_batch(spec, run.gpus)
            specs.setdefault(workload(spec, run.gpus), replace(spec, batch=batch))
    return specs


def images_per_s(spec: TrainingSpec, device: torch.device, steps: int) -> float:
    """Images per second of one process over `steps` training steps: forward, backward and update.

    The images are random and on the device already, so that reading them takes no time.
    """
    configure(spec)
    step = training_step(spec, device)
    for number in range(WARM_UP_STEPS):
        step(number)
    _synchronize(device)
    started = time.perf_counter()
    for number in range(WARM_UP_STEPS, WARM_UP_STEPS + steps):
        step(number)
    _synchronize(device)
    return steps * spec.batch / (time.perf_counter() - started)


def training_step(spec: TrainingSpec, device: torch.device) -> Step:
    """A function that does one training step; its argument is the step's number."""
    if isinstance(spec, DetectSpec):
        return detector_step(spec, device)
    return classifier_step(spec, device)


def classifier_step(spec: ClassifySpec, device: torch.device) -> Step:
    """A training step of a classifier."""
    spec = replace(spec, micro_batch=spec.batch)
    classes, side = CLASSES[spec.data], image_side(spec)
    rng = generator(0, "calibrate")
    x = torch.randn(spec.batch, 3, side, side, generator=rng)
    y = torch.randint(classes, (spec.batch,), generator=rng)
    # The data set only says how many classes there are and how large the images are.
    no_images = torch.empty(0, 3, side, side, dtype=torch.uint8).numpy()
    names = [str(number) for number in range(classes)]
    model = classify.new_model(spec, Images(no_images, y.numpy(), no_images, y.numpy(), names))
    network = Network(spec, model, device, SINGLE_PROCESS)
    optimizer = build_optimizer(spec, network.model.train())
    norms = SampleNorms(network.model) if isinstance(optimizer, CLARS) else None
    x, y = x.to(device), y.to(device)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with norms.collect() if norms else nullcontext():
            network.forward_backward(x, y, number)
        if norms and isinstance(optimizer, CLARS):
            optimizer.sample_norms = norms.means(SINGLE_PROCESS)
        optimizer.step()

    return step


def _new_detector(spec: DetectSpec) -> nn.Module:
    mean_std = DATA_SETS[spec.data].mean_std
    assert mean_std is not None, f"no mean and standard deviation of {spec.data}"
    backbone = mask_rcnn.build_classifier(spec, 1)
    detector: nn.Module = mask_rcnn.build_detector(spec, backbone, CLASSES[spec.data], mean_std)
    return detector


def masked_regions(spec: DetectSpec) -> int:
    """The most regions of an image for which a detector predicts a mask in training."""
    return int(MASKED_FRACTION * spec.rois)


def detector_step(spec: DetectSpec, device: torch.device) -> Step:
    """A training step of a detector.

    Every second image is upright, the others are wider than high. Each has as many objects as there
    are regions with a mask, so that the mask head has as much to do as it ever has.
    """
    rng = generator(0, "calibrate")
    detector = _new_detector(spec).to(device).train()
    optimizer = detect.new_optimizer(spec, detector)
    images: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    for position in range(spec.batch):
        short, long = SCENE[spec.data]
        height, width = (long, short) if position % 2 else (short, long)
        target = _random_objects(masked_regions(spec), CLASSES[spec.data], height, width, rng)
        images.append(torch.rand(3, height, width, generator=rng).to(device))
        targets.append({name: value.to(device) for name, value in target.items()})

    def step(_number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = detector(images, targets)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()

    return step


def _random_objects(
    count: int, classes: int, height: int, width: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """`count` objects in an image, as torchvision's detectors take them."""
    size = torch.tensor([width, height])
    corners = torch.rand(2, count, 2, generator=rng) * size * 0.9
    # At least a tenth of the image, so that no box is empty.
    boxes = torch.cat([corners.amin(0), corners.amax(0) + size * 0.1], 1)
    masks = torch.ones(count, height, width, dtype=torch.uint8)
    labels = torch.randint(1, classes + 1, (count,), generator=rng)
    return {"boxes": boxes, "labels": labels, "masks": masks}


def _clear_device(device: torch.device) -> None:
    """Drop what the last network has left: its memory, and compiled code, of which torch keeps only
    a few versions before it stops compiling."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The GPU's name, or `cpu` with the number of threads, on which its speed depends."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{CPU}, {torch.get_num_threads()} threads"


def calibrate(runs: Iterable[RunSpec], device: torch.device, steps: int, state_dir: Path) -> Path:
    """Measure every workload of these runs and write them to <state_dir>/calibration.csv.

    The file keeps the rows of other workloads and devices. A workload that does not fit into memory
    gets a row without a speed. Returns the file's path.
    """
    path = state_dir / "calibration.csv"
    specs = workloads(runs)
    read_calibration(state_dir, "")  # a damaged file is an error now, not after the measurements
    if not specs:
        raise InputError(
            "calibrate: nothing to measure; only training runs on data of a known size are measured"
        )
    for number, (key, spec) in enumerate(specs.items(), start=1):
        _clear_device(device)
        speed = ""
        try:
            with translate_torch_errors():
                measured = images_per_s(spec, device, steps)
            speed = f"{measured:.6g}"
            outcome = f"{measured:.1f} images/s"
        except InputError as error:
            outcome = str(error)
        is_cuda = device.type == "cuda"
        peak_mb = str(torch.cuda.max_memory_allocated(device) // 2**20) if is_cuda else ""
        _replace_row(path, [key, device_name(device), speed, peak_mb, torch.__version__])
        optimizer = spec.optimizer if isinstance(spec, ClassifySpec) else spec.task
        settings = f"{spec.model}, {optimizer}, {spec.precision}, batch {spec.batch}"
        log.info("%d of %d: %s: %s", number, len(specs), settings, outcome)
    return path


def _replace_row(path: Path, row: list[str]) -> None:
    """Write a row to the calibration, in place of one of the same workload and device."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [known for known in list(csv.reader(stream))[1:] if known[:2] != row[:2]]
    write_atomically(path, _csv_text([CALIBRATION_COLUMNS, *rows, row]))


def _csv_text(rows: Iterable[Sequence[str | int]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _count(spec: TrainingSpec) -> tuple[int, int, int]:
    side = image_side(spec)
    with torch.device("meta"):  # without memory for the weights
        if isinstance(spec, DetectSpec):
            return count_detector(_new_detector(spec), side, spec.rois, masked_regions(spec))
        return count_network(build_network(spec, CLASSES[spec.data], (3, side, side)), side)


def networks_csv(runs: Iterable[RunSpec]) -> str:
    """The text of workflow/networks.csv, with a row for each network that these runs train."""
    rows: dict[str, tuple[int, int, int]] = {}
    for run in runs:
        spec = training_spec(run)
        if spec and architecture(spec) not in rows:
            rows[architecture(spec)] = _count(spec)
    lines: list[list[str | int]] = [[name, *rows[name]] for name in sorted(rows)]
    return _csv_text([["architecture", *Counts._fields], *lines])
