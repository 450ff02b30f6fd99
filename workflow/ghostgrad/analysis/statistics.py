"""Statistics of curves over layers: growth rates, and standard errors by the jackknife.

An `Estimate` is a number with its standard error and the degrees of freedom of that error.

A curve has one value per layer, index 0 at the input. An exploding gradient grows toward the input,
so its curve falls with the index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

JACKKNIFE_GROUPS = 64
NO_SPREAD = 1e-12  # relative to the value: what rounding alone makes of equal numbers


class Estimate(NamedTuple):
    """A number, its standard error, and the degrees of freedom of the error.

    An exact number has the error 0 and infinitely many degrees of freedom. A single repeat has an
    infinite error and no degrees. Repeats without any spread have an infinite error too, because
    they say nothing about it: the accuracies of two seeds may agree by chance.
    """

    value: float
    se: float
    degrees: float

    def minus(self, other: Estimate) -> Estimate:
        """The difference from an independent estimate.

        It has the smaller number of degrees of freedom of the two. With these the stated error rate
        is never exceeded, whatever the two spreads (Mickey and Brown 1966). Welch's degrees of
        freedom exceed it where the rate is small: with 2 and 8 values, where the 8 have a tenth of
        the spread, a rate of 0.01 % becomes 2 %, because the 2 values are close together by chance.
        """
        if not (self.degrees and other.degrees):
            return Estimate(self.value - other.value, math.inf, 0)
        # An exact number does not count.
        degrees = min(part.degrees if part.se else math.inf for part in (self, other))
        return Estimate(self.value - other.value, math.hypot(self.se, other.se), degrees)

    def times(self, factor: float) -> Estimate:
        """The estimate of a multiple."""
        return Estimate(self.value * factor, self.se * abs(factor), self.degrees)

    def over(self, other: Estimate) -> Estimate:
        """The quotient by an independent estimate, to first order."""
        logarithm = self.logarithm().minus(other.logarithm())
        quotient = math.exp(logarithm.value)
        return Estimate(quotient, quotient * logarithm.se, logarithm.degrees)

    def logarithm(self) -> Estimate:
        """The estimate of the natural logarithm, to first order; NaN of a number that has none."""
        if not self.value > 0:
            return Estimate(math.nan, math.inf, 0)
        return Estimate(math.log(self.value), self.se / self.value, self.degrees)


def mean_estimate(values: FloatArray) -> Estimate:
    """The mean of independent values, (n,), with s/sqrt(n) and n - 1 degrees of freedom."""
    n, mean = len(values), float(np.mean(values))
    return _with_spread(mean, standard_error(values), n - 1)


def _with_spread(value: float, se: float, degrees: float) -> Estimate:
    """The estimate, with an infinite error if its repeats have no spread beyond rounding."""
    has_spread = degrees > 0 and not se <= NO_SPREAD * abs(value)
    return Estimate(value, se if has_spread else math.inf, degrees)


def jackknife(values: FloatArray, statistic: Callable[[FloatArray], float]) -> Estimate:
    """A statistic of the mean over repeats, and its standard error by the grouped jackknife.

    `values` has one row per independent repeat, (repeats, ...). `statistic` maps the mean over the
    rows, (...), to a number. It may be nonlinear, and the columns of one row may depend on each
    other: the layers of one repeat share their weights and their batch. This is why whole repeats
    are left out and why the error is not computed layer by layer.

    The repeats are divided into at most JACKKNIFE_GROUPS groups of equal size (to within one), and
    each group is left out once. With groups g = 1..G and the statistic T_g without group g, the
    squared error is (G - 1)/G sum_g (T_g - mean T)^2. For a plain mean and groups of one repeat
    this is s^2/n exactly. More groups would make the error more precise and cost as many more
    evaluations of the statistic; 64 of them know it to about 9 %. The error has G - 1 degrees of
    freedom, and none of them if there is a single repeat.

    The error is right where the statistic is close to linear over the noise of the mean, as all of
    CURVE_STATISTICS are from a few repeats on. Where the noise itself makes up what is left to 1,
    R^2 is quadratic in it, and its error is up to sqrt2 too large.
    """
    repeats = len(values)
    groups = min(JACKKNIFE_GROUPS, repeats)
    if groups < 2:
        return Estimate(statistic(values.mean(0)), math.inf, 0)
    total = values.sum(0)
    parts = np.array_split(np.arange(repeats), groups)
    # Subtracting a group's sum from the total costs one pass over the values for all groups
    # together; a mean over the remaining rows would cost one pass per group.
    left_out = np.array(
        [statistic((total - values[part].sum(0)) / (repeats - len(part))) for part in parts]
    )
    squared_error = (groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum()
    return _with_spread(statistic(values.mean(0)), float(np.sqrt(squared_error)), groups - 1)


def fit_growth_rate(curve: FloatArray) -> float:
    """The factor per layer toward the input of a curve, (layers,).

    It comes from a least-squares line through the logarithm of the curve. The sign is reversed
    because index 0 is the input: a rate above 1 means growth from the output to the input.
    """
    return float(np.exp(-np.polyfit(np.arange(len(curve)), np.log(curve), 1)[0]))


def total_growth(curve: FloatArray) -> float:
    """The value at the first layer of a curve, (layers,), over that at the last."""
    return float(curve[0] / curve[-1])


def line_r_squared(curve: FloatArray, logarithmic: bool) -> float:
    """R^2 of a straight line through a curve, (layers,), or through its logarithm.

    A high R^2 of the logarithm says that the curve is exponential in depth.
    """
    x, y = np.arange(len(curve)), np.log(curve) if logarithmic else curve
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - residual.var() / y.var())


# The keys are the names of the metrics in tables.
CURVE_STATISTICS: dict[str, Callable[[FloatArray], float]] = {
    "rate": fit_growth_rate,
    "growth": total_growth,
    "R2_exponential": lambda curve: line_r_squared(curve, logarithmic=True),
    "R2_linear": lambda curve: line_r_squared(curve, logarithmic=False),
}


class RepeatedCurves(NamedTuple):
    """The gradient norms of a net, (repeats, layers), with the number of each repeat."""

    label: str
    repeats: np.ndarray
    norms: FloatArray


def join_common_repeats(shallow: RepeatedCurves, deep: RepeatedCurves) -> FloatArray:
    """The norms of both nets side by side, (common repeats, shallow depth + deep depth).

    A repeat with the same number draws the shallower net's weights in the deeper net too, so the
    two curves of a repeat are not independent. The jackknife has to leave out both together, and
    repeats that only one of the nets has cannot count.
    """
    _, in_shallow, in_deep = np.intersect1d(shallow.repeats, deep.repeats, return_indices=True)
    return np.hstack([shallow.norms[in_shallow], deep.norms[in_deep]])


def depth_exponent(joined: FloatArray, shallow_depth: int) -> float:
    """p of growth ~ L^p from two mean curves, joined into one of (shallow depth + deep depth,)."""
    shallow, deep = np.split(joined, [shallow_depth])
    ratio = total_growth(deep) / total_growth(shallow)
    return float(np.log(ratio) / np.log(len(deep) / len(shallow)))


def standard_error(values: FloatArray) -> float:
    """The standard error of the mean of independent values, (n,); NaN for a single value."""
    if len(values) < 2:
        return math.nan
    std = float(values.std(ddof=1))
    return std / math.sqrt(len(values))


def binomial_error(percent: float, count: int | None) -> float:
    """The standard error of an accuracy in percent on `count` images; NaN if that is not known."""
    return math.sqrt(percent * (100 - percent) / count) if count else math.nan


def split_block_ratios(variances: FloatArray) -> list[FloatArray]:
    """The growth of the gradient's variance over each block, for each of the three scales.

    `variances` is (repeats, positions) of a pre-activation net with three scales. The positions are
    the image, the output of the stem, and the outputs of the blocks. The result has one array
    (repeats, blocks of the scale) per scale: the variance at a block's input over that at its
    output.
    """
    return np.split(variances[:, 1:-1] / variances[:, 2:], 3, axis=1)
