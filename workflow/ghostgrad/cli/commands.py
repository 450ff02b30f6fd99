"""The command line, `ghostgrad`. `steps.py` holds the hidden commands, which the rules use.

Each command imports heavy packages itself, so that the commands that read results start quickly
and work on login nodes without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer

from ghostgrad.checks import InputError, nearest
from ghostgrad.cli.options import Scale, configured, results_of
from ghostgrad.cli.plan import plan
from ghostgrad.cli.show import show
from ghostgrad.cli.status import status
from ghostgrad.cli.steps import STEPS
from ghostgrad.registry.compatibility import check_together
from ghostgrad.registry.config import export_machine_facts, load_config
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
for name, step in STEPS.items():
    app.command(name, hidden=True)(step)


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
    """Delete a run's published files and checkpoints, and the tables and figures that are made from
    it, so that the next build computes it again."""
    import shutil

    from ghostgrad.runs.state import State

    config, scale = configured(scale)
    registry = load_registry()
    spec = registry.run(scale, run)
    states = Path(config["state_dir"], scale, spec.experiment)
    folders = sorted(states.glob(f"{spec.variant}-s{spec.seed}@*"))
    for folder in folders:
        if State(folder).busy():
            raise InputError(f"{run}: a process is computing this run; stop it first")
    existing = [folder for folder in [*folders, Path(spec.directory)] if folder.exists()]
    if not existing:
        print(f"nothing to delete: {run} has no files at scale {scale}")
    for folder in existing:
        shutil.rmtree(folder)
        print(f"deleted {folder}")
    made_from_it = _made_from(registry, spec, scale)
    for path in made_from_it:
        path.unlink()
    if made_from_it:
        print(f"deleted {len(made_from_it)} files that were made from it")


def _made_from(registry: Registry, run: RunSpec, scale: str) -> list[Path]:
    """The files of results/<scale>/ that exist and are made from a run.

    Snakemake makes no intermediate file again for a target that exists, so with these files in
    place, a run that is gone would not be computed.
    """
    folder = results_of(scale)
    patterns: list[str] = []
    for artifact in registry.artifacts.values():
        if run in registry.artifact_runs(scale, artifact):
            patterns += [f"{kind}/{artifact.id}.*" for kind in ("tidy", "tables", "figures")]
    if any(run in registry.claim_runs(scale, claim) for claim in registry.claims.values()):
        patterns += ["claims.csv", "claims.html"]
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


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
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; those of the registry, or 1, by default"),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="number of GPUs, 0 computes on the CPU; those of the registry, or 0, by default",
        ),
    ] = None,
    files: Annotated[
        str,
        typer.Option(
            help="with --spec: space-separated output files; weights.pt is published only if it"
            " is among them"
        ),
    ] = "",
) -> None:
    """Compute one run, or resume it where it stopped, and publish its files."""
    from ghostgrad.tasks.run import execute

    what = what or []
    if spec and out is not None:
        inputs = [Path(name) for name in what]
        weights = "weights.pt" in [Path(name).name for name in files.split()]
        threads, gpus = threads or 1, gpus or 0
    elif len(what) == 1 and not spec:
        scale, _, name = what[0].partition("/")
        if scale not in SCALES:
            raise InputError(f"run: '{scale}' is not a scale{nearest(scale, SCALES)}")
        named = load_registry().run(scale, name)
        export_machine_facts(load_config())
        spec, out = named.canonical, out or Path(named.directory)
        threads = threads or named.resources.get("threads", 1)
        gpus = named.gpus if gpus is None else gpus
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


@app.command()
def unpack_imagenet(
    folder: Annotated[
        Path,
        typer.Argument(help="the folder of ImageNet's archives, or of a flat val/, and its devkit"),
    ],
) -> None:
    """Extract ImageNet's archives to train/<class>/ and val/<class>/, or sort a flat val/."""
    from ghostgrad.data.imagenet import unpack

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    unpack(folder)
