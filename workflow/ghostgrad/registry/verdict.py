"""The closed lists by which a number is judged and attributed: verdicts, provenance, relations.

Tables, the list of claims, figures, `status`, `show` and the closing lines of a build all use these
words. docs/verdicts.md explains them for readers. Imports nothing heavy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple


class Verdict(NamedTuple):
    """A verdict: its sign behind a number in a table, and what it means."""

    sign: str
    meaning: str


# In the order in which they are counted. "open", "shown only" and "not run" are followed by a
# reason in parentheses, the others may be.
VERDICTS = {
    "holds": Verdict("✓", "our number has the stated relation to the other number"),
    "fails, corrected form holds": Verdict(
        "✗→✓", "the statement is refuted as printed or as we read it, and our form of it holds"
    ),
    "fails": Verdict("✗", "the statement is refuted"),
    "open": Verdict("?", "measured, but not decided; the reason says what would decide it"),
    "shown only": Verdict("○", "measured under other conditions, or beside no number; not judged"),
    "not run": Verdict("–", "not measured; the reason says why"),
    "editorial": Verdict("", "a mistake of wording or notation, which no number decides"),
    "extraction": Verdict(
        "", "a defect of our copy of the text, which is not counted against the paper"
    ),
}

# Where the number beside ours comes from, and the mark that a table puts behind it. Only the first
# two are the paper's.
PROVENANCE = {
    "printed": Verdict("", "the paper prints the number"),
    "derived": Verdict(
        "*", "the number follows from a formula or an ordering that the paper prints"
    ),
    "restored": Verdict("†", "our reading of a damaged or misprinted place of the text"),
    "ours": Verdict("‡", "our own threshold for a statement in words, or a corrected form"),
}
PAPERS_OWN = ("printed", "derived")

Outcome = Literal["holds", "fails", "open"]  # of one number

# How a statement relates its two sides. The first six can be judged number by number.
RELATIONS = ("=", "≈", "<", "≤", ">", "≥", "up to a constant", "ordering", "qualitative")
SIGNS = {"=": "=", "~": "≈", "<": "<", "<=": "≤", ">": ">", ">=": "≥", "": ""}  # of one number


def without_reason(verdict: str) -> str:
    """`not run` of `not run (no finished run)`."""
    return verdict.partition(" (")[0]


def sign(verdict: str) -> str:
    """The sign of a verdict, with or without its reason; empty for text that is no verdict."""
    known = VERDICTS.get(without_reason(verdict))
    return known.sign if known else ""


def mark(provenance: str) -> str:
    """The mark of a number's provenance; empty where there is no number."""
    return PROVENANCE[provenance].sign if provenance else ""


def count_verdicts(verdicts: Iterable[str]) -> str:
    """`12 holds, 3 open`: how often each verdict occurs, in the order of the list."""
    counts = Counter(without_reason(verdict) for verdict in verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def _legend(entries: dict[str, Verdict]) -> str:
    return ", ".join(f"{entry.sign} {name}" for name, entry in entries.items() if entry.sign)


# Belongs beneath everything that shows signs and marks.
LEGEND = (
    "Each cell: the number of the statement / ours ± one standard error. "
    f"Verdicts: {_legend(VERDICTS)}. Whose the number of the statement is: no mark printed, "
    f"{_legend(PROVENANCE)}. docs/verdicts.md defines the words."
)
