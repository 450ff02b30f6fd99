"""A copy of results for the documentation, which git keeps: docs/snapshots/<scale>."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from ghostgrad.checks import InputError
from ghostgrad.files import write_atomically
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.claim import count_claims, read_claims_csv
from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.scaling import scaled_title
from ghostgrad.registry.tasks import TASKS
from ghostgrad.registry.verdict import LEGEND
from ghostgrad.report.claim_list import evidence_text
from ghostgrad.report.overview import artifact_files
from ghostgrad.report.render import escape_markdown
from ghostgrad.report.verdicts import verdict_counts
from ghostgrad.runs.provenance import current_commit, task_hash

COPIED = (".csv", ".md", ".svg", ".png")  # what GitHub shows; the rest can be built from results


def write_snapshot(registry: Registry, scale: str, target: Path) -> list[str]:
    """Copy what was measured and built at a scale, with a README.md that lists every artifact with
    its status and shows what was built; returns the ids of the artifacts copied.

    An earlier snapshot in `target` is replaced, once the new one is complete. InputError where
    nothing was built, and where the folder holds anything else.
    """
    built = [name for name, a in registry.artifacts.items() if _is_built(registry, scale, a)]
    if not built:
        raise InputError(f"results/{scale}: nothing is built; build it with: make SCALE={scale}")
    heading, target = f"# Snapshot of scale {scale}", target.resolve()
    _refuse_other_files(target, heading)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        lines = [heading, "", _origin(scale), ""]
        if (claims_csv := Path(f"results/{scale}/claims.csv")).exists():
            shutil.copyfile(claims_csv, copy / "claims.csv")
            rows = read_claims_csv(claims_csv)
            lines += [f"Claims: {count_claims(rows)}; all of them in [claims.csv](claims.csv).", ""]
            lines += [evidence_text(rows), ""]
        lines += [escape_markdown(LEGEND), "", *_index(registry, scale, built), ""]
        for name in built:
            lines += _copy_artifact(registry, registry.artifacts[name], scale, copy)
        write_atomically(copy / "README.md", "\n".join(lines))
        earlier = Path(folder) / "earlier"
        if target.exists():
            target.rename(earlier)
        try:
            copy.rename(target)
        except OSError:
            if earlier.exists():
                earlier.rename(target)
            raise
    return built


def _refuse_other_files(target: Path, heading: str) -> None:
    """Raise InputError if the folder holds anything that a snapshot of this scale does not."""
    if not target.exists():
        return
    index = target / "README.md"
    files = [path.relative_to(target) for path in target.rglob("*") if not path.is_dir()]
    others = [path for path in files if not _is_of_snapshot(path)]
    is_snapshot = index.is_file() and index.read_bytes().startswith(heading.encode())
    if others or (files and not is_snapshot):
        other = f" ({min(others)})" if others else ""
        scale = heading.rpartition(" ")[2]
        raise InputError(
            f"{target}: contains something other than a snapshot of scale {scale}{other};"
            " name another folder"
        )


def _is_of_snapshot(path: Path) -> bool:
    """True for the path of a file, relative to the folder, that a snapshot may have written."""
    if len(path.parts) == 1:
        return path.name in ("README.md", "claims.csv")
    return path.parts[:-1] in (("tables",), ("figures",)) and path.suffix in COPIED


def _origin(scale: str) -> str:
    """From which commit and code a snapshot was made."""
    commit = current_commit() or "an unknown commit"
    codes = ", ".join(f"{task} {task_hash(task)}" for task in TASKS)
    return (
        f"Made from commit {commit} by `ghostgrad snapshot --scale {scale}`. Code of the runs: "
        f"{codes}. The column `code` of each table says which code computed a number."
    )


def _index(registry: Registry, scale: str, built: Collection[str]) -> list[str]:
    """A table of all artifacts: a link and the verdicts where it was built, else the reason."""
    lines = ["| artifact | title | status |", "| --- | --- | --- |"]
    for name, artifact in registry.artifacts.items():
        title = escape_markdown(scaled_title(registry, artifact, scale))
        if name in built:
            table = Path(f"results/{scale}/tables/{name}.csv")
            status = (verdict_counts([table]) if artifact.has_table else "") or "drawn"
            lines.append(f"| [{name}](#{_anchor(name)}) | {title} | {status} |")
        else:
            reason = registry.missing(scale, artifact, {}, partial=True) or "not built"
            lines.append(f"| {name} | {title} | not run ({reason}) |")
    return lines


def _anchor(name: str) -> str:
    """The anchor that GitHub gives the heading of an artifact, which is its id alone."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower())


def _is_built(registry: Registry, scale: str, artifact: Artifact) -> bool:
    # `partial`: only finished runs count here, not those that could still be computed.
    if registry.missing(scale, artifact, {}, partial=True):
        return False
    return all(Path(file).exists() for file in artifact_files(artifact, scale))


def _copy_artifact(registry: Registry, artifact: Artifact, scale: str, target: Path) -> list[str]:
    """Copy the files of an artifact; returns its section of the README."""
    for source in map(Path, artifact_files(artifact, scale)):
        if source.suffix in COPIED:
            copy = target / source.parent.name / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    lines = [f"## {artifact.id}", ""]
    lines += [f"**{escape_markdown(scaled_title(registry, artifact, scale))}**", ""]
    place = name_papers(artifact.section)
    lines += [f"{place}. {escape_markdown(artifact.caption)}".strip(), ""]
    if artifact.has_figure:
        lines += [f"![{artifact.id}](figures/{artifact.id}.svg)", ""]
    if artifact.has_table:
        text = (target / f"tables/{artifact.id}.md").read_text(encoding="utf-8")
        # Without its own title, and without the legend, which stands at the top of the page.
        lines.append(text.split("\n", 2)[2].replace(escape_markdown(LEGEND), "").rstrip() + "\n")
    return lines
