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

    def agrees(self, number: float, relation: str) -> bool:
        delta, slack = self.ours - number, self.tolerance + SIGMAS * self.se
        match relation:
            case "<":
                return delta < -slack
            case ">":
                return delta > slack
            case "<=":
                return delta <= slack
            case ">=":
                return delta >= -slack
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
    """`holds` where every number is the paper's, `holds as corrected` where every one is the corrected one."""
    comparisons = list(comparisons)
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
