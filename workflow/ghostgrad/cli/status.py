"""`ghostgrad status`: how far every artifact and every run is. It writes nothing."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad.analysis.tidy import read_provenance
from ghostgrad.checks import InputError, nearest
from ghostgrad.cli.options import Scale, configured, results_of
from ghostgrad.files import read_single_row
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import PAPERS, Registry, load_registry
from ghostgrad.registry.spec import RunSpec, run_status
from ghostgrad.runs.provenance import task_hash

FINISHED = ("done", "diverged")
SETTLED = (*FINISHED, "missing", "stale", "damaged")  # the states of a run that is not under way


def run_state(run: RunSpec, state_dir: Path) -> str:
    """How far a run is, read from its files alone.

    `missing`; `started`; `120/400`, the steps done and in all; `done`; `diverged`; `stale`, if the
    published files are those of another spec; or `damaged`.
    """
    state = run_status(run)
    if state == "done":
        return _outcome(run)
    from ghostgrad.tasks.run import state_folder

    inputs = [Path(name) for name in run.inputs]
    if not all(path.exists() for path in inputs):
        return state  # without its inputs a run cannot have begun
    folder = state_folder(state_dir, Path(run.directory), run.canonical, inputs)
    with contextlib.suppress(OSError, ValueError):
        progress = json.loads((folder / "progress.json").read_text())
        return f"{progress['done']}/{progress['total']}"
    return "started" if folder.exists() and state == "missing" else state


def _outcome(run: RunSpec) -> str:
    """`done`, `diverged` or `damaged` of a published run, according to its metrics.csv."""
    try:
        read_provenance(run)
    except InputError:
        return "damaged"
    try:
        return read_single_row(Path(run.directory, "metrics.csv"))["status"]
    except (OSError, ValueError, KeyError):
        return "damaged"


def computed_by_other_code(runs: Iterable[RunSpec]) -> set[RunSpec]:
    """Those of these finished runs that another version of their task's code has computed."""
    runs = list(runs)
    current = {task: task_hash(task) for task in {run.task for run in runs}}
    return {run for run in runs if read_provenance(run)["code"] != current[run.task]}


def other_code_advice(scale: str) -> str:
    return (
        "computed by a version of the task's code that differs from this checkout's; to compute a"
        f" run again: ghostgrad forget <run> --scale {scale}, then build"
    )


def status(
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="print a line for every run too")] = False,
    paper: Annotated[str, typer.Option(help="only this paper: ghost, lalc or bnres")] = "",
) -> None:
    """Show how far every artifact is: one line each, with its runs and verdicts."""
    config, scale = configured(scale)
    if paper and paper not in PAPERS:
        raise InputError(f"--paper: '{paper}' is not allowed{nearest(paper, PAPERS)}")
    registry = load_registry()
    state_dir = Path(config["state_dir"])
    artifacts = [a for a in registry.artifacts.values() if not paper or a.paper == paper]
    needed = {run for artifact in artifacts for run in registry.artifact_runs(scale, artifact)}
    # Without --paper, the runs that no artifact shows are listed too.
    runs_shown = [run for run in registry.runs(scale) if not paper or run in needed]
    states = {run: run_state(run, state_dir) for run in runs_shown}
    other_code = computed_by_other_code(run for run in states if states[run] in FINISHED)
    width = max(map(len, registry.artifacts))
    for artifact in artifacts:
        its_runs = registry.artifact_runs(scale, artifact)
        done = sum(states[run] in FINISHED for run in its_runs)
        count = f"{done}/{len(its_runs)} runs" if its_runs else ""
        verdicts = _verdicts(registry, artifact, scale, config)
        verdicts += _run_notes(its_runs, states, other_code)
        print(f"{artifact.id:{width}}  {artifact.kind:6}  {count:11}  {verdicts}")
    if runs:
        print()
        for run, state in states.items():
            note = ", different code" if run in other_code else ""
            print(f"{run.id:{width + 20}}  {state}{note}")
    _print_totals(states, other_code, scale)


def _run_notes(
    runs: Sequence[RunSpec], states: Mapping[RunSpec, str], other_code: set[RunSpec]
) -> str:
    """How many of an artifact's runs are out of date, to be added to its verdicts."""
    stale = sum(states[run] == "stale" for run in runs)
    older = sum(run in other_code for run in runs)
    notes = ""
    if stale:
        notes += f"; {stale} stale (spec has changed)"
    if older:
        notes += f"; {older} computed by different code"
    return notes


def _print_totals(states: Mapping[RunSpec, str], other_code: set[RunSpec], scale: str) -> None:
    """Print how many runs are in each state; done, diverged and missing in any case."""
    counts = Counter(state if state in SETTLED else "under way" for state in states.values())
    shown = [
        f"{counts[name]} {name}"
        for name in (*SETTLED, "under way")
        if counts[name] or name in (*FINISHED, "missing")
    ]
    print(f"\nscale {scale}: {len(states)} runs, {', '.join(shown)}")
    if counts["stale"]:
        print("stale: computed with a spec that differs from the registry's, so not counted")
    if other_code:
        print(f"different code: {len(other_code)}, {other_code_advice(scale)}")


def _verdicts(registry: Registry, artifact: Artifact, scale: str, config: dict[str, Any]) -> str:
    from ghostgrad.report.verdicts import verdict_counts

    path = results_of(scale) / "tables" / f"{artifact.id}.csv"
    if path.exists():
        return verdict_counts([path])
    reason = registry.missing(scale, artifact, config.get("data") or {})
    if reason:
        return f"not run ({reason})"
    drawn = (results_of(scale) / "figures" / f"{artifact.id}.svg").exists()
    return "drawn" if drawn else "not built yet"
