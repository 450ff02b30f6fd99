"""What claims are decided by: the runs of the registry, and exact computations that need none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.analysis.measures import fitted_rate, jackknife
from ghostgrad.analysis.results import read_frame
from ghostgrad.registry.artifact import Cell
from ghostgrad.registry.datasets import is_shipped
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec, missing_reason, published


class Missing(Exception):
    """A run that a claim hangs on is not there; its text is the reason."""


def _unset(run: RunSpec) -> str | None:
    """The data key that a run waits for; the workflow gives the others as environment variables."""
    known = is_shipped(run.data) or f"GHOSTGRAD_DATA_{run.data.upper()}" in os.environ
    return None if known else f"data.{run.data} is not set in config.yaml"


@dataclass(frozen=True)
class Evidence:
    """The finished runs of a scale; `used` collects what was asked for, as (file, rows)."""

    registry: Registry
    scale: str
    used: list[tuple[str, str]]

    def _runs(self, variant: str) -> tuple[RunSpec, ...]:
        experiment, name = variant.split("/")
        runs = self.registry.cell_runs(self.scale, Cell("", "", experiment, name))
        if not runs:
            raise Missing(f"not at scale {self.scale}")
        if left := [run for run in runs if not published(run)]:  # some blocks only would be another claim
            raise Missing(next(filter(None, map(_unset, left)), None) or missing_reason(left))
        return runs

    def _frames(self, variant: str, file: str, rows: str) -> Iterator[pd.DataFrame]:
        for run in self._runs(variant):
            path = Path(run.directory, file)
            self.used.append((str(path), rows))
            yield read_frame(path)

    def layers(self, variant: str, column: str) -> np.ndarray:
        """Values of `column` in every repeat, all blocks pooled: (repeats, layers + 1) of a simulation, (repeats,
        places) of a network, place 0 being its input."""
        frame = pd.concat(self._frames(variant, "series.csv", column))
        return frame[column].to_numpy().reshape(-1, frame.iloc[:, 1].max() + 1)  # repeat, then layer or place

    def rate(self, variant: str, column: str = "gradient_norm", layers: slice = slice(1, None)) -> tuple[float, float]:
        """The fitted factor per layer toward the input of a simulation's mean over repeats, and its standard error."""
        return jackknife(self.layers(variant, column)[:, layers], fitted_rate)

    def samples(self, variant: str, column: str) -> np.ndarray:
        """A sampled operator's values of `column`, (repeats,)."""
        return self.layers(variant, column)[:, 0]

    def probe(self, variant: str, quantity: str, at: float = 0) -> np.ndarray:
        """A probed quantity at one of the paper's positions, (seeds, indices)."""
        rows = []
        for frame in self._frames(variant, "probes.csv", f"{quantity} at {at:g}"):
            found = frame[(frame["probe"] == quantity) & (frame["at"] == at)]
            rows.append(found.sort_values("index")["value"].to_numpy())
        if len({len(row) for row in rows}) > 1 or not len(rows[0]):
            ended = sum(not len(row) for row in rows)
            raise Missing(f"{ended} of {len(rows)} seeds of {variant} ended before {at:g}")
        return np.stack(rows)

    def final(self, variant: str, metric: str) -> np.ndarray:
        """A column of metrics.csv, (seeds,)."""
        return np.array([frame[metric].iloc[0] for frame in self._frames(variant, "metrics.csv", metric)], dtype=float)

    def accuracy(self, variant: str, column: str, after: float, until: float) -> np.ndarray:
        """Mean of an accuracy of series.csv, in percent, between two of the paper's positions, (seeds,); rows cover
        equal spans. Of a run that ended before, or that has no row between them, the row that is nearest."""
        found = []
        for frame in self._frames(variant, "series.csv", column):
            values, at = frame[column], frame["at"]
            between = values[(at > after) & (at <= until)]
            found.append(between.mean() if len(between) else values[max(0, (at <= until).sum() - 1)])
        return np.array(found)

    def early_accuracy(self, variant: str) -> np.ndarray:
        """Training accuracy in percent over the first quarter of the planned training, (seeds,)."""
        return self.accuracy(variant, "train_accuracy", 0, self._runs(variant)[0].spec.length / 4)

    def costs(self, variant: str, key: str) -> np.ndarray:
        """A number of env.json, (seeds,): of a peak the highest of a seed's process starts, else their sum; Missing
        where a start was killed before it was told."""
        found = []
        for run in self._runs(variant):
            path = Path(run.directory, "env.json")
            self.used.append((str(path), key))
            starts = [start.get(key) for start in json.loads(path.read_text(encoding="utf-8"))]
            if None in starts:
                raise Missing(f"no {key} of a process of {variant} that was killed")
            found.append(max(starts) if key.endswith("peak_mb") else sum(starts))
        return np.array(found, dtype=float)
