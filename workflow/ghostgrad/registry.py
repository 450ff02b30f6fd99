"""The registry: workflow/experiments/*.yaml become frozen RunSpecs and Artifacts.

Scales merge as base < scales.X < axes or variant < adjust < variant.scales.X, so that what a variant sets survives
the scale. A canonical spec is the merged one with every value that equals the schema's default left out: a new option
with a default changes no canonical spec and so reruns nothing. Imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, load_yaml, nearest, schema, shown, validate

WORKFLOW = Path(__file__).resolve().parent.parent
SCALES = ("smoke", "laptop", "substitute", "paper")
PAPERS = ("ghost", "lalc", "bnres")
SHIPPED_DATA = ("digits",)  # made by the data rule from an installed package; needs no path
# What a run's numbers do not hang on when a cell is compared with the paper: more of the same gives the same mean.
REPLICATION = ("repeats", "seed")
SETTINGS = ("seeds", "resources", "expect", "optional")  # merge at every level and never enter the spec
META = (*SETTINGS, "scales", "only", "like")


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One run: variant and seed at one scale; there is one object per run and registry.

    `spec` is expanded (defaults filled in), `canonical` is the JSON text in which equal experiments are equal.
    """

    scale: str
    experiment: str
    variant: str
    seed: int
    task: str
    spec: Mapping[str, Any]
    canonical: str
    resources: Mapping[str, int]
    expect: Mapping[str, Any]
    optional: bool

    @property
    def id(self) -> str:
        return f"{self.experiment}/{self.variant}-s{self.seed}"

    @property
    def directory(self) -> str:
        """The run directory, relative to the working directory."""
        return f"results/{self.scale}/runs/{self.id}"

    @property
    def data(self) -> str | None:
        """The data set's name, or None for a run that reads none."""
        return self.spec.get("data")

    @property
    def cpu(self) -> bool:
        """Needs neither a GPU nor external data."""
        return self.resources.get("gpu", 0) == 0 and self.data in (None, *SHIPPED_DATA)


@dataclass(frozen=True)
class Cell:
    """One place in an artifact: labels and the variant whose runs fill it."""

    row: str
    column: str
    experiment: str
    variant: str

    @property
    def label(self) -> str:
        return f"{self.row}, {self.column}" if self.column else self.row


@dataclass(frozen=True, eq=False)
class Artifact:
    """One table, figure or claim of a paper, with its id from the list of artifacts."""

    id: str
    title: str
    section: str
    kind: str
    status: str = "built"
    cells: tuple[Cell, ...] = ()
    table: str | None = None
    figure: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    caption: str = ""
    source: str = ""  # the artifact whose reference numbers these are; itself unless `like` was used

    @property
    def paper(self) -> str:
        return self.id.split(".")[0].removesuffix("0")

    @property
    def planned(self) -> bool:
        return self.status == "planned"

    @property
    def has_figure(self) -> bool:
        return self.figure is not None or (self.planned and self.kind == "figure")

    @property
    def has_table(self) -> bool:
        return self.table is not None or (self.planned and self.kind != "figure")

    @property
    def definition(self) -> str:
        """JSON of all that a table or figure is drawn from, beside its files."""
        shown = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "cells"}
        return json.dumps({**shown, "cells": [astuple(cell) for cell in self.cells]}, sort_keys=True)


def canonical_json(task: str, spec: Mapping[str, Any]) -> str:
    """Sorted compact JSON of `spec` without the values that equal the task's defaults."""
    properties = schema(task)["properties"]
    kept = {k: v for k, v in spec.items() if "default" not in properties[k] or properties[k]["default"] != v}
    return json.dumps({"task": task, **kept}, sort_keys=True, separators=(",", ":"))


