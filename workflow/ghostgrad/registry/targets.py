"""Targets on Snakemake's command line that nothing makes, refused with the nearest that exists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import SCALES


def check_target(registry: Registry, target: str, rules: Iterable[str]) -> None:
    """Raise InputError for a file below results/ that no rule makes, and for a word that is
    neither a rule nor a file; Snakemake checks all other targets."""
    parts = Path(target).parts
    if len(parts) == 1 and target not in rules and not Path(target).exists():
        known = [*rules, *registry.artifacts]
        if target not in known:
            raise InputError(f"{target}: no such target{nearest(target, known)}")
        files = " or ".join(_files(registry.artifacts[target]))
        raise InputError(f"{target}: name a file; build {files}")
    match parts:
        case ("results", scale, "runs" | "tidy" | "tables" | "figures", _, *_):
            if scale not in SCALES:
                raise InputError(f"{target}: no scale '{scale}'{nearest(scale, SCALES)}")
    match parts:
        case ("results", scale, "runs", experiment, run, *_):
            registry.run(scale, f"{experiment}/{run}")
        case ("results", scale, ("tidy" | "tables" | "figures") as kind, name, *_):
            _check_kind(registry.artifact(Path(name).stem), kind, scale, target)


def _files(artifact: Artifact, scale: str = "<scale>") -> list[str]:
    """A table and a figure that can be built of an artifact."""
    files = []
    if artifact.has_table:
        files.append(f"results/{scale}/tables/{artifact.id}.md")
    if artifact.has_figure:
        files.append(f"results/{scale}/figures/{artifact.id}.svg")
    return files


def _check_kind(artifact: Artifact, kind: str, scale: str, target: str) -> None:
    has = {"tables": artifact.has_table, "figures": artifact.has_figure}
    if not has.get(kind, True):
        (other,) = _files(artifact, scale)
        missing = kind.removesuffix("s")
        raise InputError(f"{target}: {artifact.id} has no {missing}; build {other}")
