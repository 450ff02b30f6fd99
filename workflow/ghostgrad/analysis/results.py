"""What tables and figures are made from: an artifact's tidy rows, series and probes at one scale."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.analysis.tidy import damaged, tidy
from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Artifact, Cell
from ghostgrad.registry.reference import COLUMNS, NUMBERS, read_reference
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import published

TEXT = ("row", "column", "experiment", "variant", "code", "commit")  # of tidy rows: a hash may look like a number


@dataclass(frozen=True)
class Results:
    """An artifact at a scale, read lazily: its tidy rows from `tidy_file`, or without one gathered now from the run
    directories that exist."""

    registry: Registry
    artifact: Artifact
    scale: str
    tidy_file: Path | None = None

    @cached_property
    def tidy(self) -> pd.DataFrame:
        file = self.tidy_file or io.StringIO(tidy(self.registry, self.artifact, self.scale).text())
        return pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXT, str))

    @cached_property
    def paper(self) -> pd.DataFrame:
        """The paper's numbers; empty where it prints none."""
        return reference(self.registry.workflow, self.artifact)

    def _files(self, cell: Cell, name: str) -> Iterator[tuple[int, pd.DataFrame]]:
        for run in self.registry.cell_runs(self.scale, cell):
            if published(run):
                yield run.seed, read_frame(Path(run.directory, name))

    @cached_property
    def _frames(self) -> dict[tuple[Cell, str], pd.DataFrame]:
        return {}

    def frame(self, cell: Cell, name: str) -> pd.DataFrame:
        """series.csv or probes.csv of a cell's finished seeds, with a column `seed`; empty where there is none. Read
        once: figures ask for a file at every position, tables for every column."""
        if (cell, name) not in self._frames:
            frames = [frame.assign(seed=seed) for seed, frame in self._files(cell, name)]
            self._frames[cell, name] = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        return self._frames[cell, name]

    def probe(self, cell: Cell, name: str, at: float) -> pd.DataFrame:
        """The rows of probes.csv of one probe at one of the paper's positions, over all seeds."""
        frame = self.frame(cell, "probes.csv")
        return frame[(frame["probe"] == name) & (frame["at"] == at)]

    def layers(self, cell: Cell, column: str) -> np.ndarray:
        """A block's values of `column`, (repeats, layers + 1), all blocks pooled; InputError where it records no
        such column."""
        frame = self.frame(cell, "series.csv")
        if column not in frame:
            run = f"{cell.experiment}/{cell.variant}"
            raise InputError(f"artifact {self.artifact.id}: {run} has no '{column}'{nearest(column, frame.columns)}")
        places = frame.iloc[:, 1].max() + 1  # repeat, then layer or place
        for run in self.registry.cell_runs(self.scale, cell):
            if (frame["seed"] == run.seed).sum() % places:
                raise damaged(Path(run.directory, "series.csv"), "cut short")
        return frame[column].to_numpy().reshape(-1, places)

    def repeats(self, cell: Cell) -> np.ndarray:
        """The number of the repeat in each row of `layers`."""
        frame = self.frame(cell, "series.csv")
        return frame["repeat"].to_numpy()[frame.iloc[:, 1].to_numpy() == 0]

    def paper_values(self, cell: Cell, metric: str) -> list[float]:
        """The paper's number of a cell's metric, or nothing."""
        mine = self.paper[["row", "column", "metric"]] == [cell.row, cell.column, metric]
        return self.paper[mine.all(axis=1)]["value"].tolist()

    def rows(self, cell: Cell) -> pd.DataFrame:
        """The tidy rows of a cell, one per finished run."""
        return self.tidy[(self.tidy["row"] == cell.row) & (self.tidy["column"].fillna("") == cell.column)]

    @cached_property
    def measured_cells(self) -> list[Cell]:
        """The cells that have a finished run."""
        done = set(zip(self.tidy["row"], self.tidy["column"].fillna(""), strict=True)) if len(self.tidy) else set()
        return [cell for cell in self.artifact.cells if (cell.row, cell.column) in done]


def data_title(name: str) -> str:
    """What a reader knows a data set by: its name, of a folder of images the folder's own (from its manifest)."""
    try:
        return str(json.loads(Path(f"results/data/{name}.json").read_text(encoding="utf-8"))["title"])
    except (OSError, ValueError, TypeError, KeyError):
        return name


def read_frame(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8")
        frame = pd.read_csv(io.StringIO(text))
    except (OSError, ValueError):
        raise damaged(path) from None
    if not text.endswith("\n"):
        raise damaged(path, "cut short")
    return frame


def reference(workflow: Path, artifact: Artifact) -> pd.DataFrame:
    """The paper's numbers of an artifact, reference/<artifact>.csv; empty where it prints none. InputError names the
    line and the column of what is wrong."""
    rows = read_reference(workflow / "reference" / f"{artifact.source}.csv")
    frame = pd.DataFrame([[getattr(row, name) for name in COLUMNS] for row in rows], columns=COLUMNS)
    return frame.astype(dict.fromkeys(NUMBERS, float))