def expand(task: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """`spec` with the task's defaults filled in, in the schema's order."""
    properties = schema(task)["properties"]
    return {
        key: spec[key] if key in spec else rule["default"]
        for key, rule in properties.items()
        if key in spec or "default" in rule
    }


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """Task and expanded spec from JSON text (`ghostgrad run --spec`); InputError if it is not a valid one."""
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--spec: not valid JSON ({error})") from None
    tasks = schema("registry")["$defs"]["experiment"]["properties"]["task"]["enum"]
    if not isinstance(spec, dict) or spec.get("task") not in tasks:
        found = spec.get("task") if isinstance(spec, dict) else spec
        raise InputError(f"--spec: task: '{found}' is not allowed{nearest(str(found), tasks)}")
    task = spec.pop("task")
    validate(spec, task, "--spec")
    return task, expand(task, spec)


def short_hash(*parts: str) -> str:
    """Eight hexadecimal digits over `parts`, the suffix of a state folder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


class Experiment:
    """A family of runs that share a task and a base spec."""

    def __init__(self, name: str, body: Mapping[str, Any], where: str):
        self.name, self.body, self.where = name, body, where
        self.task: str = body["task"]
        self.section: str = body["section"]
        self.deviations: list[dict] = body.get("deviations", [])
        for place, layer, beside in self._layers():
            spec = {key: value for key, value in layer.items() if key not in beside}
            validate(spec, self.task, place, partial=True)
        for variant in self._variants.values():
            if (like := variant.get("like")) and like not in self._variants:
                raise InputError(f"{where}.variants: like: '{like}' is no variant{nearest(like, self._variants)}")

    def _layers(self) -> Iterator[tuple[str, Mapping, tuple[str, ...]]]:
        """Every block of spec keys, with its place and the other keys that may stand in it, for validation."""
        yield f"{self.where}.base", self.body["base"], ()
        for index, rule in enumerate(self.body.get("adjust", [])):
            yield f"{self.where}.adjust.{index}.set", rule["set"], ()
        blocks = [(f"{self.where}.variants.{name}", body) for name, body in self._variants.items()]
        for axis, points in self.body.get("axes", {}).items():
            blocks += [(f"{self.where}.axes.{axis}.{name}", body or {}) for name, body in points.items()]
        for place, body in blocks:
            yield place, body, (*SETTINGS, "scales", "like")
        for place, body in [(self.where, self.body), *blocks]:
            for scale, layer in body.get("scales", {}).items():
                yield f"{place}.scales.{scale}", layer, (*SETTINGS, "only")

    @cached_property
    def _variants(self) -> Mapping[str, Mapping]:
        return {name: body or {} for name, body in self.body.get("variants", {}).items()}

    @cached_property
    def _points(self) -> Mapping[str, Mapping[str, str]]:
        """Variant name -> {axis: point}, for the experiments with axes."""
        axes = self.body.get("axes", {})
        if not axes:
            return {}
        combinations = itertools.product(*axes.values())
        return {"-".join(points): dict(zip(axes, points, strict=True)) for points in combinations}

    def point(self, variant: str) -> Mapping[str, str]:
        """{axis: point} of a variant that comes from axes; empty for a named one."""
        return self._points.get(variant, {})

    @cached_property
    def variants(self) -> tuple[str, ...]:
        return (*self._variants, *self._points)

    def variants_at(self, scale: str) -> tuple[str, ...]:
        """The variants that this scale runs; only `paper` runs without being named in `scales`."""
        scales = self.body.get("scales", {})
        if scale not in scales and scale != "paper":
            return ()
        only = (scales.get(scale) or {}).get("only")
        if only is None:
            return self.variants
        for pattern in only:
            if not any(fnmatch(name, pattern) for name in self.variants):
                raise InputError(
                    f"{self.where}.scales.{scale}.only: '{pattern}' names no variant{nearest(pattern, self.variants)}"
                )
        return tuple(name for name in self.variants if any(fnmatch(name, pattern) for pattern in only))

    def _chain(self, variant: str) -> list[Mapping]:
        """The variant's own settings, those it is `like` first."""
        if variant in self._points:
            points = self._points[variant]
            return [self.body["axes"][axis][point] or {} for axis, point in points.items()]
        body, chain, seen = self._variants[variant], [], {variant}
        chain.append(body)
        while like := body.get("like"):
            if like in seen:
                raise InputError(f"{self.where}.variants.{variant}: like: '{like}' leads back to itself")
            seen.add(like)
            body = self._variants[like]
            chain.insert(0, body)
        return chain

    def merge(self, variant: str, scale: str) -> tuple[dict, dict]:
        """Merged spec (without seed) and settings of a variant at a scale."""
        own = self._chain(variant)
        points = self._points.get(variant, {})
        layers = [
            self.body["base"],
            {key: self.body[key] for key in SETTINGS if key in self.body},
            self.body.get("scales", {}).get(scale) or {},
            *own,
            *(
                rule["set"]
                for rule in self.body.get("adjust", [])
                if all(points.get(axis) in names for axis, names in rule["where"].items())
            ),
            *(layer.get("scales", {}).get(scale) or {} for layer in own),
        ]
        spec: dict[str, Any] = {}
        settings: dict[str, Any] = {"seeds": 1, "resources": {}, "expect": {}, "optional": False}
        for layer in layers:
            spec.update({key: value for key, value in layer.items() if key not in META})
            for key in ("seeds", "optional"):
                settings[key] = layer.get(key, settings[key])
            for key in ("resources", "expect"):
                settings[key] = {**settings[key], **layer.get(key, {})}
        return spec, settings

    @cache  # noqa: B019  one registry per process
    def runs(self, scale: str, variant: str) -> tuple[RunSpec, ...]:
        """The variant's runs, one per seed; none where the scale leaves it out."""
        if variant not in self.variants_at(scale):
            return ()
        merged, settings = self.merge(variant, scale)
        validate({**merged, "seed": 0}, self.task, f"{self.where}.variants.{variant} at scale {scale}")
        return tuple(
            RunSpec(
                scale=scale,
                experiment=self.name,
                variant=variant,
                seed=seed,
                task=self.task,
                spec=expand(self.task, {**merged, "seed": seed}),
                canonical=canonical_json(self.task, {**merged, "seed": seed}),
                resources=settings["resources"],
                expect=settings["expect"],
                optional=settings["optional"],
            )
            for seed in range(settings["seeds"])
        )

    def comparable(self, variant: str, scale: str) -> bool:
        """True where the scale changes repeats and seeds of the paper's spec at most."""

        def essence(at: str) -> str:
            spec = {**self.merge(variant, at)[0], "seed": 0}
            return canonical_json(self.task, {k: v for k, v in spec.items() if k not in REPLICATION})

        return scale == "paper" or essence(scale) == essence("paper")


class Registry:
    """All experiments and artifacts of workflow/experiments/*.yaml."""

    def __init__(self, workflow: Path = WORKFLOW):
        self.workflow = workflow
        self.papers: dict[str, dict] = {}
        self.experiments: dict[str, Experiment] = {}
        self.artifacts: dict[str, Artifact] = {}
        bodies: dict[str, tuple[dict, str]] = {}
        for paper in PAPERS:
            path = workflow / "experiments" / f"{paper}.yaml"
            where = shown(path)
            body = load_yaml(path)
            validate(body, "registry", where)
            self.papers[paper] = body["paper"]
            for name, experiment in body.get("experiments", {}).items():
                self.experiments[name] = Experiment(name, experiment, f"{where}: experiments.{name}")
            for name, artifact in body["artifacts"].items():
                bodies[name] = (artifact, f"{where}: artifacts.{name}")
        for name, (artifact, where) in bodies.items():
            self.artifacts[name] = self._artifact(name, artifact, bodies, where)
        self._refuse_twins()

    def _artifact(self, name: str, body: Mapping, bodies: Mapping, where: str) -> Artifact:
        source = name
        if like := body.get("like"):
            if like not in bodies:
                raise InputError(f"{where}.like: '{like}' is no artifact{nearest(like, bodies)}")
            source, body = like, {**bodies[like][0], **body}
        cells = tuple(self._cells(body, where))
        planned = body.get("status") == "planned"
        kind = body.get("kind") or ("figure" if body.get("figure") else "table")
        if not planned and not (body.get("table") or body.get("figure")):
            raise InputError(f"{where}: neither table nor figure; name one, or say status: planned")
        if not planned and not cells and body.get("from") != "none":
            raise InputError(f"{where}: names no run; give rows or axes, or say from: none")
        probes = tuple(body.get("probes", ()))
        for cell in cells:
            self._check_probes(cell, probes, where)
        return Artifact(
            id=name,
            title=body["title"],
            section=body["section"],
            kind=kind,
            status=body.get("status", "built"),
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
        recorded = experiment.merge(cell.variant, "paper")[0].get("probes", [])
        for probe in probes:
            if probe not in recorded:
                raise InputError(
                    f"{where}.probes: '{probe}' is not recorded by {cell.experiment}/{cell.variant}"
                    f"{nearest(probe, recorded)}"
                )

    def _cells(self, body: Mapping, where: str) -> Iterator[Cell]:
        for row, target in body.get("rows", {}).items():
            for column, run in target.items() if isinstance(target, dict) else [("", target)]:
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

    def missing(self, scale: str, artifact: Artifact, data: Mapping[str, Any], partial: bool = False) -> str | None:
        """Why nothing of the artifact can be measured at this scale, or None where something can."""
        if artifact.planned:
            return "planned"
        if not artifact.cells:
            return None
        runs = self.artifact_runs(scale, artifact)
        if not runs:
            return f"not at scale {scale}"
        if any(available(run, data, partial) for run in runs):
            return None
        unset = sorted({run.data for run in runs if not has_data(run, data)})
        return f"data.{unset[0]} is not set in config.yaml" if unset else "no finished run"


def has_data(run: RunSpec, data: Mapping[str, Any]) -> bool:
    """True where the run's data set is shipped, set in config.yaml, or not needed."""
    return run.data in (None, *SHIPPED_DATA) or bool(data.get(run.data))


def published(run: RunSpec) -> bool:
    """True where the run's directory is complete: metrics.csv is published last."""
    return os.path.exists(f"{run.directory}/metrics.csv")  # noqa: PTH110  asked for every run at every start


def available(run: RunSpec, data: Mapping[str, Any], partial: bool = False) -> bool:
    """True where the run exists or, unless only what exists is wanted, can be made."""
    return published(run) or (not partial and has_data(run, data))


@cache
def load(workflow: Path = WORKFLOW) -> Registry:
    """The registry of this checkout, read once per process."""
    return Registry(workflow)


def load_config(path: Path = Path("config.yaml")) -> dict[str, Any]:
    """config.yaml, checked; InputError names the key."""
    config = load_yaml(path)
    check_config(config, str(path))
    return config


def check_config(config: Mapping[str, Any], where: str = "config.yaml") -> None:
    """Raise InputError unless keys, types and data paths are right."""
    validate(dict(config), "config", where)
    for name, path in (config.get("data") or {}).items():
        if path and not Path(path).is_dir():
            raise InputError(f"{where}: data.{name}: no folder {path}; give the right path, or leave it empty")
