"""The command line. `status`, `show` and `plan` read results; the rest are the workflow's own steps.

Heavy packages are imported where they are needed only, so that reading results is quick.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad import registry as registries
from ghostgrad.checks import InputError, nearest
from ghostgrad.record import code_hash
from ghostgrad.registry import Artifact
from ghostgrad.spec import SCALES, RunSpec, parse_spec, published, standing
from ghostgrad.tidy import provenance, refuse_stale, tidy

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Rebuild the tables, figures and claims of four papers on exploding gradients. The workflow itself is run by "
    "`make` or `snakemake`; these commands look at its results.",
)

UsageError = typer.BadParameter.__base__

Scale = Annotated[str, typer.Option(help="smoke, laptop, substitute or paper; the default is config.yaml's")]


def main() -> None:
    """Entry point: wrong input is one line and exit code 1, a stopped run exit code 75."""
    from ghostgrad.state import EXIT_STOPPED, Stopped

    try:
        app(standalone_mode=False)
    except UsageError as error:
        if message := error.format_message():
            print(f"ghostgrad: {message}", file=sys.stderr)
        sys.exit(1)
    except typer.Abort:
        sys.exit(1)
    except InputError as error:
        print(f"ghostgrad: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.strerror is None:
            raise
        print(f"ghostgrad: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except Stopped:
        sys.exit(EXIT_STOPPED)


def _config(scale: str) -> tuple[dict[str, Any], str]:
    config = registries.load_config()
    scale = scale or config["scale"]
    if scale not in SCALES:
        raise InputError(f"--scale: '{scale}' is not allowed{nearest(scale, SCALES)}")
    return config, scale


def _results(scale: str) -> Path:
    return Path("results") / scale


def _run_state(run: RunSpec, state_dir: Path) -> str:
    """missing | started | 120/400 | done | diverged | stale (of another spec) | damaged, from files alone."""
    state = standing(run)
    if state == "done":
        try:
            provenance(run)
        except InputError:
            return "damaged"
        with Path(run.directory, "metrics.csv").open(encoding="utf-8", errors="replace") as stream:
            stream.readline()
            return stream.readline().split(",", 1)[0].strip() or "damaged"
    from ghostgrad.run import state_folder

    inputs = [Path(f"results/data/{run.data}.json")] if run.data else []
    if not all(path.exists() for path in inputs):
        return state
    folder = state_folder(state_dir, Path(run.directory), run.canonical, inputs)
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads((folder / "progress.json").read_text())
        return f"{seen['done']}/{seen['total']}"
    return "started" if folder.exists() and state == "missing" else state


def _other_code(runs: Sequence[RunSpec]) -> set[RunSpec]:
    """Of these finished runs those computed with another version of their task's numeric modules than this one."""
    current = {task: code_hash(task) for task in {run.task for run in runs}}
    return {run for run in runs if provenance(run)["code"] != current[run.task]}


def _of_other_code(scale: str) -> str:
    again = f"ghostgrad forget <run> --scale {scale}, then build"
    return f"computed with another version of the task's modules than this checkout's; to compute one again: {again}"


@app.command()
def status(
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="a line for every run too")] = False,
    paper: Annotated[str, typer.Option(help="ghost, lalc or bnres only")] = "",
) -> None:
    """Where everything stands: one line per artifact, with its runs and verdicts."""
    config, scale = _config(scale)
    if paper and paper not in registries.PAPERS:
        raise InputError(f"--paper: '{paper}' is not allowed{nearest(paper, registries.PAPERS)}")
    reg = registries.load()
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


def _verdicts(reg: registries.Registry, artifact: Artifact, scale: str, config: dict[str, Any]) -> str:
    from ghostgrad.overview import verdict_counts

    path = _results(scale) / "tables" / f"{artifact.id}.csv"
    if path.exists() and not artifact.planned:
        return verdict_counts([path])
    reason = reg.missing(scale, artifact, config.get("data") or {})
    if reason:
        return f"not run ({reason})"
    drawn = (_results(scale) / "figures" / f"{artifact.id}.svg").exists()
    return "drawn" if drawn else "not built yet"


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="an id such as ghost.fig5 (see `ghostgrad status`), or claims")],
    scale: Scale = "",
    runs: Annotated[bool, typer.Option("--runs", help="the tidy rows, one per run")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="the table as CSV, for pipes")] = False,
) -> None:
    """The paper's numbers beside ours for one artifact, from whatever exists; writes nothing."""
    from ghostgrad import render

    config, scale = _config(scale)
    reg = registries.load()
    if artifact == "claims":
        from ghostgrad.claims import page

        page.show(reg, scale, _results(scale) / "claims.csv", as_csv)
        return
    found = reg.artifact(artifact)
    if runs:
        sys.stdout.write(tidy(reg, found, scale).text())
        return
    if as_csv and not found.has_table and not found.planned:
        drawn = _results(scale) / "figures" / f"{found.id}.csv"
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
    figure = _results(scale) / "figures" / f"{found.id}.svg"
    if figure.exists():
        print(f"figure: {figure}")
    if found.has_table or found.planned:
        _print_table(rows)
        print(render.footer(rows, scale))
    if other := _other_code(done):
        print(f"runs of other code: {len(other)}, {_of_other_code(scale)}")
    if notes := reg.notes(found):
        print("\n" + "\n".join(f"- {note}" for note in notes))


