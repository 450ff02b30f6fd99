"""The files of an artifact's figure."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from ghostgrad.analysis.results import Results
from ghostgrad.figures.curves import Drawing, no_data
from ghostgrad.figures.panels import add_scale_note, placeholder
from ghostgrad.figures.style import apply_style, save_figure
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry


def figure_function(artifact: Artifact) -> Callable[..., Drawing]:
    """The function that draws an artifact, in the module of its paper; the registry has checked
    that it exists."""
    assert artifact.figure is not None
    module = importlib.import_module(f"ghostgrad.figures.{artifact.paper}")
    function: Callable[..., Drawing] = getattr(module, artifact.figure)
    return function


def draw_artifact(
    registry: Registry,
    artifact: Artifact,
    scale: str,
    why_not: str | None,
    stem: Path,
    tidy_file: Path | None = None,
) -> None:
    """Write <stem>.svg, .pdf, .png and the drawn numbers as <stem>.csv.

    Where nothing can be drawn, for the reason `why_not` or because no run has finished, the files
    are a frame that says so and a CSV with its header alone.
    """
    apply_style(artifact.id)
    results = Results(registry, artifact, scale, tidy_file)
    if why_not is None and artifact.cells and not results.measured_cells:
        why_not = f"no finished run at scale {scale}"
    if why_not is not None:
        figure, data = placeholder(artifact, why_not), no_data()
    else:
        options = artifact.options.get("figure", {})
        figure, data = figure_function(artifact)(results, **options)
        add_scale_note(figure, results)
    save_figure(figure, data, stem)
