"""CSV tables, and files that are written whole or not at all. Imports neither torch nor pandas."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Cell: TypeAlias = str | int | float | None
"""What a cell of a CSV table is made from."""


def format_number(value: Cell) -> str:
    """The text of a CSV cell: nine significant digits (all of a float32's), empty for NaN and
    None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


class CsvTable:
    """A CSV table under construction; checkpoints store its rows as they are, unformatted."""

    def __init__(self, columns: Iterable[str], rows: Iterable[Iterable[Cell]] = ()) -> None:
        self.columns = tuple(columns)
        self.rows = [list(row) for row in rows]

    def add(self, *values: Cell) -> None:
        """Append a row with one value for each column."""
        self.rows.append(list(values))

    def text(self) -> str:
        """The CSV text: a header, then the rows."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([format_number(value) for value in row] for row in self.rows)
        return out.getvalue()


def read_single_row(path: Path) -> dict[str, str]:
    """The only row of a CSV file such as metrics.csv, as a mapping from column name to text.

    Raises OSError if the file cannot be read, UnicodeDecodeError if it is not UTF-8, and ValueError
    if it is not exactly one header and one row of the same length that ends with a newline, as
    after a copy that was cut short.
    """
    text = path.read_text(encoding="utf-8")
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(lines) != 2 or len(lines[0]) != len(lines[1]) or not text.endswith("\n"):
        raise ValueError("not one whole row")
    return dict(zip(*lines, strict=True))


def write_atomically(
    path: Path, *content: str | bytes, previous: Path | None = None, durable: bool = True
) -> None:
    """Write a file from the parts of `content`, whole or not at all.

    A reader sees either the old file or the new one. With `previous` the old file is renamed to
    that; for a moment there is no file at `path`. OSError (a full disk) leaves the old file as it
    was and no temporary one.

    The content of a `durable` file reaches the disk before the rename does, so that after a crash
    of the machine it is the old file or the new one as well. Without, it may be empty or cut short
    after such a crash, and writing does not wait for the disk: for many files that are checked
    before they are used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")  # a rename is atomic only within one file system
    try:
        with temporary.open("wb") as stream:
            for part in content:
                stream.write(part.encode() if isinstance(part, str) else part)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
