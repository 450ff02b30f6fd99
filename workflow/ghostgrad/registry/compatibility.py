"""Parameters that are valid each by itself but do not fit each other, or the GPUs of the run. The
registry refuses them before anything is submitted, and so does `ghostgrad run`. Imports neither
torch nor pandas."""

from __future__ import annotations

from collections.abc import Iterator

from ghostgrad.checks import InputError
from ghostgrad.registry.datasets import of_form
from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.specs.classify import SELF_INITIALIZED, ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.registry.specs.initialize import InitializeSpec
from ghostgrad.registry.specs.sample import SampleSpec
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.registry.tasks import TASKS

STEMLESS = ("preact_resnet", "mlp", "vgg", "vgg16_bn", "vgg19_bn", "vit_b_16", "swin_t")

# What must agree between a detector and the classifier whose weights it starts from, and what that
# classifier must leave at its default because a detector has no such parameter.
BACKBONE = ("model", "cifar_stem", "small_stem", "stem_filters")
CLASSIFIER_DEFAULTS = ("tie_conv2", "tie_conv4", "branch_norm", "position", "skip")


def _has_batch_norm(spec: ClassifySpec) -> bool:
    if spec.model in ("mlp", "vgg"):
        return spec.norm == "batch"
    if spec.model == "preact_resnet":
        return spec.batch_norm
    return spec.model != "resnet50_gn" and not spec.model.startswith("isonet")


def _architecture_problems(spec: ClassifySpec | InitializeSpec) -> Iterator[str]:
    """What the network cannot be, or would ignore."""
    model, small_stem = spec.model, isinstance(spec, ClassifySpec) and spec.small_stem
    if model == "vgg" and (spec.depth % 5 != 1 or spec.depth < 6):
        yield (
            "depth: a vgg has five equal groups and a classifier, 5n + 1 layers; "
            f"{spec.depth} is not of this form"
        )
    for key, is_set in (("cifar_stem", spec.cifar_stem), ("small_stem", small_stem)):
        if model in STEMLESS and is_set:
            yield f"{key}: {model} has no such stem; leave it out"
    if small_stem and not spec.cifar_stem:
        yield "small_stem: it is a form of the CIFAR stem; set cifar_stem too"
    if spec.zero_init_residual and not model.startswith("resnet"):
        yield f"zero_init_residual: {model} cannot start so, only ResNets can; leave it out"


def _self_initialized_problems(spec: ClassifySpec) -> Iterator[str]:
    """What a network with its own initialization cannot be, and what the modules of a SeqNet
    cannot."""
    model = spec.model
    if not model.startswith(SELF_INITIALIZED):
        return
    if spec.init != "default":
        yield f"init: {model} has its own initialization; set default, not {spec.init}"
    if spec.optimizer == "clars":  # per-sample norms take every weight for that of one plain layer
        yield f"optimizer: clars has no per-sample norms for {model}"
    if not model.startswith("seqnet"):
        return
    basic = model in ("seqnet18", "seqnet34")
    tied_conv2 = not basic if spec.tie_conv2 == "baseline" else spec.tie_conv2
    if basic and spec.tie_conv4:
        yield "tie_conv4: a SeqBasic has two convolutions; leave it out"
    if basic and spec.position != "first":
        yield f"position: only SeqNet50 and 101 can have {spec.position}; leave it out"
    if spec.seqnet_init == "untied" and (tied_conv2 or spec.tie_conv4):
        yield "seqnet_init: untied leaves nothing to tie; set tie_conv2 and tie_conv4 to false"
    if spec.position == "third" and spec.seqnet_init in ("orthogonal", "looks-linear"):
        yield (
            f"seqnet_init: {spec.seqnet_init} cannot have 4d rows in 2d dimensions, which position "
            "third asks for"
        )


def _image_problems(spec: ClassifySpec) -> Iterator[str]:
    """How images cannot be read or augmented."""
    folders = of_form("image_folder")
    if spec.data not in folders:
        reason = f"data {spec.data} is not a folder of images; set data to {' or '.join(folders)}"
        if spec.input == "files":
            yield f"input: files: {reason}, or input to memory"
        if spec.resized:
            yield f"resized: {reason}, or resized to 0"
    if 0 < spec.resized < spec.test_side:
        yield (
            f"resized: {spec.resized} is smaller than {spec.test_side}, the side that test images "
            "would be enlarged to"
        )
    if "resized_crop" in spec.augment:
        if spec.input != "files":
            yield "augment: resized_crop cuts windows out of image files; set input: files"
        if not spec.size:
            yield "augment: resized_crop cuts windows out of image files; set size: 224"
    if "crop" in spec.augment and not spec.pad:
        yield "pad: missing; without padding, crop would return the image itself"


def _batch_problems(spec: ClassifySpec, gpus: int) -> Iterator[str]:
    """How a batch cannot be divided among GPUs and micro-batches."""
    share = spec.batch // max(1, gpus)
    if gpus > 1 and spec.batch % gpus:
        yield f"batch: {spec.batch} images cannot be divided among {gpus} GPUs"
    if gpus > 1 and not spec.micro_batch:
        yield f"micro_batch: missing; with {gpus} GPUs, set how many images BN sees at a time"
    if spec.micro_batch and share % spec.micro_batch:
        yield f"micro_batch: {spec.micro_batch} does not divide the {share} images of each GPU"
    if (spec.micro_batch or share) == 1 and _has_batch_norm(spec):
        yield "micro_batch: BN has no variance over 1 image; set 2 or more"


