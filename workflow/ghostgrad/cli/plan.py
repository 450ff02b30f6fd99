"""`ghostgrad plan`: what a scale will take, in GPU-hours, hours and disk."""

from __future__ import annotations

import csv
import heapq
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ghostgrad.checks import InputError, nearest
from ghostgrad.cli.estimates import (
    GMACS_PER_S,
    LAYER_MS,
    Estimate,
    disk_gb,
    estimate,
    read_calibration,
)
from ghostgrad.cli.options import Scale, configured
from ghostgrad.registry.registry import Registry, load_registry
from ghostgrad.registry.spec import RunSpec, published


@dataclass
class _Machine:
    """The GPUs and cores of a schedule, and the runs that occupy them."""

    free: dict[str, int]
    now: float = 0.0  # hours since the start
    running: list[tuple[float, str, str, int, RunSpec]] = field(default_factory=list)

    def start(self, run: RunSpec, hours: float, kind: str, count: int) -> None:
        self.free[kind] -= count
        # The run's id decides between runs that end at the same time.
        heapq.heappush(self.running, (self.now + hours, run.id, kind, count, run))

    def advance(self) -> RunSpec:
        """Let the time pass until a run ends; returns that run."""
        self.now, _, kind, count, run = heapq.heappop(self.running)
        self.free[kind] += count
        return run


def wall_time(
    runs: Iterable[RunSpec], hours: Mapping[RunSpec, float], gpus: int, cores: int
) -> float:
    """Hours until all runs are done on this many GPUs and cores.

    The longest run that fits starts first, but none before the run whose weights it starts from. A
    run that asks for more GPUs than there are gets all of them and takes longer in proportion; a
    run that asks for none gets one core.
    """
    # One queue per number of GPUs, the longest run at its end. Only the ends of the queues have to
    # be compared at each step, instead of all runs that wait.
    queues: dict[tuple[str, int], list[RunSpec]] = {}
    for run in sorted(runs, key=lambda run: hours[run]):
        requested = run.gpus
        place = ("gpu", min(requested, gpus)) if requested else ("core", 1)
        queues.setdefault(place, []).append(run)
    unfinished = {run for queue in queues.values() for run in queue}
    machine = _Machine({"gpu": gpus, "core": cores})
    while unfinished:
        candidates: list[tuple[float, str, int, RunSpec]] = []
        for (kind, count), queue in queues.items():
            ready = (run for run in reversed(queue) if run.upstream not in unfinished)
            longest = next(ready, None) if count <= machine.free[kind] else None
            if longest is not None:
                candidates.append((hours[longest], kind, count, longest))
        if candidates:
            duration, kind, count, run = max(candidates, key=lambda candidate: candidate[:3])
            queues[kind, count].remove(run)
            stretch = max(1.0, run.gpus / gpus)
            machine.start(run, duration * stretch, kind, count)
        else:
            unfinished.remove(machine.advance())
    return machine.now


@dataclass(frozen=True)
class PlanRow:
    """What a group of runs takes together. Runs that are finished take nothing any more."""

    name: str
    runs: int
    left: int  # runs that are not finished
    gpus: int  # the most that a run asks for
    hours: float  # of the longest run
    gpu_hours: float
    core_hours: float
    wall: float  # hours
    disk: float  # GB
    resumes: int  # the most that a run needs, beyond its time limit
    basis: str  # what the hours come from


def plan_row(
    name: str,
    runs: Sequence[RunSpec],
    estimates: Mapping[RunSpec, Estimate],
    done: set[RunSpec],
    gpus: int,
    cores: int,
) -> PlanRow:
    """The row of a group of runs, on a machine with this many GPUs and cores."""
    left = [run for run in runs if run not in done]
    hours = {run: estimates[run].hours for run in left}
    requested = {run: run.gpus for run in runs}
    # A run that takes 2.5 times its time limit is resumed twice.
    resumes = [math.ceil(60 * hours[run] / run.resources.get("runtime", 60)) - 1 for run in left]
    return PlanRow(
        name=name,
        runs=len(runs),
        left=len(left),
        gpus=max(requested.values(), default=0),
        hours=max(hours.values(), default=0.0),
        gpu_hours=sum(hours[run] * requested[run] for run in left),
        core_hours=sum(hours[run] for run in left if not requested[run]),
        wall=wall_time(left, hours, gpus, cores),
        disk=disk_gb(left, gpus),
        resumes=max([0, *resumes]),
        basis=", ".join(dict.fromkeys(estimates[run].basis for run in left)),
    )


