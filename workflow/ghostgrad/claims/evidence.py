"""What claims are decided by: the runs of the registry, and exact computations that need none."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ghostgrad.measures import fitted_rate, jackknife
from ghostgrad.registry import Cell, Registry
from ghostgrad.results import read_frame
from ghostgrad.spec import SHIPPED_DATA, RunSpec, absence, published


class Missing(Exception):
    """A run that a claim hangs on is not there; its text is the reason."""


def _unset(run: RunSpec) -> str | None:
    """The data key that a run waits for; the workflow gives the others as environment variables."""
    known = run.data is None or run.data in SHIPPED_DATA or f"GHOSTGRAD_DATA_{run.data.upper()}" in os.environ
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
            raise Missing(next(filter(None, map(_unset, left)), None) or absence(left))
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
        return np.stack(rows)

    def final(self, variant: str, metric: str) -> np.ndarray:
        """A column of metrics.csv, (seeds,)."""
        return np.array([frame[metric].iloc[0] for frame in self._frames(variant, "metrics.csv", metric)], dtype=float)

    def early_accuracy(self, variant: str) -> np.ndarray:
        """Training accuracy in percent over the first half of training, (seeds,); rows of the series cover equal
        spans."""
        frames = self._frames(variant, "series.csv", "train_accuracy")
        early = (frame["train_accuracy"][frame["step"] <= frame["step"].max() / 2] for frame in frames)
        return np.array([values.mean() for values in early])

    def costs(self, variant: str, key: str) -> np.ndarray:
        """A number of env.json, summed over the process starts of a seed, (seeds,); NaN where it is not there."""
        found = []
        for run in self._runs(variant):
            path = Path(run.directory, "env.json")
            self.used.append((str(path), key))
            starts = json.loads(path.read_text(encoding="utf-8"))
            found.append(sum(math.nan if start.get(key) is None else start[key] for start in starts))
        return np.array(found)
