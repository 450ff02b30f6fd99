"""What a figure says of itself."""

from __future__ import annotations

from types import SimpleNamespace

from ghostgrad.figures import style
from ghostgrad.registry.registry import load_registry


def test_cells_that_a_scale_changes_differently_are_all_told():
    """Panels named after the paper's batch sizes show others at laptop scale."""
    loaded = load_registry()
    artifact = loaded.artifacts["bnres.fig14"]
    results = SimpleNamespace(artifact=artifact, registry=loaded, scale="laptop", measured_cells=artifact.cells)
    figure, _ = style.panels(3)
    style.note(figure, results)
    text = figure.get_supxlabel().replace("\n", " ")
    assert text.startswith("scale laptop, not the paper's: ")
    assert "batch 64/128/256" in text
