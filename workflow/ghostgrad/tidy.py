"""From run directories to one CSV row per run and cell: `results/<scale>/tidy/<artifact>.csv`.

A run whose spec is not the registry's is refused. Imports neither torch nor pandas.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.record import Rows
from ghostgrad.registry import Artifact, Registry, RunSpec, canonical_json

IDENTITY = ("row", "column", "experiment", "variant", "seed", "comparable")
PROVENANCE = ("code", "commit", "machine")


def read_metrics(run: RunSpec) -> dict[str, Any] | None:
    """The run's metrics.csv row and provenance, or None where it is not finished."""
    folder = Path(run.directory)
    path = folder / "metrics.csv"
    if not path.exists():
        return None
    _check_spec(run, folder / "spec.json")
    with path.open(newline="", encoding="utf-8") as stream:
        metrics = next(csv.DictReader(stream))
    environment = json.loads((folder / "env.json").read_text(encoding="utf-8"))[-1]
    machine = f"{environment['machine']}, {environment['device']}"
    return {**metrics, "code": environment["code"], "commit": environment["commit"] or "", "machine": machine}


def _check_spec(run: RunSpec, path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    task = found.pop("task")
    if task == run.task and canonical_json(task, found) == run.canonical:
        return
    differing = [key for key in {**run.spec, **found} if run.spec.get(key) != found.get(key)]
    key = differing[0] if differing else "task"
    raise InputError(
        f"{path}: {key} is {found.get(key)!r}, in the registry {run.spec.get(key)!r};"
        f" build it again: snakemake {run.directory}/metrics.csv"
    )


def tidy(registry: Registry, artifact: Artifact, scale: str) -> Rows:
    """One row per cell and finished run: identity, metrics, provenance."""
    rows: list[dict[str, Any]] = []
    for cell in artifact.cells:
        comparable = registry.experiments[cell.experiment].comparable(cell.variant, scale)
        for run in registry.cell_runs(scale, cell):
            if (metrics := read_metrics(run)) is not None:
                identity = (cell.row, cell.column, cell.experiment, cell.variant, run.seed, comparable)
                rows.append(dict(zip(IDENTITY, identity, strict=True)) | metrics)
    names = dict.fromkeys(key for row in rows for key in row if key not in IDENTITY + PROVENANCE)
    columns = (*IDENTITY, *names, *PROVENANCE)
    return Rows(columns, ([row.get(column, "") for column in columns] for row in rows))
