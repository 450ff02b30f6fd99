"""Fine-tune Mask R-CNN, from the first step to the last, as one loop (Ghost sec. 5, tab. 2)."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ghostgrad.checks import InputError
from ghostgrad.data import coco
from ghostgrad.data.coco import Scenes, Split
from ghostgrad.data.coco_evaluation import METRICS, average_precision, detection_results
from ghostgrad.data.scene_sets import load_scenes
from ghostgrad.files import CsvTable
from ghostgrad.models import mask_rcnn
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import fork_global_rng, generator
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.training import optim
from ghostgrad.training.distributed import SINGLE_PROCESS, Follower, ProcessGroup
from ghostgrad.training.engine import configure, restore
from ghostgrad.training.loader import EpochSampler, loader_workers, stream
from ghostgrad.training.schedules import StepSchedule

log = logging.getLogger(__name__)

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
SERIES_COLUMNS = ("step", "at", "epoch", "lr", "loss", *LOSSES, *METRICS)


def load_data(spec: DetectSpec, manifest: Path) -> Scenes:
    """The scenes of a run."""
    return load_scenes(spec.data, manifest)


class Training(Dataset):
    """Step -> this process's images, uint8 (3, H, W) each, and their targets; errors are handed over."""

    def __init__(self, scenes: Scenes, split: Split, order: EpochSampler):
        self.scenes, self.split, self.order = scenes, split, order

    def __getitem__(self, step: int) -> tuple[list[Tensor], list[dict[str, Tensor]]] | InputError:
        chosen, draws = self.order(step)
        images, targets = [], []
        try:
            for place, index in enumerate(chosen.tolist()):
                number = self.split.ids[index]
                x, y = coco.read_image(self.split, number), coco.read_target(self.scenes, self.split, number)
                if "flip" in draws and draws["flip"][place]:
                    x, y = flipped(x, y)
                images.append(x)
                targets.append(y)
        except InputError as error:
            return error
        return images, targets


class Testing(Dataset):
    """Place -> the image's id and the image."""

    def __init__(self, split: Split):
        self.split = split

    def __getitem__(self, place: int) -> tuple[int, Tensor] | InputError:
        try:
            return self.split.ids[place], coco.read_image(self.split, self.split.ids[place])
        except InputError as error:
            return error


