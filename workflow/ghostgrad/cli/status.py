"""The commands that show results and write nothing: status and show.

They import heavy packages only where they need them, so that they answer quickly.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad.analysis.tidy import read_provenance, tidy_table
from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.config import load_config
from ghostgrad.registry.registry import PAPERS, Registry, load_registry
from ghostgrad.registry.spec import SCALES, RunSpec, published, run_status
from ghostgrad.runs.provenance import task_hash

FINISHED = ("done", "diverged")
SETTLED = (*FINISHED, "missing", "stale", "damaged")  # the states of a run that is not under way

Scale = Annotated[
    str,
    typer.Option(help="smoke, laptop, substitute or paper; the scale of config.yaml by default"),
]


def configured(scale: str) -> tuple[dict[str, Any], str]:
    """config.yaml, and the scale that was given or else is configured."""
    config = load_config()
    scale = scale or config["scale"]
    if scale not in SCALES:
        raise InputError(f"--scale: '{scale}' is not allowed{nearest(scale, SCALES)}")
    return config, scale


def results_of(scale: str) -> Path:
    return Path("results") / scale


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
    """`done`, `diverged` or `damaged` of a published run; the first cell of metrics.csv says which
    of the first two."""
    try:
        read_provenance(run)
    except InputError:
        return "damaged"
    path = Path(run.directory, "metrics.csv")
    with path.open(encoding="utf-8", errors="replace") as stream:
        stream.readline()
        return stream.readline().split(",", 1)[0].strip() or "damaged"


def _computed_by_other_code(runs: Iterable[RunSpec]) -> set[RunSpec]:
    """Those of these finished runs that another version of their task's code has computed."""
    runs = list(runs)
    current = {task: task_hash(task) for task in {run.task for run in runs}}
    return {run for run in runs if read_provenance(run)["code"] != current[run.task]}


def _other_code_advice(scale: str) -> str:
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
    states = {run: run_state(run, state_dir) for run in registry.runs(scale)}
    other_code = _computed_by_other_code(run for run in states if states[run] in FINISHED)
    width = max(map(len, registry.artifacts))
    for artifact in registry.artifacts.values():
        if not paper or artifact.paper == paper:
            needed = registry.artifact_runs(scale, artifact)
            done = sum(states[run] in FINISHED for run in needed)
            count = f"{done}/{len(needed)} runs" if needed else ""
            verdicts = _verdicts(registry, artifact, scale, config)
            verdicts += _run_notes(needed, states, other_code)
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
        print(f"different code: {len(other_code)}, {_other_code_advice(scale)}")


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


def show(
    artifact: Annotated[
        str, typer.Argument(help="an id from `ghostgrad status`, such as ghost.fig5, or claims")
    ],
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="print the tidy rows, one per run")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print the table as CSV")] = False,
) -> None:
    """Show the paper's numbers beside ours for one artifact, from the runs that exist."""
    from ghostgrad.report.cells import footer
    from ghostgrad.report.verdicts import LEGEND

    config, scale = configured(scale)
    reg = load_registry()
    if artifact == "claims":
        from ghostgrad.report.ledger import show_ledger

        show_ledger(results_of(scale) / "claims.csv", scale, as_csv)
        return
    found = reg.artifact(artifact)
    if runs:
        sys.stdout.write(tidy_table(reg, found, scale).text())
        return
    if as_csv and not found.has_table:
        drawn = results_of(scale) / "figures" / f"{found.id}.csv"
        raise InputError(
            f"{found.id} has no table; the numbers of its figure are in {drawn} (snakemake {drawn})"
        )
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
        print(footer(rows, scale))
        print(LEGEND)
    if other_code := _computed_by_other_code(done):
        print(f"different code: {len(other_code)}, {_other_code_advice(scale)}")
    if notes := reg.notes(found):
        print("\n" + "\n".join(f"- {note}" for note in notes))


def _table_rows(
    reg: Registry, artifact: Artifact, scale: str, config: dict[str, Any], done: list[RunSpec]
) -> list[dict[str, Any]]:
    """The rows of an artifact's table.

    They are read from the built table if all of its runs exist and the table is newer than the
    runs, the registry and the paper's numbers; else they are computed from the runs that exist.
    """
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

    why_not = (
        None
        if done or not artifact.cells
        else reg.missing(scale, artifact, config.get("data") or {}, True)
    )
    frame = tables.build(reg, artifact, scale, why_not)
    return frame.astype(object).where(frame.notna(), "").to_dict("records")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ghostgrad.report.cells import pivot

    header, body = pivot(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
