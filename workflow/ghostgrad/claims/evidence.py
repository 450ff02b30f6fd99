"""What claims are decided by: the finished runs of a scale."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from ghostgrad.analysis.results import column_by_repeat, read_frame
from ghostgrad.analysis.statistics import Estimate, FloatArray, fit_growth_rate, jackknife
from ghostgrad.registry.artifact import Cell
from ghostgrad.registry.config import exported_data
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec, missing_reason, published, unset_data

P = ParamSpec("P")
T = TypeVar("T")


class MissingEvidence(Exception):
    """A run on which a claim depends is not there. The text of the exception is the reason."""


class UndeclaredEvidence(Exception):
    """A claim reads a variant that its `runs` do not name. The text is the variant."""


@dataclass(frozen=True)
class Evidence:
    """The finished runs of a scale, as arrays.

    A `variant` is named "experiment/variant". `used` collects every file that was read and what was
    read of it, as (path, rows). `computed` collects what a claim computes itself although it has
    runs, as (kind, function). If `declared` is given, only its variants can be read. Every method
    that reads raises MissingEvidence if one of the runs is not finished.
    """

    registry: Registry
    scale: str
    used: list[tuple[str, str]]
    declared: tuple[str, ...] | None = None
    computed: list[tuple[str, str]] = field(default_factory=list)
    read: dict[RunSpec, None] = field(default_factory=dict)
    """The runs that were read, in order."""

    def compute(
        self,
        kind: Literal["Monte Carlo", "exact computation"],
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`function(*args, **kwargs)`, recorded as a part of what the claim rests on."""
        place = function.__module__.replace(".", "/")
        self.computed.append((kind, f"{place}.py: {function.__name__}"))
        return function(*args, **kwargs)

    def _runs(self, variant: str) -> tuple[RunSpec, ...]:
        if self.declared is not None and variant not in self.declared:
            raise UndeclaredEvidence(variant)
        experiment, name = variant.split("/")
        runs = self.registry.cell_runs(self.scale, Cell("", "", experiment, name))
        if not runs:
            raise MissingEvidence(f"not at scale {self.scale}")
        # All of them or none: a verdict over some of the blocks would change as more are finished.
        missing = [run for run in runs if not published(run)]
        if missing:
            configured = exported_data()
            unset = [key for run in missing if (key := unset_data(run, configured))]
            if unset:
                raise MissingEvidence(f"data.{unset[0]} is not set in config.yaml")
            raise MissingEvidence(missing_reason(missing))
        self.read.update(dict.fromkeys(runs))
        return runs

    def _frames(self, variant: str, file: str, rows: str) -> Iterator[tuple[Path, pd.DataFrame]]:
        for run in self._runs(variant):
            path = Path(run.directory, file)
            self.used.append((str(path), rows))
            yield path, read_frame(path)

    def layers(self, variant: str, column: str) -> FloatArray:
        """The values of a column of series.csv in every repeat, all blocks pooled.

        (repeats, layers + 1) of a simulation, (repeats, places) of a network; index 0 is the input.
        """
        blocks = [
            column_by_repeat(frame, column, path)
            for path, frame in self._frames(variant, "series.csv", column)
        ]
        return np.concatenate(blocks)

    def column(self, variant: str, column: str) -> FloatArray:
        """One column of series.csv of a variant that has a single run, (rows,)."""
        [(_, frame)] = self._frames(variant, "series.csv", column)
        values: FloatArray = frame[column].to_numpy(dtype=float)
        return values

    def growth_rate(
        self, variant: str, column: str = "gradient_norm", layers: slice = slice(1, None)
    ) -> Estimate:
        """The fitted factor per layer toward the input of a column's mean over repeats.

        Its standard error is that of the jackknife over repeats. `layers` selects
        the layers of the fit; by default all but the input, which has no weights.
        """
        return jackknife(self.layers(variant, column)[:, layers], fit_growth_rate)

    def samples(self, variant: str, column: str) -> FloatArray:
        """The values of a column of a sampled operator, (repeats,)."""
        return self.layers(variant, column)[:, 0]

    def probe(self, variant: str, quantity: str, position: float = 0) -> FloatArray:
        """A probed quantity at a position in training in the paper's unit, (seeds, indices).

        Raises MissingEvidence if a seed ended (diverged) before that position.
        """
        seeds = []
        for _, frame in self._frames(variant, "probes.csv", f"{quantity} at {position:g}"):
            probed = frame[(frame["probe"] == quantity) & (frame["at"] == position)]
            seeds.append(probed.sort_values("index")["value"].to_numpy())
        if len({len(values) for values in seeds}) > 1 or not len(seeds[0]):
            ended = sum(not len(values) for values in seeds)
            raise MissingEvidence(
                f"{ended} of {len(seeds)} seeds of {variant} ended before {position:g}"
            )
        return np.stack(seeds)

    def final(self, variant: str, metric: str) -> FloatArray:
        """A column of metrics.csv, (seeds,)."""
        frames = self._frames(variant, "metrics.csv", metric)
        return np.array([frame[metric].iloc[0] for _, frame in frames], dtype=float)

    def mean_accuracy(self, variant: str, column: str, after: float, until: float) -> FloatArray:
        """The mean of an accuracy of series.csv, in percent, between two positions, (seeds,).

        The positions are in the paper's unit; `after` is excluded and `until` included. The rows of
        a series cover equal spans, so that the mean over rows is the mean over training. A run that
        diverged before, or one without a row between the positions, counts with the last row up to
        `until` or, if there is none, with its first row.
        """
        means = []
        for _, frame in self._frames(variant, "series.csv", column):
            values, positions = frame[column], frame["at"]
            between = values[(positions > after) & (positions <= until)]
            last = max(0, int((positions <= until).sum()) - 1)
            means.append(between.mean() if len(between) else values[last])
        return np.array(means)

    def early_accuracy(self, variant: str) -> FloatArray:
        """Training accuracy in percent over the first quarter of the planned training, (seeds,)."""
        length = self._runs(variant)[0].training.length
        return self.mean_accuracy(variant, "train_accuracy", 0, length / 4)

    def resource_use(self, variant: str, key: str) -> FloatArray:
        """A number of env.json such as gpu_s (seconds) or peak_mb (MB), (seeds,).

        An interrupted run has one record per process that worked on it. Of a peak the highest of
        them counts, of a time their sum. Raises MissingEvidence if a process was killed before it
        could write the number.
        """
        seeds = []
        for run in self._runs(variant):
            path = Path(run.directory, "env.json")
            self.used.append((str(path), key))
            processes = json.loads(path.read_text(encoding="utf-8"))
            values = [process.get(key) for process in processes]
            if None in values:
                raise MissingEvidence(f"no {key} of a process of {variant} that was killed")
            seeds.append(max(values) if key.endswith("peak_mb") else sum(values))
        return np.array(seeds, dtype=float)
