"""Figures: pure functions Results -> (Figure, drawn data), one module per paper."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ghostgrad.analysis.results import Results
from ghostgrad.figures import style
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry

Drawing = tuple[Figure, pd.DataFrame]


def function(artifact: Artifact) -> Callable[..., Drawing]:
    """The artifact's figure function, in its paper's module."""
    return getattr(importlib.import_module(f"ghostgrad.figures.{artifact.paper}"), artifact.figure)


def draw(
    registry: Registry, artifact: Artifact, scale: str, why_not: str | None, stem: Path, tidy_file: Path | None = None
) -> None:
    """Write <stem>.svg, .pdf, .png and the drawn data as <stem>.csv; a frame that says so where nothing has run."""
    style.use(artifact.id)
    results = Results(registry, artifact, scale, tidy_file)
    if why_not is None and not results.measured_cells and artifact.cells:
        why_not = f"no finished run at scale {scale}"
    if why_not is not None:
        figure, data = style.frame(artifact, why_not), pd.DataFrame(columns=style.DATA_COLUMNS)
    else:
        figure, data = function(artifact)(results, **artifact.options.get("figure", {}))
        style.note(figure, results)
    style.save(figure, data, stem)
