"""Run specs: one run's parameters in their expanded and their canonical form.

A canonical spec is the merged one with every value that equals the schema's default left out: a new option with a
default changes no canonical spec and so reruns nothing. Imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ghostgrad.checks import InputError, nearest, schema, validate

SCALES = ("smoke", "laptop", "substitute", "paper")
SHIPPED_DATA = ("digits", "photographs", "digit_scenes")  # made by the data rule from an installed package
FOLDER_DATA = ("images", "imagenet")  # image files, which may stay on disk
SELF_INITIALIZED = ("seqnet", "diracnet", "isonet")  # models that draw their own weights, whatever `init` says


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
    publishes_weights: bool = False
    upstream: RunSpec | None = None  # whose weights.pt this run starts from

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
    def inputs(self) -> list[str]:
        """The files that it reads: the data set's manifest, another run's weights."""
        smaller = f"-{self.spec['resized']}" if self.spec.get("resized") else ""
        manifest = [f"results/data/{self.data}{smaller}.json"] if self.data else []
        return manifest + ([f"{self.upstream.directory}/weights.pt"] if self.upstream else [])

    @property
    def cpu(self) -> bool:
        """Needs neither a GPU nor external data."""
        alone = self.resources.get("gpu", 0) == 0 and self.data in (None, *SHIPPED_DATA)
        return alone and (self.upstream is None or self.upstream.cpu)


def _number(value: Any) -> Any:
    """2.0 as 2, in lists and mappings too: one number, one text."""
    if isinstance(value, list):
        return [_number(part) for part in value]
    if isinstance(value, dict):
        return {key: _number(part) for key, part in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical_json(task: str, spec: Mapping[str, Any]) -> str:
    """Sorted compact JSON of `spec` without the values that equal the task's defaults."""
    properties = schema(task)["properties"]
    kept = {k: _number(v) for k, v in spec.items() if "default" not in properties[k] or properties[k]["default"] != v}
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


def test_side(spec: Mapping[str, Any]) -> int:
    """The short side of the images whose centres are the test images, as in torchvision's recipe; 0 leaves them."""
    size = spec.get("size", 0)
    return round(size * 256 / 224) if "resized_crop" in spec.get("augment", ()) else size


def short_hash(*parts: str) -> str:
    """Eight hexadecimal digits over `parts`, the suffix of a state folder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def unset_data(run: RunSpec, data: Mapping[str, Any]) -> str | None:
    """The data set that has to be set in config.yaml before the run can be made, or the one whose weights it needs."""
    if not (run.data in (None, *SHIPPED_DATA) or data.get(run.data)):
        return run.data
    return unset_data(run.upstream, data) if run.upstream and not published(run.upstream) else None


def run_status(run: RunSpec) -> str:
    """Of the run directory: `missing`; `done`; `stale`, where it holds another spec; `damaged`, one beyond reading."""
    if not os.path.exists(f"{run.directory}/metrics.csv"):  # noqa: PTH110  published last; asked for at every start
        return "missing"
    try:
        with open(f"{run.directory}/spec.json", encoding="utf-8") as stream:  # noqa: PTH123
            spec = dict(json.load(stream))
    except (OSError, ValueError, TypeError):
        return "damaged"
    try:
        same = canonical_json(spec.pop("task"), spec) == run.canonical
    except (KeyError, InputError):  # a key or a task that is no more
        return "stale"
    return "done" if same else "stale"


def published(run: RunSpec) -> bool:
    """True where the run exists as the registry has it."""
    return run_status(run) == "done"


def missing_reason(runs: Iterable[RunSpec]) -> str:
    """Why a cell is empty that has runs."""
    return "stale run" if any(run_status(run) == "stale" for run in runs) else "no finished run"


def available(run: RunSpec, data: Mapping[str, Any], partial: bool = False) -> bool:
    """True where the run exists or, unless only what exists is wanted, can be made."""
    return published(run) or (not partial and not run.optional and unset_data(run, data) is None)
