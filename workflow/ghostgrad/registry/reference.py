"""The numbers beside ours: workflow/reference/*.csv, each file for the table of one artifact.

A misspelt label would add a row to the table and leave the row that was meant without its paper
value, so every row is checked against what the table can contain. docs/architecture.md, "Verdicts",
says how the tolerances are chosen. Imports no pandas.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from string import Formatter
from typing import Any

from ghostgrad.checks import InputError, display_path, nearest
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.signatures import TABLES, Report, result_functions
from ghostgrad.registry.verdict import PROVENANCE

NUMBERS = ("value", "std", "tolerance")
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WORDS = {
    "relation": ("", "=", "~", "<", "<=", ">", ">="),
    "diverges": ("", "yes"),
    "cited": ("", "yes"),
    "provenance": tuple(PROVENANCE),
}

Key = tuple[str, str, str]  # row, column, metric


@dataclass(frozen=True)
class ReferenceRow:
    """One number beside ours, with the columns of the file as its fields, and its line there.

    An empty `relation` marks a number outside the conditions of its statement, which is shown and
    not judged. `minus` names the two cells of a difference. `value`, `std` and `tolerance` are NaN
    where they are left empty. `provenance` and `basis` say whose number it is, as in
    `claim.NumberSource`; `source` is the place in the paper.
    """

    row: str
    column: str
    metric: str
    unit: str
    relation: str
    minus: str
    value: float
    std: float
    tolerance: float
    diverges: str
    cited: str
    provenance: str
    basis: str
    source: str
    line: int

    @property
    def key(self) -> Key:
        """Its place in the table."""
        return self.row, self.column, self.metric

    @property
    def terms(self) -> tuple[Key, ...]:
        """The places of the measured numbers that it is compared with: its own, or for a
        difference (`row|column minus row|column`) those of both terms."""
        if not self.minus:
            return (self.key,)
        places = (term.split("|") for term in self.minus.split(" minus "))
        return tuple((row, column, self.metric) for row, column in places)


COLUMNS = tuple(field.name for field in fields(ReferenceRow) if field.name != "line")


def read_reference(path: Path) -> list[ReferenceRow]:
    """The rows of a reference file, none where it does not exist; InputError names the line and
    the column of a mistake."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{display_path(path)}: not UTF-8; save the file as UTF-8") from None
    with io.StringIO(text, newline="") as stream:
        lines = csv.reader(stream)
        try:
            _check_header(next(lines, []), path)
            return [_parse(texts, lines.line_num, path) for texts in lines]
        except csv.Error as error:
            raise InputError(f"{display_path(path)}, line {lines.line_num}: {error}") from None


def _check_header(header: Sequence[str], path: Path) -> None:
    if tuple(header) != COLUMNS:
        unknown = next((name for name in header if name not in COLUMNS), None)
        found = f"'{unknown}'{nearest(unknown, COLUMNS)}" if unknown else ",".join(header)
        expected = ",".join(COLUMNS)
        raise InputError(f"{display_path(path)}: columns: expected {expected}, found {found}")


def _parse(texts: Sequence[str], line: int, path: Path) -> ReferenceRow:
    where = f"{display_path(path)}, line {line}"
    if len(texts) != len(COLUMNS):
        hint = "put text that contains a comma in quotes"
        raise InputError(f"{where}: expected {len(COLUMNS)} fields, found {len(texts)}; {hint}")
    row: dict[str, Any] = dict(zip(COLUMNS, texts, strict=True))
    for name, words in WORDS.items():
        if row[name] not in words:
            hint = nearest(row[name], filter(None, words))
            raise InputError(f"{where}: {name}: '{row[name]}' is not allowed{hint}")
    for name in NUMBERS:
        text = row[name]
        row[name] = float(text) if DECIMAL.fullmatch(text) else math.nan
        if text and not math.isfinite(row[name]):
            raise InputError(f"{where}: {name}: '{text}' is not a number; write 1072.5 for 1,072.5")
        if name != "value" and row[name] < 0:
            raise InputError(f"{where}: {name}: {text} is less than 0")
    if row["minus"] and not re.fullmatch(r"[^|]+\|[^|]* minus [^|]+\|[^|]*", row["minus"]):
        raise InputError(
            f"{where}: minus: '{row['minus']}' is not of the form row|column minus row|column"
        )
    if row["relation"] and math.isnan(row["value"]):
        raise InputError(f"{where}: value: is empty, but there is a relation to it")
    if not row["source"].strip():
        raise InputError(f"{where}: source: is empty; name the place in the paper")
    if not row["basis"].strip():
        raise InputError(
            f"{where}: basis: is empty; say what a {row['provenance']} number rests on"
        )
    return ReferenceRow(**row, line=line)


