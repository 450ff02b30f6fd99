"""How far a training run is and what it has recorded: all that a resumed run needs beside the
weights and the state of the optimizer. There are no states of random generators in it; see
`rng.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.files import Cell, CsvTable
from ghostgrad.runs.record import PROBE_COLUMNS


@dataclass
class Progress:
    """The progress of one training run, part of every checkpoint."""

    series: CsvTable
    running_totals: dict[str, float]
    """Sums since the last row of the series; the next row holds their means."""
    count: int = 0
    """The number of images or steps that `running_totals` are sums over."""
    step: int = 0
    """The number of updates made."""
    probes: CsvTable = field(default_factory=lambda: CsvTable(PROBE_COLUMNS))

    @classmethod
    def start(cls, series_columns: Iterable[str], totals: Iterable[str]) -> Progress:
        """The progress of a run that has made no update."""
        return cls(CsvTable(series_columns), dict.fromkeys(totals, 0.0))

    def add(self, sums: Mapping[str, float], count: int) -> None:
        """Add sums over `count` images or steps to the running totals."""
        for name in self.running_totals:
            self.running_totals[name] += sums[name]
        self.count += count

    def take_means(self) -> dict[str, float | None]:
        """The means since the last row of the series, None before the first update; the running
        totals start again at 0."""
        means = {
            name: total / self.count if self.count else None
            for name, total in self.running_totals.items()
        }
        self.running_totals = dict.fromkeys(self.running_totals, 0.0)
        self.count = 0
        return means

    def last_row(self) -> dict[str, Cell]:
        """The last row of the series by column."""
        return dict(zip(self.series.columns, self.series.rows[-1], strict=True))

    def numbers(self, column: str) -> list[float]:
        """The numbers in a column of the series, without empty cells."""
        index = self.series.columns.index(column)
        cells = (row[index] for row in self.series.rows)
        return [cell for cell in cells if isinstance(cell, float)]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "step": self.step,
            "running_totals": dict(self.running_totals),
            "count": self.count,
            "series": self.series.rows,
            "probes": self.probes.rows,
        }

    def restore(self, saved: Mapping[str, Any], folder: Path) -> None:
        """Go on from a checkpoint of the state folder `folder`.

        Raises InputError where the checkpoint holds other quantities than this code records, whose
        meaning could only be guessed.
        """
        try:
            totals, rows = saved["running_totals"], saved["series"]
            known = totals.keys() == self.running_totals.keys()
            if not known or any(len(row) != len(self.series.columns) for row in rows):
                raise ValueError("other quantities")
            self.step, self.count = saved["step"], saved["count"]
            self.running_totals = dict(totals)
            self.series = CsvTable(self.series.columns, rows)
            self.probes = CsvTable(self.probes.columns, saved["probes"])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{folder}: the checkpoint was written by a different version of the code"
                f" ({error}); delete it to start over"
            ) from None
