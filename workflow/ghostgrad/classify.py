"""Train an image classifier, from the first step to the last, as one loop.

All images are held on the device; which images a step sees and how they are augmented follow from the seed, the epoch
and the step alone, so that a resumed run repeats exactly what an undisturbed one does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad import init, models, optim, probes
from ghostgrad.checks import InputError
from ghostgrad.data import Images, standardize
from ghostgrad.per_sample import SampleNorms
from ghostgrad.record import PROBE_COLUMNS, Record, Rows
from ghostgrad.rng import generator
from ghostgrad.schedules import learning_rate
from ghostgrad.state import State

log = logging.getLogger(__name__)

SERIES_COLUMNS = ("step", "at", "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Plan:
    """Lengths and positions of a run in steps, converted from the paper's units and shrunk."""

    spec: Mapping[str, Any]
    per_epoch: int

    def __post_init__(self) -> None:
        values, boundaries = len(self.spec["lr_values"]), len(self.spec["lr_boundaries"])
        if values not in (0, boundaries):
            raise InputError(f"lr_values: {values} rates for {boundaries} lr_boundaries; give one for each")

    def steps(self, value: float) -> int:
        """A positive length is at least one step; 0 stays 0."""
        in_steps = value * (self.per_epoch if self.spec["unit"] == "epoch" else 1)
        return max(1, round(in_steps / self.spec["shrink"])) if value else 0

    @property
    def length(self) -> int:
        return self.steps(self.spec["length"])

    @property
    def boundaries(self) -> list[int]:
        return [self.steps(boundary) for boundary in self.spec["lr_boundaries"]]

    @property
    def warmup(self) -> int:
        return self.steps(self.spec["warmup"])

    @property
    def probes(self) -> dict[int, float]:
        """Step -> the paper's position; where two positions shrink to one step, the first is kept."""
        positions = sorted(self.spec["probe_at"], reverse=True)
        return {self.steps(at): at for at in positions} if self.spec["probes"] else {}

    def at(self, step: int) -> float:
        """The paper's position of a step."""
        return step * self.spec["shrink"] / (self.per_epoch if self.spec["unit"] == "epoch" else 1)

    def evaluates(self, step: int) -> bool:
        every = self.steps(self.spec["eval_every"])
        return step == self.length or bool(every and step and step % every == 0)


class Batches:
    """The training images on the device, shuffled per epoch and augmented per step."""

    def __init__(self, spec: Mapping[str, Any], images: Images, device: torch.device):
        self.spec, self.device = spec, device
        self.x = torch.from_numpy(images.train_x).to(device)
        self.y = torch.from_numpy(images.train_y).to(device)
        self.per_epoch = len(self.y) // spec["batch"]
        if not self.per_epoch:
            raise InputError(f"{spec['data']}: {len(self.y)} training images do not fill one batch of {spec['batch']}")
        self._order = lru_cache(maxsize=1)(self._shuffle)

    def _shuffle(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.y), generator=generator(self.spec["seed"], "shuffle", epoch)).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B,) of one step."""
        epoch, position = divmod(step, self.per_epoch)
        chosen = self._order(epoch)[position * self.spec["batch"] :][: self.spec["batch"]]
        x = self.x[chosen].float() / 255
        rng = generator(self.spec["seed"], "augment", step)
        if "crop" in self.spec["augment"]:
            x = random_crop(x, self.spec["pad"], rng)
        if "flip" in self.spec["augment"]:
            flip = torch.rand(len(x), generator=rng).to(self.device) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(-1), x)
        return standardize(self.spec, x), self.y[chosen]


def random_crop(x: Tensor, pad: int, rng: torch.Generator) -> Tensor:
    """Pad (N, C, H, W) by `pad` zeros on every side and cut a random H x W window from each image."""
    n, _, height, width = x.shape
    top, left = torch.randint(2 * pad + 1, (2, n), generator=rng).to(x.device)
    rows = top[:, None, None] + torch.arange(height, device=x.device)[:, None]
    columns = left[:, None, None] + torch.arange(width, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, (pad,) * 4)[image, :, rows, columns].permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def evaluate(spec: Mapping[str, Any], model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent on uint8 images, with BN's running statistics."""
    model.eval()
    loss = correct = 0.0
    for images, labels in zip(x.split(500), y.split(500), strict=True):
        logits = model(standardize(spec, images.float() / 255))
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
    model.train()
    return loss / len(y), 100 * correct / len(y)