def flipped(x: Tensor, y: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its target, left-right."""
    boxes = y["boxes"].clone()
    boxes[:, [0, 2]] = x.shape[-1] - boxes[:, [2, 0]]
    return x.flip(-1), {**y, "boxes": boxes, "masks": y["masks"].flip(-1)}


def new_model(spec: DetectSpec, scenes: Scenes, weights: Mapping[str, Any] | None) -> nn.Module:
    """The detector, drawn; its backbone with the published `weights` where they are given."""
    rng = generator(spec.seed, "init")
    classes = weights["classes"] if weights else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        net = mask_rcnn.classifier(spec, classes)
        if weights:
            net.load_state_dict(weights["state"])
        return mask_rcnn.build(spec, net, len(scenes.classes), scenes.mean_std)


def over_all(group: ProcessGroup, device: torch.device, model: nn.Module) -> nn.Module:
    """The model with the BN that it trains over the images of all processes."""
    if group.size == 1 or not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    if device.type != "cuda":
        raise InputError("backbone_norm: sync in several processes needs GPUs; give the run one process")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def read_weights(path: Path, spec: DetectSpec) -> dict[str, Any]:
    """What another run has published; InputError where it is damaged or of another network."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        found["classes"] = list(found["state"].values())[-1].shape[0]  # the classifier's bias
        theirs = {name: value.shape for name, value in found["state"].items()}
        own = {name: value.shape for name, value in mask_rcnn.classifier(spec, found["classes"]).state_dict().items()}
        model = found["spec"]["model"]
    except Exception as error:  # torch has many for a file that is cut short
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not the weights of a run ({told}); delete it, and it is made again") from None
    if own != theirs:
        other = f"the weights of {model}" if model != spec.model else f"weights of another form of {model}"
        raise InputError(f"{path}: {other}, not of the spec's {spec.model}")
    return found


@torch.no_grad()
def evaluate(
    model: nn.Module, scenes: Scenes, device: torch.device, group: ProcessGroup, pause: Callable[[], None]
) -> dict[str, float]:
    """COCO's average precisions on the test images, every process taking its share of them; `pause` is called before
    each image."""
    model.eval()
    mine = range(group.rank, len(scenes.val.ids), group.size)
    found = []
    for number, x in stream(Testing(scenes.val), mine, device, loader_workers()):
        pause()
        found += detection_results(scenes, number, model([x.float() / 255])[0])
    model.train()
    every = list(itertools.chain.from_iterable(group.gather(found)))
    return group.broadcast_object(average_precision(scenes.val, every) if group.rank == 0 else None)


def detect(
    spec: DetectSpec,
    state: State | Follower,
    device: torch.device,
    scenes: Scenes,
    group: ProcessGroup = SINGLE_PROCESS,
    weights: Path | None = None,
) -> Record:
    """Fine-tune and evaluate one detector; a non-finite loss is the result `diverged`, as are weights that come from a
    run that diverged."""
    configure(spec)
    published = read_weights(weights, spec) if weights else None
    if published and published["status"] == "diverged":
        log.info("%s: the run that it comes from diverged", weights)
        return Record(final_metrics({}, 0, 0, None, "upstream"), CsvTable(SERIES_COLUMNS))
    split = coco.with_objects(scenes.train)
    order = EpochSampler(spec, len(split.ids), group)
    plan = StepSchedule(spec, order.per_epoch)
    model = over_all(group, device, new_model(spec, scenes, published)).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = new_optimizer(spec, model)
    batches: Iterator | None = None

    step, diverged_at, series = 0, None, CsvTable(SERIES_COLUMNS)
    sums, since = dict.fromkeys(LOSSES, 0.0), 0  # since the last row of the series
    if saved := group.broadcast_object(state.load()):
        restore(saved, spec, model, optimizer, group.size, state.folder)
        step, sums, since = saved["step"], saved["sums"], saved["since"]
        series = CsvTable(SERIES_COLUMNS, saved["series"])
    log.info("%d of %d steps done on %s", step, plan.length, device)

    def add_row(precisions: Mapping[str, float | None]) -> None:
        nonlocal sums, since
        means = [sums[name] / since if since else None for name in LOSSES]
        loss, last_rate = (sum(means), plan.learning_rate(step - 1)) if since else (None, None)
        shown = [precisions[name] for name in METRICS]
        series.add(step, plan.at(step), step / order.per_epoch, last_rate, loss, *means, *shown)
        sums, since = dict.fromkeys(LOSSES, 0.0), 0
        log.info("step %d: loss %s, box AP %s, mask AP %s", step, loss, precisions["box_ap"], precisions["mask_ap"])

    def checkpoint() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "spec": spec.canonical(),
            "processes": group.size,
            "step": step,
            "sums": dict(sums),
            "since": since,
            "series": series.rows,
        }

    while True:
        state.checkpoint_if_due(checkpoint, step, plan.length)
        if plan.evaluates(step):
            pause = partial(state.checkpoint_if_due, checkpoint, step, plan.length)
            add_row(evaluate(model, scenes, device, group, pause))
        if step == plan.length:
            break

        batches = batches or stream(Training(scenes, split, order), itertools.count(step), device, loader_workers())
        images, targets = next(batches)
        for parameters in optimizer.param_groups:
            parameters["lr"] = plan.learning_rate(step) * parameters["scale"]
        optimizer.zero_grad(set_to_none=True)
        # torchvision samples anchors and regions from the global generators
        with fork_global_rng(device, generator(spec.seed, f"regions/{group.rank}", step).initial_seed()):
            losses = model([x.float() / 255 for x in images], targets)
            sum(losses.values()).backward()
        for p in trained:  # the same in every process, whatever its images have
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        group.all_reduce_mean([p.grad for p in trained])
        optimizer.step()
        step += 1

        told = group.all_reduce_sum(torch.stack([losses[name].detach() for name in LOSSES]) / group.size).tolist()
        sums, since = {name: sums[name] + value for name, value in zip(LOSSES, told, strict=True)}, since + 1
        if not math.isfinite(sum(told)):
            diverged_at = step
            add_row(dict.fromkeys(METRICS))
            break

    last = dict(zip(SERIES_COLUMNS, series.rows[-1], strict=True))
    return Record(final_metrics(last, step, diverged_at, model), series, weights=model.state_dict())


def new_optimizer(spec: DetectSpec, model: nn.Module) -> torch.optim.SGD:
    """SGD with momentum over what is trained; normalization without weight decay."""
    groups = optim.parameter_groups(model, spec.weight_decay, "all_but_norms", spec.lr_scales)
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, foreach=True)


def final_metrics(
    last: Mapping[str, Any], steps: int, diverged_at: int | None, model: nn.Module | None, reason: str = ""
) -> dict[str, Any]:
    """What metrics.csv holds: the precisions of the last evaluation, in percent."""
    return {
        "status": "done" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "reason": reason,
        "steps": steps,
        **{name: last.get(name) for name in METRICS},
        "loss": last.get("loss"),
        "parameters": sum(p.numel() for p in model.parameters()) if model else None,
    }
