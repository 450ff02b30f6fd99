"""What a scale changes in the paper's settings, in the words of a title.

A reader must not take digits for ImageNet, so every table, figure and list of a scaled result says
so in its title line: `measured on 8x8 digits, width 16, batch 32, 77 steps`. Imports neither torch
nor pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ghostgrad.registry.artifact import Artifact, Cell
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.tasks import TASKS

# How a title names each data set.
DATA_NAMES = {
    "digits": "8x8 digits",
    "photographs": "crops of two photographs",
    "cifar10": "CIFAR-10",
    "images": "another set of images",
    "imagenet": "ImageNet",
    "digit_scenes": "64x64 scenes of digits",
    "coco": "COCO",
    "scenes": "another set of scenes",
    "vgg19_bn": "VGG19-BN's checkpoint",
}
WIDTHS = ("width", "filters", "stem_filters")  # the first of them that a scale sets is the width
LENGTHS = {"length", "shrink"}
# Kind of change -> the words before and after its value, in the order of a title.
WORDS = {
    "data": ("", ""),
    "size": ("size ", ""),
    "width": ("width ", ""),
    "batch": ("batch ", ""),
    "epochs": ("", " epochs"),
    "steps": ("", " steps"),
}


def describe_scaling(registry: Registry, variants: Iterable[str], scale: str) -> str:
    """`measured on 8x8 digits, width 16, batch 32, 77 steps`: everything that the scale changes in
    the runs of these variants (`experiment/variant`); empty if it changes at most repeats and
    seeds."""
    values: dict[str, list[Any]] = {}  # kind of change or other parameter -> its distinct values
    for variant in variants:
        for kind, value in _change(registry, variant, scale).items():
            distinct = values.setdefault(kind, [])
            if value is not None and value not in distinct:
                distinct.append(value)
    parts = [
        f"{before}{_join(values[kind])}{after}"
        for kind, (before, after) in WORDS.items()
        if values.get(kind)
    ]
    if values and not parts:
        parts = ["other settings of " + ", ".join(values)]
    return f"measured {'on' if 'data' in values else 'with'} {', '.join(parts)}" if parts else ""


def describe_artifact_scaling(registry: Registry, cells: Iterable[Cell], scale: str) -> str:
    """`describe_scaling` of the cells of an artifact that run at this scale."""
    variants = (
        f"{cell.experiment}/{cell.variant}" for cell in cells if registry.cell_runs(scale, cell)
    )
    return describe_scaling(registry, dict.fromkeys(variants), scale)


def scaled_title(registry: Registry, artifact: Artifact, scale: str) -> str:
    """The title of an artifact, which on a scaled run says what was measured."""
    scaling = describe_artifact_scaling(registry, artifact.cells, scale)
    return f"{artifact.title}, {scaling}" if scaling else artifact.title


def title_line(registry: Registry, artifact: Artifact, scale: str) -> str:
    """The line above a table: `ghost.fig5: title, what was measured (Ghost app. A, fig. 5)`."""
    title, place = scaled_title(registry, artifact, scale), name_papers(artifact.section)
    return f"{artifact.id}: {title} ({place})"


def column_headings(registry: Registry, artifact: Artifact, scale: str) -> dict[str, str]:
    """Column label -> heading, for the columns whose heading says what was run instead."""
    labels = dict.fromkeys(cell.column for cell in artifact.cells)
    headings = {
        label: _column_heading(
            registry, [cell for cell in artifact.cells if cell.column == label], scale
        )
        for label in labels
    }
    return {label: heading for label, heading in headings.items() if heading != label}


def _column_heading(registry: Registry, cells: Sequence[Cell], scale: str) -> str:
    """The heading of a column whose label is the batch size that the paper has: `128 (here 32)`.

    Other columns keep their label.
    """
    label = cells[0].column
    here, in_paper = (
        {_batch(runs[0]) for cell in cells if (runs := registry.cell_runs(at, cell))}
        for at in (scale, "paper")
    )
    if len(here) != 1 or len(in_paper) != 1 or here == in_paper:
        return label
    [batch], [papers_batch] = here, in_paper
    is_batch = label in (str(papers_batch), f"{papers_batch // 1024}k")
    return f"{label} (here {batch})" if is_batch else label


def _batch(run: RunSpec) -> int:
    """The batch size of a run; 0 for a run without one."""
    batch = run.spec.values().get("batch", 0)
    assert isinstance(batch, int)
    return batch


def _change(registry: Registry, variant: str, scale: str) -> Mapping[str, Any]:
    """What the scale changes in one variant (`experiment/variant`): kinds of WORDS with their
    values, and every other changed parameter with None."""
    name, _, point = variant.partition("/")
    experiment = registry.experiments[name]
    scaled, runs = experiment.scaled(point, scale), experiment.runs(scale, point)
    if not scaled or not runs:
        return {}
    change: dict[str, Any] = {}
    if "data" in scaled:
        change["data"] = DATA_NAMES[scaled["data"]]
    if scaled.get("size"):  # size 0 leaves the images as they are
        change["size"] = scaled["size"]
    if width := next((scaled[key] for key in WIDTHS if key in scaled), None):
        change["width"] = width
    if "batch" in scaled:
        change["batch"] = scaled["batch"]
    # Other images make another number of steps of the same epochs.
    if scaled.keys() & LENGTHS or ("data" in scaled and TASKS[runs[0].task].trains):
        unit, length = planned_length(runs[0])
        if length:  # a run of no steps measures at initialization
            change[unit] = length
        else:
            change |= dict.fromkeys(sorted(scaled.keys() & LENGTHS))
    named = {"data", "batch", *WIDTHS, *LENGTHS}
    return change | dict.fromkeys(key for key in scaled if key not in named and key not in change)


def planned_length(run: RunSpec) -> tuple[str, float]:
    """The length of a training run: ("steps", n), or ("epochs", n) where the number of its images
    is not known."""
    # It is a spec of classify or detect, whose classes every table would depend on if this module
    # imported them.
    spec: Any = run.spec
    length = spec.length / spec.shrink
    if spec.unit == "epoch":
        counts = DATA_SETS[spec.data].counts
        if counts is None:
            return "epochs", length
        length *= counts.train // spec.batch
    return "steps", max(1, round(length)) if length else 0


def _join(values: list[Any]) -> str:
    """One value, several words joined by "and", or the range of several numbers."""
    if all(isinstance(value, int | float) for value in values):
        ends = dict.fromkeys(f"{end:,g}" for end in (min(values), max(values)))
        return " to ".join(ends)
    return " and ".join(values)
