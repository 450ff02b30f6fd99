"""Run specs: one run's parameters in their expanded and their canonical form.

A canonical spec is the merged one with every value that equals the schema's default left out: a new option with a
default changes no canonical spec and so reruns nothing. Imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ghostgrad.checks import InputError, nearest, schema, validate

SCALES = ("smoke", "laptop", "substitute", "paper")
SHIPPED_DATA = ("digits",)  # made by the data rule from an installed package; needs no path


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


STEMLESS = ("preact_resnet", "mlp", "vgg", "vgg16_bn", "vgg19_bn", "vit_b_16", "swin_t")
RULES_WITH = {  # option -> the update rules that read it
    "nesterov": ("sgd", "larc", "lalc"),
    "raw_norm": ("lalc",),
    "gamma_outside": ("lars", "clars"),
    "decay_in_trust": ("clars",),
}


def _has_batch_norm(spec: Mapping[str, Any]) -> bool:
    """Of a classify spec's network."""
    model = spec["model"]
    if model in ("mlp", "vgg"):
        return spec["norm"] == "batch"
    if model == "preact_resnet":
        return spec["batch_norm"]
    return model != "resnet50_gn" and not model.startswith("isonet")


def _architecture_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the network of a classify or initialize spec cannot be or would ignore."""
    model = spec["model"]
    if model == "vgg" and (spec["depth"] % 5 != 1 or spec["depth"] < 6):
        yield f"depth: vgg has five equal groups and a classifier, 5n + 1 layers, not {spec['depth']}"
    for key in ("cifar_stem", "small_stem"):
        if model in STEMLESS and spec.get(key):
            yield f"{key}: {model} has no such stem; leave it out"
    if spec.get("small_stem") and not spec["cifar_stem"]:
        yield "small_stem: is a form of the CIFAR stem; set cifar_stem too"
    if spec.get("zero_gamma") and not model.startswith(("resnet", "plainnet")):
        yield f"zero_gamma: {model} has no branches that it could set to 0; leave it out"


def _batch_problems(spec: Mapping[str, Any], gpus: int) -> Iterator[str]:
    """How a batch does not fit its parts."""
    batch, micro, each = spec["batch"], spec["micro_batch"], spec["batch"] // max(1, gpus)
    if gpus > 1 and batch % gpus:
        yield f"batch: {batch} images do not divide by {gpus} GPUs"
    if gpus > 1 and not micro:
        yield f"micro_batch: missing; {gpus} GPUs need to be told how many images BN sees at a time"
    if micro and each % micro:
        yield f"micro_batch: {micro} does not divide the {each} images of batch that a GPU has"
    if (micro or each) == 1 and _has_batch_norm(spec):
        yield "micro_batch: BN has no variance of 1 image; give it 2 or more"
    if "crop" in spec["augment"] and not spec["pad"]:
        yield "pad: missing; without it crop cuts the image itself"


def _rate_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """How a learning rate's schedule does not fit its boundaries."""
    rates, boundaries = len(spec["lr_values"]), len(spec["lr_boundaries"])
    if rates not in (0, boundaries):
        yield f"lr_values: {rates} rates for {boundaries} lr_boundaries; give one for each"
    if spec["lr_boundaries"] != sorted(spec["lr_boundaries"]):
        yield "lr_boundaries: not in ascending order"
    if spec["schedule"] == "cosine" and boundaries:
        yield "lr_boundaries: schedule cosine has none; leave them out"


def _rule_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the update rule cannot do or would ignore."""
    rule = spec["optimizer"]
    if rule == "clars" and spec["compile"]:
        yield "compile: clars needs hooks, which are not compiled; leave it out"
    if rule == "clars" and spec["orthogonal"]:
        yield "orthogonal: clars is of the samples' losses alone; leave it out"
    for option, rules in RULES_WITH.items():
        if spec[option] and rule not in rules:
            yield f"{option}: {rule} has no such option, but {', '.join(rules)}; leave it out"
    if spec["nesterov"] and not spec["momentum"]:
        yield "nesterov: needs a momentum above 0"


def check_together(task: str, spec: Mapping[str, Any], gpus: int, where: str) -> None:
    """InputError where the values of an expanded spec, each valid by itself, do not fit each other or the GPUs."""
    problems: list[Iterable[str]] = []
    if task != "classify" and gpus > 1:
        problems.append([f"{gpus} GPUs for a run of {task}; only classify computes on more than one"])
    if task in ("classify", "initialize"):
        problems.append(_architecture_problems(spec))
    if task == "classify":
        problems += [_rate_problems(spec), _batch_problems(spec, gpus), _rule_problems(spec)]
    for problem in chain.from_iterable(problems):
        raise InputError(f"{where}: {problem}")


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


def has_data(run: RunSpec, data: Mapping[str, Any]) -> bool:
    """True where the run's data set is shipped, set in config.yaml, or not needed."""
    return run.data in (None, *SHIPPED_DATA) or bool(data.get(run.data))


def standing(run: RunSpec) -> str:
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
    return standing(run) == "done"


def absence(runs: Iterable[RunSpec]) -> str:
    """Why a cell is empty that has runs."""
    return "stale run" if any(standing(run) == "stale" for run in runs) else "no finished run"


def available(run: RunSpec, data: Mapping[str, Any], partial: bool = False) -> bool:
    """True where the run exists or, unless only what exists is wanted, can be made."""
    return published(run) or (not partial and not run.optional and has_data(run, data))
