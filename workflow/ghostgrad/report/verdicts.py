"""Verdicts in files and pages: their counts over tables, and their color in HTML.

`registry/verdict.py` has the closed list.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable
from pathlib import Path

from ghostgrad.registry.verdict import count_verdicts, without_reason


def css_class(verdict: str) -> str:
    """The class of an HTML element with this verdict, such as `not-run`; workflow/report/style.css
    colors it."""
    return without_reason(verdict).replace(",", "").replace(" ", "-")


def verdict_counts(paths: Iterable[Path]) -> str:
    """`3 holds, 1 fails`: how often these tables (CSV) have each verdict. Tables that do not exist,
    or are damaged, count nothing."""
    verdicts: list[str] = []
    for path in paths:
        # Read as a whole before it counts, so that half a table does not.
        with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):
            rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            verdicts += [without_reason(row["verdict"]) for row in rows]
    return count_verdicts(verdicts)
