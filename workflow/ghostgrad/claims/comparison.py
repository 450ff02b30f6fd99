"""One number of a claim, and the verdict over several.

The two kinds of evidence are judged differently. A Monte Carlo experiment can have as many repeats
as it needs: a true number is refuted only beyond SIGMAS standard errors, and a number that is not
refuted holds. Training runs are few: a difference holds only if Student's one-sided 95 % bound
shows it, and too few seeds leave a claim open instead of confirming or refuting it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, standard_error

Relation = Literal["=", "<", "<=", ">", ">="]

# A claim has a few comparisons. At four standard errors a true number is refuted once in 16,000.
SIGMAS = 4.0


@dataclass(frozen=True)
class Comparison:
    """Our number beside the paper's and, if that is wrong, the corrected one.

    `relation` is the claimed relation of ours to the number. `tolerance` is what the statement
    leaves out by its own words (a limit, "approximately"), in the unit of the numbers; `sigmas`
    times our standard error comes on top. A strict inequality has to be shown beyond both, the
    other relations only must not be refuted. If the paper gives words and no number, `paper` is the
    threshold that we set for them; it is None if the paper has no number for this comparison.
    `seeds` is the number of training runs if these are so few that they may leave it open, else 0.
    """

    name: str
    ours: float
    paper: float | None
    corrected: float | None = None
    se: float = 0.0
    tolerance: float = 1e-9
    relation: Relation = "="
    corrected_relation: Relation = "="
    sigmas: float = SIGMAS
    seeds: int = 0

    @property
    def finite_se(self) -> float | None:
        """The standard error to show; None for an exact number and for a single training run."""
        return self.se if 0 < self.se < math.inf else None

    @property
    def noise(self) -> float:
        """The half-width of the interval around our number that its standard error leaves open."""
        return self.sigmas * self.se

    @property
    def left_open(self) -> bool:
        """True if the seeds are too few to tell.

        A difference is open while the bound lies within the noise; an equality while the interval
        of our number lies neither inside the tolerance nor outside of it.
        """
        if not self.seeds or self.paper is None:
            return False
        delta = abs(self.ours - self.paper)
        if self.relation == "=":
            inside = delta + self.noise <= self.tolerance
            outside = delta - self.noise > self.tolerance
            return not (inside or outside)
        # Not `delta <= ...`: a NaN compares as false and has to leave the claim open.
        return not delta > self.tolerance + self.noise

    def agrees(self, number: float, relation: Relation) -> bool:
        """True if our number has the given relation to `number`."""
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
        # An equality of few training runs has to be shown, as in a test of equivalence: the whole
        # interval must lie within the tolerance. Otherwise noise alone would make any two equal.
        if self.seeds:
            return abs(delta) + self.noise <= self.tolerance
        return abs(delta) <= slack

    @property
    def as_printed(self) -> bool:
        """True if our number agrees with the paper's."""
        return self.paper is None or self.agrees(self.paper, self.relation)

    @property
    def as_corrected(self) -> bool:
        """True if our number agrees with the corrected one, or the paper's if that is right."""
        if self.corrected is None:
            return self.as_printed
        return self.agrees(self.corrected, self.corrected_relation)


class Criteria(TypedDict, total=False):
    """The fields of a Comparison that say what it is held to."""

    tolerance: float
    relation: Relation
    corrected_relation: Relation


class CorrectedCriteria(Criteria, total=False):
    """The same with a corrected number."""

    corrected: float | None


def verdict(comparisons: Iterable[Comparison]) -> str:
    """The verdict of a claim over all of its comparisons.

    `holds` if every number is the paper's; `holds as corrected` if every number is the corrected
    one, or the paper's where that needs no correction; `not run` if too few seeds ran to tell and
    no other comparison speaks against the claim; else `fails`.
    """
    comparisons = list(comparisons)
    left_open = [comparison for comparison in comparisons if comparison.left_open]
    decided = [comparison for comparison in comparisons if not comparison.left_open]
    # One refuted comparison decides the claim, however many others are open.
    not_refuted = all(comparison.as_printed or comparison.as_corrected for comparison in decided)
    if left_open and not_refuted:
        first = left_open[0]
        seeds = "one seed leaves" if first.seeds == 1 else f"{first.seeds} seeds leave"
        return f"not run ({seeds} it open: {first.name})"
    if all(comparison.as_printed for comparison in comparisons):
        return "holds"
    if all(comparison.as_corrected for comparison in comparisons):
        return "holds as corrected"
    return "fails"


def average(
    name: str,
    values: FloatArray,
    paper: float | None,
    corrected: float | None = None,
    **criteria: Unpack[Criteria],
) -> Comparison:
    """A comparison of the mean over independent repeats, (repeats,), with its standard error."""
    mean = float(np.mean(values))
    return Comparison(name, mean, paper, corrected, se=standard_error(values), **criteria)


def extreme(name: str, values: FloatArray, paper: float, relation: Relation) -> Comparison:
    """A bound that every one of a few repeats has to keep: the worst of them, without an error."""
    worst = values.max() if relation in ("<", "<=") else values.min()
    return Comparison(name, float(worst), paper, relation=relation, tolerance=0.0)


def _student(
    name: str,
    ours: float,
    paper: float,
    se: float,
    degrees: float,
    seeds: int,
    **criteria: Unpack[CorrectedCriteria],
) -> Comparison:
    """A comparison with Student's one-sided 95 % bound at these degrees of freedom.

    For an equality the same bound holds on either side, which is the usual pair of one-sided tests
    of equivalence: it holds if the 90 % interval lies within the tolerance.
    """
    # scipy.stats would take a second to import in every process that makes a table.
    from scipy.special import stdtrit

    # Without degrees of freedom (one seed) the interval is the whole line.
    sigmas = float(stdtrit(degrees, 0.95)) if degrees else math.inf
    return Comparison(name, ours, paper, se=se, sigmas=sigmas, seeds=seeds, **criteria)


def over_seeds(
    name: str, values: FloatArray, paper: float, **criteria: Unpack[CorrectedCriteria]
) -> Comparison:
    """The mean over the seeds of training runs, (seeds,); one seed leaves the claim open."""
    n = len(values)
    se = standard_error(values) if n > 1 else math.inf
    return _student(name, float(np.mean(values)), paper, se, n - 1, n, **criteria)


def between_seeds(
    name: str,
    first: FloatArray,
    second: FloatArray,
    paper: float = 0.0,
    **criteria: Unpack[CorrectedCriteria],
) -> Comparison:
    """The mean over the seeds of one kind of training runs less that of another kind.

    The two may differ in their spread and number of seeds, so the error and the degrees of freedom
    are Welch's: with v_i = s_i^2/n_i they are sqrt(v_1 + v_2) and
    (v_1 + v_2)^2/(v_1^2/(n_1 - 1) + v_2^2/(n_2 - 1)).
    """
    counts = np.array([len(first), len(second)])
    delta, seeds = float(np.mean(first) - np.mean(second)), int(counts.min())
    if seeds < 2:
        return _student(name, delta, paper, math.inf, 0, seeds, **criteria)
    parts = np.array([np.var(first, ddof=1), np.var(second, ddof=1)]) / counts
    se = float(np.sqrt(parts.sum()))
    # Without any spread Welch's formula is 0/0.
    degrees = math.inf
    if parts.any():
        degrees = float(parts.sum() ** 2 / (parts**2 / (counts - 1)).sum())
    return _student(name, delta, paper, se, degrees, seeds, **criteria)
