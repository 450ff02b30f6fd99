"""The verdicts of tables: their names, how they are shown, and how they are counted.

A cell is judged only where the scale changes nothing in the paper's spec but repeats or seeds. It
matches within hypot(tolerance, 2 standard errors) and is close within hypot(2 tolerance, 2 standard
errors). The verdicts of claims are another list, in `registry/claim.py`.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# In the order in which they are counted. "not run" is followed by its reason in parentheses.
VERDICTS = (
    "match",
    "close",
    "off",
    "diverged as reported",
    "diverged unexpectedly",
    "scaled",
    "cited",
    "no paper value",
    "not run",
)

# Shown behind a number in place of the verdict. The other verdicts are written out.
GLYPHS = {"match": "✓", "close": "≈", "off": "✗", "no paper value": ""}

# Belongs beneath everything that shows glyphs.
LEGEND = (
    "Each cell: the paper's number / ours ± one standard error. "
    "✓ match, ≈ close (within twice the tolerance), ✗ off; "
    "scaled: this scale changes more of the paper's settings than repeats and seeds; shown but "
    "not judged."
)


def without_reason(verdict: str) -> str:
    """`not run` of `not run (no finished run)`; other verdicts have no reason."""
    return verdict.partition(" (")[0]


def css_class(verdict: str) -> str:
    """The class of an HTML element with this verdict, such as `not-run`; workflow/report/style.css
    colors it."""
    return without_reason(verdict).replace(" ", "-")


def verdict_counts(paths: Iterable[Path]) -> str:
    """`3 match, 1 off`: how often these tables (CSV) have each verdict, in the order of VERDICTS.
    Tables that do not exist, or are damaged, count nothing."""
    counts: Counter[str] = Counter()
    for path in paths:
        # Read as a whole before it counts, so that half a table does not.
        with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):
            rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            counts.update([without_reason(row["verdict"]) for row in rows])
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
