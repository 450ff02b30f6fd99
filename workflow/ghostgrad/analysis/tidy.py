"""From run directories to one CSV row per run and cell: `results/<scale>/tidy/<artifact>.csv`.

A run directory whose spec is not the one in the registry counts as not run. If the build depends
on such a run, it is refused. Imports neither torch nor pandas.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable, read_single_row
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec, run_status

IDENTITY = ("row", "column", "experiment", "variant", "seed", "comparable")
PROVENANCE = ("code", "commit", "machine")


def read_run(run: RunSpec) -> dict[str, str] | None:
    """The row of a run's metrics.csv with its provenance, or None if the run is not finished.

    Raises InputError if a published file is damaged.
    """
    folder = Path(run.directory)
    status = run_status(run)
    if status == "damaged":
        raise damaged_file(folder / "spec.json")
    if status != "done":
        return None
    path = folder / "metrics.csv"
    try:
        metrics = read_single_row(path)
    except (OSError, UnicodeDecodeError):
        raise damaged_file(path) from None
    except ValueError:
        raise damaged_file(path, "not one whole row") from None
    # Every task writes `status` first; another header is not that of a run.
    if next(iter(metrics), None) != "status":
        raise damaged_file(path, "not one whole row")
    return metrics | read_provenance(run)


def read_provenance(run: RunSpec) -> dict[str, str]:
    """Code, commit and machine of a published run, from its env.json.

    A run may have been interrupted and resumed by other processes. Each of their codes, commits
    and machines is then named once, joined by +. Raises InputError if env.json is damaged.
    """
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
        raise damaged_file(path) from None
    if not processes:
        raise damaged_file(path, "empty")
    return {
        key: "+".join(dict.fromkeys(process[key] for process in processes)) for key in PROVENANCE
    }


def damaged_file(path: Path, problem: str = "damaged") -> InputError:
    """The error for a published file that cannot be read, with its remedy."""
    remedy = f"publish the run again: snakemake --force {path.parent}/metrics.csv"
    return InputError(f"{path}: {problem}; {remedy}")


def refuse_stale(run: RunSpec) -> None:
    """Raise InputError if the run directory holds a run with another spec than the registry's.

    The message names the first key that differs.
    """
    if run_status(run) != "stale":
        return
    path = Path(run.directory, "spec.json")
    stored = run.spec.renamed(json.loads(path.read_text(encoding="utf-8")))
    # A key that the stored spec lacks has its default; a key that the spec no longer knows stays.
    stored = {**run.spec.defaults(), **stored}
    wanted = {"task": run.task, **run.spec.values()}
    key = next(key for key in {**wanted, **stored} if stored.get(key) != wanted.get(key))
    difference = f"{key} is {stored.get(key)!r}, in the registry {wanted.get(key)!r}"
    remedy = f"compute it again: snakemake --force {run.directory}/metrics.csv"
    raise InputError(f"{path}: {difference}; {remedy}")


def tidy_table(registry: Registry, artifact: Artifact, scale: str) -> CsvTable:
    """The tidy table of an artifact: identity, metrics and provenance of each finished run.

    A run that fills several cells has one row for each. `comparable` says whether the numbers may
    be judged against the paper's, that is whether the scale changes at most repeats and seeds.
    """
    rows: list[dict[str, Any]] = []
    for cell in artifact.cells:
        comparable = not registry.experiments[cell.experiment].scaled(cell.variant, scale)
        for run in registry.cell_runs(scale, cell):
            metrics = read_run(run)
            if metrics is not None:
                identity = (
                    cell.row,
                    cell.column,
                    cell.experiment,
                    cell.variant,
                    run.seed,
                    comparable,
                )
                rows.append(dict(zip(IDENTITY, identity, strict=True)) | metrics)
    # Runs of different tasks have different metrics: the columns are their union, in the order of
    # first appearance, and a run leaves empty what it does not measure.
    names = dict.fromkeys(key for row in rows for key in row if key not in IDENTITY + PROVENANCE)
    columns = (*IDENTITY, *names, *PROVENANCE)
    return CsvTable(columns, ([row.get(column, "") for column in columns] for row in rows))
