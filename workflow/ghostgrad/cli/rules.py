"""What the workflow's rules ask of the registry: their inputs, parameters, resources and targets.

The files workflow/rules/*.smk say which rules there are; the functions that Snakemake calls for
each job are the methods of `Build`. Every Snakemake process calls them, those of jobs on a cluster
too, so this module imports neither torch nor pandas.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ghostgrad
from ghostgrad import dependencies
from ghostgrad.cli.estimates import expectation
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.config import machine_facts
from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.scaling import scaled_title
from ghostgrad.registry.spec import RunSpec, available, short_hash
from ghostgrad.report import overview, pages
from ghostgrad.runs.record import FILES

NO_MATCH = "(?!)"  # a regular expression that matches nothing
# Rule -> the modules whose work it does. The rules of single artifacts and of the claims ask the
# registry for theirs, which depend on the artifact's paper and on the claims that there are.
RULE_MODULES = {
    "tidy": ("analysis.tidy",),
    "not_run": ("report.tables", "report.render", "figures.draw"),
    "artifacts": ("report.overview",),
}


class Wildcards(Protocol):
    """Snakemake's wildcards. Those of a job are the ones that its rule's file names hold."""

    scale: str
    experiment: str
    variant: str
    seed: str
    artifact: str


class Job(Protocol):
    """The part of a job in Snakemake's graph that is needed here."""

    @property
    def wildcards(self) -> Any: ...


