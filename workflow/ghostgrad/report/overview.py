"""The list of all artifacts, built or not: artifacts.csv, the page that leads the report, and a build's last lines."""

from __future__ import annotations

import csv
import html
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable, write_atomically
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.claim import count_verdicts, read_claims_csv
from ghostgrad.registry.registry import PAPERS, Registry

COLUMNS = ("id", "kind", "status", "verdicts", "reason", "title", "section", "files")


def files(artifact: Artifact, scale: str) -> list[str]:
    """Every file of an artifact, relative to the working directory."""
    names = []
    if artifact.has_table:
        names += [f"tables/{artifact.id}.{extension}" for extension in ("csv", "md", "tex", "html")]
    if artifact.has_figure:
        names += [f"figures/{artifact.id}.{extension}" for extension in ("svg", "pdf", "png", "csv")]
    return [f"results/{scale}/{name}" for name in names]


ORDER = ("match", "close", "off", "diverged", "scaled", "cited", "no paper value", "not run")


def verdict_counts(paths: Iterable[Path]) -> str:
    """`3 match, 1 off`: how often each verdict stands in these tables, reasons dropped, in the order of the list."""
    counts: Counter[str] = Counter()
    for path in paths:
        if path.exists():
            with path.open(newline="", encoding="utf-8") as stream:
                counts.update(row["verdict"].split(" (")[0] for row in csv.DictReader(stream))

    def rank(verdict: str) -> int:
        return next(place for place, name in enumerate(ORDER) if verdict.startswith(name))

    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts, key=rank))


def overview(registry: Registry, scale: str, reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """A row per artifact."""
    rows = []
    for artifact in registry.artifacts.values():
        counts = verdict_counts([Path(f"results/{scale}/tables/{artifact.id}.csv")])
        reason = reasons.get(artifact.id, "")
        rows.append(
            {
                "id": artifact.id,
                "kind": artifact.kind,
                "status": "not run" if reason else "built",
                "verdicts": "" if reason else counts,
                "reason": reason,
                "title": artifact.title,
                "section": artifact.section,
                "files": " ".join(name.removeprefix(f"results/{scale}/") for name in files(artifact, scale)),
            }
        )
    return rows


def write_overview(registry: Registry, scale: str, reasons: Mapping[str, str]) -> None:
    rows = overview(registry, scale, reasons)
    write_atomically(
        Path(f"results/{scale}/artifacts.csv"), CsvTable(COLUMNS, (list(row.values()) for row in rows)).text()
    )
    write_atomically(Path(f"results/{scale}/artifacts.html"), page(registry, rows, scale))


def page(registry: Registry, rows: list[dict[str, str]], scale: str) -> str:
    """All artifacts by paper: what is built with its verdicts, what is not and why."""
    parts = []
    for paper in PAPERS:
        mine = [row for row in rows if registry.artifacts[row["id"]].paper == paper]
        built = sum(row["status"] == "built" for row in mine)
        about = registry.papers[paper]
        parts.append(f"<h2>{html.escape(about['title'])}</h2><p>{html.escape(about['cite'])}. ")
        parts.append(f"{built} of {len(mine)} artifacts built at scale {scale}.</p><table><tbody>")
        for row in sorted(mine, key=lambda row: row["status"]):
            told = row["verdicts"] or ("drawn" if not row["reason"] else f"not run ({row['reason']})")
            cells = [row["id"], row["kind"], row["title"], row["section"], told]
            parts.append(f'<tr class="{row["status"].replace(" ", "-")}">')
            parts.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        parts.append("</tbody></table>")
    return PAGE.format(body="".join(parts), scale=scale)


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Artifacts at scale {scale}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; }} h2 {{ font-size: 1.1rem; }}
table {{ border-collapse: collapse; }} td {{ padding: .15rem .9rem .15rem 0; vertical-align: top; }}
td:first-child {{ font-family: ui-monospace, monospace; white-space: nowrap; }} .not-run {{ color: #888; }}
</style></head><body><h1>All artifacts</h1>{body}</body></html>
"""


def snapshot(registry: Registry, scale: str, target: Path) -> list[str]:
    """Copy what was measured and built at a scale (tables as CSV and Markdown, figures as SVG, PNG and their data) with
    an index; returns the ids."""
    built = [
        name
        for name, artifact in registry.artifacts.items()
        if not registry.missing(scale, artifact, {}, partial=True)
        and all(Path(file).exists() for file in files(artifact, scale))
    ]
    heading, index = f"# Snapshot of scale {scale}", target / "README.md"
    if target.exists():
        if not index.exists() or not index.read_text(encoding="utf-8").startswith(heading):
            raise InputError(f"{target}: holds something else than a snapshot of scale {scale}; name another folder")
        shutil.rmtree(target)
    lines = [heading, ""]
    if (ledger := Path(f"results/{scale}/claims.csv")).exists():
        target.mkdir(parents=True)
        shutil.copyfile(ledger, target / "claims.csv")
        lines += [f"Claims: {count_verdicts(read_claims_csv(ledger))}; all of them in [claims.csv](claims.csv).", ""]
    for name in built:
        artifact = registry.artifacts[name]
        lines += [f"## {name}: {artifact.title}", "", f"{artifact.section}. {artifact.caption}", ""]
        for source in map(Path, files(artifact, scale)):
            if source.suffix in (".csv", ".md", ".svg", ".png"):
                copy = target / source.parent.name / source.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        if artifact.has_figure:
            lines += [f"![{name}](figures/{name}.svg)", ""]
        if artifact.has_table:
            lines += [(target / f"tables/{name}.md").read_text(encoding="utf-8").split("\n", 2)[2]]
    write_atomically(index, "\n".join(lines))
    return built


def closing_lines(registry: Registry, scale: str, reasons: Mapping[str, str]) -> list[str]:
    """What exists of a scale after a build, where it is, the claims' verdicts, and what was not run and why. Numbers of
    an artifact that repeats another one under its own name are not counted twice, those of claims not here."""
    folder = f"results/{scale}"

    def counted(artifact: Artifact) -> bool:
        return artifact.source == artifact.id and artifact.table != "claim"

    wanted = [artifact for name, artifact in registry.artifacts.items() if name not in reasons]
    built = [artifact for artifact in wanted if all(Path(name).exists() for name in files(artifact, scale))]
    numbers = verdict_counts(Path(f"{folder}/tables/{a.id}.csv") for a in built if counted(a))
    total = len(registry.artifacts)
    lines = [f"{len(built)} of {total} artifacts stand in {folder}/; numbers: {numbers or 'none'}"]
    ledger = Path(folder, "claims.csv")
    if ledger.exists():
        lines.append(f"claims: {count_verdicts(read_claims_csv(ledger))} ({folder}/claims.csv, ghostgrad show claims)")
    if waiting := len(wanted) - len(built):
        lines.append(f"{waiting} more can be built: snakemake --config scale={scale}")
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        lines.append(f"not run ({why}): {shown}")
    return lines
