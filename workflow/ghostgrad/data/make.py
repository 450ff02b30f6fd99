"""The data rule: read and check a data set by its name, and write its manifest."""

from __future__ import annotations

from pathlib import Path

from ghostgrad.checks import InputError, nearest
from ghostgrad.data import folders
from ghostgrad.data.folders import Folder
from ghostgrad.data.image_sets import make_arrays, make_folder
from ghostgrad.data.imagenet import unpacking_hint
from ghostgrad.data.manifests import configured_path
from ghostgrad.data.scene_sets import make_scenes
from ghostgrad.data.vgg19_bn import make_weights
from ghostgrad.registry.datasets import DATA_SETS


def make(name: str, manifest: Path) -> None:
    """Make a shipped data set, or check one that config.yaml names, and write its manifest.

    InputError where there is no such data set, its path is not set, or it is damaged or not the
    genuine one.
    """
    if name not in DATA_SETS:
        raise InputError(f"no data set '{name}'{nearest(name, DATA_SETS)}")
    match DATA_SETS[name].form:
        case "arrays":
            make_arrays(name, manifest)
        case "image_folder":
            make_folder(name, manifest, _scan(name))
        case "scenes":
            make_scenes(name, manifest)
        case "weights":
            make_weights(name, manifest)


def _scan(name: str) -> Folder:
    """The images in the configured folder; the error for one that holds ImageNet's archives, or its
    images before they were sorted, names the command that unpacks them."""
    root = configured_path(name)
    try:
        return folders.scan(name, root)
    except InputError as error:
        hint = unpacking_hint(Path(root)) if name == "imagenet" else ""
        raise InputError(f"{error}{hint}") from None
