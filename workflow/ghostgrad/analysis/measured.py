"""What table functions (`ghostgrad.analysis.measures`) yield and declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ghostgrad.analysis.statistics import FloatArray, standard_error
from ghostgrad.registry.artifact import Cell


@dataclass(frozen=True)
class Measured:
    """One quantity of ours: its place in the table, value, spread, standard error and count.

    `ours` and `std` are in `unit`. `std` is the standard deviation over `n` seeds or repeats.
    `source_cells` are the cells (row, column) from which the quantity is computed, if these are
    other cells than its own. `quadrature` marks a quantity that is computed from a formula: no run
    and no scale has a part in it.
    """

    row: str
    column: str
    metric: str
    ours: float
    std: float = np.nan
    se: float = np.nan
    n: int | None = None
    n_diverged: int = 0
    unit: str = ""
    source_cells: tuple[tuple[str, str], ...] = ()
    quadrature: bool = False


def over_repeats(cell: Cell, metric: str, values: FloatArray) -> Measured:
    """The mean of independent values, (n,), with their spread."""
    std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    mean, se = float(values.mean()), standard_error(values)
    return Measured(cell.row, cell.column, metric, mean, std, se, len(values))


TableFunction = TypeVar("TableFunction", bound=Callable[..., Iterator[Measured]])


def reports(*_metrics: str, rows: tuple[str, ...] = ()) -> Callable[[TableFunction], TableFunction]:
    """Declare the metrics that a table function reports, and its rows if these are not the cells.

    The registry reads the arguments, which have to be literals, from the syntax tree
    (`registry/signatures.py`), and refuses reference numbers for anything else.
    """
    return lambda function: function
