"""One number of a claim and its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SIGMAS = 4.0  # a claim is a few comparisons; with four standard errors a true one is refuted once in 16,000


@dataclass(frozen=True)
class Comparison:
    """Our number beside the paper's and the corrected one.

    `relation` says how ours has to stand to the number: = < <= > >=. `tolerance` is what the statement leaves out by
    its own words (a limit, "approximately"); our standard error comes on top, SIGMAS times. A strict inequality has
    to be shown, beyond both; the others have not to be refuted. Where a paper gives words only, `paper` is the
    threshold to which we hold them.
    """

    name: str
    ours: float
    paper: float | None
    corrected: float | None = None
    se: float = 0.0
    tolerance: float = 1e-9
    relation: str = "="
    corrected_relation: str = "="
    sigmas: float = SIGMAS
    seeds: int = 0  # of training runs, where there are so few that they may leave it open

    @property
    def error(self) -> float | None:
        """The standard error to show; None where there is none or one run gives none."""
        return self.se if 0 < self.se < math.inf else None

    @property
    def noise(self) -> float:
        return self.sigmas * self.se

    @property
    def left_open(self) -> bool:
        """Whether the seeds are too few to tell: a difference is within their noise, an equality is not narrowed to its
        tolerance."""
        if not self.seeds or self.paper is None:
            return False
        delta = abs(self.ours - self.paper)
        if self.relation == "=":
            return not (delta + self.noise <= self.tolerance or delta - self.noise > self.tolerance)
        return not delta > self.tolerance + self.noise  # NaN leaves it open too

    def agrees(self, number: float, relation: str) -> bool:
        delta, slack = self.ours - number, self.tolerance + self.noise
        match relation:
            case "<":
                return delta < -slack
            case ">":
                return delta > slack
            case "<=":
                return delta <= slack
            case ">=":
                return delta >= -slack
        if self.seeds:  # equivalence has to be shown
            return abs(delta) + self.noise <= self.tolerance
        return abs(delta) <= slack

    @property
    def as_printed(self) -> bool:
        return self.paper is None or self.agrees(self.paper, self.relation)

    @property
    def as_corrected(self) -> bool:
        if self.corrected is None:
            return self.as_printed
        return self.agrees(self.corrected, self.corrected_relation)


def verdict(comparisons: Iterable[Comparison]) -> str:
    """`holds` where every number is the paper's, `holds as corrected` where every one is the corrected one; `not run`
    where too few seeds ran to tell and nothing else speaks against it."""
    comparisons = list(comparisons)
    left_open = [one for one in comparisons if one.left_open]
    decided = [one for one in comparisons if not one.left_open]
    if left_open and all(one.as_printed or one.as_corrected for one in decided):
        seeds = "one seed leaves" if left_open[0].seeds == 1 else f"{left_open[0].seeds} seeds leave"
        return f"not run ({seeds} it open: {left_open[0].name})"
    if all(one.as_printed for one in comparisons):
        return "holds"
    return "holds as corrected" if all(one.as_corrected for one in comparisons) else "fails"


def average(name: str, values: np.ndarray, paper: float | None, corrected: float | None = None, **more) -> Comparison:
    """A comparison of the mean over independent repeats, with its standard error."""
    se = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Comparison(name, float(np.mean(values)), paper, corrected, se=se, **more)


def extreme(name: str, values: np.ndarray, paper: float, relation: str) -> Comparison:
    """A bound that every one of few repeats has to keep: the worst of them, without an error."""
    worst = values.max() if relation in ("<", "<=") else values.min()
    return Comparison(name, float(worst), paper, relation=relation, tolerance=0.0)


def _over_runs(name: str, ours: float, paper: float, se: float, degrees: float, **more) -> Comparison:
    """With Student's one-sided 95 % bound; for an equality one on either side, within its tolerance (equivalence)."""
    from scipy.special import stdtrit  # scipy.stats takes a second, in every process that makes a table

    sigmas = float(stdtrit(degrees, 0.95)) if degrees else math.inf
    return Comparison(name, ours, paper, se=se, sigmas=sigmas, **more)


def over_seeds(name: str, values: np.ndarray, paper: float, **more) -> Comparison:
    """The mean over the seeds of training runs; one seed leaves all open."""
    n = len(values)
    se = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return _over_runs(name, float(np.mean(values)), paper, se, n - 1, seeds=n, **more)


def between_seeds(name: str, first: np.ndarray, second: np.ndarray, paper: float = 0.0, **more) -> Comparison:
    """The difference of the means over the seeds of two kinds of training runs, with Welch's degrees of freedom."""
    counts = np.array([len(first), len(second)])
    delta, n = float(np.mean(first) - np.mean(second)), int(counts.min())
    if n < 2:
        return _over_runs(name, delta, paper, math.inf, 0, seeds=n, **more)
    parts = np.array([np.var(first, ddof=1), np.var(second, ddof=1)]) / counts
    degrees = float(parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()) if parts.any() else math.inf
    return _over_runs(name, delta, paper, float(np.sqrt(parts.sum())), degrees, seeds=n, **more)
