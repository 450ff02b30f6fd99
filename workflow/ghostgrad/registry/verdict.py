"""The closed lists by which a number is judged and attributed: verdicts, provenance, relations.

Tables, the list of claims, figures, `status`, `show` and the closing lines of a build all use these
words, which docs/verdicts.md defines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

# Verdict -> its sign behind a number in a table, in the order in which verdicts are counted. After
# "open", "shown only" and "not run" there is always a reason in parentheses.
VERDICTS = {
    "holds": "✓",
    "fails, corrected form holds": "✗→✓",
    "fails": "✗",
    "open": "?",
    "shown only": "○",
    "not run": "–",
    "editorial": "",
    "extraction": "",
}

# Where the number beside ours comes from -> the mark that a table puts behind it. Only printed and
# derived numbers are the paper's.
PROVENANCE = {"printed": "", "derived": "*", "restored": "†", "ours": "‡"}

Outcome = Literal["holds", "fails", "open"]  # of one number

# How a statement relates its two sides.
RELATIONS = ("=", "≈", "<", "≤", ">", "≥", "up to a constant", "ordering", "qualitative")
# The relation of one number, as the registry's files write it -> its sign.
SIGNS = {"=": "=", "~": "≈", "<": "<", "<=": "≤", ">": ">", ">=": "≥", "": ""}


def without_reason(verdict: str) -> str:
    """`not run` of `not run (no finished run)`."""
    return verdict.partition(" (")[0]


def sign(verdict: str) -> str:
    """The sign of a verdict, with or without its reason; empty for text that is no verdict."""
    return VERDICTS.get(without_reason(verdict), "")


def mark(provenance: str) -> str:
    """The mark of a number's provenance; empty where there is no number."""
    return PROVENANCE[provenance] if provenance else ""


def count_verdicts(verdicts: Iterable[str]) -> str:
    """`12 holds, 3 open`: how often each verdict occurs, in the order of the list."""
    counts = Counter(without_reason(verdict) for verdict in verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def _legend(signs: Mapping[str, str]) -> str:
    return ", ".join(f"{sign} {word}" for word, sign in signs.items() if sign)


# Belongs beneath everything that shows signs and marks.
LEGEND = (
    "Each cell: the number of the statement / ours ± one standard error. "
    f"Verdicts: {_legend(VERDICTS)}. Origin of the first number: no mark printed, "
    f"{_legend(PROVENANCE)}. docs/verdicts.md defines the words."
)
