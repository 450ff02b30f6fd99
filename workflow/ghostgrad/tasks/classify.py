"""Train an image classifier, from the first step to the last, as one loop.

What is drawn from which random stream (`rng.generator`), and the position in it:

    init            the initial weights, at 0
    shuffle         the order of the training images, at the epoch
    augment         crops and flips, at the step
    dropout/<rank>  the masks of Dropout, at the step
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from ghostgrad.data.image_sets import load_images
from ghostgrad.data.images import Images
from ghostgrad.files import Cell
from ghostgrad.models import init
from ghostgrad.models.build import build_network
from ghostgrad.models.network import ProbedNetwork
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.rng import generator
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks.progress import Progress
from ghostgrad.training import probes
from ghostgrad.training.checkpoint import restore_checkpoint, training_state
from ghostgrad.training.distributed import SINGLE_PROCESS, Follower, ProcessGroup
from ghostgrad.training.engine import Network, configure
from ghostgrad.training.loader import InMemoryLoader, StreamingLoader, open_loader
from ghostgrad.training.optimizers.build import build_optimizer
from ghostgrad.training.optimizers.lars import CLARS
from ghostgrad.training.per_sample import SampleNorms
from ghostgrad.training.schedules import StepSchedule

log = logging.getLogger(__name__)

Loader: TypeAlias = InMemoryLoader | StreamingLoader
SERIES_COLUMNS = (
    "step",
    "at",
    "epoch",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
)
RUNNING_TOTALS = ("train_loss", "train_accuracy")


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
def evaluate(network: Network, loader: Loader) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent on the test images, with BN's running statistics.

    Every process computes its share of the images and returns the result for all of them.
    """
    # BN's running statistics differ between processes, which see different images. Those of
    # process 0 count: they are what its checkpoints and weights.pt hold.
    network.group.broadcast_buffers(network.model)
    network.model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=network.device)
    for x, y in loader.test_batches():
        logits = network(x)
        sums[0] += F.cross_entropy(logits, y, reduction="sum")
        sums[1] += (logits.argmax(1) == y).sum()
        sums[2] += len(y)
    network.model.train()
    loss, correct, images = network.group.all_reduce_sum(sums).tolist()
    return loss / images, 100 * correct / images


def new_model(spec: ClassifySpec, images: Images) -> ProbedNetwork:
    """The network with its initial weights, the same in every process."""
    rng = generator(spec.seed, "init")
    # torch's and torchvision's own initialization draws from torch's global CPU generator while the
    # network is built; it starts from the same stream and is put back afterwards.
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
    """Train, evaluate and probe one network.

    A loss that is not finite, in training or at the end on the test images, is the result
    `diverged`. Raises Stopped where the run is asked to stop; it has saved itself then.
    """
    configure(spec)
    loader = open_loader(spec, images, device, group)
    schedule = StepSchedule(spec, loader.steps_per_epoch)
    # `network` computes (precision, compilation, processes); `model` holds the parameters that are
    # trained and saved.
    network = Network(spec, new_model(spec, images), device, group)
    model = network.model.train()
    optimizer = build_optimizer(spec, model)
    # CLARS needs the mean norm of the samples' gradients, which hooks collect in the backward pass.
    sample_norms = SampleNorms(model) if spec.optimizer == "clars" else None

    progress = Progress.start(SERIES_COLUMNS, RUNNING_TOTALS)
    diverged_at: int | None = None
    # Process 0 alone has checkpoints; the others are sent what it has read.
    if saved := group.broadcast_object(state.load()):
        restore_checkpoint(saved, spec, model, optimizer, group.size, state.folder)
        progress.restore(saved, state.folder)
    log.info("%d of %d steps done on %s", progress.step, schedule.length, device)

    def checkpoint() -> dict[str, Any]:
        return training_state(spec, model, optimizer, group.size) | progress.state_dict()

    while True:
        step = progress.step  # updates made so far; every random draw below follows from it

        # The checkpoint comes before the probe. It holds no row of a probe at this step, so a
        # resumed run, which begins here, measures it again: no row is lost and none is there
        # twice. A request to stop is answered here and nowhere else in a step: if an evaluation
        # outlasts the notice, the run falls back to its last periodic checkpoint.
        state.checkpoint_if_due(checkpoint, step, schedule.length)

        # The probe at t sees the weights after t updates and the batch of the update that follows.
        # The loop ends below the probe, because a probe may also be due after the last update.
        # `position` is the step in the spec's unit; it is recorded in the column `at`.
        position = schedule.probe_positions.get(step)
        if position is not None:
            for quantity, index, value in probe_on_rank_zero(network, spec, loader, step):
                progress.probes.add(position, step, quantity, index, value)
        if step == schedule.length:
            break

        # The loader returns this process's share of the batch: x (batch/processes, 3, H, W),
        # augmented and standardized, and y (batch/processes,). It draws from the streams `shuffle`
        # at the epoch and `augment` at the step.
        x, y = loader(step)

        # The learning rate is a function of the step, not a state that would have to be saved.
        # Every rule reads it in optimizer.step(); lars and clars also put it into the momentum
        # buffer (formulas: training/optimizers/__init__.py). `scale` is the factor of a group.
        learning_rate = schedule.learning_rate(step)
        for param_group in optimizer.param_groups:
            param_group["lr"] = learning_rate * param_group["scale"]

        # Gradients of micro-batches add up, so those of the previous step must be cleared. Loss and
        # gradient are those of the weights before the update, averaged over all processes; the
        # gradient includes the orthogonal penalty, the loss does not. `correct` counts over all
        # processes. Dropout draws its masks from the stream `dropout/<rank>` at the step.
        optimizer.zero_grad(set_to_none=True)
        with sample_norms.collect() if sample_norms else nullcontext():
            loss, correct = network.forward_backward(x, y, step)
        if sample_norms and isinstance(optimizer, CLARS):
            optimizer.sample_norms = sample_norms.means(group)

        # Weight decay, momentum and trust ratios are applied inside optimizer.step(). The probe
        # `updates` compares the weights before it with those after it.
        is_probed = position is not None and group.rank == 0
        measures_update = is_probed and "updates" in spec.probes
        weights_before = probes.copy_weights(model) if measures_update else None
        optimizer.step()
        if weights_before is not None:
            for quantity, index, value in probes.measure_update(weights_before, model, optimizer):
                progress.probes.add(position, step, quantity, index, value)

        # Both totals are sums over images; the next row of the series divides them by the number of
        # images.
        progress.step += 1
        progress.add({"train_loss": loss * spec.batch, "train_accuracy": 100 * correct}, spec.batch)

        # A loss that is not finite ends the run, in every process: all have the same mean loss.
        # The result of a diverged run is the accuracy of the network that it ended with, so the
        # network is evaluated once more. The update with the gradient of this loss has been made.
        if not math.isfinite(loss):
            diverged_at = progress.step
        if diverged_at is not None or schedule.evaluates_at(progress.step):
            _evaluate_and_record(progress, schedule, learning_rate, network, loader)
        if diverged_at is not None:
            break

    if not progress.series.rows:  # length 0: the network as it was initialized
        _evaluate_and_record(progress, schedule, None, network, loader)
    if diverged_at is None and not math.isfinite(progress.numbers("test_loss")[-1]):
        # The loss of a step is that of the weights before its update, so that what the last
        # update broke shows on the test images only.
        diverged_at = progress.step
    metrics = final_metrics(progress, diverged_at, model)
    return Record(metrics, progress.series, progress.probes, model.state_dict())


