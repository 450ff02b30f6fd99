"""The command line of users, `ghostgrad`; the workflow's rules use the hidden commands.

Each command imports heavy packages itself, so that the commands that read results start quickly
and work on login nodes without torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer

from ghostgrad.analysis.tidy import refuse_stale, tidy_table
from ghostgrad.checks import InputError, nearest
from ghostgrad.cli.estimates import NETWORKS
from ghostgrad.cli.plan import plan
from ghostgrad.cli.status import Scale, configured, results_of, show, status
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.compatibility import check_together
from ghostgrad.registry.config import load_config, machine_facts
from ghostgrad.registry.registry import Registry, load_registry
from ghostgrad.registry.spec import SCALES, RunSpec, parse_spec

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Rebuild the tables, figures and claims of four papers on exploding gradients. `make` or"
    " `snakemake` runs the workflow itself; these commands look at its results.",
)

# The class of all usage errors (no such command, a missing argument) has no public name in Typer.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)

for command in (status, show, plan):
    app.command()(command)


def main() -> None:
    """The entry point. Bad input ends the process with one line and exit code 1, a run that was
    asked to stop with exit code 75."""
    from ghostgrad.runs.state import EXIT_STOPPED, Stopped

    try:
        app(standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message())  # empty where the help was printed instead
    except typer.Abort:
        _fail("")
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        if error.strerror is None:  # not from the operating system: a bug, with its traceback
            raise
        _fail(f"{error.filename or 'writing'}: {error.strerror}")
    except Stopped:
        sys.exit(EXIT_STOPPED)


def _fail(message: str) -> NoReturn:
    if message:
        print(f"ghostgrad: {message}", file=sys.stderr)
    sys.exit(1)


@app.command()
def unlock(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="print nothing if nothing is locked")
    ] = False,
) -> None:
    """Remove the lock of a Snakemake that was killed, unless a Snakemake runs in this folder."""
    from ghostgrad.cli import lock

    message = lock.unlock()
    if message is not None:
        print(message)
    elif not quiet:
        print("nothing is locked")


@app.command()
def forget(
    run: Annotated[str, typer.Argument(help="<experiment>/<variant>-s<seed>")],
    scale: Scale = "",
) -> None:
    """Delete a run's published files and checkpoints, so that the next build computes it again."""
    import shutil

    from ghostgrad.runs.state import State

    config, scale = configured(scale)
    spec = load_registry().run(scale, run)
    states = Path(config["state_dir"], scale, spec.experiment)
    folders = sorted(states.glob(f"{spec.variant}-s{spec.seed}@*"))
    for folder in folders:
        if State(folder).busy():
            raise InputError(f"{run}: a process is computing this run; stop it first")
    for folder in [*folders, Path(spec.directory)]:
        if folder.exists():
            shutil.rmtree(folder)
            print(f"deleted {folder}")


@app.command()
def run(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="<scale>/<experiment>/<variant>-s<seed>, or the run's input files if --spec and"
            " --out are given"
        ),
    ] = None,
    spec: Annotated[str, typer.Option(help="canonical JSON of the run")] = "",
    out: Annotated[Path | None, typer.Option(help="the run directory")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="number of GPUs; 0 computes on the CPU")] = 0,
    files: Annotated[
        str,
        typer.Option(
            help="space-separated output files; weights.pt is published only if named here"
        ),
    ] = "",
) -> None:
    """Compute one run, or resume it where it stopped, and publish its files."""
    from ghostgrad.tasks.run import execute

    what = what or []
    if spec and out is not None:
        inputs = [Path(name) for name in what]
        weights = "weights.pt" in [Path(name).name for name in files.split()]
    elif len(what) == 1 and not spec:
        scale, _, name = what[0].partition("/")
        if scale not in SCALES:
            raise InputError(f"run: '{scale}' is not a scale{nearest(scale, SCALES)}")
        named = load_registry().run(scale, name)
        # A variable that is set already wins over config.yaml, as in a job of the workflow.
        for key, value in machine_facts(load_config()).items():
            os.environ.setdefault(key, value)
        spec, out = named.canonical, out or Path(named.directory)
        gpus = named.resources.get("gpu", 0)
        inputs, weights = [Path(path) for path in named.inputs], named.publishes_weights
    else:
        raise InputError("run: give <scale>/<experiment>/<variant>-s<seed>, or --spec and --out")
    parsed = parse_spec(spec)
    check_together(parsed, gpus, "--spec")
    execute(parsed, out, inputs, threads, gpus, weights)


