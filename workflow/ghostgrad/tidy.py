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
from ghostgrad.registry import Artifact, Registry
from ghostgrad.spec import RunSpec, expand

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
        metrics = next(csv.DictReader(stream), None)
    if metrics is None:
        raise InputError(f"{path} is empty; build it again: snakemake --force {path}")
    environment = _read_json(folder / "env.json")[-1]
    machine = f"{environment['machine']}, {environment['device']}"
    return {**metrics, "code": environment["code"], "commit": environment["commit"] or "", "machine": machine}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = f"build it again: snakemake --force {path.parent}/metrics.csv"
        raise InputError(f"{path}: cannot be read ({error}); {remedy}") from None


def _check_spec(run: RunSpec, path: Path) -> None:
    found = _read_json(path)
    wanted = {"task": run.task, **run.spec}
    found = {"task": found.pop("task", None), **expand(run.task, found), **found}
    differing = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if not differing:
        return
    key = differing[0]
    raise InputError(
        f"{path}: {key} is {found.get(key)!r}, in the registry {wanted.get(key)!r};"
        f" build it again: snakemake {run.directory}/metrics.csv"
    )


def tidy(registry: Registry, artifact: Artifact, scale: str) -> Rows:
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
    return Rows(columns, ([row.get(column, "") for column in columns] for row in rows))