def job_environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables of every job: what config.yaml says of this machine, and a PATH.

    On PATH, scripts/ghostgrad comes first, which runs this checkout's library with the first
    `python3` that follows. That is the Python of Snakemake's own environment, or of the one that
    Snakemake activates for the job (`--software-deployment-method conda`).
    """
    scripts = Path(ghostgrad.__file__).resolve().parents[1] / "scripts"
    folders = [str(scripts), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {**machine_facts(config), "PATH": os.pathsep.join(filter(None, folders))}


def run_files(publishes_weights: bool) -> dict[str, str]:
    """Name -> file of what a run publishes, in the order in which it does so."""
    names = [name for name in FILES if publishes_weights or name != "weights.pt"]
    return {name.partition(".")[0]: name for name in names}


def library_files(*modules: str) -> list[str]:
    """The files of modules of the library and of all that they import.

    Rules that draw take them as an input, so that an edit redraws. The paths are relative, so that
    a checkout that is moved or copied together with its results redraws nothing.
    """
    return [os.path.relpath(path) for path in dependencies.files(modules)]


def page_templates(page: str) -> list[str]:
    """The templates and the style sheet of an HTML page, as relative paths like the above."""
    return [os.path.relpath(path) for path in pages.template_files(page)]


def report_labels(form: str) -> Callable[[Wildcards], dict[str, str]]:
    """The labels of a `table` or a `figure` in Snakemake's report.

    Without the form, the table and the figure of one artifact would hide each other. The labels
    are few and short, because the report's list is as wide as they are, at the figure's expense;
    title and caption open beside it.
    """

    def labels(wildcards: Wildcards) -> dict[str, str]:
        return {"artifact": wildcards.artifact, "form": form}

    return labels


def _escape(text: str) -> str:
    """`text` with the characters escaped that mean something in reStructuredText."""
    return re.sub(r"([*`|_\\])", r"\\\1", text)


@dataclass(frozen=True)
class Build:
    """One build of the workflow: a registry, a scale, and what this machine has."""

    registry: Registry
    scale: str
    state_dir: Path
    data: Mapping[str, str | None]  # data set -> its path; unset ones are None
    partial: bool = False  # take only runs that exist

    @classmethod
    def from_config(cls, registry: Registry, config: Mapping[str, Any]) -> Build:
        """The build that a checked configuration describes."""
        return cls(
            registry=registry,
            scale=config["scale"],
            state_dir=Path(config["state_dir"]),
            data=config.get("data") or {},
            partial=str(config.get("partial", False)).lower() == "true",  # --config gives text
        )

    # What is known before there are jobs

    @cached_property
    def not_run(self) -> dict[str, str]:
        """Artifact -> why nothing of it can be measured in this build."""
        reasons = {
            name: self.registry.missing(self.scale, artifact, self.data, self.partial)
            for name, artifact in self.registry.artifacts.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def experiments_pattern(self, task: str, publishes_weights: bool) -> str:
        """A regular expression of the names of a task's experiments, either of those that publish
        their weights or of the others."""
        names = [
            experiment.name
            for experiment in self.registry.experiments.values()
            if experiment.task == task and experiment.publishes_weights == publishes_weights
        ]
        return "|".join(names) or NO_MATCH

    def files_of(self, artifacts: Iterable[Artifact]) -> list[str]:
        """Every file of these artifacts."""
        return [
            name for artifact in artifacts for name in overview.artifact_files(artifact, self.scale)
        ]

    def files_not_run(self) -> list[str]:
        """Every file of the artifacts that cannot be measured; they say why."""
        return self.files_of(self.registry.artifacts[name] for name in self.not_run)

    def leading_files(self) -> list[str]:
        """One file per table and figure of every artifact; their other files come with it."""
        names = self.files_of(self.registry.artifacts.values())
        return [name for name in names if name.endswith((".html", ".svg"))]

    def all_files(self) -> list[str]:
        """The files of every artifact, their list, and the claims."""
        folder = f"results/{self.scale}"
        lists = [f"{folder}/artifacts.csv", f"{folder}/claims.csv"]
        return [*lists, *self.files_of(self.registry.artifacts.values())]

    def paper_files(self, paper: str) -> list[str]:
        """The files of one paper's artifacts."""
        artifacts = self.registry.artifacts.values()
        return self.files_of(artifact for artifact in artifacts if artifact.paper == paper)

    def cpu_files(self) -> list[str]:
        """The files of the artifacts all of whose runs need neither a GPU nor external data."""
        return self.files_of(
            artifact
            for artifact in self.registry.artifacts.values()
            if artifact.id not in self.not_run
            and all(run.cpu for run in self.registry.artifact_runs(self.scale, artifact))
        )

    def references(self, names: Iterable[str]) -> list[str]:
        """The files with the paper's numbers for these artifacts, as far as there are any."""
        folder = os.path.relpath(self.registry.workflow / "reference")
        references = {self.registry.artifacts[name].reference for name in names}
        paths = sorted(f"{folder}/{reference}.csv" for reference in references)
        return [path for path in paths if Path(path).exists()]

    def definitions(self, names: Iterable[str]) -> str:
        """A hash of what the registry says of these artifacts."""
        return short_hash(*(self.registry.artifacts[name].definition for name in names))

    def claim_definitions(self, _wildcards: Wildcards) -> str:
        """A hash of what the registry says of the claims and of their runs."""
        claims = self.registry.claims.values()
        runs = [run for claim in claims for run in self.registry.claim_runs(self.scale, claim)]
        return short_hash(*map(repr, claims), *(run.canonical for run in runs))

    def claim_metrics(self, _wildcards: Wildcards) -> list[str]:
        """metrics.csv of every run that decides a claim and exists or can be made."""
        claims = self.registry.claims.values()
        return self._metrics(
            run for claim in claims for run in self.registry.claim_runs(self.scale, claim)
        )

    def _metrics(self, runs: Iterable[RunSpec]) -> list[str]:
        """metrics.csv of these runs; a run publishes it last, so it stands for the whole run."""
        return [
            f"{run.directory}/metrics.csv"
            for run in dict.fromkeys(runs)
            if available(run, self.data, self.partial)
        ]

    def announcement(self, jobs: Iterable[Job], cores: int | None, cluster: bool) -> str:
        """How many runs a build is about to compute and how long they should take."""
        run_jobs = [job for job in jobs if "variant" in job.wildcards.keys()]  # noqa: SIM118
        runs = [self.run(job.wildcards) for job in run_jobs]
        return expectation(runs, self.state_dir, cores, cluster)

    # One run

    def run(self, wildcards: Wildcards) -> RunSpec:
        name = f"{wildcards.experiment}/{wildcards.variant}-s{wildcards.seed}"
        return self.registry.run(wildcards.scale, name)

    def run_spec(self, wildcards: Wildcards) -> str:
        """The canonical spec: all that decides a run's numbers, and nothing else."""
        return self.run(wildcards).canonical

    def run_inputs(self, wildcards: Wildcards) -> list[str]:
        """The files that a run reads: its data set's manifest, another run's weights."""
        return self.run(wildcards).inputs

    def run_resource(self, name: str, default: int) -> Callable[[Wildcards], int]:
        """The function of a job that gives a resource of its run."""

        def resource(wildcards: Wildcards) -> int:
            return self.run(wildcards).resources.get(name, default)

        return resource

    # One artifact

    def artifact(self, wildcards: Wildcards) -> Artifact:
        return self.registry.artifact(wildcards.artifact)

    def artifact_definition(self, wildcards: Wildcards) -> str:
        """What the registry says of an artifact, so that an edited definition redraws it."""
        return self.artifact(wildcards).definition

    def artifact_metrics(self, wildcards: Wildcards) -> list[str]:
        """metrics.csv of every run of an artifact that exists or can be made."""
        return self._metrics(self.registry.artifact_runs(wildcards.scale, self.artifact(wildcards)))

    def artifact_references(self, wildcards: Wildcards) -> list[str]:
        """The file with the paper's numbers for an artifact, if there is one."""
        return self.references([wildcards.artifact])

    def table_code(self, wildcards: Wildcards) -> list[str]:
        """The library's files that make the table of an artifact."""
        return library_files(*self.registry.table_modules(self.artifact(wildcards)))

    def figure_code(self, wildcards: Wildcards) -> list[str]:
        """The library's files that draw the figure of an artifact."""
        return library_files(*self.registry.figure_modules(self.artifact(wildcards)))

    def reason_not_run(self, wildcards: Wildcards) -> str:
        """Why nothing of an artifact can be measured; empty where something can."""
        artifact = self.artifact(wildcards)
        return self.registry.missing(wildcards.scale, artifact, self.data, self.partial) or ""

    def paper_title(self, wildcards: Wildcards) -> str:
        title: str = self.registry.papers[self.artifact(wildcards).paper]["title"]
        return title

    def caption(self, wildcards: Wildcards) -> str:
        """An artifact's title, its place in the paper, its caption, and where we fill in or leave
        the paper, as reStructuredText."""
        artifact = self.artifact(wildcards)
        title = scaled_title(self.registry, artifact, wildcards.scale)
        head = f"**{_escape(title)}** ({_escape(name_papers(artifact.section))})."
        notes = [f"- {_escape(note)}" for note in self.registry.notes(artifact)]
        return "\n".join([f"{head} {_escape(artifact.caption)}", "", *notes])
