"""`ghostgrad show`: one artifact from whatever runs exist. It writes nothing.

Heavy packages are imported only where they are needed, so that an already built table is shown at
once.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad import dependencies
from ghostgrad.analysis.tidy import tidy_table
from ghostgrad.checks import InputError
from ghostgrad.cli.options import Scale, configured, results_of
from ghostgrad.cli.status import computed_by_other_code, other_code_advice
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.config import export_machine_facts
from ghostgrad.registry.registry import PAPERS, Registry, load_registry
from ghostgrad.registry.scaling import column_headings, title_line
from ghostgrad.registry.spec import RunSpec, published
from ghostgrad.registry.verdict import LEGEND
from ghostgrad.report.cells import footer, pivot, provenance_notes

CsvRow = Mapping[str, object]


def show(
    artifact: Annotated[
        str, typer.Argument(help="an id from `ghostgrad status`, such as ghost.fig5, or claims")
    ],
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="print the tidy rows, one per run")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print the table as CSV")] = False,
) -> None:
    """Show the numbers of a statement beside ours for one artifact, from the runs that exist."""
    config, scale = configured(scale)
    export_machine_facts(config)
    registry = load_registry()
    if artifact == "claims":
        from ghostgrad.report.claim_list import show_claim_list

        show_claim_list(results_of(scale) / "claims.csv", scale, as_csv)
        return
    shown = registry.artifact(artifact)
    if runs:
        sys.stdout.write(tidy_table(registry, shown, scale).text())
        return
    if as_csv and not shown.has_table:
        numbers = results_of(scale) / "figures" / f"{shown.id}.csv"
        raise InputError(
            f"{shown.id} has no table; the numbers of its figure are in {numbers}"
            f" (snakemake {numbers})"
        )
    done = [run for run in registry.artifact_runs(scale, shown) if published(run)]
    rows = _table_rows(registry, shown, scale, config, done)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_artifact(registry, shown, scale, rows, done)


def _print_artifact(
    registry: Registry,
    artifact: Artifact,
    scale: str,
    rows: Sequence[CsvRow],
    done: Sequence[RunSpec],
) -> None:
    print(title_line(registry, artifact, scale))
    if needed := registry.artifact_runs(scale, artifact):
        print(f"{len(done)}/{len(needed)} runs at scale {scale}")
    if artifact.has_table:
        print(_sources(registry, artifact))
    figure = results_of(scale) / "figures" / f"{artifact.id}.svg"
    if figure.exists():
        print(f"figure: {figure}")
    if artifact.has_table:
        _print_table(rows, column_headings(registry, artifact, scale))
        for note in provenance_notes(rows):
            print(note)
        print(footer(rows, scale))
        print(LEGEND)
    if other_code := computed_by_other_code(done):
        print(f"different code: {len(other_code)}, {other_code_advice(scale)}")
    if notes := registry.notes(artifact):
        print("\n" + "\n".join(f"- {note}" for note in notes))


def _sources(registry: Registry, artifact: Artifact) -> str:
    """Where the numbers of a table come from: the function and the file of the paper's numbers."""
    if artifact.table == "claim":
        claim = registry.claims[artifact.id]
        return (
            f"comparisons: ghostgrad/claims/{claim.module}.py, {claim.function}; "
            f"statement: workflow/claims/{claim.module}.yaml"
        )
    text = f"ours: ghostgrad/analysis/measures.py, {artifact.table}"
    reference = registry.workflow / "reference" / f"{artifact.source}.csv"
    return f"{text}; paper: workflow/reference/{reference.name}" if reference.exists() else text


def _read_table(path: Path) -> Sequence[CsvRow]:
    """The rows of a built table; none where the file is damaged or cut short."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    is_whole = all(None not in row and None not in row.values() for row in rows)
    # A table of an earlier version has other columns.
    return rows if is_whole and rows and "provenance" in rows[0] else []


def _table_rows(
    registry: Registry,
    artifact: Artifact,
    scale: str,
    config: Mapping[str, Any],
    done: Sequence[RunSpec],
) -> Sequence[CsvRow]:
    """The rows of an artifact's table.

    They are read from the built table if all of its runs exist and the table is newer than the
    runs, the registry, the claims, the paper's numbers and the code that makes it; else they are
    computed from the runs that exist.
    """
    path = results_of(scale) / "tables" / f"{artifact.id}.csv"
    sources = [Path(run.directory, "metrics.csv") for run in done]
    sources += [registry.workflow / "experiments" / f"{paper}.yaml" for paper in PAPERS]
    sources += registry.workflow.glob("claims/*.yaml")
    sources += [registry.workflow / "reference" / f"{artifact.source}.csv"]
    sources += dependencies.files(registry.table_modules(artifact))
    newest = max(source.stat().st_mtime for source in sources if source.exists())
    is_whole = len(done) == len(registry.artifact_runs(scale, artifact))
    is_current = is_whole and path.exists() and path.stat().st_mtime >= newest
    if is_current and (rows := _read_table(path)):
        return rows
    from ghostgrad.report import tables

    why_not = None
    if artifact.cells and not done:
        why_not = registry.missing(scale, artifact, config.get("data") or {}, partial=True)
    return tables.records(tables.build(registry, artifact, scale, why_not))


def _print_table(rows: Sequence[CsvRow], headings: Mapping[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    header, body = pivot(rows, headings)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
