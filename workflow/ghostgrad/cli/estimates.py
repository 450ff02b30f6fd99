"""What a run takes, before it is computed: hours on the GPUs, or the core, it asks for, and disk.

The hours of a training run come from the first of these that is available:

1. the images per second that `ghostgrad calibrate` measured for its network and settings;
2. the network's multiply-adds, with an assumed speed of the GPU;
3. the duration that the registry expects.

The first two are of training steps alone, without reading images and evaluation. This module
imports neither torch nor pandas: workflow/networks.csv holds the networks' parameters,
multiply-adds and layers.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec

TrainingSpec: TypeAlias = ClassifySpec | DetectSpec

NETWORKS = Path(__file__).resolve().parents[2] / "networks.csv"

# Only data sets whose sizes are known in advance are listed.
TRAIN_IMAGES = {name: row.counts.train for name, row in DATA_SETS.items() if row.counts}
CLASSES = {name: row.counts.classes for name, row in DATA_SETS.items() if row.counts}
SIDE = {name: row.side for name, row in DATA_SETS.items() if row.side}
SCENE = {name: row.scene for name, row in DATA_SETS.items() if row.scene}

# Assumptions, not measured here.
# GMAC/s, forward, at which a GPU trains in bfloat16: ResNet50 at 224 x 224 has 4.09 GMAC per image
# and trains at 3,000 images per second, about what an H200 does.
GMACS_PER_S = 12_270.0
SPEED_RELATIVE_TO_BF16 = {"bf16": 1.0, "tf32": 1 / 2, "fp32": 1 / 4}
# The least time that a step takes for each weight layer: with small networks, the GPU waits for the
# CPU to launch its kernels.
LAYER_MS = 0.25
CLARS_FACTOR = 2.0  # of the time of a step, as the LALC paper says
RESULTS_MB = 1.0  # the files of a run without weights

MASKED_FRACTION = 0.25  # the most of a detector's sampled regions that have a mask in training
CPU = "cpu"  # how the name of a device that is not a GPU begins

# The parameters of a spec that make the network, and those that decide how fast it is computed.
CLASSIFIER_PARAMETERS = (
    *("model", "blocks", "filters", "batch_norm", "shortcut", "cifar_stem", "small_stem"),
    *("stem_filters", "seqnet_init", "tie_conv2", "tie_conv4", "branch_norm", "position", "skip"),
    *("depth", "width", "norm", "activation"),
)
DETECTOR_PARAMETERS = (
    *("model", "cifar_stem", "small_stem", "stem_filters", "backbone_relu", "backbone_norm"),
    *("heads", "fpn_channels", "head_features", "anchor_sizes", "proposals", "rois"),
    *("min_size", "max_size"),
)
COMPUTATION_PARAMETERS = ("precision", "channels_last", "compile", "deterministic", "optimizer")

CALIBRATION_COLUMNS = ("workload", "device", "images_per_s", "peak_mb", "torch")


class Counts(NamedTuple):
    """The size of a network; multiply-adds are of the forward pass of one image."""

    parameters: int
    multiply_adds: int
    layers: int  # convolutions and matrix products


def training_spec(run: RunSpec) -> TrainingSpec | None:
    """The spec of a run that trains on images of a known size and number of classes; None of any
    other run."""
    spec = run.spec
    if isinstance(spec, ClassifySpec | DetectSpec) and spec.data in CLASSES:
        return spec
    return None


def image_side(spec: TrainingSpec) -> int:
    """The side in pixels of the square images that a network sees.

    A detector resizes scenes, some of them wider than high and some the other way round. It pads
    each batch to the longest sides in it, which are multiples of 32 pixels.
    """
    if isinstance(spec, ClassifySpec):
        return spec.size or SIDE[spec.data]
    short, long = SCENE[spec.data]
    scale = min(spec.min_size / short, spec.max_size / long)
    return 32 * math.ceil(math.floor(long * scale) / 32)


def architecture(spec: TrainingSpec) -> str:
    """JSON that identifies the network of a training run and the images that it sees; parameters
    that equal the spec's defaults are left out."""
    names = CLASSIFIER_PARAMETERS if isinstance(spec, ClassifySpec) else DETECTOR_PARAMETERS
    values, defaults = spec.values(), spec.defaults()
    own = {name: values[name] for name in names if values[name] != defaults.get(name)}
    own |= {"classes": CLASSES[spec.data], "size": image_side(spec)}
    return json.dumps(own, sort_keys=True)


def micro_batch(spec: TrainingSpec, gpus: int) -> int:
    """The images that a process computes at a time."""
    if isinstance(spec, ClassifySpec) and spec.micro_batch:
        return spec.micro_batch
    return spec.batch // max(1, gpus)


def workload(spec: TrainingSpec, gpus: int) -> str:
    """JSON that identifies what a calibration measures: a network, how it is computed, and the
    images that a process computes at a time."""
    values = spec.values()
    computation = {name: values[name] for name in COMPUTATION_PARAMETERS if name in values}
    computation |= {"orthogonal": bool(values.get("orthogonal"))}
    computation |= {"micro_batch": micro_batch(spec, gpus)}
    return json.dumps(json.loads(architecture(spec)) | computation, sort_keys=True)


@cache
def counted_networks() -> Mapping[str, Counts]:
    """Architecture -> counts, from workflow/networks.csv."""
    with NETWORKS.open(newline="", encoding="utf-8") as stream:
        return {
            row["architecture"]: Counts(*(int(row[name]) for name in Counts._fields))
            for row in csv.DictReader(stream)
        }


