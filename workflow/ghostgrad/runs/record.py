"""The files of one run: spec.json, metrics.csv, series.csv, probes.csv, env.json, and weights.pt
where other runs start from it; and how they are published.

The CSVs hold nothing that depends on time, host or commit; env.json holds all of that, one record
per process start. Imports neither torch nor pandas.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostgrad.files import CsvTable

# metrics.csv comes last: a run directory that has it is complete.
FILES = ("spec.json", "series.csv", "probes.csv", "env.json", "weights.pt", "metrics.csv")
OPTIONAL_FILES = ("env.json", "weights.pt")  # a record is whole without them
PROBE_COLUMNS = ("at", "step", "probe", "index", "value")


@dataclass
class Record:
    """What a task returns: final metrics (status first), series and probes, and the network's state
    dict."""

    metrics: Mapping[str, Any]
    series: CsvTable
    probes: CsvTable = field(default_factory=lambda: CsvTable(PROBE_COLUMNS))
    weights: Mapping[str, Any] | None = None

    def files(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Name -> text of the four files that follow from the record.

        The other two, env.json and weights.pt, are written by `State`.
        """
        metrics = CsvTable(self.metrics, [list(self.metrics.values())])
        return {
            "spec.json": json.dumps(dict(spec), indent=2) + "\n",
            "series.csv": self.series.text(),
            "probes.csv": self.probes.text(),
            "metrics.csv": metrics.text(),
        }


def publish(source: Path, target: Path) -> None:
    """Copy the record in `source` beside `target`'s files, then rename, metrics.csv last.

    The two may lie on different file systems. OSError (a full disk) leaves no temporary file and no
    half-written one. A process that is killed here leaves a directory without metrics.csv, which
    counts as missing, and never the files of two runs beside each other.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in FILES if (source / name).exists()]
    copies = {name: target / f".{name}" for name in names}
    try:
        for name, copy in copies.items():
            shutil.copyfile(source / name, copy)
            with copy.open("rb+") as stream:
                os.fsync(stream.fileno())
        # Until metrics.csv is back, the directory counts as missing.
        (target / FILES[-1]).unlink(missing_ok=True)
        for name, copy in copies.items():
            copy.replace(target / name)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
