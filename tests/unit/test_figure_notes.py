"""The note in the corner of a figure."""

from __future__ import annotations

from types import SimpleNamespace

from ghostgrad.figures.panels import add_scale_note, new_panels
from ghostgrad.registry.registry import load_registry


def test_the_note_names_every_change_of_a_scale():
    """The panels are named after the paper's batch sizes, so the note lists those of the laptop
    scale."""
    loaded = load_registry()
    artifact = loaded.artifacts["bnres.fig14"]
    results = SimpleNamespace(
        artifact=artifact, registry=loaded, scale="laptop", measured_cells=artifact.cells
    )
    figure, _ = new_panels(3)
    add_scale_note(figure, results)
    text = figure.get_supxlabel().replace("\n", " ")
    assert text.startswith("scale laptop, unlike the paper: ")
    assert "batch 64/128/256" in text
