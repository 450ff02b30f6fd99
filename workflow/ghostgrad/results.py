"""What tables and figures are made from: an artifact's tidy rows, series and probes at one scale."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.registry import Artifact, Cell, Registry
from ghostgrad.tidy import tidy

REFERENCE_COLUMNS = "row column metric unit relation minus value std tolerance diverges cited source".split()
TEXT = ("row", "column", "experiment", "variant", "code", "commit")  # of tidy rows: a hash may look like a number
REFERENCE_NUMBERS = ("value", "std", "tolerance")


@dataclass(frozen=True)
class Results:
    """An artifact at a scale, read lazily from the run directories that exist."""

    registry: Registry
    artifact: Artifact
    scale: str

    @cached_property
    def tidy(self) -> pd.DataFrame:
        text = tidy(self.registry, self.artifact, self.scale).text()
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXT, str))

    def _files(self, cell: Cell, name: str) -> Iterator[tuple[int, pd.DataFrame]]:
        for run in self.registry.cell_runs(self.scale, cell):
            folder = Path(run.directory)
            if (folder / "metrics.csv").exists():
                yield run.seed, pd.read_csv(folder / name)

    def frame(self, cell: Cell, name: str) -> pd.DataFrame:
        """series.csv or probes.csv of all finished seeds of a cell, with a column `seed`; empty where there is none."""
        frames = [frame.assign(seed=seed) for seed, frame in self._files(cell, name)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def layers(self, cell: Cell, column: str) -> np.ndarray | None:
        """A simulation's values of `column`, (repeats, layers + 1), all blocks pooled; None where nothing has run."""
        frame = self.frame(cell, "series.csv")
        if frame.empty or column not in frame:
            return None
        return frame[column].to_numpy().reshape(-1, frame["layer"].max() + 1)

    @cached_property
    def measured_cells(self) -> list[Cell]:
        """The cells that have a finished run."""
        done = set(zip(self.tidy["row"], self.tidy["column"].fillna(""), strict=True)) if len(self.tidy) else set()
        return [cell for cell in self.artifact.cells if (cell.row, cell.column) in done]


def reference(workflow: Path, artifact: Artifact) -> pd.DataFrame:
    """The paper's numbers of an artifact; empty where it prints none."""
    path = workflow / "reference" / f"{artifact.source}.csv"
    if not path.exists():
        return pd.DataFrame(columns=REFERENCE_COLUMNS)
    text = {name: str for name in REFERENCE_COLUMNS if name not in REFERENCE_NUMBERS}
    blank = {name: [""] for name in REFERENCE_NUMBERS}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank)
