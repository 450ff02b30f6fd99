"""`ghostgrad calibrate`: how many images a second the trainings of a scale process on this machine's device; and the
networks' parameters, layers and multiply-adds, for workflow/networks.csv."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.cli.estimates import (
    CALIBRATION,
    CLASSES,
    CPU,
    POSITIVE,
    SCENE,
    Counts,
    architecture,
    at_a_time,
    calibration,
    size,
    trains,
    workload,
)
from ghostgrad.data.images import Images
from ghostgrad.files import write_atomically
from ghostgrad.models import mask_rcnn
from ghostgrad.models.build import build_network
from ghostgrad.models.counts import counts, detector_counts
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import generator
from ghostgrad.tasks import classify, detect
from ghostgrad.tasks.run import translate_torch_errors
from ghostgrad.training import optim
from ghostgrad.training.distributed import SINGLE_PROCESS
from ghostgrad.training.engine import Network, configure
from ghostgrad.training.per_sample import SampleNorms

log = logging.getLogger(__name__)
WARM_UP = 3  # steps


def workloads(runs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """What is to be measured of these runs, each once."""
    found: dict[str, RunSpec] = {}
    for run in runs:
        if trains(run) and run.spec.length:
            found.setdefault(workload(run), run)
    return found


def images_per_s(run: RunSpec, device: torch.device, steps: int) -> float:
    """Of `steps` steps of one process, forward, backward and update, on random images that lie on the device, as many
    as it has at a time."""
    configure(run.spec)
    step = {"classify": classification, "detect": detection}[run.task](replace(run.spec, batch=at_a_time(run)), device)
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        step(number)
    _wait(device)
    return steps * at_a_time(run) / (time.perf_counter() - began)


def classification(spec: ClassifySpec, device: torch.device) -> Callable[[int], None]:
    """A step of a classifier."""
    spec = replace(spec, micro_batch=spec.batch)
    classes, side = CLASSES[spec.data], size(spec)
    rng = generator(0, "calibrate")
    x = torch.randn(spec.batch, 3, side, side, generator=rng)
    y = torch.randint(classes, (spec.batch,), generator=rng)
    shape = torch.empty(0, 3, side, side, dtype=torch.uint8).numpy()
    model = classify.new_model(spec, Images(shape, y.numpy(), shape, y.numpy(), list(map(str, range(classes)))))
    network = Network(spec, model, device, SINGLE_PROCESS)
    optimizer = optim.optimizer(spec, network.model.train())
    norms = SampleNorms(network.model) if spec.optimizer == "clars" else None
    x, y = x.to(device), y.to(device)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with norms.collect() if norms else nullcontext():
            network.forward_backward(x, y, number)
        if norms:
            optimizer.sample_norms = norms.means(SINGLE_PROCESS)
        optimizer.step()

    return step


def _detector(spec: DetectSpec) -> nn.Module:
    return mask_rcnn.build(spec, mask_rcnn.classifier(spec, 1), CLASSES[spec.data], DATA_SETS[spec.data].mean_std)


def detection(spec: DetectSpec, device: torch.device) -> Callable[[int], None]:
    """A step of a detector on lying and upright images; each has as many objects as regions with a mask are sampled at
    most."""
    classes, rng = CLASSES[spec.data], generator(0, "calibrate")
    net = _detector(spec).to(device).train()
    optimizer = detect.new_optimizer(spec, net)
    count = int(POSITIVE * spec.rois)
    images, targets = [], []
    for place in range(spec.batch):
        height, width = SCENE[spec.data][:: -1 if place % 2 else 1]
        corners = torch.rand(2, count, 2, generator=rng) * torch.tensor([width, height]) * 0.9
        boxes = torch.cat([corners.amin(0), corners.amax(0) + torch.tensor([width, height]) * 0.1], 1)
        masks = torch.ones(count, height, width, dtype=torch.uint8)
        target = {"boxes": boxes, "labels": torch.randint(1, classes + 1, (count,), generator=rng), "masks": masks}
        images.append(torch.rand(3, height, width, generator=rng).to(device))
        targets.append({name: value.to(device) for name, value in target.items()})

    def step(_number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(net(images, targets).values()).backward()
        optimizer.step()

    return step


def _forget(device: torch.device) -> None:
    """What the network before has left: compiled code, of which torch keeps no more than a few, and memory."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{CPU}, {torch.get_num_threads()} threads"


def calibrate(runs: Iterable[RunSpec], device: torch.device, steps: int, state_dir: Path) -> Path:
    """Measure every workload of these runs and put it into <state_dir>/calibration.csv, after what is known of others;
    what does not fit into memory is written without a rate."""
    path, name = state_dir / "calibration.csv", name_of(device)
    todo = workloads(runs)
    calibration(state_dir, "")  # a damaged file is told of before anything is measured
    if not todo:
        raise InputError("calibrate: nothing to measure; only trainings are, on data of a known size")
    for number, (key, run) in enumerate(todo.items(), start=1):
        _forget(device)
        try:
            with translate_torch_errors():
                rate = images_per_s(run, device, steps)
            told = f"{rate:.1f} images/s"
        except InputError as error:
            rate, told = None, str(error)
        peak = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else ""
        _add(path, [key, name, f"{rate:.6g}" if rate else "", peak, torch.__version__])
        rule = getattr(run.spec, "optimizer", run.task)
        how = f"{run.spec.model}, {rule}, {run.spec.precision}, batch {at_a_time(run)}"
        log.info("%d of %d: %s: %s", number, len(todo), how, told)
    return path


def _add(path: Path, row: list[Any]) -> None:
    rows = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [found for found in list(csv.reader(stream))[1:] if found[:2] != row[:2]]
    write_atomically(path, _csv([list(CALIBRATION), *rows, row]))


def _csv(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _counts(task: str, spec: ClassifySpec | DetectSpec) -> tuple[int, int, int]:
    classes, pixels = CLASSES[spec.data], size(spec)
    with torch.device("meta"):
        if task == "detect":
            return detector_counts(_detector(spec), pixels, spec.rois, int(POSITIVE * spec.rois))
        return counts(build_network(spec, classes, (3, pixels, pixels)), pixels)


def networks(runs: Iterable[RunSpec]) -> str:
    """workflow/networks.csv: a row for each network that these runs train."""
    rows: dict[str, tuple[int, int, int]] = {}
    for run in runs:
        if trains(run) and (name := architecture(run)) not in rows:
            rows[name] = _counts(run.task, run.spec)
    return _csv([["architecture", *Counts._fields], *([name, *rows[name]] for name in sorted(rows))])