def new_model(spec: Mapping[str, Any], images: Images) -> nn.Module:
    """The network with its weights drawn. torch's and torchvision's own initialization is drawn while it is built, from
    torch's global generator."""
    rng = generator(spec["seed"], "init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        model = models.build(spec, len(images.classes), images.train_x.shape[1:])
    if spec["init"] != "default":
        init.initialize(model, spec["init"], rng, spec["init_std"])
    return model


def classify(spec: Mapping[str, Any], state: State, device: torch.device, images: Images) -> Record:
    """Train, evaluate and probe one network; a non-finite loss, in training or at the end on the test images,
    is the result `diverged`."""
    batches = Batches(spec, images, device)
    test_x, test_y = torch.from_numpy(images.test_x).to(device), torch.from_numpy(images.test_y).to(device)
    plan = Plan(spec, batches.per_epoch)
    model = new_model(spec, images)
    model.to(device).train()
    optimizer = optim.optimizer(spec, model)
    sample_norms = SampleNorms(model) if spec["optimizer"] == "clars" else None

    micro = spec["micro_batch"] or spec["batch"]
    step, diverged_at = 0, None
    series, probed = Rows(SERIES_COLUMNS), Rows(PROBE_COLUMNS)
    window = {"loss": 0.0, "correct": 0, "images": 0}  # since the last row of the series
    if saved := state.load():
        try:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            remedy = f"({str(error).splitlines()[0]}); delete it to start over"
            raise InputError(f"{state.folder}: a checkpoint of other code {remedy}") from None
        step, window = saved["step"], saved["window"]
        series, probed = Rows(SERIES_COLUMNS, saved["series"]), Rows(PROBE_COLUMNS, saved["probes"])
    log.info("%d of %d steps done on %s", step, plan.length, device)

    def checkpoint() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "window": dict(window),
            "series": series.rows,
            "probes": probed.rows,
        }

    while True:
        state.pause(checkpoint, step, plan.length)
        if step in plan.probes and not any(row[1] == step for row in probed.rows):
            for probe, index, value in probes.measure(spec["probes"], model, *batches(step)):
                probed.add(plan.probes[step], step, probe, index, value)
        if step == plan.length:
            break

        x, y = batches(step)
        rate = learning_rate(spec, step, plan.length, plan.warmup, plan.boundaries)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.zero_grad(set_to_none=True)
        loss = correct = torch.zeros((), device=device)
        with sample_norms.collect() if sample_norms else nullcontext():
            for some, labels in zip(x.split(micro), y.split(micro), strict=True):
                logits = model(some)
                share = F.cross_entropy(logits, labels) * (len(labels) / len(y))
                share.backward()
                loss, correct = loss + share.detach(), correct + (logits.argmax(1) == labels).sum()
        if sample_norms:
            optimizer.sample_norms = sample_norms.means()
        optimizer.step()
        step += 1

        window["loss"] += loss.item() * len(y)
        window["correct"] += int(correct)
        window["images"] += len(y)
        if not math.isfinite(loss.item()):
            diverged_at = step
        if diverged_at or plan.evaluates(step):
            train_loss, train_accuracy = window["loss"] / window["images"], 100 * window["correct"] / window["images"]
            test_loss, test_accuracy = evaluate(spec, model, test_x, test_y)
            epoch = step / batches.per_epoch
            series.add(step, plan.at(step), epoch, rate, train_loss, train_accuracy, test_loss, test_accuracy)
            window = {"loss": 0.0, "correct": 0, "images": 0}
            log.info("step %d: train %.2f %%, test %.2f %%, loss %.4g", step, train_accuracy, test_accuracy, train_loss)
        if diverged_at:
            break

    if not series.rows:
        test_loss, test_accuracy = evaluate(spec, model, test_x, test_y)
        series.add(0, 0.0, 0.0, None, None, None, test_loss, test_accuracy)
    if diverged_at is None and not math.isfinite(series.rows[-1][SERIES_COLUMNS.index("test_loss")]):
        diverged_at = step  # no further training loss shows what the last update broke
    return Record(final_metrics(series, step, diverged_at, model), series, probed)


def final_metrics(series: Rows, steps: int, diverged_at: int | None, model: nn.Module) -> dict[str, Any]:
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
