"""The cells of an artifact, from the `rows` or `axes` that workflow/experiments/*.yaml give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Cell
from ghostgrad.registry.experiment import Experiment
from ghostgrad.registry.spec import SCALES

Experiments = Mapping[str, Experiment]


def check_run(run: str, experiments: Experiments, where: str) -> tuple[str, str]:
    """Experiment and variant of `experiment/variant`; InputError unless both exist."""
    name, variant = run.split("/")
    variants = _experiment(name, experiments, where).variants
    if variant not in variants:
        raise InputError(f"{where}: {name} has no variant '{variant}'{nearest(variant, variants)}")
    return name, variant


def artifact_cells(body: Mapping[str, Any], experiments: Experiments, where: str) -> Iterator[Cell]:
    """The cells of an artifact, in the order of its rows and columns."""
    for row, target in body.get("rows", {}).items():
        place = f"{where}.rows.{row}"
        for column, run in _columns(target, experiments, place):
            yield Cell(str(row), str(column), *check_run(run, experiments, place))
    if "axes" in body:
        yield from _cells_of_axes(body["axes"], experiments, f"{where}.axes")


def check_probes(
    cells: Iterable[Cell], probes: Iterable[str], experiments: Experiments, where: str
) -> None:
    """Raise InputError unless every cell records these probes at every scale."""
    for cell in cells:
        experiment = experiments[cell.experiment]
        # From `paper` to `smoke`: a probe that the paper's scale does not record is missing at the
        # others too, and the message should name the scale where the spec is written out.
        for scale in reversed(SCALES):
            recorded = experiment.merge(cell.variant, scale)[0].get("probes", [])
            for probe in probes:
                if probe not in recorded:
                    run = f"{cell.experiment}/{cell.variant} at scale {scale}"
                    hint = nearest(probe, recorded)
                    raise InputError(f"{where}: '{probe}' is not recorded by {run}{hint}")


def _experiment(name: str, experiments: Experiments, where: str) -> Experiment:
    if name not in experiments:
        raise InputError(f"{where}: no experiment '{name}'{nearest(name, experiments)}")
    return experiments[name]


def _columns(
    target: str | Mapping[str, str], experiments: Experiments, where: str
) -> Iterable[tuple[str, str]]:
    """The (column label, experiment/variant) pairs of a row.

    A `*` in a variant's name stands for the column label: `cifar_sweep/sgd-*` has the columns 128,
    256, … where the variants sgd-128, sgd-256, … exist.
    """
    if not isinstance(target, str):
        return target.items()
    if "*" not in target:
        return [("", target)]
    name, _, pattern = target.partition("/")
    before, _, after = pattern.partition("*")
    variants = _experiment(name, experiments, where).variants
    matching = [text for text in variants if text.startswith(before) and text.endswith(after)]
    if not matching:
        hint = nearest(pattern, variants)
        raise InputError(f"{where}: {name} has no variant like '{pattern}'{hint}")
    labels = [text.removeprefix(before).removesuffix(after) for text in matching]
    return [(label, f"{name}/{text}") for label, text in zip(labels, matching, strict=True)]


def _cells_of_axes(axes: Mapping[str, str], experiments: Experiments, where: str) -> Iterator[Cell]:
    """A cell for each variant that has a point on the axis `row`; labels are names of points."""
    name = axes["experiment"]
    experiment = _experiment(name, experiments, where)
    known = experiment.body.get("axes", {})
    for key in ("row", "column"):
        if key in axes and axes[key] not in known:
            hint = nearest(axes[key], known)
            raise InputError(f"{where}.{key}: {name} has no axis '{axes[key]}'{hint}")
    for variant in experiment.variants:
        point = experiment.point(variant)
        if axes["row"] in point:
            column = point[axes["column"]] if "column" in axes else ""
            yield Cell(point[axes["row"]], column, name, variant)
