"""The list of all artifacts, built or not: artifacts.csv, the page that opens the report, and the
last lines of a build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ghostgrad.files import CsvTable, write_atomically
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.claim import count_claims, read_claims_csv
from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.registry import PAPERS, Registry
from ghostgrad.registry.scaling import scaled_title
from ghostgrad.report.pages import render_page
from ghostgrad.report.verdicts import verdict_counts

COLUMNS = ("id", "kind", "status", "verdicts", "reason", "title", "section", "files")
MAX_NAMED_ARTIFACTS = 4  # per reason, at the end of a build

Reasons = Mapping[str, str]  # artifact -> why nothing of it can be measured


def artifact_files(artifact: Artifact, scale: str) -> list[str]:
    """Every file of an artifact, relative to the working directory."""
    names = []
    if artifact.has_table:
        names += [f"tables/{artifact.id}.{extension}" for extension in ("csv", "md", "tex", "html")]
    if artifact.has_figure:
        names += [
            f"figures/{artifact.id}.{extension}" for extension in ("svg", "pdf", "png", "csv")
        ]
    return [f"results/{scale}/{name}" for name in names]


def artifact_rows(registry: Registry, scale: str, reasons: Reasons) -> list[dict[str, str]]:
    """The rows of artifacts.csv: one per artifact, in the order of the registry."""
    rows = []
    for artifact in registry.artifacts.values():
        reason = reasons.get(artifact.id, "")
        table = Path(f"results/{scale}/tables/{artifact.id}.csv")
        files = artifact_files(artifact, scale)
        row = {
            "id": artifact.id,
            "kind": artifact.kind,
            "status": "not run" if reason else "built",
            # The table of what was not run says so in each of its cells; the reason says more.
            "verdicts": "" if reason else verdict_counts([table]),
            "reason": reason,
            "title": scaled_title(registry, artifact, scale),
            "section": artifact.section,
            "files": " ".join(name.removeprefix(f"results/{scale}/") for name in files),
        }
        rows.append(row)
    return rows


def write_overview(registry: Registry, scale: str, reasons: Reasons) -> None:
    """Write artifacts.csv and artifacts.html of a scale."""
    rows = artifact_rows(registry, scale, reasons)
    table = CsvTable(COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_atomically(Path(f"results/{scale}/artifacts.csv"), table.text())
    write_atomically(
        Path(f"results/{scale}/artifacts.html"), render_overview(registry, rows, scale)
    )


def render_overview(registry: Registry, rows: list[dict[str, str]], scale: str) -> str:
    """artifacts.html: by paper, first what is built with its verdicts, then what is not and why."""
    papers = []
    for paper in PAPERS:
        of_paper = [row for row in rows if registry.artifacts[row["id"]].paper == paper]
        of_paper.sort(key=lambda row: row["status"])  # "built" before "not run"; the sort is stable
        papers.append(
            {
                "title": registry.papers[paper]["title"],
                "citation": registry.papers[paper]["cite"],
                "built": sum(row["status"] == "built" for row in of_paper),
                "artifacts": [
                    {
                        **row,
                        "result": _result_text(row),
                        "section": name_papers(row["section"]),
                    }
                    for row in of_paper
                ],
            }
        )
    return render_page("artifacts", papers=papers, scale=scale)


def _result_text(row: Mapping[str, str]) -> str:
    if row["reason"]:
        return f"not run ({row['reason']})"
    return row["verdicts"] or "drawn"  # a figure without a table has no verdicts


def _is_counted(artifact: Artifact) -> bool:
    """False for an artifact that repeats another one under its own name, whose numbers would count
    twice, and for one that shows a claim, whose verdict is in claims.csv."""
    return artifact.source == artifact.id and artifact.table != "claim"


def closing_lines(registry: Registry, scale: str, reasons: Reasons) -> list[str]:
    """The end of a build: how many artifacts are in results/, the verdicts of their numbers and of
    the claims, what else can be built, and what was not run and why."""
    folder = f"results/{scale}"
    wanted = [artifact for name, artifact in registry.artifacts.items() if name not in reasons]
    built = [a for a in wanted if all(Path(name).exists() for name in artifact_files(a, scale))]
    tables = (Path(f"{folder}/tables/{a.id}.csv") for a in built if _is_counted(a))
    numbers = verdict_counts(tables) or "none"
    total = len(registry.artifacts)
    lines = [f"{len(built)} of {total} artifacts are in {folder}/; numbers: {numbers}"]
    claims_csv = Path(folder, "claims.csv")
    if claims_csv.exists():
        counts = count_claims(read_claims_csv(claims_csv))
        lines.append(f"claims: {counts} ({claims_csv}, ghostgrad show claims)")
    if unbuilt := len(wanted) - len(built):
        lines.append(f"{unbuilt} more can be built: snakemake --config scale={scale}")
    return [*lines, *_reason_lines(reasons)]


def _reason_lines(reasons: Reasons) -> Iterator[str]:
    """Each reason once, with the first artifacts that it holds back."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        text = ", ".join(names[:MAX_NAMED_ARTIFACTS])
        if len(names) > MAX_NAMED_ARTIFACTS:
            text += f" and {len(names) - MAX_NAMED_ARTIFACTS} more"
        yield f"not run ({reason}): {text}"