def _selected_runs(registry: Registry, names: Iterable[str], scale: str) -> list[RunSpec]:
    """The runs of `<experiment>` and `<experiment>/<variant>` at a scale."""
    runs: list[RunSpec] = []
    for name in names:
        experiment, _, variant = name.partition("/")
        if experiment not in registry.experiments:
            hint = nearest(experiment, registry.experiments)
            raise InputError(f"calibrate: no experiment '{experiment}'{hint}")
        variants = registry.experiments[experiment].variants_at(scale)
        if variant and variant not in variants:
            raise InputError(
                f"calibrate: {experiment} has no variant '{variant}' at scale {scale}"
                f"{nearest(variant, variants)}"
            )
        for selected in [variant] if variant else variants:
            runs += registry.experiments[experiment].runs(scale, selected)
    return runs


@app.command()
def calibrate(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="<experiment> or <experiment>/<variant>; all experiments by default"),
    ] = None,
    scale: Scale = "",
    steps: Annotated[int, typer.Option(min=1, help="timed steps of each network")] = 20,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="measure the CPU with torch's default number of threads")
    ] = False,
) -> None:
    """Measure the images per second of training on this machine, for `ghostgrad plan`."""
    config, scale = configured(scale)
    registry = load_registry()
    runs = _selected_runs(registry, what or registry.experiments, scale)
    import logging

    import torch

    from ghostgrad.cli import calibrate as calibration

    if not (cpu or torch.cuda.is_available()):
        raise InputError("calibrate: no GPU is visible; give --cpu to measure the CPU")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = torch.device("cpu" if cpu else "cuda")
    print(calibration.calibrate(runs, device, steps, Path(config["state_dir"])))


@app.command(hidden=True)
def count_networks() -> None:
    """Write workflow/networks.csv, the networks that the paper scale trains."""
    from ghostgrad.cli.calibrate import networks

    NETWORKS.write_text(networks(load_registry().runs("paper")), encoding="utf-8")


@app.command()
def unpack_imagenet(
    folder: Annotated[
        Path,
        typer.Argument(help="the folder of ImageNet's archives, or of a flat val/, and its devkit"),
    ],
) -> None:
    """Extract ImageNet's original archives to train/<class>/* and val/<class>/*, or sort a val/
    that has no class folders."""
    from ghostgrad.data.imagenet import unpack

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    unpack(folder)


@app.command(hidden=True)
def data(name: str, manifest: Annotated[Path, typer.Option()]) -> None:
    """Make or check a data set and write its manifest."""
    from ghostgrad.data.make import make

    make(name, manifest)


@app.command(hidden=True)
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

    torch.set_num_threads(1)  # one image per thread is faster than many threads per image
    make(name, short, source, manifest, threads)