def _schedule_problems(spec: ClassifySpec | DetectSpec) -> Iterator[str]:
    if list(spec.lr_boundaries) != sorted(spec.lr_boundaries):
        yield "lr_boundaries: not in ascending order"
    if isinstance(spec, ClassifySpec) and spec.schedule == "cosine" and spec.lr_boundaries:
        yield "lr_boundaries: schedule cosine does not use them; leave them out"


def _optimizer_problems(spec: ClassifySpec) -> Iterator[str]:
    """What the update rule cannot do."""
    if spec.optimizer == "clars" and spec.compile:
        yield "compile: clars needs hooks, which are not compiled; leave it out"
    if spec.optimizer == "clars" and spec.orthogonal:
        yield "orthogonal: clars is defined for the losses of samples only; leave it out"
    if spec.nesterov and not spec.momentum:
        yield "nesterov: it needs a momentum above 0"


def _unread_problems(spec: Spec) -> Iterator[str]:
    """Parameters that are set although the value of another one makes the run ignore them."""
    for name, option in spec.options().items():
        if getattr(spec, name) == getattr(type(spec), name, None):
            continue  # the default
        for other, values in (option.only_for or {}).items():
            if (value := getattr(spec, other)) not in values:
                readers = ", ".join(values)
                yield f"{name}: {other} {value} does not use it, only {readers}; leave it out"


def _simulate_problems(spec: SimulateSpec) -> Iterator[str]:
    if spec.net in ("residual", "preact") and spec.depth % 2:
        yield f"depth: {spec.depth} is not a multiple of 2; a shortcut spans two weight layers"
    if spec.module_init == "looks-linear" and spec.width % 2:
        yield f"width: {spec.width} is not a multiple of 2; looks-linear stacks W = [R; -R]"


def _sample_problems(spec: SampleSpec) -> Iterator[str]:
    if spec.quantity == "correlated" and spec.correlation not in (0, 1):
        yield (
            f"correlation: {spec.correlation:g} is not allowed for correlated; "
            "0 has independent inputs, 1 perfectly correlated ones"
        )


def _detect_problems(spec: DetectSpec, gpus: int) -> Iterator[str]:
    if spec.batch % max(1, gpus):
        yield f"batch: {spec.batch} images cannot be divided among {gpus} GPUs"
    if spec.min_size > spec.max_size:
        yield f"min_size: {spec.min_size} is above max_size, {spec.max_size}"
    if len(spec.anchor_sizes) != 5:
        count = len(spec.anchor_sizes)
        yield (f"anchor_sizes: {count} given for the five levels of the pyramid; give one for each")
    if spec.small_stem and not spec.cifar_stem:
        yield "small_stem: it is a form of the CIFAR stem; set cifar_stem too"
    if spec.backbone_norm == "sync" and spec.model == "resnet50_gn":
        yield "backbone_norm: resnet50_gn has no BN; leave it out"


def _problems(spec: Spec, gpus: int) -> Iterator[str]:
    task = TASKS[spec.task]
    if gpus > 1 and not task.data_parallel:
        able = " and ".join(name for name, other in TASKS.items() if other.data_parallel)
        yield f"{gpus} GPUs for a run of {task.name}; only {able} can use more than one"
    if isinstance(spec, SimulateSpec):
        yield from _simulate_problems(spec)
    if isinstance(spec, SampleSpec):
        yield from _sample_problems(spec)
    if isinstance(spec, ClassifySpec | InitializeSpec):
        yield from _architecture_problems(spec)
    if isinstance(spec, ClassifySpec):
        yield from _self_initialized_problems(spec)
        yield from _image_problems(spec)
        yield from _schedule_problems(spec)
        yield from _batch_problems(spec, gpus)
        yield from _optimizer_problems(spec)
    if isinstance(spec, DetectSpec):
        yield from _schedule_problems(spec)
        yield from _detect_problems(spec, gpus)
    yield from _unread_problems(spec)


def check_together(spec: Spec, gpus: int, where: str) -> None:
    """InputError where the parameters of a spec, each valid by itself, do not fit each other or the
    number of GPUs."""
    for problem in _problems(spec, gpus):
        raise InputError(f"{where}: {problem}")


def check_weights(spec: DetectSpec, upstream: Spec, where: str) -> None:
    """InputError where the backbone of a detector is not the network that its weights belong to."""
    for key in BACKBONE:
        ours, theirs = getattr(spec, key), getattr(upstream, key)
        if ours != theirs:
            raise InputError(
                f"{where}: {key}: {ours}, but the weights come from a network with {theirs}"
            )
    for key in CLASSIFIER_DEFAULTS:
        theirs, default = getattr(upstream, key), upstream.defaults()[key]
        if theirs != default:
            raise InputError(
                f"{where}: weights: {spec.weights} has {key} {theirs}; a detector needs {default}"
            )
