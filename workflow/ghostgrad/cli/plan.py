"""`ghostgrad plan`: what a scale takes, in GPU-hours, hours and disk, before any of it runs."""

from __future__ import annotations

import csv
import heapq
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ghostgrad.checks import InputError, nearest
from ghostgrad.cli.estimates import GMACS_PER_S, LAYER_MS, Estimate, calibration, disk_gb, estimate
from ghostgrad.cli.status import Scale, configured
from ghostgrad.registry.registry import Registry, load_registry
from ghostgrad.registry.spec import RunSpec, published


def wall(runs: Iterable[RunSpec], hours: Mapping[RunSpec, float], gpus: int, cores: int) -> float:
    """Hours until all are done, the longest first wherever there is room, none before the run that it starts from. What
    asks for more GPUs than there are has all of them, for longer; what asks for none has a core."""
    queues: dict[tuple[str, int], list[RunSpec]] = {}
    for run in sorted(runs, key=lambda run: hours[run]):
        asked = run.resources.get("gpu", 0)
        queues.setdefault(("gpu", min(asked, gpus)) if asked else ("core", 1), []).append(run)
    unfinished = {run for queue in queues.values() for run in queue}
    free, running, now = {"gpu": gpus, "core": cores}, [], 0.0
    while unfinished:
        heads = [
            (hours[run], kind, count, run)
            for (kind, count), queue in queues.items()
            if count <= free[kind]
            and (run := next((one for one in reversed(queue) if one.upstream not in unfinished), None))
        ]
        if heads:
            _, kind, count, run = max(heads, key=lambda head: head[:3])
            queues[kind, count].remove(run)
            free[kind] -= count
            longer = max(1.0, run.resources.get("gpu", 0) / gpus)
            heapq.heappush(running, (now + hours[run] * longer, run.id, kind, count, run))
        else:
            now, _, kind, count, run = heapq.heappop(running)
            free[kind] += count
            unfinished.remove(run)
    return now


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
    limits = [math.ceil(60 * estimates[run].hours / run.resources.get("runtime", 60)) - 1 for run in left]
    return Line(
        name=name,
        runs=len(runs),
        left=len(left),
        gpus=max((run.resources.get("gpu", 0) for run in runs), default=0),
        hours=max((estimates[run].hours for run in left), default=0.0),
        gpu_hours=gpu_hours,
        core_hours=core_hours,
        wall=wall(left, {run: estimates[run].hours for run in left}, gpus, cores),
        disk=disk_gb(left, gpus),
        resumes=max([0, *limits]),
        basis=", ".join(dict.fromkeys(estimates[run].basis for run in left)),
    )


def with_upstream(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """These runs and those whose weights they start from."""
    return tuple(dict.fromkeys(one for run in runs for one in (run.upstream, run) if one is not None))


def lines(
    reg: Registry, scale: str, by: str, measured: Mapping[str, float], rate: float, gpus: int, cores: int
) -> list[Line]:
    """One for each artifact or experiment; last `all`, in which every run counts once, and `optional`, those that are
    built by name only."""
    runs = reg.runs(scale)
    estimates = {run: estimate(run, measured, rate) for run in runs}
    done = {run for run in runs if published(run)}
    wanted = {artifact.id: reg.artifact_runs(scale, artifact) for artifact in reg.artifacts.values()}
    if by == "experiment":
        wanted = {name: tuple(run for run in runs if run.experiment == name) for name in reg.experiments}
    groups = {name: tuple(run for run in found if not run.optional) for name, found in wanted.items()}
    if by == "artifact":
        groups = {name: with_upstream(found) for name, found in groups.items()}
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
    found = lines(load_registry(), scale, by, measured, gmacs_per_s, gpus, cores)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(vars(found[0]))
        writer.writerows(vars(one).values() for one in found)
        return
    _print(found, by)
    print(
        f"\nscale {scale}; wall: on {gpus} GPUs and {cores} cores, the longest first;"
        " h a run: of the longest, on the GPUs it asks for"
    )
    for text in legend(device if measured else "", gmacs_per_s):
        print(text)


def _print(found: Sequence[Line], by: str) -> None:
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


def legend(device: str, gmacs_per_s: float) -> list[str]:
    """What each basis rests on, a line each."""
    rate = f"{gmacs_per_s:,.0f} x 10^9 forward ones a second and GPU in bfloat16"
    return [
        f"measured: steps on {device}, by ghostgrad calibrate"
        if device
        else "measured: nothing yet (ghostgrad calibrate)",
        f"multiply-adds: assuming {rate}" + ", about an H200's" * (gmacs_per_s == GMACS_PER_S) + ";",
        f"  half of it in TF32, a quarter in float32; at least {LAYER_MS} ms a layer and step; CLARS twice the time",
        "neither counts reading images and evaluating; several GPUs are taken to be as many times as fast as one",
        "expected: the registry's guess",
        "unknown: it has none, and the network is not counted; such a run is of 0 hours here",
        "resumes: times that a run goes beyond its time limit and goes on by itself",
    ]
