"""Fine-tune Mask R-CNN, from the first step to the last, as one loop (Ghost sec. 5, tab. 2).

What is drawn from which random stream (`rng.generator`), and the position in it:

    init            the initial weights, at 0
    shuffle         the order of the training images, before they are grouped, at the epoch
    augment         which images are mirrored, at the step
    regions/<rank>  torchvision's samples of anchors and regions, at the step
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from ghostgrad.files import Cell, CsvTable
from ghostgrad.models import mask_rcnn
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import fork_global_rng, stream_seed
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks.progress import Progress
from ghostgrad.training.checkpoint import restore_checkpoint, training_state
from ghostgrad.training.distributed import SINGLE_PROCESS, Follower, ProcessGroup
from ghostgrad.training.engine import configure
from ghostgrad.training.loader import EpochSampler
from ghostgrad.training.optimizers.groups import parameter_groups
from ghostgrad.training.schedules import StepSchedule
from ghostgrad.training.workers import loader_worker_count, stream_batches

log = logging.getLogger(__name__)

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
SERIES_COLUMNS = ("step", "at", "epoch", "lr", "loss", *LOSSES, *METRICS)


def load_data(spec: DetectSpec, manifest: Path) -> Scenes:
    """The scenes of a run."""
    return load_scenes(spec.data, manifest)


class TrainingScenes(Dataset[Any]):
    """Step -> this process's images, uint8 (3, H, W) each, and their targets.

    An InputError is returned, not raised: what a worker process raises arrives as a text of many
    lines.
    """

    def __init__(self, scenes: Scenes, split: Split, sampler: EpochSampler):
        self.scenes, self.split, self.sampler = scenes, split, sampler

    def __getitem__(self, step: int) -> tuple[list[Tensor], list[dict[str, Tensor]]] | InputError:
        indices, draws = self.sampler(step)
        images, targets = [], []
        try:
            for place, index in enumerate(indices.tolist()):
                image_id = self.split.ids[index]
                x = coco.read_image(self.split, image_id)
                y = coco.read_target(self.scenes, self.split, image_id)
                if "flip" in draws and draws["flip"][place]:
                    x, y = flipped(x, y)
                images.append(x)
                targets.append(y)
        except InputError as error:
            return error
        return images, targets


class AspectRatioSampler(EpochSampler):
    """An EpochSampler whose images of a process in a step are all at least as wide as high, or all
    higher than wide, as Detectron groups the images of a GPU.

    torchvision pads them to one size, so that fewer pixels are padding. An epoch has as many steps
    as without groups. To that end the images that are left over of both kinds follow the groups, so
    that the last process of the last step may have both kinds.
    """

    def __init__(self, spec: DetectSpec, split: Split, group: ProcessGroup):
        super().__init__(spec, len(split.ids), group)
        entries = [split.index.imgs[image_id] for image_id in split.ids]
        self.is_wide = torch.tensor([entry["width"] >= entry["height"] for entry in entries])

    def epoch_order(self, epoch: int) -> Tensor:
        """The indices of all training images (count,) in the order of an epoch.

        A group stands where its first image is in the order without groups, which therefore does
        not change where all images are of one kind.
        """
        order = super().epoch_order(epoch)
        size = self.spec.batch // self.group.size  # images that a process takes in a step
        is_wide = self.is_wide[order]
        groups, rest = [], []
        for kind in (is_wide, ~is_wide):
            places = kind.nonzero().flatten()
            whole = len(places) // size * size
            groups.append(places[:whole].view(-1, size))
            rest.append(places[whole:])
        grouped = torch.cat(groups)
        grouped = grouped[grouped[:, 0].argsort()]
        left_over = torch.cat(rest).sort().values
        return order[torch.cat([grouped.flatten(), left_over])]


class TestScenes(Dataset[Any]):
    """Position in the split -> the image's id and the image, or an InputError."""

    def __init__(self, split: Split):
        self.split = split

    def __getitem__(self, place: int) -> tuple[int, Tensor] | InputError:
        image_id = self.split.ids[place]
        try:
            return image_id, coco.read_image(self.split, image_id)
        except InputError as error:
            return error


