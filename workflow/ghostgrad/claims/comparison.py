"""One number of ours beside the number of a statement, and the verdict over several.

This is the only judge: the cells of tables and the comparisons of claims both end in a
`Comparison`, whose `outcome` is `holds`, `fails` or `open`.

Two error rates are stated. To refute a statement is an accusation, so the chance that a list
of true claims has a single wrong `fails` is kept below FAMILY_ERROR: each comparison refutes with
REFUTATION_ERROR, which is FAMILY_ERROR over the number of comparisons in the claims and the tables.
To confirm one, the one-sided interval at CONFIDENCE has to lie on the right side. What is neither
refuted nor confirmed is open. All intervals are Student's, with the degrees of freedom of the
standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

from ghostgrad.analysis.statistics import JACKKNIFE_GROUPS, Estimate, FloatArray, mean_estimate
from ghostgrad.checks import InputError
from ghostgrad.registry.verdict import Outcome

Relation = Literal["=", "~", "<", "<=", ">", ">="]

FAMILY_ERROR = 0.05
FAMILY_SIZE = 1000  # at least the number of comparisons of claims and of judged cells in tables
REFUTATION_ERROR = FAMILY_ERROR / FAMILY_SIZE  # of one comparison, on both sides together
CONFIDENCE = 0.95  # of a confirmation, one-sided

# An exact statement is confirmed once the interval of our number lies within this fraction of it.
RESOLUTION = 0.05
MOST_TIMES = 1024  # beyond which more replicates are no advice
EXACT = 1e-9  # the tolerance of an exact statement, for rounding


def student_quantile(probability: float, degrees: float) -> float:
    """Student's quantile; infinite without degrees of freedom, where the interval is the line."""
    # scipy.stats would take a second to import in every process that makes a table.
    from scipy.special import ndtri, stdtrit

    if not degrees > 0:
        return math.inf
    quantile = ndtri(probability) if math.isinf(degrees) else stdtrit(degrees, probability)
    return float(quantile)


@dataclass(frozen=True)
class Comparison:
    """Our number beside the number of the statement and, if that is wrong, the corrected one.

    `relation` is the stated relation of ours to `reference`, which is None if the statement has no
    number for this comparison. `tolerance` is what the statement leaves out by its own words (a
    limit, "approximately"), in the unit of the numbers; of a strict relation, it is by how much
    more than 0 ours has to lie beyond the number. `se` is the standard error of ours with its
    `degrees` of freedom, 0 for an exact number. `extension` marks a comparison outside the
    conditions of the statement: it is shown and decides nothing. `replicates` says of what more
    would narrow the interval.
    """

    name: str
    ours: float
    reference: float | None
    corrected: float | None = None
    se: float = 0.0
    degrees: float = math.inf
    tolerance: float = EXACT
    relation: Relation = "="
    corrected_relation: Relation = "="
    resolution: float | None = None
    extension: bool = False
    replicates: str = "repeats"

    @property
    def finite_se(self) -> float | None:
        """The standard error to show; None for an exact number and for a single training run."""
        return self.se if 0 < self.se < math.inf else None

    @property
    def refutation_noise(self) -> float:
        """How far beyond the tolerance our number must lie to refute the statement."""
        if not self.se:
            return 0.0
        return student_quantile(1 - REFUTATION_ERROR / 2, self.degrees) * self.se

    @property
    def confirmation_noise(self) -> float:
        """The half-width of the interval that has to lie on the right side to confirm it."""
        if not self.se:
            return 0.0
        return student_quantile(CONFIDENCE, self.degrees) * self.se

    def margin(self, number: float) -> float:
        """Within which distance of `number` the interval confirms a statement that is not strict.

        Where the statement has no tolerance of its own, RESOLUTION of the number stands in for it,
        because an interval can never lie within a point. The number 0 has no scale, so that a
        comparison with it needs a tolerance or a resolution to be confirmed.
        """
        if self.resolution is not None:
            return self.tolerance + self.resolution
        if self.tolerance > EXACT or not self.se:
            return self.tolerance
        return self.tolerance + RESOLUTION * abs(number)

    def judge(self, number: float, relation: Relation) -> Outcome:
        """Whether our number has the given relation to `number`."""
        delta = self.ours - number
        if relation in ("<", "<="):
            delta = -delta  # every bound is judged as a lower one
        if relation in ("=", "~"):
            delta = -abs(delta)
        strict = relation in ("<", ">")
        # NaN and an infinite error compare as false, so that they leave the statement open.
        refuted_below = self.tolerance if strict else -self.tolerance
        upper = delta + self.refutation_noise
        if upper < refuted_below or (strict and not self.se and delta <= refuted_below):
            return "fails"
        confirmed_from = self.tolerance if strict else -self.margin(number)
        lower = delta - self.confirmation_noise
        if lower > confirmed_from or (not strict and lower >= confirmed_from):
            return "holds"
        return "open"

    @property
    def outcome(self) -> Outcome | None:
        """The outcome against the number of the statement; None if it has none."""
        return None if self.reference is None else self.judge(self.reference, self.relation)

    @property
    def corrected_outcome(self) -> Outcome | None:
        """The outcome against the corrected number, or the statement's if that needs none."""
        if self.corrected is None:
            return self.outcome
        return self.judge(self.corrected, self.corrected_relation)

    def outcome_text(self, of_corrected: bool = False) -> str:
        """The outcome as tables and the list of claims show it: an open one with what would decide
        it. `of_corrected` is that of the corrected number."""
        outcome = self.corrected_outcome if of_corrected else self.outcome
        return f"open ({self.what_decides(of_corrected)})" if outcome == "open" else str(outcome)

    def what_decides(self, of_corrected: bool = False) -> str:
        """What would decide an open comparison: how many times as many replicates, if these can.

        The comparison is that with the number of the statement or with the corrected one.
        """
        number, relation = self.reference, self.relation
        if of_corrected and self.corrected is not None:
            number, relation = self.corrected, self.corrected_relation
        if math.isnan(self.ours) or number is None:
            return f"{self.name}: no number"
        if not math.isfinite(self.refutation_noise):
            hint = ", since all agree" if self.degrees > 0 else " than one"
            return f"{self.name}: more {self.replicates}{hint}"
        times = 2
        while times <= MOST_TIMES and self._replicated(times).judge(number, relation) == "open":
            times *= 2
        if times > MOST_TIMES:
            return f"{self.name}: our number lies at the edge of the tolerance"
        return f"{self.name}: about {times} times as many {self.replicates}"

    def _replicated(self, times: int) -> Comparison:
        """The comparison with so many times as many replicates, if our number stays where it is."""
        # The jackknife never has more degrees of freedom than groups.
        degrees = min(times * (self.degrees + 1), JACKKNIFE_GROUPS) - 1
        return replace(self, se=self.se / math.sqrt(times), degrees=max(self.degrees, degrees))