def network_counts(run: RunSpec) -> Counts | None:
    """The counts of the network that a run trains; None if it trains none or it is not counted."""
    spec = training_spec(run)
    return counted_networks().get(architecture(spec)) if spec else None


def images_to_process(spec: TrainingSpec) -> float:
    """The training images that a run processes, each as often as it is read."""
    per_epoch = TRAIN_IMAGES[spec.data] // spec.batch
    steps = spec.length * (per_epoch if spec.unit == "epoch" else 1) / spec.shrink
    return steps * spec.batch


@dataclass(frozen=True)
class Estimate:
    """The hours of a run, and what they are based on."""

    hours: float
    basis: str  # measured | multiply-adds | expected | unknown


def seconds_per_step(spec: TrainingSpec, counts: Counts, images: int, gmacs_per_s: float) -> float:
    """Seconds of one step on one GPU with this many images.

    They follow from the network's multiply-adds or, for a small network, from its layers.
    """
    speed = SPEED_RELATIVE_TO_BF16[spec.precision] * gmacs_per_s * 1e9
    seconds = max(images * counts.multiply_adds / speed, counts.layers * LAYER_MS / 1000)
    is_clars = isinstance(spec, ClassifySpec) and spec.optimizer == "clars"
    return seconds * CLARS_FACTOR if is_clars else seconds


def estimate(run: RunSpec, measured: Mapping[str, float], gmacs_per_s: float) -> Estimate:
    """The hours of a run on the GPUs, or the core, that it asks for; `measured` holds images per
    second by workload."""
    spec = training_spec(run)
    if spec and run.gpus and (images := images_to_process(spec)):
        if images_per_s := measured.get(workload(spec, run.gpus)):
            return Estimate(images / images_per_s / run.gpus / 3600, "measured")
        if counts := network_counts(run):
            at_a_time = micro_batch(spec, run.gpus)
            steps = images / at_a_time / run.gpus
            seconds = steps * seconds_per_step(spec, counts, at_a_time, gmacs_per_s)
            return Estimate(seconds / 3600, "multiply-adds")
    expected = run.expect.get("seconds")
    return Estimate(expected / 3600, "expected") if expected else Estimate(0.0, "unknown")


def disk_gb(runs: Iterable[RunSpec], gpus: int) -> float:
    """The disk space that these runs take when computed on a number of GPUs.

    It holds the files of each run and the weights that it publishes, both twice, because the state
    folder keeps them. It also holds two checkpoints, with weights and momentum, of each run that is
    computed at the same time; the runs with the largest checkpoints are assumed to be.
    """
    total, checkpoints = 0.0, []
    for run in runs:
        counts = network_counts(run)
        weights = 4 * counts.parameters / 1e9 if counts else 0.0
        total += 2 * RESULTS_MB / 1e3
        if run.publishes_weights:
            total += 2 * weights
        checkpoints.append((4 * weights, run.gpus))
    free = gpus
    for size, requested in sorted(checkpoints, reverse=True):
        # The first run always fits: with fewer GPUs than it asks for, it gets all of them.
        if requested and (free == gpus or requested <= free):
            free -= requested
            total += size
    return total


def read_calibration(state_dir: Path, device: str) -> tuple[str, dict[str, float]]:
    """What `ghostgrad calibrate` measured on a device: its name, and images per second by workload.

    Without a name, the device is the GPU that was measured last; ("", {}) if there is none. Raises
    InputError for a device that was not measured and for a damaged file.
    """
    path = state_dir / "calibration.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [
                (row["workload"], row["device"], float(row["images_per_s"] or 0))
                for row in csv.DictReader(stream)
            ]
        if not all(key and name and 0 <= speed < math.inf for key, name, speed in rows):
            raise ValueError
    except FileNotFoundError:
        if device:
            raise InputError(
                f"--device: nothing is measured yet; run ghostgrad calibrate on '{device}'"
            ) from None
        return "", {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; repair or delete it") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise InputError(f"{path}: damaged; delete it and run ghostgrad calibrate again") from None
    devices = list(dict.fromkeys(name for _, name, _ in rows))
    if device and device not in devices:
        raise InputError(f"--device: '{device}' is not measured{nearest(device, devices)}")
    if not device:
        gpus = [name for _, name, _ in rows if not name.startswith(CPU)]
        device = gpus[-1] if gpus else ""
    # A workload that did not fit into memory has no speed.
    return device, {key: speed for key, name, speed in rows if name == device and speed}


def expectation(
    runs: Sequence[RunSpec], state_dir: Path, cores: int | None, on_cluster: bool
) -> str:
    """How many runs a build is about to compute and how long they should take: minutes on this
    many cores, or hours of GPUs and cores if a cluster or a GPU is used."""
    if not runs:
        return "no runs to do"
    number = f"{len(runs)} run to do" if len(runs) == 1 else f"{len(runs)} runs to do"
    try:
        _, measured = read_calibration(state_dir, "")
    except InputError as error:
        return f"{number}; {error}"
    estimates = {run: estimate(run, measured, GMACS_PER_S) for run in runs}
    gpu_hours = sum(estimates[run].hours * run.gpus for run in runs)
    core_hours = sum(estimates[run].hours for run in runs if not run.gpus)
    if gpu_hours or on_cluster or not cores:
        duration = f"about {gpu_hours:,.1f} GPU-hours and {core_hours:,.1f} core-hours"
        duration += " (ghostgrad plan)"
    else:
        minutes = 60 * core_hours / cores
        duration = f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute"
        duration += f" on {cores} cores"
    if unknown := sum(value.basis == "unknown" for value in estimates.values()):
        duration += f", and {unknown} of unknown length"
    return f"{number}, {duration}"
