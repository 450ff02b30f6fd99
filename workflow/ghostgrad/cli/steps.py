"""The hidden commands that the workflow's rules and the Makefile call, one step each.

Each imports what it needs itself, as the other commands do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ghostgrad.analysis.tidy import refuse_stale, tidy_table
from ghostgrad.cli.estimates import NETWORKS
from ghostgrad.cli.options import results_of
from ghostgrad.files import write_atomically
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry, load_registry
from ghostgrad.registry.scaling import column_headings, title_line

ScaleStep = Annotated[str, typer.Option("--scale")]
Target = Annotated[Path, typer.Option("--target")]
WhyNot = Annotated[str, typer.Option(help="the reason if nothing of it can be measured")]


def data(name: str, manifest: Annotated[Path, typer.Option()]) -> None:
    """Make or check a data set and write its manifest."""
    from ghostgrad.data.make import make

    make(name, manifest)


def resized_data(
    name: str,
    short: int,
    source: Annotated[Path, typer.Option()],
    manifest: Annotated[Path, typer.Option()],
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Copy a folder of images so that short sides have at most `short` pixels, and write the copy's
    manifest."""
    import torch

    from ghostgrad.data.resized import make

    # Each thread resizes its own images, so torch must not start further threads.
    torch.set_num_threads(1)
    make(name, short, source, manifest, threads)


def _tidy_file(artifact: str, scale: str) -> Path:
    return results_of(scale) / "tidy" / f"{artifact}.csv"


def write_tidy(
    artifact: str,
    scale: ScaleStep,
    needed: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Write results/<scale>/tidy/<artifact>.csv.

    `needed` names the metrics.csv files that the build relies on; a run among them whose spec is
    not the registry's is an error. Any other such run is left out.
    """
    registry = load_registry()
    shown = registry.artifact(artifact)
    for run in registry.artifact_runs(scale, shown):
        if f"{run.directory}/metrics.csv" in (needed or ()):
            refuse_stale(run)
    write_atomically(_tidy_file(artifact, scale), tidy_table(registry, shown, scale).text())


def table(artifact: str, scale: ScaleStep, why_not: WhyNot = "") -> None:
    """Write results/<scale>/tables/<artifact>.{csv,md,tex,html}."""
    registry = load_registry()
    tidy_file = _tidy_file(artifact, scale)
    _write_table(registry, registry.artifact(artifact), scale, why_not or None, tidy_file)


def _write_table(
    registry: Registry,
    artifact: Artifact,
    scale: str,
    why_not: str | None,
    tidy_file: Path | None = None,
) -> None:
    from ghostgrad.report import render, tables

    frame = tables.build(registry, artifact, scale, why_not, tidy_file)
    title = title_line(registry, artifact, scale)
    rows = tables.records(frame)
    headings = column_headings(registry, artifact, scale)
    texts = {
        "csv": frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"),
        "md": render.render_markdown(title, rows, scale, headings),
        "html": render.render_html(title, rows, scale, headings),
        "tex": render.render_latex(title, rows, scale, headings),
    }
    for suffix, text in texts.items():
        write_atomically(results_of(scale) / "tables" / f"{artifact.id}.{suffix}", text)


def figure(artifact: str, scale: ScaleStep, why_not: WhyNot = "") -> None:
    """Write results/<scale>/figures/<artifact>.{svg,pdf,png,csv}."""
    from ghostgrad.figures.draw import draw_artifact

    registry = load_registry()
    stem = results_of(scale) / "figures" / artifact
    drawn, tidy_file = registry.artifact(artifact), _tidy_file(artifact, scale)
    draw_artifact(registry, drawn, scale, why_not or None, stem, tidy_file)


def not_run(reasons: str, scale: ScaleStep) -> None:
    """Write tables and figure frames that say why nothing of their artifact was measured.

    `reasons` is a JSON object with the reason for each artifact id.
    """
    from ghostgrad.figures.draw import draw_artifact

    registry = load_registry()
    for name, why in json.loads(reasons).items():
        artifact = registry.artifact(name)
        if artifact.has_table:
            _write_table(registry, artifact, scale, why)
        if artifact.has_figure:
            draw_artifact(registry, artifact, scale, why, results_of(scale) / "figures" / name)


def claims(scale: ScaleStep) -> None:
    """Write results/<scale>/claims.csv and .html, the list of claims with their verdicts."""
    from ghostgrad.report.claim_list import write_claim_list

    write_claim_list(load_registry(), scale, results_of(scale))


def artifacts(reasons: str, scale: ScaleStep) -> None:
    """Write results/<scale>/artifacts.csv and .html, the list that leads the report.

    `reasons` is a JSON object with the reason for each artifact that was not measured.
    """
    from ghostgrad.report.overview import write_overview

    write_overview(load_registry(), scale, json.loads(reasons))


def snapshot(scale: ScaleStep, target: Target) -> None:
    """Copy what was built at a scale into the documentation."""
    from ghostgrad.report.snapshot import write_snapshot

    print(f"{len(write_snapshot(load_registry(), scale, target))} artifacts copied to {target}")


def findings(scale: ScaleStep, target: Target) -> None:
    """Write docs/findings.md from results/<scale>/claims.csv."""
    from ghostgrad.report.findings import write_findings

    write_findings(results_of(scale) / "claims.csv", target)


def count_networks() -> None:
    """Write workflow/networks.csv, the networks that the paper scale trains."""
    from ghostgrad.cli.calibrate import networks_csv

    NETWORKS.write_text(networks_csv(load_registry().runs("paper")), encoding="utf-8")


STEPS: dict[str, Callable[..., None]] = {
    "data": data,
    "resized-data": resized_data,
    "tidy": write_tidy,
    "table": table,
    "figure": figure,
    "not-run": not_run,
    "claims": claims,
    "artifacts": artifacts,
    "snapshot": snapshot,
    "findings": findings,
    "count-networks": count_networks,
}
"""Name on the command line -> function."""
