"""Registries, reference numbers and run directories written by hand, for tests without training."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, settings

from ghostgrad.analysis.tidy import tidy_table
from ghostgrad.files import CsvTable
from ghostgrad.registry.reference import COLUMNS
from ghostgrad.registry.registry import PAPERS, Registry
from ghostgrad.registry.spec import RunSpec
from ghostgrad.report import tables
from ghostgrad.runs.provenance import code_hash, task_hash
from ghostgrad.runs.record import PROBE_COLUMNS

SIMULATE = {"net": "plain", "depth": 4, "width": 8, "batch": 8, "repeats": 16}
CLASSIFY = {"model": "preact_resnet", "data": "digits", "batch": 64, "length": 10, "lr": 0.1}
OPTIONS = {"table": {"metrics": ["test_accuracy"]}}
BUILT = {"title": "T", "section": "s", "table": "final_metrics", "options": OPTIONS}

# For property tests: the same examples in every run, and no time limit, which a busy machine would
# exceed.
STEADY = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def experiment(**changes: Any) -> dict[str, Any]:
    """A complete experiment with one variant, `a`, updated with `changes`."""
    body = {"task": "simulate", "section": "sec. 1", "base": dict(SIMULATE), "variants": {"a": {}}}
    return {**body, "resources": {"gpu": 0}, "expect": {"seconds": 1}, **changes}


def workflow(
    folder: Path,
    experiments: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> Path:
    """A workflow folder in which the files ghost.yaml hold these experiments, artifacts and claims;
    the other two papers are empty."""
    for name in ("experiments", "reference", "claims"):
        (folder / name).mkdir(parents=True)
    if claims:
        text = yaml.safe_dump(dict(claims), sort_keys=False)
        (folder / "claims" / "ghost.yaml").write_text(text, encoding="utf-8")
    for paper in PAPERS:
        body: dict[str, Any] = {
            "paper": {"title": f"The {paper} paper", "cite": "nobody"},
            "artifacts": {},
        }
        if paper == "ghost":
            body |= {"experiments": dict(experiments or {}), "artifacts": dict(artifacts or {})}
        text = yaml.safe_dump(body, sort_keys=False)
        (folder / "experiments" / f"{paper}.yaml").write_text(text, encoding="utf-8")
    return folder


def registry(folder: Path, *bodies: Mapping[str, Any] | None) -> Registry:
    """The registry of `workflow(folder / "workflow", *bodies)`."""
    return Registry(workflow(folder / "workflow", *bodies))


# The least that a computed claim needs.
CLAIM = {
    "section": "s",
    "statement": "x",
    "relation": "=",
    "conditions": "always",
    "numbers": {"*": {"printed": "1"}},
}


def reference(workflow_folder: Path, artifact: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write reference/<artifact>.csv. A row needs only a label and a value; the other columns have
    defaults."""
    standard = {
        "metric": "test_accuracy",
        "unit": "%",
        "relation": "=",
        "provenance": "printed",
        "basis": "the words of the paper",
        "source": "tab. 1",
    }
    with (workflow_folder / "reference" / f"{artifact}.csv").open(
        "w", newline="", encoding="utf-8"
    ) as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**standard, **row} for row in rows)


def publish(
    run: RunSpec,
    metrics: Mapping[str, Any] | None = None,
    series: CsvTable | None = None,
    code: str = "",
    probes: Iterable[list] = (),
    **spec: Any,
) -> Path:
    """Publish a complete run in its directory, by default as computed by this checkout's code, and
    return the directory. `spec` changes what spec.json says."""
    folder = Path(run.directory)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"status": "done", **(metrics or {})}
    written = {**run.spec.stored(), **spec}
    environment = {
        "code": code or task_hash(run.task),
        "commit": "0" * 40,
        "dirty": False,
        "machine": "Linux x86_64, 2 cores",
        "device": "cpu",
    }
    (folder / "spec.json").write_text(json.dumps(written))
    (folder / "series.csv").write_text((series or CsvTable(("step",))).text())
    (folder / "probes.csv").write_text(CsvTable(PROBE_COLUMNS, probes).text())
    (folder / "env.json").write_text(json.dumps([environment, environment]))
    (folder / "metrics.csv").write_text(CsvTable(metrics, [list(metrics.values())]).text())
    return folder


def finish(reg, variant, accuracies, scale="laptop", **more):
    """Publish one run of the variant for each of these accuracies, with seeds 0, 1, …."""
    for seed, accuracy in enumerate(accuracies):
        publish(reg.run(scale, f"nets/{variant}-s{seed}"), {"test_accuracy": accuracy}, **more)


def compared(reg, scale="laptop", why_not=None):
    """The rows of ghost.x's table, by (row, column)."""
    table = tables.build(reg, reg.artifact("ghost.x"), scale, why_not)
    return {(line["row"], line["column"]): line for line in table.to_dict("records")}


def tidy_rows(reg, scale="laptop"):
    return list(csv.DictReader(io.StringIO(tidy_table(reg, reg.artifact("ghost.x"), scale).text())))


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def table_code(runs_code: str = "") -> str:
    """The column `code` of a table row: of one whose runs have the hash `runs_code`, or of one that
    needs no run."""
    return "/".join(filter(None, (runs_code, code_hash("report.tables", "report.render"))))
