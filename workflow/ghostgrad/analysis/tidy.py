"""From run directories to one CSV row per run and cell: `results/<scale>/tidy/<artifact>.csv`.

A run whose spec is not the registry's counts as not run; where the build counts on it, it is refused. Imports neither
torch nor pandas.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec, run_status

IDENTITY = ("row", "column", "experiment", "variant", "seed", "comparable")
PROVENANCE = ("code", "commit", "machine")


def read_metrics(run: RunSpec) -> dict[str, Any] | None:
    """The run's metrics.csv row and provenance, or None where it is not finished."""
    folder = Path(run.directory)
    if (state := run_status(run)) == "damaged":
        raise damaged(folder / "spec.json")
    if state != "done":
        return None
    path = folder / "metrics.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise damaged(path) from None
    lines = list(csv.reader(text.splitlines()))
    if len(lines) != 2 or len(lines[0]) != len(lines[1]) or not text.endswith("\n") or lines[0][0] != "status":
        raise damaged(path, "not one whole row")
    return dict(zip(*lines, strict=True)) | provenance(run)


def provenance(run: RunSpec) -> dict[str, str]:
    """Code, commit and machine of a published run, from its env.json. What several processes computed names each of
    their codes, commits and machines once, joined by +."""
    path = Path(run.directory, "env.json")
    try:
        processes = [
            {
                "code": process["code"],
                "commit": (process["commit"] or "") + ("-dirty" if process["dirty"] else ""),
                "machine": f"{process['machine']}, {process['device']}",
            }
            for process in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError):
        raise damaged(path) from None
    if not processes:
        raise damaged(path, "empty")
    return {key: "+".join(dict.fromkeys(process[key] for process in processes)) for key in PROVENANCE}


def damaged(path: Path, how: str = "damaged") -> InputError:
    """The error of a published file that cannot be read, with its remedy."""
    return InputError(f"{path}: {how}; publish the run again: snakemake --force {path.parent}/metrics.csv")


def refuse_stale(run: RunSpec) -> None:
    """Raise InputError that names the first key in which the run directory is not the registry's run."""
    if run_status(run) != "stale":
        return
    path = Path(run.directory, "spec.json")
    stored = {**run.spec.defaults(), **run.spec.renamed(json.loads(path.read_text(encoding="utf-8")))}
    expected = {"task": run.task, **run.spec.values()}
    key = next(key for key in {**expected, **stored} if stored.get(key) != expected.get(key))
    change = f"{key} is {stored.get(key)!r}, in the registry {expected.get(key)!r}"
    raise InputError(f"{path}: {change}; compute it again: snakemake --force {run.directory}/metrics.csv")


def tidy(registry: Registry, artifact: Artifact, scale: str) -> CsvTable:
    """One row per cell and finished run: identity, metrics, provenance."""
    rows: list[dict[str, Any]] = []
    for cell in artifact.cells:
        comparable = not registry.experiments[cell.experiment].scaled(cell.variant, scale)
        for run in registry.cell_runs(scale, cell):
            if (metrics := read_metrics(run)) is not None:
                identity = (cell.row, cell.column, cell.experiment, cell.variant, run.seed, comparable)
                rows.append(dict(zip(IDENTITY, identity, strict=True)) | metrics)
    names = dict.fromkeys(key for row in rows for key in row if key not in IDENTITY + PROVENANCE)
    columns = (*IDENTITY, *names, *PROVENANCE)
    return CsvTable(columns, ([row.get(column, "") for column in columns] for row in rows))
