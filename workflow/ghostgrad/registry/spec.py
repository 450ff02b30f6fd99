"""Runs: one run's parameters, its identity, its directory, and what state that directory is in.

Imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ghostgrad.checks import InputError, nearest, validate
from ghostgrad.registry.datasets import is_shipped
from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.tasks import TASKS

SCALES = ("smoke", "laptop", "substitute", "paper")


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One run: a variant with a seed at one scale; there is one object per run and registry.

    `spec` holds all parameters, `canonical` is the JSON text in which equal runs are equal.
    """

    scale: str
    experiment: str
    variant: str
    seed: int
    task: str
    spec: Spec
    canonical: str
    resources: Mapping[str, int]
    expect: Mapping[str, Any]
    optional: bool
    publishes_weights: bool = False
    upstream: RunSpec | None = None
    """The run whose weights.pt this one starts from."""

    @property
    def id(self) -> str:
        return f"{self.experiment}/{self.variant}-s{self.seed}"

    @property
    def directory(self) -> str:
        """The run directory, relative to the working directory."""
        return f"results/{self.scale}/runs/{self.id}"

    @property
    def training(self) -> ClassifySpec:
        """The parameters of a run of `classify`; TypeError for a run of another task."""
        if not isinstance(self.spec, ClassifySpec):
            raise TypeError(f"{self.id} does not train a classifier")
        return self.spec

    @property
    def data(self) -> str | None:
        """The name of the data set, or None for a run that reads none."""
        name: str | None = getattr(self.spec, "data", None)  # tasks of random operators have none
        return name

    @property
    def inputs(self) -> list[str]:
        """The files that the run reads: the data set's manifest, another run's weights."""
        files = []
        if self.data:
            resized = self.spec.resized if isinstance(self.spec, ClassifySpec) else 0
            suffix = f"-{resized}" if resized else ""
            files.append(f"results/data/{self.data}{suffix}.json")
        if self.upstream:
            files.append(f"{self.upstream.directory}/weights.pt")
        return files

    @property
    def gpus(self) -> int:
        return self.resources.get("gpu", 0)

    @property
    def cpu(self) -> bool:
        """True where the run needs neither a GPU nor external data."""
        alone = self.gpus == 0 and is_shipped(self.data)
        return alone and (self.upstream is None or self.upstream.cpu)


def canonical_json(task: str, values: Mapping[str, Any]) -> str:
    """Sorted compact JSON of a spec without the values that equal the task's defaults. KeyError for
    a task or a parameter that does not exist."""
    return TASKS[task].spec.canonical_json(values)


def expand(task: str, values: Mapping[str, Any]) -> Spec:
    """The spec of valid `values` with the task's defaults filled in."""
    return TASKS[task].spec.expand(values)


def parse_spec(text: str) -> Spec:
    """The spec in JSON text (`ghostgrad run --spec`); InputError where it is not a valid one."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--spec: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError("--spec: expected a JSON object with the key 'task'")
    task = values.pop("task", None)
    if not isinstance(task, str) or task not in TASKS:
        raise InputError(f"--spec: task: '{task}' is not allowed{nearest(str(task), TASKS)}")
    spec = TASKS[task].spec
    values = spec.renamed(values, "--spec")
    validate(values, spec.schema(), "--spec")
    return expand(task, values)


def short_hash(*parts: str) -> str:
    """Eight hexadecimal digits over `parts`, the suffix of a state folder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def unset_data(run: RunSpec, data: Mapping[str, Any]) -> str | None:
    """The data set that must be set in config.yaml before the run can be computed, or before the
    run whose weights it needs; None where nothing is missing."""
    if run.data and not is_shipped(run.data) and not data.get(run.data):
        return run.data
    if run.upstream and not published(run.upstream):
        return unset_data(run.upstream, data)
    return None


def run_status(run: RunSpec) -> str:
    """The state of the run directory: `missing`; `done`; `stale`, where it holds another spec;
    `damaged`, where spec.json cannot be read."""
    # metrics.csv is published last. This is asked of every run whenever Snakemake starts: os.path
    # and open are measurably quicker than pathlib here.
    if not os.path.exists(f"{run.directory}/metrics.csv"):  # noqa: PTH110
        return "missing"
    try:
        with open(f"{run.directory}/spec.json", encoding="utf-8") as stream:  # noqa: PTH123
            values = dict(json.load(stream))
    except (OSError, ValueError, TypeError):
        return "damaged"
    try:
        same = canonical_json(values.pop("task"), values) == run.canonical
    except (KeyError, InputError):  # a parameter or a task that does not exist any more
        return "stale"
    return "done" if same else "stale"


def published(run: RunSpec) -> bool:
    """True where the run directory holds the run as the registry has it."""
    return run_status(run) == "done"


def missing_reason(runs: Iterable[RunSpec]) -> str:
    """Why a cell with runs is empty."""
    return "stale run" if any(run_status(run) == "stale" for run in runs) else "no finished run"


def available(run: RunSpec, data: Mapping[str, Any], partial: bool = False) -> bool:
    """True where the run exists or can be computed; with `partial`, only where it exists."""
    if published(run):
        return True
    return not partial and not run.optional and unset_data(run, data) is None
