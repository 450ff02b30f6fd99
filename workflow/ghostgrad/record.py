"""The files of one run: spec.json, metrics.csv, series.csv, probes.csv, env.json, and weights.pt where other runs start
from it; and how they are published.

The CSVs hold nothing that depends on time, host or commit; env.json holds all of that, one record per process start.
Imports neither torch nor pandas.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

# metrics.csv comes last: a run directory that has it is complete.
FILES = ("spec.json", "series.csv", "probes.csv", "env.json", "weights.pt", "metrics.csv")
UNASKED = ("env.json", "weights.pt")  # a record is whole without them
# The modules that a task's numbers can hang on; their hash stands in every table as `code`.
NUMERIC_MODULES = {
    "simulate": ("init", "repeats", "rng", "simulate"),
    "sample": ("repeats", "rng", "sample"),
    "initialize": ("crops", "data", "folders", "init", "initialize", "models", "repeats", "rng"),
    "classify": (
        "batches",
        "classify",
        "crops",
        "data",
        "engine",
        "folders",
        "init",
        "models",
        "optim",
        "orthogonal",
        "parallel",
        "per_sample",
        "probes",
        "rng",
        "schedules",
    ),
    "detect": (
        "batches",
        "coco",
        "crops",
        "data",
        "detect",
        "engine",
        "folders",
        "init",
        "models",
        "optim",
        "parallel",
        "rng",
        "scenes",
        "schedules",
    ),
    "weights": ("data", "weights"),
    "quadrature": ("theory",),
    "claims": ("claims", "theory"),
}
PROBE_COLUMNS = ("at", "step", "probe", "index", "value")
PACKAGES = ("torch", "torchvision", "numpy", "snakemake")


def number(value: Any) -> str:
    """The text of a CSV cell: nine significant digits (all of a float32's), empty for NaN and None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


class Rows:
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
        writer.writerows([number(value) for value in row] for row in self.rows)
        return out.getvalue()


@dataclass
class Record:
    """What a task returns: final metrics (status first), series and probes, and the network's state dict."""

    metrics: Mapping[str, Any]
    series: Rows
    probes: Rows = field(default_factory=lambda: Rows(PROBE_COLUMNS))
    weights: Mapping[str, Any] | None = None

    def files(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Name -> text of every file but env.json."""
        metrics = Rows(self.metrics, [list(self.metrics.values())])
        return {
            "spec.json": json.dumps(dict(spec), indent=2) + "\n",
            "series.csv": self.series.text(),
            "probes.csv": self.probes.text(),
            "metrics.csv": metrics.text(),
        }


def write(path: Path, content: str | bytes) -> None:
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


def publish(source: Path, target: Path) -> None:
    """Copy the record in `source` beside `target`'s files, then rename, metrics.csv last.

    The two may lie on different file systems. OSError (a full disk) leaves no temporary file and no half-written one.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in FILES if (source / name).exists()]
    copies = {name: target / f".{name}" for name in names}
    try:
        for name, copy in copies.items():
            shutil.copyfile(source / name, copy)
            with copy.open("rb+") as stream:
                os.fsync(stream.fileno())
        for name, copy in copies.items():
            copy.replace(target / name)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def code_hash(task: str, package: Path = Path(__file__).parent) -> str:
    """Eight hexadecimal digits over the text of a task's numeric modules."""
    digest = hashlib.sha256()
    for module in NUMERIC_MODULES[task]:
        path = package / f"{module}.py"
        for file in [path] if path.exists() else sorted((package / module).glob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(task: str, device: str) -> dict[str, Any]:
    """What this process runs on: commit, code, versions, hardware, Slurm job."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(status) if status is not None else None,
        "code": code_hash(task),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "job": os.environ.get("SLURM_JOB_ID"),
        "command": " ".join(sys.argv[:2]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
