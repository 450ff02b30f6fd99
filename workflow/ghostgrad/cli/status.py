"""The commands that read results and write nothing: status, show, plan.

Heavy packages are imported where they are needed only, so that they answer quickly.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad.analysis.tidy import provenance, tidy
from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.config import load_config
from ghostgrad.registry.registry import PAPERS, Registry, load_registry
from ghostgrad.registry.spec import SCALES, RunSpec, published, run_status
from ghostgrad.runs.provenance import task_hash

Scale = Annotated[str, typer.Option(help="smoke, laptop, substitute or paper; the default is config.yaml's")]


def configured(scale: str) -> tuple[dict[str, Any], str]:
    config = load_config()
    scale = scale or config["scale"]
    if scale not in SCALES:
        raise InputError(f"--scale: '{scale}' is not allowed{nearest(scale, SCALES)}")
    return config, scale


def results_of(scale: str) -> Path:
    return Path("results") / scale


def _run_state(run: RunSpec, state_dir: Path) -> str:
    """missing | started | 120/400 | done | diverged | stale (of another spec) | damaged, from files alone."""
    state = run_status(run)
    if state == "done":
        try:
            provenance(run)
        except InputError:
            return "damaged"
        with Path(run.directory, "metrics.csv").open(encoding="utf-8", errors="replace") as stream:
            stream.readline()
            return stream.readline().split(",", 1)[0].strip() or "damaged"
    from ghostgrad.tasks.run import state_folder

    inputs = [Path(name) for name in run.inputs]
    if not all(path.exists() for path in inputs):
        return state
    folder = state_folder(state_dir, Path(run.directory), run.canonical, inputs)
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads((folder / "progress.json").read_text())
        return f"{seen['done']}/{seen['total']}"
    return "started" if folder.exists() and state == "missing" else state


def _other_code(runs: Sequence[RunSpec]) -> set[RunSpec]:
    """Of these finished runs those computed with another version of their task's numeric modules than this one."""
    current = {task: task_hash(task) for task in {run.task for run in runs}}
    return {run for run in runs if provenance(run)["code"] != current[run.task]}


def _of_other_code(scale: str) -> str:
    again = f"ghostgrad forget <run> --scale {scale}, then build"
    return f"computed with another version of the task's modules than this checkout's; to compute one again: {again}"


def status(
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="a line for every run too")] = False,
    paper: Annotated[str, typer.Option(help="ghost, lalc or bnres only")] = "",
) -> None:
    """Where everything stands: one line per artifact, with its runs and verdicts."""
    config, scale = configured(scale)
    if paper and paper not in PAPERS:
        raise InputError(f"--paper: '{paper}' is not allowed{nearest(paper, PAPERS)}")
    reg = load_registry()
    state_dir = Path(config["state_dir"])
    states = {run: _run_state(run, state_dir) for run in reg.runs(scale)}
    other = _other_code([run for run, state in states.items() if state in ("done", "diverged")])
    width = max(map(len, reg.artifacts))
    for artifact in reg.artifacts.values():
        if paper and artifact.paper != paper:
            continue
        needed = reg.artifact_runs(scale, artifact)
        done = sum(states[run] in ("done", "diverged") for run in needed)
        count = f"{done}/{len(needed)} runs" if needed else ""
        stale = sum(states[run] == "stale" for run in needed)
        older = sum(run in other for run in needed)
        notes = [f"before an edit: {stale} stale"] * bool(stale) + [f"{older} of other code"] * bool(older)
        told = _verdicts(reg, artifact, scale, config) + (f" ({', '.join(notes)})" if notes else "")
        print(f"{artifact.id:{width}}  {artifact.kind:6}  {count:11}  {told}")
    if runs:
        print()
        for run, state in states.items():
            print(f"{run.id:{width + 20}}  {state}{', other code' if run in other else ''}")
    settled = ("done", "diverged", "missing", "stale", "damaged")
    counts = Counter(state if state in settled else "begun" for state in states.values())
    shown = [f"{counts[name]} {name}" for name in (*settled, "begun") if counts[name] or name in settled[:3]]
    print(f"\nscale {scale}: {len(states)} runs, {', '.join(shown)}")
    if counts["stale"]:
        print("stale: made with another spec than the registry's, so they do not count")
    if other:
        print(f"of other code: {len(other)}, {_of_other_code(scale)}")


def _verdicts(reg: Registry, artifact: Artifact, scale: str, config: dict[str, Any]) -> str:
    from ghostgrad.report.overview import verdict_counts

    path = results_of(scale) / "tables" / f"{artifact.id}.csv"
    if path.exists():
        return verdict_counts([path])
    reason = reg.missing(scale, artifact, config.get("data") or {})
    if reason:
        return f"not run ({reason})"
    drawn = (results_of(scale) / "figures" / f"{artifact.id}.svg").exists()
    return "drawn" if drawn else "not built yet"


def show(
    artifact: Annotated[str, typer.Argument(help="an id such as ghost.fig5 (see `ghostgrad status`), or claims")],
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="the tidy rows, one per run")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="the table as CSV, for pipes")] = False,
) -> None:
    """The paper's numbers beside ours for one artifact, from whatever exists; writes nothing."""
    from ghostgrad.report import render

    config, scale = configured(scale)
    reg = load_registry()
    if artifact == "claims":
        from ghostgrad.report import page

        page.show(reg, scale, results_of(scale) / "claims.csv", as_csv)
        return
    found = reg.artifact(artifact)
    if runs:
        sys.stdout.write(tidy(reg, found, scale).text())
        return
    if as_csv and not found.has_table:
        drawn = results_of(scale) / "figures" / f"{found.id}.csv"
        raise InputError(f"{found.id} has no table; its drawn numbers: {drawn}, built by snakemake {drawn}")
    needed = reg.artifact_runs(scale, found)
    done = [run for run in needed if published(run)]
    rows = _table_rows(reg, found, scale, config, done)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    print(f"{found.id}: {found.title} ({found.section})")
    if needed:
        print(f"{len(done)}/{len(needed)} runs at scale {scale}")
    figure = results_of(scale) / "figures" / f"{found.id}.svg"
    if figure.exists():
        print(f"figure: {figure}")
    if found.has_table:
        _print_table(rows)
        print(render.footer(rows, scale))
    if other := _other_code(done):
        print(f"runs of other code: {len(other)}, {_of_other_code(scale)}")
    if notes := reg.notes(found):
        print("\n" + "\n".join(f"- {note}" for note in notes))


def _table_rows(
    reg: Registry, artifact: Artifact, scale: str, config: dict[str, Any], done: list[RunSpec]
) -> list[dict[str, Any]]:
    """The built table where all of its runs are there and it is newer than they, the registry and the paper's numbers;
    else computed now from the runs that exist."""
    path = results_of(scale) / "tables" / f"{artifact.id}.csv"
    sources = [Path(run.directory, "metrics.csv") for run in done]
    sources += [reg.workflow / "experiments" / f"{paper}.yaml" for paper in PAPERS]
    sources += [reg.workflow / "reference" / f"{artifact.source}.csv"]
    newest = max(source.stat().st_mtime for source in sources if source.exists())
    whole = len(done) == len(reg.artifact_runs(scale, artifact))
    if whole and path.exists() and path.stat().st_mtime >= newest:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    from ghostgrad.report import tables

    why_not = None if done or not artifact.cells else reg.missing(scale, artifact, config.get("data") or {}, True)
    frame = tables.build(reg, artifact, scale, why_not)
    return frame.astype(object).where(frame.notna(), "").to_dict("records")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ghostgrad.report import render

    header, body = render.pivot(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