def _expand(template: str, values: Mapping[str, Sequence[Any]]) -> list[str]:
    """`largest at step {at:,.0f}` for every value of `at`; a template without braces as it is."""
    names = [name for _, name, _, _ in Formatter().parse(template) if name]
    combinations = itertools.product(*(values[name] for name in names))
    return [
        template.format(**dict(zip(names, combination, strict=True)))
        for combination in combinations
    ]


def _places(artifact: Artifact, report: Report) -> list[tuple[str, str]]:
    """The (row, column) pairs that a report fills: those of the artifact's cells, or of the labels
    that it declares, in which {row} and {other_row} stand for any row label and {method} for a row
    label without its last word."""
    cells = [(cell.row, cell.column) for cell in artifact.cells]
    if not report.rows:
        return cells
    labels = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells)) or [""]
    methods = list(dict.fromkeys(label.rpartition(" ")[0] for label in labels))
    values = {"row": labels, "other_row": labels, "method": methods}
    rows = [row for template in report.rows for row in _expand(template, values)]
    return list(itertools.product(rows, columns))


def table_keys(artifact: Artifact) -> set[Key]:
    """Every (row, column, metric) that the artifact's table can contain; none for an artifact
    without a table, or with the comparisons of a claim as its table."""
    signature = result_functions(TABLES).get(artifact.table or "")
    if signature is None:
        return set()
    options = artifact.options.get("table", {})
    values = {
        name: value if isinstance(value, list) else [value] for name, value in options.items()
    }
    keys: set[Key] = set()
    for report in signature.reports:
        metrics = [metric for template in report.metrics for metric in _expand(template, values)]
        keys |= {(*place, metric) for place in _places(artifact, report) for metric in metrics}
    return keys


def check_references(workflow: Path, artifacts: Mapping[str, Artifact]) -> None:
    """Raise InputError for a reference file that no table reads, and for a row that none has."""
    users: dict[str, list[Artifact]] = {}  # several where `like` repeats an artifact
    for artifact in artifacts.values():
        users.setdefault(artifact.reference, []).append(artifact)
    for path in sorted((workflow / "reference").glob("*")):
        if path.name.startswith(".") or path.name.endswith("~"):  # of an editor or of macOS
            continue
        if path.suffix != ".csv" or not path.is_file():
            raise InputError(f"{display_path(path)}: expected a file <artifact>.csv")
        name, where = path.stem, display_path(path)
        if name not in artifacts:
            raise InputError(f"{where}: no artifact '{name}'{nearest(name, artifacts)}")
        rows = read_reference(path)
        _refuse_duplicates(rows, where)
        for artifact in users[name]:
            _check_rows(rows, artifact, where)


def _refuse_duplicates(rows: Iterable[ReferenceRow], where: str) -> None:
    lines: dict[Key, int] = {}
    for row in rows:
        if row.key in lines:
            label = ", ".join(filter(None, row.key))
            raise InputError(
                f"{where}, line {row.line}: duplicate of line {lines[row.key]} ({label})"
            )
        lines[row.key] = row.line


def _check_rows(rows: Iterable[ReferenceRow], artifact: Artifact, where: str) -> None:
    keys = table_keys(artifact)
    if not keys:
        problem = f"{artifact.id} has no table"
        if artifact.table:
            problem = f"the table of {artifact.id} has the comparisons of a claim"
        raise InputError(f"{where}: {problem}; its numbers would not be read")
    for row in rows:
        place = f"{where}, line {row.line}"
        if row.minus and row.key in keys:
            cell = f"'{', '.join(filter(None, (row.row, row.column)))}' is a cell of {artifact.id}"
            raise InputError(f"{place}: a difference needs its own label; {cell}")
        for term in row.terms:
            _check_key(term, keys, artifact.id, f"{place}: minus" if row.minus else place)


def _check_key(key: Key, keys: set[Key], artifact_id: str, place: str) -> None:
    """Raise InputError for the first part of a key, row before column before metric, with which no
    key of the table begins."""
    known = keys
    for index, part in enumerate(("row", "column", "metric")):
        words = {candidate[index] for candidate in known}
        if key[index] not in words:
            problem = f"'{key[index]}' is not in the table of {artifact_id}"
            raise InputError(f"{place}: {part}: {problem}{nearest(key[index], words)}")
        known = {candidate for candidate in known if candidate[index] == key[index]}
