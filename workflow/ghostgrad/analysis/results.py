"""What tables and figures are made from: an artifact's tidy rows, series and probes at a scale."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.analysis.statistics import FloatArray
from ghostgrad.analysis.tidy import damaged_file, tidy_table
from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Artifact, Cell
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.reference import ReferenceRow, read_reference
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import published

# Columns of tidy rows that stay text: a hash such as 12345678 would otherwise become a number.
TEXT_COLUMNS = ("row", "column", "experiment", "variant", "code", "commit")


def column_by_repeat(frame: pd.DataFrame, column: str, path: Path) -> FloatArray:
    """The values of a column of one run's series.csv, (repeats, layers + 1) or (repeats, places).

    The first column is the repeat, the second the layer (or the place of a network), which counts
    fastest: one repeat is one contiguous group of rows. InputError, with the `path` of the file, if
    there is no such column or the file does not have whole repeats, each of them once.
    """
    if column not in frame:
        raise InputError(f"{path}: no column '{column}'{nearest(column, frame.columns)}")
    if frame.empty:
        raise damaged_file(path, "empty")
    places = int(frame.iloc[:, 1].max()) + 1
    # A file cut at the end of a line would shift all later repeats by some layers.
    if len(frame) % places:
        raise damaged_file(path, "cut short")
    numbers = frame.iloc[:, 0].to_numpy().reshape(-1, places)
    if (numbers != numbers[:, :1]).any() or len(np.unique(numbers[:, 0])) < len(numbers):
        raise damaged_file(path, "a repeat is there twice, or with too few rows")
    values: FloatArray = frame[column].to_numpy()
    return values.reshape(-1, places)


@dataclass(frozen=True)
class Results:
    """An artifact at a scale, read lazily.

    The tidy rows come from `tidy_file`. Without one they are gathered from the run directories that
    exist, so that partial results can be shown while a build is running.
    """

    registry: Registry
    artifact: Artifact
    scale: str
    tidy_file: Path | None = None

    @cached_property
    def tidy(self) -> pd.DataFrame:
        """The tidy rows, one per cell and finished run."""
        file: Path | io.StringIO | None = self.tidy_file
        if file is None:
            file = io.StringIO(tidy_table(self.registry, self.artifact, self.scale).text())
        # Only an empty field is missing. By default pandas takes more words for missing values,
        # among them some that are good labels, such as NA and None.
        text = dict.fromkeys(TEXT_COLUMNS, str)
        return pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=text)

    @cached_property
    def references(self) -> list[ReferenceRow]:
        """The numbers that stand beside ours in the artifact's table, in the order of the paper."""
        path = self.registry.workflow / "reference" / f"{self.artifact.reference}.csv"
        return read_reference(path)

    def _files(self, cell: Cell, name: str) -> Iterator[tuple[int, pd.DataFrame]]:
        for run in self.registry.cell_runs(self.scale, cell):
            if published(run):
                yield run.seed, read_frame(Path(run.directory, name))

    @cached_property
    def _frames(self) -> dict[tuple[Cell, str], pd.DataFrame]:
        return {}

    def frame(self, cell: Cell, name: str) -> pd.DataFrame:
        """series.csv or probes.csv of a cell's finished runs, with a column `seed`.

        Empty if no run is finished. Each file is read once: figures ask for it at every position
        and tables for every column.
        """
        if (cell, name) not in self._frames:
            frames = [frame.assign(seed=seed) for seed, frame in self._files(cell, name)]
            self._frames[cell, name] = (
                pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
            )
        return self._frames[cell, name]

    def probe(self, cell: Cell, name: str, position: float) -> pd.DataFrame:
        """The rows of probes.csv of one quantity, over all seeds.

        `position` is a position in training in the paper's unit (the column `at`), not in steps of
        this run.
        """
        frame = self.frame(cell, "probes.csv")
        return frame[(frame["probe"] == name) & (frame["at"] == position)]

    def layers(self, cell: Cell, column: str) -> FloatArray:
        """The values of a column of series.csv, (repeats, layers + 1), layer 0 being the input.

        An experiment with many repeats is divided into blocks (`ghostgrad.tasks.blocks`): runs with
        the seeds 0, 1, ... Every repeat has its own random streams, so the blocks pool exactly.
        Raises InputError if there is no such column or a file is cut short.
        """
        frame = self.frame(cell, "series.csv")
        if column not in frame:
            run = f"{cell.experiment}/{cell.variant}"
            hint = nearest(column, frame.columns)
            raise InputError(f"artifact {self.artifact.id}: {run} has no '{column}'{hint}")
        runs = self.registry.cell_runs(self.scale, cell)
        blocks = [(run, frame[frame["seed"] == run.seed]) for run in runs]
        return np.concatenate(
            [
                column_by_repeat(block, column, Path(run.directory, "series.csv"))
                for run, block in blocks
                if len(block)
            ]
        )

    def repeats(self, cell: Cell) -> np.ndarray:
        """The number of the repeat in each row of `layers`, (repeats,)."""
        frame = self.frame(cell, "series.csv")
        first_rows: np.ndarray = frame["repeat"].to_numpy()[frame.iloc[:, 1].to_numpy() == 0]
        return first_rows

    def references_of(self, cell: Cell, metric: str) -> list[ReferenceRow]:
        """The numbers that stand beside a metric of a cell: usually one, or none."""
        key = (cell.row, cell.column, metric)
        return [row for row in self.references if row.key == key]

    def rows(self, cell: Cell) -> pd.DataFrame:
        """The tidy rows of a cell, one per finished run."""
        in_column = self.tidy["column"].fillna("") == cell.column
        return self.tidy[(self.tidy["row"] == cell.row) & in_column]

    @cached_property
    def measured_cells(self) -> list[Cell]:
        """The cells that have a finished run."""
        if self.tidy.empty:
            return []
        done = set(zip(self.tidy["row"], self.tidy["column"].fillna(""), strict=True))
        return [cell for cell in self.artifact.cells if (cell.row, cell.column) in done]


def data_title(name: str) -> str:
    """The title of a data set for readers, from its manifest; its name if there is no manifest.

    A folder of images has the name of that folder as its title.
    """
    manifest = Path(f"results/data/{name}.json")
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["title"])
    except (OSError, ValueError, TypeError, KeyError):
        return name


def test_images(results: Results, cell: Cell) -> int | None:
    """How many test images the runs of a cell are evaluated on; None where that is not known."""
    name = results.registry.cell_runs(results.scale, cell)[0].data
    counts = DATA_SETS[name].counts if name else None
    return counts.test if counts else None


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV file that a run has published.

    Raises InputError if it is not readable or does not end with a newline, that is if it was cut
    short.
    """
    try:
        text = path.read_text(encoding="utf-8")
        frame = pd.read_csv(io.StringIO(text))
    except (OSError, ValueError):
        raise damaged_file(path) from None
    if not text.endswith("\n"):
        raise damaged_file(path, "cut short")
    return frame