def _evaluate_and_record(
    progress: Progress,
    schedule: StepSchedule,
    learning_rate: float | None,
    network: Network,
    loader: Loader,
) -> None:
    """Evaluate the network and add a row to the series: the training's means since the last one,
    and the learning rate of the last update."""
    means = progress.take_means()
    test_loss, test_accuracy = evaluate(network, loader)
    step = progress.step
    progress.series.add(
        step,
        schedule.position(step),
        step / loader.steps_per_epoch,
        learning_rate,
        means["train_loss"],
        means["train_accuracy"],
        test_loss,
        test_accuracy,
    )
    if learning_rate is not None:
        log.info(
            "step %d: train %.2f %%, test %.2f %%, loss %.4g",
            step,
            means["train_accuracy"],
            test_accuracy,
            means["train_loss"],
        )


def probe_on_rank_zero(
    network: Network, spec: ClassifySpec, loader: Loader, step: int
) -> list[tuple[str, int, float]]:
    """(quantity, index, value) of everything that the spec's probes measure.

    Each is the mean over `probe_batches` batches, those of `step` and of the steps that follow. Of
    a batch only the first micro-batch counts, which is what BN sees at a time, so that the values
    do not depend on the number of processes; process 0 measures them and the others return nothing.
    """
    if network.group.rank != 0:
        return []
    means: dict[tuple[str, int], float] = defaultdict(float)
    for batch_step in range(step, step + spec.probe_batches):
        x, y = loader(batch_step)
        # The masks that Dropout will draw, or would draw, in the update with this batch.
        with network.dropout_rng(batch_step):
            measured = probes.measure(
                spec.probes, network.model, x[: network.micro_batch], y[: network.micro_batch]
            )
            for quantity, index, value in measured:
                means[quantity, index] += value / spec.probe_batches
    return [(quantity, index, mean) for (quantity, index), mean in means.items()]


def final_metrics(progress: Progress, diverged_at: int | None, model: nn.Module) -> dict[str, Cell]:
    """What metrics.csv holds: the last row of the series and the best test accuracy, in percent."""
    last = progress.last_row()
    return {
        "status": "done" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "steps": progress.step,
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(progress.numbers("test_accuracy")),
        "test_loss": last["test_loss"],
        "train_accuracy": last["train_accuracy"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
