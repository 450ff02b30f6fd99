"""Making and loading data sets of images with objects."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ghostgrad.data import coco, digit_scenes, manifests
from ghostgrad.data.coco import Scenes
from ghostgrad.data.decoding import names_to_skip
from ghostgrad.registry.datasets import DATA_SETS


def _read(name: str, manifest: Path, skip: Collection[str] = ()) -> tuple[Scenes, dict[str, Any]]:
    """The scenes without the images named in `skip`, and the content of their manifest."""
    # Shipped scenes lie beside the manifest, in a folder of its name.
    shipped = DATA_SETS[name].shipped
    root = str(manifest.with_suffix("")) if shipped else manifests.configured_path(name)
    scenes, content = coco.read(name, root, skip)
    if not shipped:
        train, test = scenes.train.index.imgs, scenes.val.index.imgs  # skipped images count
        manifests.check_counts(name, train, test, scenes.classes)
    return scenes, content


def make_scenes(name: str, manifest: Path) -> None:
    """Make the shipped scenes, or check those in the configured folder, and write the manifest."""
    if DATA_SETS[name].shipped:
        counts = DATA_SETS[name].counts
        assert counts is not None, "a shipped data set has known sizes"
        digit_scenes.make(manifest.with_suffix(""), counts.train, counts.test)
    scenes, content = _read(name, manifest)
    root, paths = scenes.train.folder.parent, scenes.train.paths() + scenes.val.paths()
    if skipped := names_to_skip(name, root, paths):
        _, content = _read(name, manifest, skipped)
    manifests.write_manifest(manifest, content, skipped)


def load_scenes(name: str, manifest: Path) -> Scenes:
    """The scenes that `manifest` describes; InputError where they are damaged or have changed."""
    try:
        expected = manifests.read_manifest(manifest)
        skipped = frozenset(expected.pop("skipped", ()))
    except (ValueError, TypeError):
        raise manifests.damage(manifest, name) from None
    scenes, content = _read(name, manifest, skipped)
    # A folder that was renamed holds the same data.
    if {**content, "title": ""} != {**expected, "title": ""}:
        raise manifests.change(manifest, name)
    return scenes