@app.command("tidy", hidden=True)
def tidy_command(
    artifact: str,
    scale: Annotated[str, typer.Option()],
    needed: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Write results/<scale>/tidy/<artifact>.csv.

    `needed` names the metrics.csv files that the build relies on; a run among them whose spec is
    not the registry's is an error. Any other such run is left out.
    """
    from ghostgrad.files import write_atomically

    reg = load_registry()
    found = reg.artifact(artifact)
    for run in reg.artifact_runs(scale, found):
        if f"{run.directory}/metrics.csv" in (needed or ()):
            refuse_stale(run)
    write_atomically(_tidy_file(artifact, scale), tidy_table(reg, found, scale).text())


def _tidy_file(artifact: str, scale: str) -> Path:
    return results_of(scale) / "tidy" / f"{artifact}.csv"


WhyNot = Annotated[str, typer.Option(help="the reason why nothing of it can be measured")]


@app.command(hidden=True)
def table(artifact: str, scale: Annotated[str, typer.Option()], why_not: WhyNot = "") -> None:
    """Write results/<scale>/tables/<artifact>.{csv,md,tex,html}."""
    reg = load_registry()
    _write_table(reg, reg.artifact(artifact), scale, why_not or None, _tidy_file(artifact, scale))


def _write_table(
    reg: Registry,
    artifact: Artifact,
    scale: str,
    why_not: str | None,
    tidy_file: Path | None = None,
) -> None:
    from ghostgrad.files import write_atomically
    from ghostgrad.report import render, tables

    frame = tables.build(reg, artifact, scale, why_not, tidy_file)
    stem = results_of(scale) / "tables"
    write_atomically(
        stem / f"{artifact.id}.csv",
        frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"),
    )
    rows = frame.astype(object).where(frame.notna(), "").to_dict("records")
    title = f"{artifact.id}: {artifact.title} ({artifact.section})"
    write_atomically(stem / f"{artifact.id}.md", render.render_markdown(title, rows, scale))
    write_atomically(stem / f"{artifact.id}.html", render.render_html(title, rows, scale))
    write_atomically(stem / f"{artifact.id}.tex", render.render_latex(title, rows, scale))


@app.command(hidden=True)
def figure(artifact: str, scale: Annotated[str, typer.Option()], why_not: WhyNot = "") -> None:
    """Write results/<scale>/figures/<artifact>.{svg,pdf,png,csv}."""
    from ghostgrad.figures.draw import draw_artifact

    reg = load_registry()
    stem = results_of(scale) / "figures" / artifact
    draw_artifact(
        reg, reg.artifact(artifact), scale, why_not or None, stem, _tidy_file(artifact, scale)
    )


@app.command("not-run", hidden=True)
def not_run(reasons: str, scale: Annotated[str, typer.Option()]) -> None:
    """Write tables and figure frames that say why nothing of their artifact was measured.

    `reasons` is a JSON object with the reason for each artifact id.
    """
    from ghostgrad.figures.draw import draw_artifact

    reg = load_registry()
    for name, why in json.loads(reasons).items():
        artifact = reg.artifact(name)
        if artifact.has_table:
            _write_table(reg, artifact, scale, why)
        if artifact.has_figure:
            draw_artifact(reg, artifact, scale, why, results_of(scale) / "figures" / name)


@app.command(hidden=True)
def snapshot(
    scale: Annotated[str, typer.Option()], target: Annotated[Path, typer.Option()]
) -> None:
    """Copy what was built at a scale into the documentation."""
    from ghostgrad.report.snapshot import write_snapshot

    print(f"{len(write_snapshot(load_registry(), scale, target))} artifacts copied to {target}")


@app.command("claims", hidden=True)
def claims_command(scale: Annotated[str, typer.Option()]) -> None:
    """Write results/<scale>/claims.csv and .html, the ledger with its verdicts."""
    from ghostgrad.report.ledger import write_ledger

    write_ledger(load_registry(), scale, results_of(scale))


@app.command(hidden=True)
def findings(
    scale: Annotated[str, typer.Option()], target: Annotated[Path, typer.Option()]
) -> None:
    """Write docs/findings.md from results/<scale>/claims.csv."""
    from ghostgrad.report.findings import write_findings

    write_findings(results_of(scale) / "claims.csv", target)


@app.command("artifacts", hidden=True)
def artifacts_command(reasons: str, scale: Annotated[str, typer.Option()]) -> None:
    """Write results/<scale>/artifacts.csv and .html, the list that leads the report."""
    from ghostgrad.report.overview import write_overview

    write_overview(load_registry(), scale, json.loads(reasons))
