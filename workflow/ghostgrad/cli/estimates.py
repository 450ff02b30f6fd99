"""What a run takes: hours on the GPUs, or the core, that it asks for, and disk.

Hours of a training come from the first of these that there is: images a second as `ghostgrad calibrate` measured them;
forward multiply-adds, with an assumed rate of them; the seconds that the registry expects. The first two are of steps
alone, without reading images and evaluating. Imports neither torch nor pandas: the networks' parameters, multiply-adds
and layers stand in workflow/networks.csv.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec

NETWORKS = Path(__file__).resolve().parents[2] / "networks.csv"
IMAGES = {name: row.counts.train for name, row in DATA_SETS.items() if row.counts}  # of an epoch
CLASSES = {name: row.counts.classes for name, row in DATA_SETS.items() if row.counts}
SIDE = {name: row.side for name, row in DATA_SETS.items() if row.side}  # pixels, where a spec sets no size
SCENE = {name: row.scene for name, row in DATA_SETS.items() if row.scene}
POSITIVE = 0.25  # of a detector's sampled regions have a mask in training, at most
# Forward multiply-adds, in 10^9, for which a GPU trains in a second: ResNet50 at 224 x 224, 4.09 of them an image, with
# 3,000 images a second, about an H200's in bfloat16. Like the next three, assumed, not measured.
GMACS_PER_S = 12_270.0
OF_BF16 = {"bf16": 1.0, "tf32": 1 / 2, "fp32": 1 / 4}  # the rate in a precision
LAYER_MS = 0.25  # the least that a step takes for each weight layer: small nets leave the GPU waiting for the CPU
CLARS = 2.0  # times the time, as the LALC paper says
RESULTS_MB = 1.0  # a run's files
CPU = "cpu"  # how the name of a device that is no GPU begins
ARCHITECTURE = {
    "classify": (
        *("model", "blocks", "filters", "batch_norm", "shortcut", "cifar_stem", "small_stem", "stem_filters"),
        *("seqnet_init", "tie_conv2", "tie_conv4", "branch_norm", "position", "skip"),
        *("depth", "width", "norm", "activation"),
    ),
    "detect": (
        *("model", "cifar_stem", "small_stem", "stem_filters", "backbone_relu", "backbone_norm", "heads"),
        *("fpn_channels", "head_features", "anchor_sizes", "proposals", "rois", "min_size", "max_size"),
    ),
}
COMPUTATION = ("precision", "channels_last", "compile", "deterministic", "optimizer")
CALIBRATION = ("workload", "device", "images_per_s", "peak_mb", "torch")


class Counts(NamedTuple):
    """Of a network: parameters, forward multiply-adds of an image, convolutions and products."""

    parameters: int
    multiply_adds: int
    layers: int


def trains(run: RunSpec) -> bool:
    """True of a training on images of known size and classes."""
    return run.task in ARCHITECTURE and run.data in CLASSES


def size(spec: ClassifySpec | DetectSpec) -> int:
    """Side in pixels of the images that a network sees; a detector's are resized and then, some of them upright and
    some lying, padded to the longest sides of all."""
    if spec.data not in SCENE:
        return spec.size or SIDE[spec.data]
    short, long = SCENE[spec.data]
    return 32 * math.ceil(math.floor(long * min(spec.min_size / short, spec.max_size / long)) / 32)


def architecture(run: RunSpec) -> str:
    """JSON of what a training's network is, of which images; defaults left out."""
    spec, defaults = run.spec, run.spec.defaults()
    values = spec.values()
    own = {key: values[key] for key in ARCHITECTURE[run.task] if values[key] != defaults.get(key)}
    own |= {"classes": CLASSES[run.data], "size": size(spec)}
    return json.dumps(own, sort_keys=True)


def at_a_time(run: RunSpec) -> int:
    """Images that a process computes at a time."""
    return getattr(run.spec, "micro_batch", 0) or run.spec.batch // max(1, run.gpus)


def workload(run: RunSpec) -> str:
    """JSON of what a calibration measures: a network, how it is computed, and the images that a process has at a
    time."""
    values = run.spec.values()
    how = {key: values[key] for key in COMPUTATION if key in values}
    how |= {"orthogonal": bool(values.get("orthogonal")), "micro_batch": at_a_time(run)}
    return json.dumps(json.loads(architecture(run)) | how, sort_keys=True)


@cache
def networks() -> Mapping[str, Counts]:
    """Architecture -> its counts."""
    with NETWORKS.open(newline="", encoding="utf-8") as stream:
        return {
            row["architecture"]: Counts(*(int(row[key]) for key in Counts._fields)) for row in csv.DictReader(stream)
        }


def counts_of(run: RunSpec) -> Counts | None:
    """Of the network that a run trains, where it is known without the data."""
    return networks().get(architecture(run)) if trains(run) else None