class Criteria(TypedDict, total=False):
    """The fields of a Comparison that say what it is held to."""

    tolerance: float
    relation: Relation
    corrected_relation: Relation
    resolution: float | None
    extension: bool


class CorrectedCriteria(Criteria, total=False):
    """The same with a corrected number."""

    corrected: float | None


def verdict(comparisons: Iterable[Comparison]) -> str:
    """The verdict of a claim over all of its comparisons but the extensions.

    `holds` if every number of the statement holds. If one of them is refuted, the statement fails,
    and `fails, corrected form holds` says that every corrected number, or the statement's where
    that needs none, holds.
    """
    judged = [comparison for comparison in comparisons if not comparison.extension]
    printed = [comparison.outcome for comparison in judged if comparison.reference is not None]
    if not printed:
        return "shown only (no comparison within the conditions of the statement)"
    if "fails" in printed:
        corrected = [comparison.corrected_outcome for comparison in judged]
        if all(comparison.corrected is None for comparison in judged) or "fails" in corrected:
            return "fails"
        if "open" not in corrected:
            return "fails, corrected form holds"
        first = next(c for c in judged if c.corrected_outcome == "open")
        return f"fails (the corrected form is open; {first.what_decides(of_corrected=True)})"
    for comparison in judged:
        if comparison.outcome == "open":
            return comparison.outcome_text()
    return "holds"


def from_estimate(
    name: str,
    estimate: Estimate,
    reference: float | None,
    corrected: float | None = None,
    replicates: str = "repeats",
    **criteria: Unpack[Criteria],
) -> Comparison:
    """A comparison of an estimate, with its error and degrees of freedom."""
    value, se, degrees = estimate
    return Comparison(
        name,
        value,
        reference,
        corrected,
        se=se,
        degrees=degrees,
        replicates=replicates,
        **criteria,
    )


def average(
    name: str,
    values: FloatArray,
    reference: float | None,
    corrected: float | None = None,
    **criteria: Unpack[Criteria],
) -> Comparison:
    """A comparison of the mean over independent repeats, (repeats,)."""
    return from_estimate(name, mean_estimate(values), reference, corrected, **criteria)


def growth(
    name: str,
    factor: Estimate,
    reference: float | None,
    corrected: float | None = None,
    fraction: float = 0.05,
    **criteria: Unpack[Criteria],
) -> Comparison:
    """A comparison of a growth factor, with a tolerance on what it exceeds 1 by.

    A factor per layer is raised to the power of the depth, so a tolerance of the factor itself
    would hide a large part of the growth. `fraction` is that of the excess over 1 of the reference
    or the corrected number, of which the larger counts: a statement of no growth has no excess.
    """
    excess = max(
        (abs(number - 1) for number in (reference, corrected) if number is not None), default=0.0
    )
    criteria.setdefault("tolerance", fraction * excess)
    return from_estimate(name, factor, reference, corrected, **criteria)


def over_seeds(
    name: str,
    values: FloatArray,
    reference: float,
    quantum: float = 0.0,
    **criteria: Unpack[CorrectedCriteria],
) -> Comparison:
    """The mean over the seeds of training runs, (seeds,); one seed leaves the claim open.

    `quantum` is the smallest step of a number that is counted, such as a fraction of tensors. Seeds
    of which all or none are counted agree exactly; they are taken to differ by this step.
    """
    estimate = mean_estimate(values)
    if quantum and estimate.degrees:
        least = quantum / math.sqrt(len(values))
        se = least if math.isinf(estimate.se) else max(estimate.se, least)
        estimate = estimate._replace(se=se)
    return from_estimate(name, estimate, reference, replicates="seeds", **criteria)


def paired_difference(first: FloatArray, second: FloatArray) -> FloatArray:
    """The differences seed by seed (or repeat by repeat), (n,); InputError if one of the two has
    fewer, which numpy would repeat as if they were independent."""
    if first.shape != second.shape:
        raise InputError(
            f"{len(first)} and {len(second)} seeds or repeats cannot be paired; give both variants"
            " as many"
        )
    difference: FloatArray = first - second
    return difference


def between_seeds(
    name: str,
    first: FloatArray,
    second: FloatArray,
    reference: float = 0.0,
    **criteria: Unpack[CorrectedCriteria],
) -> Comparison:
    """The mean over the seeds of one kind of training runs less that of another kind.

    The two may differ in their spread and number of seeds, so the error is Welch's, with the
    degrees of freedom of the smaller number of seeds (`Estimate.minus`).
    """
    difference = mean_estimate(first).minus(mean_estimate(second))
    return from_estimate(name, difference, reference, replicates="seeds", **criteria)