def flipped(x: Tensor, y: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """An image (3, H, W) and its target, mirrored left-right; boxes are (x0, y0, x1, y1)."""
    boxes = y["boxes"].clone()
    boxes[:, [0, 2]] = x.shape[-1] - boxes[:, [2, 0]]
    return x.flip(-1), {**y, "boxes": boxes, "masks": y["masks"].flip(-1)}


@dataclass(frozen=True)
class PublishedWeights:
    """The weights.pt of a classifier's run."""

    parameters: Mapping[str, Tensor]
    classes: int
    diverged: bool


def read_weights(path: Path, spec: DetectSpec) -> PublishedWeights:
    """What another run has published; InputError if it is damaged or belongs to another network."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        parameters = content["state"]
        classes = list(parameters.values())[-1].shape[0]  # the length of the classifier's bias
        backbone = mask_rcnn.build_classifier(spec, classes)
        shapes = {name: value.shape for name, value in parameters.items()}
        expected = {name: value.shape for name, value in backbone.state_dict().items()}
        model, diverged = content["spec"]["model"], content["status"] == "diverged"
    except Exception as error:  # torch raises many kinds for a file that is cut short
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not the weights of a run ({reason}); delete it to have it made again"
        ) from None
    if shapes != expected:
        other = f"the weights of {model}"
        if model == spec.model:
            other = f"the weights of another form of {model}"
        raise InputError(f"{path}: {other}, not of the spec's {spec.model}")
    return PublishedWeights(parameters, classes, diverged)


def new_model(spec: DetectSpec, scenes: Scenes, published: PublishedWeights | None) -> nn.Module:
    """The detector with its initial weights, the same in every process; `published` weights are put
    into the backbone."""
    # torchvision initializes layers from torch's global CPU generator while they are built.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(spec.seed, "init"))
        classifier = mask_rcnn.build_classifier(spec, published.classes if published else 1)
        if published:
            classifier.load_state_dict(published.parameters)
        detector: nn.Module = mask_rcnn.build_detector(
            spec, classifier, len(scenes.classes), scenes.mean_std
        )
        return detector


def synchronize_batch_norm(
    model: nn.Module, device: torch.device, group: ProcessGroup
) -> nn.Module:
    """The model; if a BN in it is trained, it normalizes over the images of all processes."""
    trains_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if group.size == 1 or not trains_batch_norm:
        return model
    if device.type != "cuda":
        raise InputError(
            "backbone_norm: sync in several processes needs GPUs; give the run one process"
        )
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    synchronized: nn.Module = convert(model)  # type: ignore[no-untyped-call]
    return synchronized


@torch.no_grad()
def evaluate(
    model: nn.Module,
    scenes: Scenes,
    device: torch.device,
    group: ProcessGroup,
    checkpoint_if_due: Callable[[], None],
) -> dict[str, float]:
    """COCO's average precisions on the test images, in percent, the same in every process.

    Every process computes its share of the images. An evaluation may take longer than the notice
    that a cluster gives before it ends a job, so `checkpoint_if_due` is called before each image.
    """
    model.eval()
    share = range(group.rank, len(scenes.val.ids), group.size)
    results = []
    test_scenes = TestScenes(scenes.val)
    for image_id, x in stream_batches(test_scenes, share, device, loader_worker_count()):
        checkpoint_if_due()
        (detections,) = model([x.float() / 255])
        results += detection_results(scenes, image_id, detections)
    model.train()
    all_results = list(itertools.chain.from_iterable(group.gather(results)))
    precisions = average_precision(scenes.val, all_results) if group.rank == 0 else {}
    return group.broadcast_object(precisions)


def detect(
    spec: DetectSpec,
    state: State | Follower,
    device: torch.device,
    scenes: Scenes,
    group: ProcessGroup = SINGLE_PROCESS,
    weights: Path | None = None,
) -> Record:
    """Fine-tune and evaluate one detector.

    A loss that is not finite is the result `diverged`, and so are `weights` from a run that
    diverged. Raises Stopped where the run is asked to stop; it has saved itself then.
    """
    configure(spec)
    published = read_weights(weights, spec) if weights else None
    if published and published.diverged:
        log.info("%s: the run that it comes from diverged", weights)
        return Record(final_metrics({}, 0, 0, None, "upstream"), CsvTable(SERIES_COLUMNS))
    split = coco.with_objects(scenes.train)
    sampler = AspectRatioSampler(spec, split, group)
    schedule = StepSchedule(spec, sampler.steps_per_epoch)
    model = synchronize_batch_norm(new_model(spec, scenes, published), device, group)
    model = model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = new_optimizer(spec, model)
    batches: Iterator[Any] | None = None

    progress = Progress.start(SERIES_COLUMNS, LOSSES)
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

        # The checkpoint comes before the evaluation, whose row it does not hold yet: a run that is
        # stopped within an evaluation, which saves itself there too, resumes with all of it.
        checkpoint_if_due = partial(state.checkpoint_if_due, checkpoint, step, schedule.length)
        checkpoint_if_due()
        if schedule.evaluates_at(step):
            precisions = evaluate(model, scenes, device, group, checkpoint_if_due)
            _add_row(progress, schedule, sampler, precisions)
        if step == schedule.length:
            break

        # Worker processes read images ahead, from the step at which this process begins. They are
        # started here, when it is certain that a step is left to do.
        if batches is None:
            training = TrainingScenes(scenes, split, sampler)
            batches = stream_batches(training, itertools.count(step), device, loader_worker_count())
        images, targets = next(batches)

        # The learning rate is a function of the step, not a state that would have to be saved.
        for param_group in optimizer.param_groups:
            param_group["lr"] = schedule.learning_rate(step) * param_group["scale"]

        # torchvision samples anchors and regions from the global generators, which therefore start
        # from this step's position in the stream. A region belongs to one image: every process has
        # a separate stream.
        optimizer.zero_grad(set_to_none=True)
        with fork_global_rng(device, stream_seed(spec.seed, f"regions/{group.rank}", step)):
            losses = model([x.float() / 255 for x in images], targets)
            sum(losses.values()).backward()

        # A parameter that took no part in the losses of this process's images has no gradient, but
        # may have one in another process. With zeros, all processes average the same list, and
        # momentum and weight decay act on every parameter in every step.
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        group.all_reduce_mean([p.grad for p in trained if p.grad is not None])
        optimizer.step()  # momentum and weight decay are applied here

        # The losses are those of the weights before the update, averaged over all processes, which
        # therefore agree on whether the run has diverged. A diverged detector is not evaluated:
        # the cells of its precisions stay empty.
        progress.step += 1
        shares = torch.stack([losses[name].detach() for name in LOSSES]) / group.size
        values = group.all_reduce_sum(shares).tolist()
        progress.add(dict(zip(LOSSES, values, strict=True)), 1)
        if not math.isfinite(sum(values)):
            diverged_at = progress.step
            _add_row(progress, schedule, sampler, dict.fromkeys(METRICS))
            break

    metrics = final_metrics(progress.last_row(), progress.step, diverged_at, model)
    return Record(metrics, progress.series, weights=model.state_dict())


def _add_row(
    progress: Progress,
    schedule: StepSchedule,
    sampler: EpochSampler,
    precisions: Mapping[str, float | None],
) -> None:
    """Add a row to the series: the losses' means since the last one, the learning rate of the last
    update, both empty before the first update, and the average precisions."""
    means = list(progress.take_means().values())
    trained = [mean for mean in means if mean is not None]
    step = progress.step
    loss = sum(trained) if trained else None
    learning_rate = schedule.learning_rate(step - 1) if trained else None
    progress.series.add(
        step,
        schedule.position(step),
        step / sampler.steps_per_epoch,
        learning_rate,
        loss,
        *means,
        *(precisions[name] for name in METRICS),
    )
    box_ap, mask_ap = precisions["box_ap"], precisions["mask_ap"]
    log.info("step %d: loss %s, box AP %s, mask AP %s", step, loss, box_ap, mask_ap)


def new_optimizer(spec: DetectSpec, model: nn.Module) -> torch.optim.SGD:
    """SGD with momentum over the parameters that are trained; normalization has no weight decay."""
    groups = parameter_groups(model, spec.weight_decay, "all_but_norms", spec.lr_scales)
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, foreach=True)


def final_metrics(
    last: Mapping[str, Cell],
    steps: int,
    diverged_at: int | None,
    model: nn.Module | None,
    reason: str = "",
) -> dict[str, Cell]:
    """What metrics.csv holds: the average precisions of the last evaluation, in percent."""
    return {
        "status": "done" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "reason": reason,
        "steps": steps,
        **{name: last.get(name) for name in METRICS},
        "loss": last.get("loss"),
        "parameters": sum(p.numel() for p in model.parameters()) if model else None,
    }