def images(spec: ClassifySpec | DetectSpec) -> float | None:
    """Training images that a run processes; None where the data set's size is not known beforehand."""
    if spec.data not in IMAGES:
        return None
    per_epoch = IMAGES[spec.data] // spec.batch
    steps = spec.length * (per_epoch if spec.unit == "epoch" else 1) / spec.shrink
    return steps * spec.batch


@dataclass(frozen=True)
class Estimate:
    """Of one run: hours, and what they come from."""

    hours: float
    basis: str  # measured | multiply-adds | expected | unknown


def seconds(spec: ClassifySpec | DetectSpec, found: Counts, micro: int, gmacs_per_s: float) -> float:
    """Of a step of `micro` images on one GPU, by its multiply-adds or, of small nets, by its layers."""
    by_network = micro * found.multiply_adds / (OF_BF16[spec.precision] * gmacs_per_s * 1e9)
    return max(by_network, found.layers * LAYER_MS / 1000) * (CLARS if getattr(spec, "optimizer", "") == "clars" else 1)


def estimate(run: RunSpec, measured: Mapping[str, float], gmacs_per_s: float) -> Estimate:
    """Hours of a run on the GPUs, or the core, that it asks for."""
    gpus = run.resources.get("gpu", 0)
    count = images(run.spec) if trains(run) and gpus else None
    if count:
        if rate := measured.get(workload(run)):
            return Estimate(count / rate / gpus / 3600, "measured")
        if found := counts_of(run):
            micro = at_a_time(run)
            return Estimate(count / micro / gpus * seconds(run.spec, found, micro, gmacs_per_s) / 3600, "multiply-adds")
    expected = run.expect.get("seconds")
    return Estimate(expected / 3600, "expected") if expected else Estimate(0.0, "unknown")


def disk_gb(runs: Iterable[RunSpec], gpus: int) -> float:
    """Of the files of these runs and of weights that are published, both twice, since the state folder keeps them; and
    of two checkpoints, weights and momentum, of each run that has a place on `gpus` GPUs at the same time."""
    total, checkpoints = 0.0, []
    for run in runs:
        weights = 4 * found.parameters / 1e9 if (found := counts_of(run)) else 0.0
        total += 2 * (RESULTS_MB / 1e3 + weights * run.publishes_weights)
        checkpoints.append((4 * weights, run.resources.get("gpu", 0)))
    free = gpus
    for size, asked in sorted(checkpoints, reverse=True):
        if asked and (free == gpus or asked <= free):
            free, total = free - asked, total + size
    return total


def calibration(state_dir: Path, device: str) -> tuple[str, dict[str, float]]:
    """The device whose measurements are used, the named one or the GPU of the last, and images a second by workload."""
    path = state_dir / "calibration.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [(row["workload"], row["device"], float(row["images_per_s"] or 0)) for row in csv.DictReader(stream)]
        if not all(workload and device and 0 <= rate < math.inf for workload, device, rate in rows):
            raise ValueError
    except FileNotFoundError:
        if device:
            raise InputError(f"--device: nothing is measured yet; run ghostgrad calibrate on '{device}'") from None
        return "", {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; mend or delete it") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise InputError(f"{path}: damaged; delete it, and run ghostgrad calibrate again") from None
    known = list(dict.fromkeys(found for _, found, _ in rows))
    if device and device not in known:
        raise InputError(f"--device: '{device}' is not measured{nearest(device, known)}")
    device = device or next((found for _, found, _ in reversed(rows) if not found.startswith(CPU)), "")
    return device, {workload: rate for workload, found, rate in rows if found == device and rate}


def expectation(runs: Sequence[RunSpec], state_dir: Path, cores: int | None, cluster: bool) -> str:
    """How many runs a build is about to do and what they should take: minutes on `cores`, or hours of GPUs and cores
    where a cluster or a GPU is asked for."""
    if not runs:
        return "no runs to do"
    number = f"{len(runs)} run{'s' * (len(runs) > 1)} to do"
    try:
        _, measured = calibration(state_dir, "")
    except InputError as error:
        return f"{number}; {error}"
    found = {run: estimate(run, measured, GMACS_PER_S) for run in runs}
    gpu_hours = sum(found[run].hours * run.resources.get("gpu", 0) for run in runs)
    core_hours = sum(found[run].hours for run in runs if not run.resources.get("gpu", 0))
    if gpu_hours or cluster:
        about = f"about {gpu_hours:,.1f} GPU-hours and {core_hours:,.1f} core-hours (ghostgrad plan)"
    else:
        minutes = 60 * core_hours / cores
        about = f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute"
        about += f" on {cores} cores"
    if unknown := sum(one.basis == "unknown" for one in found.values()):
        about += f", and {unknown} of unknown length"
    return f"{number}, {about}"
