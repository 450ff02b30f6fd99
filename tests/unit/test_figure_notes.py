"""The note in the corner of a figure."""

from __future__ import annotations

from types import SimpleNamespace

from ghostgrad.figures.panels import MAX_NAMED_CELLS, add_scale_note, new_panels, scale_note
from ghostgrad.registry.registry import load_registry


def test_the_note_names_every_change_of_a_scale():
    """The panels are named after the paper's batch sizes, so the note lists those of the laptop
    scale. The data set, which says most, comes first."""
    loaded = load_registry()
    artifact = loaded.artifacts["bnres.fig14"]
    results = SimpleNamespace(
        artifact=artifact, registry=loaded, scale="laptop", measured_cells=artifact.cells
    )
    figure, _ = new_panels(3)
    add_scale_note(figure, results)
    text = figure.get_supxlabel().replace("\n", " ")
    assert text == scale_note(results)
    assert text.startswith("scale laptop, unlike the paper: data digits, ")
    assert "batch 64/128/256" in text
    changed = set()
    for cell in artifact.cells:
        changed |= loaded.experiments[cell.experiment].scaled(cell.variant, "laptop").keys()
    parts = text.partition(": ")[2].split(", ")
    assert sorted(part.split()[0] for part in parts) == sorted(changed)


def test_the_note_names_the_cells_that_have_not_been_run():
    """Where there are more than MAX_NAMED_CELLS of them, the note gives their number."""
    loaded = load_registry()
    artifact = loaded.artifacts["ghost.fig5"]
    first, second, *rest = artifact.cells
    for measured, expected in (
        (artifact.cells, ""),
        (rest, f"; not run: {first.label}, {second.label}"),
    ):
        results = SimpleNamespace(
            artifact=artifact, registry=loaded, scale="paper", measured_cells=measured
        )
        assert scale_note(results) == f"scale paper{expected}"
    cells = tuple(SimpleNamespace(label=str(number)) for number in range(MAX_NAMED_CELLS + 2))
    results = SimpleNamespace(
        artifact=SimpleNamespace(cells=cells), registry=loaded, scale="paper", measured_cells=()
    )
    assert scale_note(results) == "scale paper; not run: 8 of 8 cells"