def with_upstream(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """These runs, each after the run whose weights it starts from."""
    pairs = ((run.upstream, run) for run in runs)
    return tuple(dict.fromkeys(run for pair in pairs for run in pair if run is not None))


def plan_groups(registry: Registry, scale: str, by: str) -> dict[str, tuple[RunSpec, ...]]:
    """The runs of each row: of every artifact or experiment, then `all`, in which each run counts
    once, and `optional`, the runs that are built only when they are named."""
    runs = registry.runs(scale)
    if by == "artifact":
        groups = {
            name: with_upstream(
                run for run in registry.artifact_runs(scale, artifact) if not run.optional
            )
            for name, artifact in registry.artifacts.items()
        }
    else:
        groups = {
            name: tuple(run for run in runs if run.experiment == name and not run.optional)
            for name in registry.experiments
        }
    groups["all"] = tuple(run for run in runs if not run.optional)
    groups["optional"] = tuple(run for run in runs if run.optional)
    return {name: group for name, group in groups.items() if group}


def plan(
    scale: Scale = "",
    cores: Annotated[int, typer.Option(min=1, help="number of CPU cores")] = 2,
    gpus: Annotated[int, typer.Option(min=1, help="number of GPUs")] = 8,
    by: Annotated[str, typer.Option(help="one row per artifact or per experiment")] = "artifact",
    device: Annotated[
        str,
        typer.Option(help="the device whose calibration is used; the last measured GPU by default"),
    ] = "",
    gmacs_per_s: Annotated[
        float,
        typer.Option(
            min=1, help="GMAC/s per GPU in training, forward, for networks without a calibration"
        ),
    ] = GMACS_PER_S,
    as_csv: Annotated[bool, typer.Option("--csv", help="print the plan as CSV")] = False,
) -> None:
    """Show what a scale takes: runs, GPU-hours, hours and disk of every artifact.

    The last rows count a run once even if several artifacts share it.
    """
    config, scale = configured(scale)
    if by not in ("artifact", "experiment"):
        raise InputError(f"--by: '{by}' is not allowed{nearest(by, ('artifact', 'experiment'))}")
    device, measured = read_calibration(Path(config["state_dir"]), device)
    registry = load_registry()
    estimates = {run: estimate(run, measured, gmacs_per_s) for run in registry.runs(scale)}
    done = {run for run in registry.runs(scale) if published(run)}
    rows = [
        plan_row(name, group, estimates, done, gpus, cores)
        for name, group in plan_groups(registry, scale, by).items()
    ]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(vars(rows[0]))
        writer.writerows(vars(row).values() for row in rows)
        return
    _print_rows(rows, by)
    print(f"\nscale {scale}; h/run: hours of the longest run, on the GPUs that it asks for;")
    print(f"wall h: hours until all runs are done on {gpus} GPUs and {cores} cores, longest first")
    for line in legend(device if measured else "", gmacs_per_s):
        print(line)


def _print_rows(rows: Sequence[PlanRow], by: str) -> None:
    width = max(len(row.name) for row in rows)
    print(
        f"{by:{width}} {'runs':>5} {'left':>5} {'GPUs':>4} {'h/run':>8} {'GPU-h':>9} {'core-h':>8}"
        f" {'wall h':>8} {'disk GB':>8}  basis"
    )
    for row in rows:
        resumes = f", {row.resumes} resumes" if row.resumes else ""
        print(
            f"{row.name:{width}} {row.runs:5} {row.left:5} {row.gpus:4} {row.hours:8.2f}"
            f" {row.gpu_hours:9.1f} {row.core_hours:8.2f} {row.wall:8.1f} {row.disk:8.1f}"
            f"  {row.basis}{resumes}"
        )


def legend(device: str, gmacs_per_s: float) -> list[str]:
    """What each basis of an estimate rests on, one line each."""
    measured = "nothing yet (ghostgrad calibrate)"
    if device:
        measured = f"training steps on {device}, by ghostgrad calibrate"
    speed = f"{gmacs_per_s:,.0f} GMAC/s per GPU, forward, in bfloat16"
    if gmacs_per_s == GMACS_PER_S:
        speed += ", about an H200's"
    return [
        f"measured: {measured}",
        f"multiply-adds: assuming {speed};",
        f"  half of that in TF32, a quarter in float32; at least {LAYER_MS} ms per layer and step;"
        " twice the time for CLARS",
        "both leave out reading images and evaluation, and assume that n GPUs are n times as fast",
        "expected: the duration that the registry expects",
        "unknown: no expected duration and no counted network; such runs take 0 hours here",
        "resumes: how often a run exceeds its time limit and continues by itself",
    ]
