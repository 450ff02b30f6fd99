"""CSV tables, and files that are written whole or not at all. Imports neither torch nor pandas."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def format_number(value: Any) -> str:
    """The text of a CSV cell: nine significant digits (all of a float32's), empty for NaN and None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


class CsvTable:
    """A CSV table under construction; it travels inside checkpoints as (columns, rows)."""

    def __init__(self, columns: Iterable[str], rows: Iterable[list] = ()):
        self.columns = tuple(columns)
        self.rows = [list(row) for row in rows]

    def add(self, *values: Any) -> None:
        self.rows.append(list(values))

    def text(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([format_number(value) for value in row] for row in self.rows)
        return out.getvalue()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one go: a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