def _table_rows(
    reg: registries.Registry, artifact: Artifact, scale: str, config: dict[str, Any], done: list[RunSpec]
) -> list[dict[str, Any]]:
    """The built table where all of its runs are there and it is newer than they, the registry and the paper's numbers;
    else computed now from the runs that exist."""
    path = _results(scale) / "tables" / f"{artifact.id}.csv"
    sources = [Path(run.directory, "metrics.csv") for run in done]
    sources += [reg.workflow / "experiments" / f"{paper}.yaml" for paper in registries.PAPERS]
    sources += [reg.workflow / "reference" / f"{artifact.source}.csv"]
    newest = max(source.stat().st_mtime for source in sources if source.exists())
    whole = len(done) == len(reg.artifact_runs(scale, artifact))
    if whole and path.exists() and path.stat().st_mtime >= newest:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    from ghostgrad import tables

    why_not = None if done or not artifact.cells else reg.missing(scale, artifact, config.get("data") or {}, True)
    if artifact.planned:
        why_not = "planned"
    frame = tables.build(reg, artifact, scale, why_not)
    return frame.astype(object).where(frame.notna(), "").to_dict("records")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ghostgrad import render

    header, body = render.pivot(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)


@app.command()
def plan(
    scale: Scale = "",
    cores: Annotated[int, typer.Option(min=1, help="CPU cores at hand")] = 2,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs at hand")] = 1,
) -> None:
    """What the scale takes: runs, time and GPUs per experiment, from the durations that the registry expects."""
    _, scale = _config(scale)
    reg = registries.load()
    print(f"{'experiment':22} {'runs':>5} {'left':>5} {'GPUs':>5} {'hours a run':>12} {'hours left':>11}")
    left_cpu = left_gpu = 0.0
    for name, experiment in reg.experiments.items():
        mine = [run for variant in experiment.variants_at(scale) for run in experiment.runs(scale, variant)]
        if not mine:
            print(f"{name:22} {'not at this scale':>17}")
            continue
        todo = [run for run in mine if not published(run)]
        gpu = max(run.resources.get("gpu", 0) for run in mine)
        hours = sum(run.expect.get("seconds", 0) for run in todo) / 3600
        each = sum(run.expect.get("seconds", 0) for run in mine) / 3600 / len(mine)
        left_gpu += hours * gpu
        left_cpu += hours if not gpu else 0
        print(f"{name:22} {len(mine):5} {len(todo):5} {gpu:5} {each:12.3f} {hours:11.2f}")
    print(f"\nscale {scale}: {left_cpu:.2f} core-hours left, {left_cpu / cores:.2f} h on {cores} cores;", end=" ")
    print(f"{left_gpu:.2f} GPU-hours left, {left_gpu / gpus:.2f} h on {gpus} GPU(s)")


@app.command()
def unlock(quiet: Annotated[bool, typer.Option("--quiet", help="say nothing where nothing is locked")] = False) -> None:
    """Remove the lock of a Snakemake that was killed, only where no Snakemake works in this folder."""
    from ghostgrad import controller

    print(message) if (message := controller.unlock()) else quiet or print("nothing is locked")


@app.command()
def forget(
    run: Annotated[str, typer.Argument(help="<experiment>/<variant>-s<seed>")],
    scale: Scale = "",
) -> None:
    """Delete a run's record and checkpoints, so that the next build computes it again."""
    import shutil

    from ghostgrad.state import State

    config, scale = _config(scale)
    found = registries.load().run(scale, run)
    folders = sorted(Path(config["state_dir"], scale, found.experiment).glob(f"{found.variant}-s{found.seed}@*"))
    for folder in folders:
        if State(folder).busy():
            raise InputError(f"{run}: a process works on it at this moment; stop that first")
    for folder in [*folders, Path(found.directory)]:
        if folder.exists():
            shutil.rmtree(folder)
            print(f"deleted {folder}")


@app.command()
def run(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="<scale>/<experiment>/<variant>-s<seed>; with --spec and --out, the run's input files"),
    ] = None,
    spec: Annotated[str, typer.Option(help="canonical JSON of the run")] = "",
    out: Annotated[Path | None, typer.Option(help="the run directory")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="0 computes on the CPU")] = 0,
) -> None:
    """Compute one run, or take up where it stopped, and publish its files."""
    from ghostgrad.run import execute

    what = what or []
    if spec and out is not None:
        inputs = [Path(name) for name in what]
    elif len(what) == 1 and not spec:
        scale, _, name = what[0].partition("/")
        if scale not in SCALES:
            raise InputError(f"run: '{scale}' is no scale{nearest(scale, SCALES)}")
        found = registries.load().run(scale, name)
        for key, value in registries.machine_facts(registries.load_config()).items():
            os.environ.setdefault(key, value)
        spec, out = found.canonical, out or Path(found.directory)
        gpus = found.resources.get("gpu", 0)
        inputs = [Path(f"results/data/{found.data}.json")] if found.data else []
    else:
        raise InputError("run: give <scale>/<experiment>/<variant>-s<seed>, or --spec and --out")
    task, expanded = parse_spec(spec)
    execute(task, expanded, out, inputs, threads, gpus)


