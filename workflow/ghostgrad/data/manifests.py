"""What all forms of data sets share: where they lie, their manifests, and the check of their
sizes."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sized
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.files import write_atomically
from ghostgrad.registry.datasets import DATA_SETS, path_variable


def configured_path(name: str) -> str:
    """The path that config.yaml gives for a data set; InputError where it gives none."""
    path = os.environ.get(path_variable(name))
    if not path:
        raise InputError(f"config.yaml: data.{name} is not set; set it to the data set's path")
    return path


def check_counts(name: str, train: Sized, test: Sized, classes: Sized) -> None:
    """InputError where a data set of known size does not have the numbers of train images, test
    images and classes that the genuine one has."""
    expected = DATA_SETS[name].counts
    if expected is None:
        return
    parts = (("train images", train), ("test images", test), ("classes", classes))
    for (noun, part), count in zip(parts, expected, strict=True):
        if len(part) != count:
            shipped = DATA_SETS[name].shipped
            where = f"scikit-learn's {name}" if shipped else f"config.yaml: data.{name}"
            found = f"{len(part)} {noun}, expected {count}"
            raise InputError(f"{where}: {found}; is this the genuine data set?")


def write_manifest(path: Path, content: Mapping[str, Any], skipped: Collection[str] = ()) -> None:
    """Write a manifest; with the names of the damaged images that were skipped, and their number in
    the title, which tables and figures show."""
    if skipped:
        title = f"{content['title']}, without {len(skipped)} damaged images"
        content = {**content, "title": title, "skipped": sorted(skipped)}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest; ValueError or TypeError where it is damaged."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def damage(manifest: Path, name: str, *files: Path) -> InputError:
    """The error for a manifest, or one of the `files` beside it, that cannot be read."""
    return InputError(f"{manifest}: {name} is damaged; {_remedy(manifest, *files)}")


def change(manifest: Path, name: str, *files: Path) -> InputError:
    """The error for data that are not those that the manifest describes."""
    found = f"{name} has changed since the data rule checked it"
    return InputError(f"{manifest}: {found}; {_remedy(manifest, *files)}")


def _remedy(*files: Path) -> str:
    return f"delete {' and '.join(map(str, files))} and build again"
