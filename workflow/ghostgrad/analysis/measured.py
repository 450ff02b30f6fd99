"""What table functions (`ghostgrad.analysis.measures`) yield and declare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from ghostgrad.analysis.statistics import Estimate, FloatArray, mean_estimate
from ghostgrad.registry.artifact import Cell


@dataclass(frozen=True)
class Measured:
    """One quantity of ours: its place in the table, value, spread, standard error and count.

    `ours` and `std` are in `unit`. `std` is the standard deviation over `n` seeds or repeats. `se`
    is the standard error, with `degrees` of freedom; NaN where a single repeat leaves it unknown.
    `source_cells` are the cells (row, column) from which the quantity is computed, if these are
    other cells than its own. `quadrature` marks a quantity that is computed from a formula: no run
    and no scale has a part in it.
    """

    row: str
    column: str
    metric: str
    ours: float
    std: float = math.nan
    se: float = math.nan
    degrees: float = 0
    n: int | None = None
    n_diverged: int = 0
    unit: str = ""
    source_cells: tuple[tuple[str, str], ...] = ()
    quadrature: bool = False

    @property
    def estimate(self) -> Estimate:
        """Our number as an estimate. Without degrees of freedom its error is not known, whatever
        `se` shows, and so is infinite; a number from a formula is exact."""
        if self.quadrature:
            return Estimate(self.ours, 0.0, math.inf)
        return Estimate(self.ours, self.se if self.degrees else math.inf, self.degrees)


def of_estimate(
    place: tuple[str, str], metric: str, estimate: Estimate, n: int, unit: str = ""
) -> Measured:
    """An estimate from `n` repeats, at a place (row, column)."""
    value, se, degrees = estimate
    finite_se = se if math.isfinite(se) else math.nan
    return Measured(*place, metric, value, se=finite_se, degrees=degrees, n=n, unit=unit)


def over_repeats(cell: Cell, metric: str, values: FloatArray) -> Measured:
    """The mean of independent values, (n,), with their spread."""
    measured = of_estimate((cell.row, cell.column), metric, mean_estimate(values), len(values))
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return replace(measured, std=std)


TableFunction = TypeVar("TableFunction", bound=Callable[..., Iterator[Measured]])


def reports(*_metrics: str, rows: tuple[str, ...] = ()) -> Callable[[TableFunction], TableFunction]:
    """Declare the metrics that a table function reports, and its rows if these are not the cells.

    The registry reads the arguments, which have to be literals, from the syntax tree
    (`registry/signatures.py`), and refuses reference numbers for anything else.
    """
    return lambda function: function
