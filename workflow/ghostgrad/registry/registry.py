"""The registry: workflow/experiments/*.yaml become experiments with their runs, and artifacts that name them.

Imports neither torch nor pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, load_yaml, nearest, shown, validate
from ghostgrad.registry import claim as ledger
from ghostgrad.registry import signatures as functions
from ghostgrad.registry.artifact import Artifact, Cell, paper_of
from ghostgrad.registry.claim import Claim
from ghostgrad.registry.experiment import Experiment
from ghostgrad.registry.spec import SCALES, RunSpec, available, missing_reason, unset_data

WORKFLOW = Path(__file__).resolve().parents[2]
PAPERS = ("ghost", "lalc", "bnres")


class Registry:
    """All experiments and artifacts of workflow/experiments/*.yaml."""

    def __init__(self, workflow: Path = WORKFLOW):
        self.workflow = workflow
        self.papers: dict[str, dict] = {}
        self.experiments: dict[str, Experiment] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.claims = ledger.load(workflow)
        bodies: dict[str, tuple[dict, str]] = {}
        for paper in PAPERS:
            path = workflow / "experiments" / f"{paper}.yaml"
            where = shown(path)
            body = load_yaml(path)
            validate(body, "registry", where)
            self.papers[paper] = body["paper"]
            for name, experiment in body.get("experiments", {}).items():
                if name in self.experiments:
                    raise InputError(f"{where}: experiments.{name}: stands in {self.experiments[name].where} too")
                self.experiments[name] = Experiment(name, experiment, f"{where}: experiments.{name}", self._upstream)
            for name, artifact in body["artifacts"].items():
                if name in bodies:
                    raise InputError(f"{where}: artifacts.{name}: stands in {bodies[name][1]} too")
                if (found := paper_of(name)) != paper:
                    raise InputError(f"{where}: artifacts.{name}: '{found}' is not this paper{nearest(found, [paper])}")
                bodies[name] = (artifact, f"{where}: artifacts.{name}")
        for name, (artifact, where) in bodies.items():
            self.artifacts[name] = self._artifact(name, artifact, bodies, where)
        self._check_claims()
        self._refuse_twins()

    def _upstream(self, scale: str, run_id: str, where: str) -> RunSpec:
        """The run whose weights another one of the scale starts from."""
        name, _, rest = run_id.partition("/")
        variant = rest.rpartition("-s")[0]
        if name not in self.experiments:
            raise InputError(f"{where}: weights: no experiment '{name}'{nearest(name, self.experiments)}")
        runs = {run.id: run for run in self.experiments[name].runs(scale, variant)}
        if run_id not in runs:
            known = runs or [f"{name}/{one}-s0" for one in self.experiments[name].variants_at(scale)]
            raise InputError(f"{where}: weights: no run '{run_id}' at scale {scale}{nearest(run_id, known)}")
        if not runs[run_id].publishes_weights:
            raise InputError(f"{where}: weights: {name} keeps none; say publish_weights: true there")
        return runs[run_id]

    def _check_claims(self) -> None:
        for claim in self.claims.values():
            where = f"{shown(self.workflow)}/claims/{claim.module}.yaml: {claim.id}"
            list(self._cells({"rows": {run: run for run in claim.runs}}, where))

    def claim_runs(self, scale: str, claim: Claim) -> tuple[RunSpec, ...]:
        """The runs that decide a claim."""
        pairs = (run.split("/") for run in claim.runs)
        return tuple(r for name, variant in pairs for r in self.experiments[name].runs(scale, variant))

    def _artifact(self, name: str, body: Mapping, bodies: Mapping, where: str) -> Artifact:
        source = name
        seen = {name}
        while like := body.get("like"):
            if like not in bodies:
                raise InputError(f"{where}.like: '{like}' is no artifact{nearest(like, bodies)}")
            if like in seen:
                raise InputError(f"{where}.like: '{like}' leads back to itself")
            seen.add(like)
            source, body = like, {**bodies[like][0], **{key: value for key, value in body.items() if key != "like"}}
        if (claim := self.claims.get(name)) and claim.computed and not body.get("table"):
            # a claim without a table of its own is shown as the ledger's comparisons
            body = {"rows": {run: run for run in claim.runs}, **body, "table": "claim", "from": "none"}
        cells = tuple(self._cells(body, where))
        kind = body.get("kind") or ("figure" if body.get("figure") else "table")
        if not (body.get("table") or body.get("figure")):
            raise InputError(f"{where}: neither table nor figure; name one")
        if not cells and body.get("from") != "none":
            raise InputError(f"{where}: names no run; give rows or axes, or say from: none")
        probes = tuple(body.get("probes", ()))
        for cell in cells:
            self._check_probes(cell, probes, where)
        if body.get("table") != "claim":
            functions.check_artifact(body, paper_of(name), where)
        return Artifact(
            id=name,
            title=body["title"],
            section=body["section"],
            kind=kind,
            cells=cells,
            table=body.get("table"),
            figure=body.get("figure"),
            options=body.get("options", {}),
            probes=probes,
            caption=body.get("caption", "").strip(),
            source=source,
        )

    def _check_probes(self, cell: Cell, probes: tuple[str, ...], where: str) -> None:
        experiment = self.experiments[cell.experiment]
        for scale in reversed(SCALES):  # the paper's first: what is missing there is missing everywhere
            recorded = experiment.merge(cell.variant, scale)[0].get("probes", [])
            for probe in probes:
                if probe not in recorded:
                    run = f"{cell.experiment}/{cell.variant} at scale {scale}"
                    raise InputError(f"{where}.probes: '{probe}' is not recorded by {run}{nearest(probe, recorded)}")

    def _columns(self, target: str | Mapping[str, str], where: str) -> Iterable[tuple[str, str]]:
        """(column label, experiment/variant) of a row; a `*` stands for each label that makes a variant's name."""
        if not isinstance(target, str):
            return target.items()
        experiment, _, pattern = target.partition("/")
        before, star, after = pattern.partition("*")
        if not star or experiment not in self.experiments:
            return [("", target)]
        names = [v for v in self.experiments[experiment].variants if v.startswith(before) and v.endswith(after)]
        if not names:
            raise InputError(
                f"{where}: {experiment} has no variant like '{pattern}'"
                f"{nearest(pattern, self.experiments[experiment].variants)}"
            )
        return [(name[len(before) : len(name) - len(after)], f"{experiment}/{name}") for name in names]

    def _cells(self, body: Mapping, where: str) -> Iterator[Cell]:
        for row, target in body.get("rows", {}).items():
            for column, run in self._columns(target, f"{where}.rows.{row}"):
                experiment, variant = run.split("/")
                if experiment not in self.experiments:
                    raise InputError(
                        f"{where}.rows.{row}: no experiment '{experiment}'{nearest(experiment, self.experiments)}"
                    )
                variants = self.experiments[experiment].variants
                if variant not in variants:
                    raise InputError(
                        f"{where}.rows.{row}: {experiment} has no variant '{variant}'{nearest(variant, variants)}"
                    )
                yield Cell(str(row), str(column), experiment, variant)
        if axes := body.get("axes"):
            name = axes["experiment"]
            if name not in self.experiments:
                raise InputError(f"{where}.axes: no experiment '{name}'{nearest(name, self.experiments)}")
            experiment = self.experiments[name]
            known = experiment.body.get("axes", {})
            for key in ("row", "column"):
                if key in axes and axes[key] not in known:
                    raise InputError(f"{where}.axes.{key}: {name} has no axis '{axes[key]}'{nearest(axes[key], known)}")
            for variant in experiment.variants:
                point = experiment.point(variant)
                if axes["row"] in point:
                    yield Cell(point[axes["row"]], point.get(axes.get("column"), ""), name, variant)

    def _refuse_twins(self) -> None:
        """Two runs with one canonical spec would compute the same numbers twice."""
        for scale in SCALES:
            seen: dict[str, str] = {}
            for run in self.runs(scale):
                if run.canonical in seen:
                    where = self.experiments[run.experiment].where
                    raise InputError(f"{where}: {run.id} and {seen[run.canonical]} are the same run at scale {scale}")
                seen[run.canonical] = run.id

    @cache  # noqa: B019
    def runs(self, scale: str) -> tuple[RunSpec, ...]:
        """Every run of a scale."""
        return tuple(
            run for e in self.experiments.values() for variant in e.variants_at(scale) for run in e.runs(scale, variant)
        )

    def cell_runs(self, scale: str, cell: Cell) -> tuple[RunSpec, ...]:
        """The runs that fill one cell."""
        return self.experiments[cell.experiment].runs(scale, cell.variant)

    def artifact_runs(self, scale: str, artifact: Artifact) -> tuple[RunSpec, ...]:
        """The distinct runs of an artifact, in the order of its cells."""
        return tuple(dict.fromkeys(r for cell in artifact.cells for r in self.cell_runs(scale, cell)))

    def table_modules(self, artifact: Artifact) -> tuple[str, ...]:
        """The modules that make the table of an artifact: when one of these changes, or a module that
        they import, the table is redrawn and the hash of its code is another one."""
        modules: tuple[str, ...] = ("report.tables", "report.render")
        if artifact.table == "claim":
            modules += (f"claims.{self.claims[artifact.id].module}",)
        return modules

    def figure_modules(self, artifact: Artifact) -> tuple[str, ...]:
        """The modules that draw the figure of an artifact."""
        return ("figures", f"figures.{artifact.paper}")

    def claim_modules(self) -> tuple[str, ...]:
        """The modules that decide the claims."""
        modules = dict.fromkeys(claim.module for claim in self.claims.values() if claim.computed)
        return ("report.page", *(f"claims.{module}" for module in modules))

    def notes(self, artifact: Artifact) -> list[str]:
        """What the experiments of an artifact expect and where they fill in or leave the paper, a sentence each."""
        lines = []
        for name in dict.fromkeys(cell.experiment for cell in artifact.cells):
            experiment = self.experiments[name]
            cells = [cell for cell in artifact.cells if cell.experiment == name]
            results = {cell.label: experiment.merge(cell.variant, "paper")[1]["expect"].get("result") for cell in cells}
            if len(set(results.values())) == 1:
                results = {"": next(iter(results.values()))}
            lines += [f"Expected{f' of {label}' * bool(label)}: {text}." for label, text in results.items() if text]
            lines += [f"Ours: {entry['what']} ({entry['why']})." for entry in experiment.deviations]
        return lines

    def run(self, scale: str, run_id: str) -> RunSpec:
        """The run `<experiment>/<variant>-s<seed>` at a scale; InputError naming the nearest where there is none."""
        by_id = {run.id: run for run in self.runs(scale)}
        if run_id not in by_id:
            raise InputError(f"no run '{run_id}' at scale {scale}{nearest(run_id, by_id)}")
        return by_id[run_id]

    def artifact(self, artifact_id: str) -> Artifact:
        """The artifact with this id; InputError naming the nearest where there is none."""
        if artifact_id not in self.artifacts:
            raise InputError(f"no artifact '{artifact_id}'{nearest(artifact_id, self.artifacts)}")
        return self.artifacts[artifact_id]

    def check_target(self, target: str, rules: Iterable[str]) -> None:
        """Raise InputError for a file below results/ that no rule makes and for a word that is no rule; other targets
        are Snakemake's to judge."""
        parts = Path(target).parts
        if len(parts) == 1 and target not in rules and not Path(target).exists():
            known = [*rules, *self.artifacts]
            if target not in known:
                raise InputError(f"{target}: no such target{nearest(target, known)}")
            artifact = self.artifacts[target]
            files = [f"tables/{target}.md"] * artifact.has_table + [f"figures/{target}.svg"] * artifact.has_figure
            raise InputError(f"{target}: name a file; build " + " or ".join(f"results/<scale>/{f}" for f in files))
        if len(parts) < 4 or parts[0] != "results" or parts[2] not in ("runs", "tidy", "tables", "figures"):
            return
        scale, kind = parts[1:3]
        if scale not in SCALES:
            raise InputError(f"{target}: '{scale}' is no scale{nearest(scale, SCALES)}")
        if kind == "runs" and len(parts) > 4:
            self.run(scale, "/".join(parts[3:5]))
        if kind != "runs":
            artifact = self.artifact(Path(parts[3]).stem)
            there = f"results/{scale}"
            if kind == "tables" and not artifact.has_table:
                raise InputError(f"{target}: {artifact.id} has no table; build {there}/figures/{artifact.id}.svg")
            if kind == "figures" and not artifact.has_figure:
                raise InputError(f"{target}: {artifact.id} has no figure; build {there}/tables/{artifact.id}.md")

    def missing(self, scale: str, artifact: Artifact, data: Mapping[str, Any], partial: bool = False) -> str | None:
        """Why nothing of the artifact can be measured at this scale, or None where something can."""
        if not artifact.cells:
            return None
        runs = self.artifact_runs(scale, artifact)
        if not runs:
            return f"not at scale {scale}"
        if any(available(run, data, partial) for run in runs):
            return None
        unset = sorted({key for run in runs if (key := unset_data(run, data))})
        return f"data.{unset[0]} is not set in config.yaml" if unset else missing_reason(runs)


@cache
def load_registry(workflow: Path = WORKFLOW) -> Registry:
    """The registry of this checkout, read once per process."""
    return Registry(workflow)

