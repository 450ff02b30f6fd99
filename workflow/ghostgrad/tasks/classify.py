"""Train an image classifier, from the first step to the last, as one loop."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ghostgrad.data.image_sets import load_images
from ghostgrad.data.images import Images
from ghostgrad.files import CsvTable
from ghostgrad.models import init
from ghostgrad.models.build import build_network
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.rng import generator
from ghostgrad.runs.record import PROBE_COLUMNS, Record
from ghostgrad.runs.state import State
from ghostgrad.training import optim, probes
from ghostgrad.training.distributed import SINGLE_PROCESS, Follower, ProcessGroup
from ghostgrad.training.engine import Network, configure, restore
from ghostgrad.training.loader import InMemoryLoader, StreamingLoader, open_batches
from ghostgrad.training.per_sample import SampleNorms
from ghostgrad.training.schedules import StepSchedule

log = logging.getLogger(__name__)

SERIES_COLUMNS = ("step", "at", "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def load_data(spec: ClassifySpec, manifest: Path) -> Images:
    """The images of a run; those of a folder in memory or on disk, at the spec's size."""
    return load_images(
        spec.data,
        manifest,
        size=spec.size,
        test_side=spec.test_side,
        on_disk=spec.input == "files",
        resized=spec.resized > 0,
    )


@torch.no_grad()
def evaluate(network: Network, batches: InMemoryLoader | StreamingLoader) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent on the test images, with BN's running statistics."""
    network.group.broadcast_buffers(network.model)
    network.model.eval()
    found = torch.zeros(3, dtype=torch.float64, device=network.device)
    for x, y in batches.test():
        logits = network(x)
        found[0] += F.cross_entropy(logits, y, reduction="sum")
        found[1] += (logits.argmax(1) == y).sum()
        found[2] += len(y)
    network.model.train()
    loss, correct, images = network.group.all_reduce_sum(found).tolist()
    return loss / images, 100 * correct / images


def new_model(spec: ClassifySpec, images: Images) -> nn.Module:
    """The network with its weights drawn. torch's and torchvision's own initialization is drawn while it is built, from
    torch's global generator."""
    rng = generator(spec.seed, "init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        model = build_network(spec, len(images.classes), images.train_x.shape[1:])
    if spec.init != "default":
        init.initialize(model, spec.init, rng, spec.init_std)
    return model


def classify(
    spec: ClassifySpec,
    state: State | Follower,
    device: torch.device,
    images: Images,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Record:
    """Train, evaluate and probe one network; a non-finite loss, in training or at the end on the test images,
    is the result `diverged`."""
    configure(spec)
    batches = open_batches(spec, images, device, group)
    plan = StepSchedule(spec, batches.per_epoch)
    network = Network(spec, new_model(spec, images), device, group)
    model = network.model.train()
    optimizer = optim.optimizer(spec, model)
    sample_norms = SampleNorms(model) if spec.optimizer == "clars" else None

    step, diverged_at = 0, None
    series, probed = CsvTable(SERIES_COLUMNS), CsvTable(PROBE_COLUMNS)
    window = {"loss": 0.0, "correct": 0, "images": 0}  # since the last row of the series
    if saved := group.broadcast_object(state.load()):
        restore(saved, spec, model, optimizer, group.size, state.folder)
        step, window = saved["step"], saved["window"]
        series, probed = CsvTable(SERIES_COLUMNS, saved["series"]), CsvTable(PROBE_COLUMNS, saved["probes"])
    log.info("%d of %d steps done on %s", step, plan.length, device)

    def checkpoint() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "spec": spec.canonical(),
            "processes": group.size,
            "step": step,
            "window": dict(window),
            "series": series.rows,
            "probes": probed.rows,
        }

    while True:
        state.checkpoint_if_due(checkpoint, step, plan.length)
        at = plan.probes.get(step)
        if at is not None:
            for probe, index, value in probe_on_rank_zero(network, spec, batches, step):
                probed.add(at, step, probe, index, value)
        if step == plan.length:
            break

        x, y = batches(step)
        rate = plan.learning_rate(step)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate * parameters["scale"]
        optimizer.zero_grad(set_to_none=True)
        with sample_norms.collect() if sample_norms else nullcontext():
            loss, correct = network.forward_backward(x, y, step)
        if sample_norms:
            optimizer.sample_norms = sample_norms.means(group)
        before = probes.weights(model) if at is not None and "updates" in spec.probes else None
        optimizer.step()
        if before:
            for probe, index, value in probes.updates(before, model, optimizer):
                probed.add(at, step, probe, index, value)
        step += 1

        window["loss"] += loss * spec.batch
        window["correct"] += correct
        window["images"] += spec.batch
        if not math.isfinite(loss):
            diverged_at = step
        if diverged_at or plan.evaluates(step):
            train_loss, train_accuracy = window["loss"] / window["images"], 100 * window["correct"] / window["images"]
            test_loss, test_accuracy = evaluate(network, batches)
            epoch = step / batches.per_epoch
            series.add(step, plan.at(step), epoch, rate, train_loss, train_accuracy, test_loss, test_accuracy)
            window = {"loss": 0.0, "correct": 0, "images": 0}
            log.info("step %d: train %.2f %%, test %.2f %%, loss %.4g", step, train_accuracy, test_accuracy, train_loss)
        if diverged_at:
            break

    if not series.rows:
        test_loss, test_accuracy = evaluate(network, batches)
        series.add(0, 0.0, 0.0, None, None, None, test_loss, test_accuracy)
    if diverged_at is None and not math.isfinite(series.rows[-1][SERIES_COLUMNS.index("test_loss")]):
        diverged_at = step  # no further training loss shows what the last update broke
    return Record(final_metrics(series, step, diverged_at, model), series, probed, model.state_dict())


def probe_on_rank_zero(
    network: Network, spec: ClassifySpec, batches: InMemoryLoader | StreamingLoader, step: int
) -> list[tuple[str, int, float]]:
    """(probe, index, value), means over `probe_batches` batches, that of `step` and those behind it, of each the images
    that BN sees first, with its masks; of process 0, whatever the number of processes."""
    if network.group.rank != 0:
        return []
    means: dict[tuple[str, int], float] = defaultdict(float)
    for place in range(step, step + spec.probe_batches):
        x, y = batches(place)
        with network.dropout_rng(place):
            for probe, index, value in probes.measure(
                spec.probes, network.model, x[: network.micro], y[: network.micro]
            ):
                means[probe, index] += value / spec.probe_batches
    return [(*key, mean) for key, mean in means.items()]


def final_metrics(series: CsvTable, steps: int, diverged_at: int | None, model: nn.Module) -> dict[str, Any]:
    """What metrics.csv holds: the last row of the series and the best test accuracy."""
    last = dict(zip(SERIES_COLUMNS, series.rows[-1], strict=True))
    return {
        "status": "done" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "steps": steps,
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(row[SERIES_COLUMNS.index("test_accuracy")] for row in series.rows),
        "test_loss": last["test_loss"],
        "train_accuracy": last["train_accuracy"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }
