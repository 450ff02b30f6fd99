"""`ghostgrad plan`: what a scale takes, in GPU-hours, hours and disk, before any of it runs.

The cost of a training comes from the first of these that there is: images a second as `ghostgrad calibrate` measured
them; forward multiply-adds, with an assumed rate of them; the seconds that the registry expects. Imports neither torch
nor pandas: the networks' multiply-adds stand in workflow/networks.csv.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad import registry as registries
from ghostgrad.checks import InputError, nearest
from ghostgrad.inspection import Scale, configured
from ghostgrad.spec import RunSpec, published

NETWORKS = Path(__file__).resolve().parent.parent / "networks.csv"
COLUMNS = ("architecture", "parameters", "multiply_adds")
IMAGES = {"cifar10": 50000, "digits": 1497, "imagenet": 1281167}  # of an epoch
CLASSES = {"cifar10": 10, "digits": 10, "photographs": 2, "imagenet": 1000}
SIDE = {"cifar10": 32, "digits": 8, "photographs": 224, "imagenet": 224}  # pixels, where a spec sets no size
# Forward multiply-adds, in 10^9, for which a GPU trains in a second: ResNet50 at 224 x 224, 4.09 of them an image, with
# 3,000 images a second, about an H200's in bfloat16. Assumed, not measured.
GMACS_PER_S = 12_270.0
ARCHITECTURE = (
    *("model", "blocks", "filters", "batch_norm", "shortcut", "cifar_stem", "small_stem", "stem_filters"),
    *("seqnet_init", "tie_conv2", "tie_conv4", "branch_norm", "position", "skip"),
    *("depth", "width", "norm", "activation"),
)
COMPUTATION = ("precision", "channels_last", "compile", "optimizer", "orthogonal")
CALIBRATION = ("workload", "device", "images_per_s", "peak_mb", "torch")


def architecture(spec: Mapping[str, Any]) -> str:
    """JSON of what a classify spec's network is, of which images; defaults left out."""
    from ghostgrad.checks import schema

    rules = schema("classify")["properties"]
    own = {key: spec[key] for key in ARCHITECTURE if spec[key] != rules[key].get("default")}
    own |= {"classes": CLASSES[spec["data"]], "size": spec["size"] or SIDE[spec["data"]]}
    return json.dumps(own, sort_keys=True)


def workload(spec: Mapping[str, Any], gpus: int) -> str:
    """JSON of what a calibration measures: a network, how it is computed, and the images that a process has at a
    time."""
    how = {key: spec[key] for key in COMPUTATION} | {"orthogonal": bool(spec["orthogonal"])}
    how["micro_batch"] = spec["micro_batch"] or spec["batch"] // max(1, gpus)
    return json.dumps(json.loads(architecture(spec)) | how, sort_keys=True)


@cache
def networks() -> Mapping[str, tuple[int, int]]:
    """Architecture -> parameters and forward multiply-adds of an image."""
    with NETWORKS.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {row["architecture"]: (int(row["parameters"]), int(row["multiply_adds"])) for row in rows}


def images(spec: Mapping[str, Any]) -> float | None:
    """Training images that a classify run processes; None where the data set's size is not known beforehand."""
    if spec["data"] not in IMAGES:
        return None
    per_epoch = IMAGES[spec["data"]] // spec["batch"]
    steps = spec["length"] * (per_epoch if spec["unit"] == "epoch" else 1) / spec["shrink"]
    return steps * spec["batch"]


@dataclass(frozen=True)
class Estimate:
    """Of one run: hours, and what they come from."""

    hours: float
    basis: str  # measured | multiply-adds | expected


def estimate(run: RunSpec, measured: Mapping[str, float], gmacs_per_s: float) -> Estimate:
    """Hours of a run on the GPUs, or the core, that it asks for."""
    gpus = run.resources.get("gpu", 0)
    count = images(run.spec) if run.task == "classify" and gpus else None
    if count:
        if rate := measured.get(workload(run.spec, gpus)):
            return Estimate(count / rate / gpus / 3600, "measured")
        if found := networks().get(architecture(run.spec)):
            return Estimate(count * found[1] / (gmacs_per_s * 1e9) / gpus / 3600, "multiply-adds")
    return Estimate(run.expect.get("seconds", 0) / 3600, "expected")


def disk_gb(runs: Iterable[RunSpec], gpus: int) -> float:
    """Of weights that are published, and of two checkpoints, weights and momentum, of each run that has a place on
    `gpus` GPUs at the same time."""
    weights, running = 0.0, []
    for run in runs:
        found = networks().get(architecture(run.spec)) if run.task == "classify" and run.data in CLASSES else None
        size = 4 * found[0] / 1e9 if found else 0.0
        weights += size if run.publishes_weights else 0
        running.append(4 * size)
    places = max(1, gpus // max([1, *(run.resources.get("gpu", 0) for run in runs)]))
    return weights + sum(sorted(running, reverse=True)[:places])


def calibration(state_dir: Path, device: str) -> tuple[str, dict[str, float]]:
    """The device whose measurements are used, the named one or that of the last, and images a second by workload."""
    path = state_dir / "calibration.csv"
    if not path.exists():
        if device:
            raise InputError(f"--device: nothing is measured yet; run ghostgrad calibrate on '{device}'")
        return "", {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    known = dict.fromkeys(row["device"] for row in rows)
    if device and device not in known:
        raise InputError(f"--device: '{device}' is not measured{nearest(device, known)}")
    device = device or (rows[-1]["device"] if rows else "")
    return device, {
        r["workload"]: float(r["images_per_s"]) for r in rows if r["device"] == device and r["images_per_s"]
    }


@dataclass(frozen=True)
class Line:
    """What some runs take together; those that are finished cost nothing more."""

    name: str
    runs: int
    left: int
    gpus: int
    hours: float  # of the longest
    gpu_hours: float
    core_hours: float
    wall: float
    disk: float
    resumes: int
    basis: str


def line(
    name: str,
    runs: tuple[RunSpec, ...],
    estimates: Mapping[RunSpec, Estimate],
    done: set[RunSpec],
    gpus: int,
    cores: int,
) -> Line:
    left = [run for run in runs if run not in done]
    asked = {run: run.resources.get("gpu", 0) for run in left}
    gpu_hours = sum(estimates[run].hours * asked[run] for run in left)
    core_hours = sum(estimates[run].hours for run in left if not asked[run])
    longest = max((estimates[run].hours * max(1, asked[run] / gpus) for run in left), default=0.0)
    limits = [math.ceil(60 * estimates[run].hours / run.resources.get("runtime", 60)) - 1 for run in left]
    return Line(
        name=name,
        runs=len(runs),
        left=len(left),
        gpus=max((run.resources.get("gpu", 0) for run in runs), default=0),
        hours=max((estimates[run].hours for run in left), default=0.0),
        gpu_hours=gpu_hours,
        core_hours=core_hours,
        wall=max(longest, gpu_hours / gpus, core_hours / cores),
        disk=disk_gb(left, gpus),
        resumes=max([0, *limits]),
        basis=", ".join(dict.fromkeys(estimates[run].basis for run in left)),
    )


def with_upstream(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """These runs and those whose weights they start from."""
    return tuple(dict.fromkeys(one for run in runs for one in (run.upstream, run) if one is not None))


def lines(
    reg: registries.Registry, scale: str, by: str, measured: Mapping[str, float], rate: float, gpus: int, cores: int
) -> list[Line]:
    """One for each artifact or experiment; last `all`, in which every run counts once, and `optional`, those that are
    built by name only."""
    runs = reg.runs(scale)
    estimates = {run: estimate(run, measured, rate) for run in runs}
    done = {run for run in runs if published(run)}
    wanted = {artifact.id: reg.artifact_runs(scale, artifact) for artifact in reg.artifacts.values()}
    if by == "experiment":
        wanted = {name: tuple(run for run in runs if run.experiment == name) for name in reg.experiments}
    groups = {name: with_upstream(run for run in found if not run.optional) for name, found in wanted.items()}
    groups["all"] = tuple(run for run in runs if not run.optional)
    groups["optional"] = tuple(run for run in runs if run.optional)
    return [line(name, found, estimates, done, gpus, cores) for name, found in groups.items() if found]


def plan(
    scale: Scale = "",
    cores: Annotated[int, typer.Option(min=1, help="CPU cores at hand")] = 2,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs at hand")] = 8,
    by: Annotated[str, typer.Option(help="artifact or experiment")] = "artifact",
    device: Annotated[str, typer.Option(help="whose calibration to use; the default is the last one measured")] = "",
    gmacs_per_s: Annotated[
        float,
        typer.Option(min=1, help="10^9 forward multiply-adds a second and GPU in training, if not measured"),
    ] = GMACS_PER_S,
    as_csv: Annotated[bool, typer.Option("--csv", help="as CSV, for pipes")] = False,
) -> None:
    """What the scale takes: runs, GPU-hours, hours and disk of each table and figure; shared runs count once in all."""
    config, scale = configured(scale)
    if by not in ("artifact", "experiment"):
        raise InputError(f"--by: '{by}' is not allowed{nearest(by, ('artifact', 'experiment'))}")
    device, measured = calibration(Path(config["state_dir"]), device)
    found = lines(registries.load(), scale, by, measured, gmacs_per_s, gpus, cores)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(vars(found[0]))
        writer.writerows(vars(one).values() for one in found)
        return
    width = max(len(one.name) for one in found)
    print(
        f"{by:{width}} {'runs':>5} {'left':>5} {'GPUs':>4} {'h a run':>8} {'GPU-h':>9} {'core-h':>8} {'wall h':>8}"
        f" {'disk GB':>8}  basis"
    )
    for one in found:
        resumed = f", {one.resumes} resumes" * bool(one.resumes)
        print(
            f"{one.name:{width}} {one.runs:5} {one.left:5} {one.gpus:4} {one.hours:8.2f} {one.gpu_hours:9.1f}"
            f" {one.core_hours:8.2f} {one.wall:8.1f} {one.disk:8.1f}  {one.basis}{resumed}"
        )
    print(f"\nscale {scale}; wall: on {gpus} GPUs and {cores} cores; h a run: of the longest, on the GPUs it asks for")
    print(
        f"measured: on {device}, by ghostgrad calibrate" if measured else "measured: nothing yet (ghostgrad calibrate)"
    )
    print(
        f"multiply-adds: assuming {gmacs_per_s:,.0f} x 10^9 forward ones a second and GPU"
        + (", about an H200's in bfloat16" if gmacs_per_s == GMACS_PER_S else "")
    )
    print("expected: the registry's guess; resumes: times that a run goes beyond its time limit and goes on by itself")
