"""A copy of results for the documentation, which git keeps: docs/snapshots/<scale>."""

from __future__ import annotations

import shutil
from pathlib import Path

from ghostgrad.checks import InputError
from ghostgrad.files import write_atomically
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.claim import count_claims, read_claims_csv
from ghostgrad.registry.registry import Registry
from ghostgrad.report.overview import artifact_files

COPIED = (".csv", ".md", ".svg", ".png")  # what GitHub shows; the rest can be built from results


def write_snapshot(registry: Registry, scale: str, target: Path) -> list[str]:
    """Copy what was measured and built at a scale, with a README.md that shows all of it; returns
    the ids of the artifacts.

    An earlier snapshot in `target` is replaced; InputError where the folder holds anything else.
    """
    built = [name for name, a in registry.artifacts.items() if _is_built(registry, scale, a)]
    heading, index = f"# Snapshot of scale {scale}", target / "README.md"
    if target.exists():
        if not index.exists() or not index.read_text(encoding="utf-8").startswith(heading):
            raise InputError(
                f"{target}: contains something other than a snapshot of scale {scale};"
                " name another folder"
            )
        shutil.rmtree(target)
    lines = [heading, ""]
    if (claims_csv := Path(f"results/{scale}/claims.csv")).exists():
        target.mkdir(parents=True)
        shutil.copyfile(claims_csv, target / "claims.csv")
        counts = count_claims(read_claims_csv(claims_csv))
        lines += [f"Claims: {counts}; all of them in [claims.csv](claims.csv).", ""]
    for name in built:
        lines += _copy_artifact(registry.artifacts[name], scale, target)
    write_atomically(index, "\n".join(lines))
    return built


def _is_built(registry: Registry, scale: str, artifact: Artifact) -> bool:
    # `partial`: only finished runs count here, not those that could still be computed.
    if registry.missing(scale, artifact, {}, partial=True):
        return False
    return all(Path(file).exists() for file in artifact_files(artifact, scale))


def _copy_artifact(artifact: Artifact, scale: str, target: Path) -> list[str]:
    """Copy the files of an artifact; returns its section of the README."""
    for source in map(Path, artifact_files(artifact, scale)):
        if source.suffix in COPIED:
            copy = target / source.parent.name / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    lines = [f"## {artifact.id}: {artifact.title}", ""]
    lines += [f"{artifact.section}. {artifact.caption}", ""]
    if artifact.has_figure:
        lines += [f"![{artifact.id}](figures/{artifact.id}.svg)", ""]
    if artifact.has_table:
        text = (target / f"tables/{artifact.id}.md").read_text(encoding="utf-8")
        lines.append(text.split("\n", 2)[2])  # without its own title
    return lines