@app.command(hidden=True)
def data(name: str, manifest: Annotated[Path, typer.Option()]) -> None:
    """Make or check a data set and write its manifest."""
    from ghostgrad.data import make

    make(name, manifest)


@app.command("tidy", hidden=True)
def tidy_command(
    artifact: str,
    scale: Annotated[str, typer.Option()],
    needed: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Write results/<scale>/tidy/<artifact>.csv; `needed` are the metrics.csv that the build counts on."""
    from ghostgrad.record import write

    reg = registries.load()
    found = reg.artifact(artifact)
    for run in reg.artifact_runs(scale, found):
        if f"{run.directory}/metrics.csv" in (needed or ()):
            refuse_stale(run)
    write(_tidy_file(artifact, scale), tidy(reg, found, scale).text())


def _tidy_file(artifact: str, scale: str) -> Path:
    return _results(scale) / "tidy" / f"{artifact}.csv"


WhyNot = Annotated[str, typer.Option(help="the reason why nothing of it can be measured")]


@app.command(hidden=True)
def table(artifact: str, scale: Annotated[str, typer.Option()], why_not: WhyNot = "") -> None:
    """Write results/<scale>/tables/<artifact>.{csv,md,tex,html}."""
    reg = registries.load()
    _write_table(reg, reg.artifact(artifact), scale, why_not or None, _tidy_file(artifact, scale))


def _write_table(
    reg: registries.Registry, artifact: Artifact, scale: str, why_not: str | None, tidy_file: Path | None = None
) -> None:
    from ghostgrad import render, tables
    from ghostgrad.record import write

    frame = tables.build(reg, artifact, scale, why_not, tidy_file)
    stem = _results(scale) / "tables"
    write(stem / f"{artifact.id}.csv", frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    rows = frame.astype(object).where(frame.notna(), "").to_dict("records")
    title = f"{artifact.id}: {artifact.title} ({artifact.section})"
    write(stem / f"{artifact.id}.md", render.markdown(title, rows, scale))
    write(stem / f"{artifact.id}.html", render.html_page(title, rows, scale))
    write(stem / f"{artifact.id}.tex", render.latex(title, rows, scale))


@app.command(hidden=True)
def figure(artifact: str, scale: Annotated[str, typer.Option()], why_not: WhyNot = "") -> None:
    """Write results/<scale>/figures/<artifact>.{svg,pdf,png,csv}."""
    from ghostgrad import figures

    reg = registries.load()
    stem = _results(scale) / "figures" / artifact
    figures.draw(reg, reg.artifact(artifact), scale, why_not or None, stem, _tidy_file(artifact, scale))


@app.command("not-run", hidden=True)
def not_run(reasons: str, scale: Annotated[str, typer.Option()]) -> None:
    """Write the tables and frames of the artifacts of which nothing can be measured; `reasons` is JSON, id -> why."""
    from ghostgrad import figures

    reg = registries.load()
    for name, why in json.loads(reasons).items():
        artifact = reg.artifact(name)
        if artifact.has_table:
            _write_table(reg, artifact, scale, why)
        if artifact.has_figure:
            figures.draw(reg, artifact, scale, why, _results(scale) / "figures" / name)


@app.command(hidden=True)
def snapshot(scale: Annotated[str, typer.Option()], target: Annotated[Path, typer.Option()]) -> None:
    """Copy what was built at a scale into the documentation."""
    from ghostgrad import overview

    print(f"{len(overview.snapshot(registries.load(), scale, target))} artifacts copied to {target}")


@app.command("claims", hidden=True)
def claims_command(scale: Annotated[str, typer.Option()]) -> None:
    """Write results/<scale>/claims.csv and .html, the ledger with its verdicts."""
    from ghostgrad.claims import page

    page.write_ledger(registries.load(), scale, _results(scale))


@app.command(hidden=True)
def findings(scale: Annotated[str, typer.Option()], target: Annotated[Path, typer.Option()]) -> None:
    """Write docs/findings.md from results/<scale>/claims.csv."""
    from ghostgrad.claims import page

    page.write_findings(_results(scale) / "claims.csv", target)


@app.command("artifacts", hidden=True)
def artifacts_command(reasons: str, scale: Annotated[str, typer.Option()]) -> None:
    """Write results/<scale>/artifacts.csv and .html, the list that leads the report."""
    from ghostgrad import overview

    overview.write_overview(registries.load(), scale, json.loads(reasons))
