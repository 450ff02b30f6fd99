"""The registry: everything that there is to compute and to show.

workflow/experiments/*.yaml declare experiments, whose variants and seeds are runs, and artifacts,
which are made from runs; workflow/claims/*.yaml declare the claims, some of which are artifacts;
workflow/reference/*.csv hold the papers' numbers. Imports neither torch nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ghostgrad.checks import (
    InputError,
    display_path,
    load_yaml,
    nearest,
    refuse_unknown_files,
    validate,
)
from ghostgrad.registry.artifact import Artifact, Cell, paper_of
from ghostgrad.registry.cells import artifact_cells, check_probes, check_run
from ghostgrad.registry.claim import Claim, load_claims
from ghostgrad.registry.experiment import Experiment
from ghostgrad.registry.inherit import resolve_like
from ghostgrad.registry.reference import check_references
from ghostgrad.registry.schemas import registry_schema
from ghostgrad.registry.signatures import check_functions
from ghostgrad.registry.spec import SCALES, RunSpec, available, missing_reason, unset_data

WORKFLOW = Path(__file__).resolve().parents[2]
PAPERS = ("ghost", "lalc", "bnres")

Body = Mapping[str, Any]  # of one artifact or experiment, as YAML has it
Declared = dict[str, tuple[Body, str]]  # artifact id -> its body, and file and key for messages


class Registry:
    """Every experiment, artifact and claim of a workflow folder, checked.

    Raises InputError for the first mistake in one of its files.
    """

    def __init__(self, workflow: Path = WORKFLOW):
        self.workflow = workflow
        self.papers: dict[str, dict[str, str]] = {}
        self.experiments: dict[str, Experiment] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.claims = load_claims(workflow)
        declared: Declared = {}
        refuse_unknown_files(workflow / "experiments", PAPERS)
        for paper in PAPERS:
            self._read_paper(paper, declared)
            self._declare_claims(paper, declared)
        bodies = {name: body for name, (body, _) in declared.items()}
        for name, (_, where) in declared.items():
            self.artifacts[name] = self._artifact(name, bodies, where)
        self._check_claims()
        self._refuse_equal_runs()
        check_references(workflow, self.artifacts)

    def _read_paper(self, paper: str, declared: Declared) -> None:
        """Read experiments/<paper>.yaml, and add its artifacts to `declared`."""
        path = self.workflow / "experiments" / f"{paper}.yaml"
        file = display_path(path)
        body = load_yaml(path)
        validate(body, registry_schema(), file)
        self.papers[paper] = body["paper"]
        for name, experiment in body.get("experiments", {}).items():
            where = f"{file}: experiments.{name}"
            if name in self.experiments:
                raise InputError(
                    f"{where}: duplicate experiment, also in {self.experiments[name].where}"
                )
            self.experiments[name] = Experiment(name, experiment, where, self._upstream)
        for name, artifact in body["artifacts"].items():
            where = f"{file}: artifacts.{name}"
            if name in declared:
                raise InputError(f"{where}: duplicate artifact, also in {declared[name][1]}")
            if (prefix := paper_of(name)) != paper:
                raise InputError(f"{where}: '{prefix}' is not this paper{nearest(prefix, [paper])}")
            declared[name] = artifact, where

    def _declare_claims(self, paper: str, declared: Declared) -> None:
        """Add the claims of a paper that have a title to `declared`: they are artifacts."""
        for claim in self.claims.values():
            if not claim.title or paper_of(claim.id) != paper:
                continue
            if claim.id in declared:
                raise InputError(
                    f"{claim.where}: duplicate artifact, also in {declared[claim.id][1]}"
                )
            shared = {"title": claim.title, "section": claim.section}
            validate({**shared, **claim.artifact}, _artifact_schema(), f"{claim.where}.artifact")
            body = {"kind": "claim", **shared, **claim.artifact}
            if claim.computed and not body.get("table"):
                # Without a table of its own, a claim is shown by the comparisons that decide it,
                # and needs the runs that these need.
                body = {
                    "rows": {run: run for run in claim.runs},
                    **body,
                    "table": "claim",
                    "from": "none",
                }
            declared[claim.id] = body, f"{claim.where}.artifact" if claim.artifact else claim.where

    def _upstream(self, scale: str, run_id: str, where: str) -> RunSpec:
        """The run whose weights another run of the scale starts from."""
        name, _, rest = run_id.partition("/")
        variant = rest.rpartition("-s")[0]
        if name not in self.experiments:
            raise InputError(
                f"{where}: weights: no experiment '{name}'{nearest(name, self.experiments)}"
            )
        runs = {run.id: run for run in self.experiments[name].runs(scale, variant)}
        if run_id not in runs:
            known = runs or [
                f"{name}/{other}-s0" for other in self.experiments[name].variants_at(scale)
            ]
            raise InputError(
                f"{where}: weights: no run '{run_id}' at scale {scale}{nearest(run_id, known)}"
            )
        if not runs[run_id].publishes_weights:
            raise InputError(
                f"{where}: weights: {name} does not publish weights; set publish_weights: true"
            )
        return runs[run_id]

    def _check_claims(self) -> None:
        """Raise InputError for a title without a paper, and for a run that does not exist."""
        for claim in self.claims.values():
            if claim.title and (paper := paper_of(claim.id)) not in PAPERS:
                raise InputError(f"{claim.where}.title: no paper '{paper}'{nearest(paper, PAPERS)}")
            for run in claim.runs:
                check_run(run, self.experiments, f"{claim.where}.runs")

    def claim_runs(self, scale: str, claim: Claim) -> tuple[RunSpec, ...]:
        """The runs that decide a claim."""
        pairs = (run.split("/") for run in claim.runs)
        return tuple(
            run for name, variant in pairs for run in self.experiments[name].runs(scale, variant)
        )

    def _artifact(self, name: str, bodies: Mapping[str, Body], where: str) -> Artifact:
        source, body = resolve_like("artifact", name, bodies, where)
        if not (body.get("table") or body.get("figure")):
            raise InputError(f"{where}: has neither table nor figure; name one")
        cells = tuple(artifact_cells(body, self.experiments, where))
        if not cells and body.get("from") != "none":
            raise InputError(f"{where}: names no run; give rows or axes, or set from: none")
        probes = tuple(body.get("probes", ()))
        check_probes(cells, probes, self.experiments, f"{where}.probes")
        shows_comparisons = body.get("table") == "claim" and name in self.claims
        functions = {**body, "table": None} if shows_comparisons else body
        has_reference = (self.workflow / "reference" / f"{name}.csv").exists()
        check_functions(functions, paper_of(name), where)
        return Artifact(
            id=name,
            title=body["title"],
            section=body["section"],
            kind=body.get("kind") or ("figure" if body.get("figure") else "table"),
            cells=cells,
            table=body.get("table"),
            figure=body.get("figure"),
            options=body.get("options", {}),
            probes=probes,
            caption=body.get("caption", "").strip(),
            source=source,
            reference=name if has_reference else source,
        )

    def _refuse_equal_runs(self) -> None:
        """Two runs with the same canonical spec would compute the same numbers twice."""
        for scale in SCALES:
            seen: dict[str, str] = {}
            for run in self.runs(scale):
                if run.canonical in seen:
                    where = self.experiments[run.experiment].where
                    runs = f"{run.id} and {seen[run.canonical]}"
                    raise InputError(f"{where}: {runs} are the same run at scale {scale}")
                seen[run.canonical] = run.id

    @cache  # noqa: B019  one registry per process
    def runs(self, scale: str) -> tuple[RunSpec, ...]:
        """Every run of a scale."""
        return tuple(
            run
            for experiment in self.experiments.values()
            for variant in experiment.variants_at(scale)
            for run in experiment.runs(scale, variant)
        )

    def cell_runs(self, scale: str, cell: Cell) -> tuple[RunSpec, ...]:
        """The runs that fill one cell."""
        return self.experiments[cell.experiment].runs(scale, cell.variant)

    def artifact_runs(self, scale: str, artifact: Artifact) -> tuple[RunSpec, ...]:
        """The distinct runs of an artifact, in the order of its cells."""
        runs = (run for cell in artifact.cells for run in self.cell_runs(scale, cell))
        return tuple(dict.fromkeys(runs))

    def table_modules(self, artifact: Artifact) -> tuple[str, ...]:
        """The modules that make the table of an artifact.

        When one of them changes, or a module that they import, the table is made again, and its
        column `code` changes.
        """
        modules: tuple[str, ...] = ("report.tables", "report.render")
        if artifact.table == "claim":
            modules += (f"claims.{self.claims[artifact.id].module}",)
        return modules

    def figure_modules(self, artifact: Artifact) -> tuple[str, ...]:
        """The modules that draw the figure of an artifact."""
        return ("figures.draw", f"figures.{artifact.paper}")

    def claim_modules(self) -> tuple[str, ...]:
        """The modules that decide the claims."""
        modules = dict.fromkeys(claim.module for claim in self.claims.values() if claim.computed)
        return ("report.claim_list", *(f"claims.{module}" for module in modules))

    def notes(self, artifact: Artifact) -> list[str]:
        """What the experiments of an artifact are expected to show, and where they deviate from the
        paper or complete it; one sentence each."""
        lines: list[str] = []
        for name in dict.fromkeys(cell.experiment for cell in artifact.cells):
            experiment = self.experiments[name]
            cells = [cell for cell in artifact.cells if cell.experiment == name]
            settings = {cell.label: experiment.merge(cell.variant, "paper")[1] for cell in cells}
            results = {label: merged["expect"].get("result") for label, merged in settings.items()}
            if len(set(results.values())) == 1:  # the same of every cell, so it is said once
                results = {"": next(iter(results.values()))}
            for label, text in results.items():
                if text:
                    lines.append(f"Expected of {label}: {text}." if label else f"Expected: {text}.")
            lines += [f"Ours: {entry['what']} ({entry['why']})." for entry in experiment.deviations]
        return lines

    def run(self, scale: str, run_id: str) -> RunSpec:
        """The run `<experiment>/<variant>-s<seed>` at a scale; InputError names the nearest one
        where it does not exist."""
        by_id = {run.id: run for run in self.runs(scale)}
        if run_id not in by_id:
            raise InputError(f"no run '{run_id}' at scale {scale}{nearest(run_id, by_id)}")
        return by_id[run_id]

    def artifact(self, artifact_id: str) -> Artifact:
        """The artifact with this id; InputError names the nearest one where it does not exist."""
        if artifact_id not in self.artifacts:
            raise InputError(f"no artifact '{artifact_id}'{nearest(artifact_id, self.artifacts)}")
        return self.artifacts[artifact_id]

    def missing(
        self, scale: str, artifact: Artifact, data: Mapping[str, Any], partial: bool = False
    ) -> str | None:
        """Why nothing of an artifact can be measured at a scale; None where something can be."""
        if not artifact.cells:
            return None
        runs = self.artifact_runs(scale, artifact)
        if not runs:
            return f"not at scale {scale}"
        if any(available(run, data, partial) for run in runs):
            return None
        unset = sorted({key for run in runs if (key := unset_data(run, data))})
        return f"data.{unset[0]} is not set in config.yaml" if unset else missing_reason(runs)


def _artifact_schema() -> dict[str, Any]:
    artifact: dict[str, Any] = registry_schema()["$defs"]["artifact"]
    return artifact


@cache
def load_registry(workflow: Path = WORKFLOW) -> Registry:
    """The registry of this checkout, read once per process."""
    return Registry(workflow)
