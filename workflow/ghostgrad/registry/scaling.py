"""What a scale changes in the paper's settings, in the words of a title.

A reader must not take digits for ImageNet, so every table, figure and list of a scaled result says
so in its title line: `measured on 8x8 digits, width 16, batch 32, 77 steps`. Imports neither torch
nor pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ghostgrad.registry.artifact import Artifact, Cell
from ghostgrad.registry.datasets import DATA_SETS
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
LENGTHS = ("length", "shrink")
# What changes neither what is computed nor what it is compared with.
IMMATERIAL = ("input", "micro_batch", "channels_last", "eval_every", "probe_batches")


def describe_scaling(registry: Registry, variants: Iterable[str], scale: str) -> str:
    """`measured on 8x8 digits, width 16, batch 32, 77 steps`: what the scale changes in the runs of
    these variants (`experiment/variant`), over all of them; empty if it changes at most repeats and
    seeds."""
    changes = [_change(registry, variant, scale) for variant in variants]
    merged: dict[str, list[Any]] = {}
    for change in changes:
        for key, value in change.items():
            if value not in merged.setdefault(key, []):
                merged[key].append(value)
    if not merged:
        return ""
    parts = [
        _join(merged.pop("data", []), ""),
        _join(merged.pop("size", []), "size"),
        _join(merged.pop("width", []), "width"),
        _join(merged.pop("batch", []), "batch"),
        _join(merged.pop("epochs", []), "", " epochs"),
        _join(merged.pop("steps", []), "", " steps"),
    ]
    if merged and not any(parts):
        parts.append("other settings of " + ", ".join(merged))
    place = "measured on " if parts[0] else "measured with "
    return place + ", ".join(part for part in parts if part)


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


def _column_heading(registry: Registry, cells: Iterable[Cell], scale: str) -> str:
    """The heading of a column whose label is the batch size that the paper has: `128 (here 32)`.

    Other columns keep their label.
    """
    cells = list(cells)
    label = cells[0].column
    ran = [runs[0] for cell in cells if (runs := registry.cell_runs(scale, cell))]
    intended = [runs[0] for cell in cells if (runs := registry.cell_runs("paper", cell))]
    here = {_batch(run) for run in ran}
    paper = {_batch(run) for run in intended}
    if len(here) != 1 or len(paper) != 1 or here == paper:
        return label
    [batch], [papers_batch] = here, paper
    return f"{label} (here {batch})" if label in (str(papers_batch), _in_k(papers_batch)) else label


def _batch(run: RunSpec) -> int:
    """The batch size of a run; 0 for a run without one."""
    batch = run.spec.values().get("batch", 0)
    assert isinstance(batch, int)
    return batch


def _in_k(number: int) -> str:
    """`4k` for 4,096."""
    return f"{number // 1024}k"


def _change(registry: Registry, variant: str, scale: str) -> Mapping[str, Any]:
    """What the scale changes in one variant (`experiment/variant`), under the words of a title."""
    name, _, point = variant.partition("/")
    experiment = registry.experiments[name]
    scaled = experiment.scaled(point, scale)
    scaled = {key: value for key, value in scaled.items() if key not in IMMATERIAL}
    runs = experiment.runs(scale, point)
    if not scaled or not runs:
        return {}
    run = runs[0]
    change: dict[str, Any] = {}
    # All of a title's words are said once anything is changed: what is not changed tells as much.
    if "data" in scaled:
        change["data"] = DATA_NAMES[scaled["data"]]
    if scaled.get("size"):
        change["size"] = scaled["size"]
    width = next((scaled[key] for key in WIDTHS if key in scaled), None)
    if width is not None:
        change["width"] = width
    if "batch" in scaled:
        change["batch"] = scaled["batch"]
    if any(key in scaled for key in LENGTHS) or ("data" in scaled and TASKS[run.task].trains):
        unit, length = planned_length(run)
        change[unit] = length
    rest = scaled.keys() - {"data", "size", "batch", *WIDTHS, *LENGTHS}
    return change | dict.fromkeys(sorted(rest))


def planned_length(run: RunSpec) -> tuple[str, float]:
    """The length of a training run: ("steps", n), or ("epochs", n) where the number of its images
    is not known."""
    # That of classify or detect. Importing their classes would make every table depend on them.
    spec: Any = run.spec
    length = spec.length / spec.shrink
    if spec.unit == "epoch":
        counts = DATA_SETS[spec.data].counts
        if counts is None:
            return "epochs", length
        length *= counts.train // spec.batch
    return "steps", max(1, round(length)) if length else 0


def _join(values: list[Any], before: str, after: str = "") -> str:
    """One value, several words joined by "and", or the range of several numbers."""
    values = [value for value in values if value != 0]
    if not values:
        return ""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) > 1:
        text = f"{min(numbers):,g} to {max(numbers):,g}"
    else:
        text = " and ".join(f"{v:,g}" if isinstance(v, int | float) else str(v) for v in values)
    return f"{before} {text}{after}".strip()
