"""torchvision's published weights of VGG19-BN, the file vgg19_bn-c79401a0.pth."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from ghostgrad.checks import InputError
from ghostgrad.data.manifests import configured_path, damage, read_manifest, write_manifest

if TYPE_CHECKING:
    from torch import Tensor

FILE = "vgg19_bn-c79401a0.pth"
KEY = "config.yaml: data.vgg19_bn"
NORM_LAYERS = 16  # features.1 to features.50


def read_weights(path: str) -> dict[str, Tensor]:
    """The state dict in a file; InputError where it is not one of VGG19-BN."""
    import torch

    try:
        # weights_only: a pickle from the internet could otherwise run any code.
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        variances = [name for name in weights if name.endswith(".running_var")]
    except OSError as error:
        raise InputError(f"{KEY}: {path}: {error.strerror}; set it to the file {FILE}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, AttributeError):
        message = f"{path} is not a state dict of torch; download {FILE} again"
        raise InputError(f"{KEY}: {message}") from None
    if len(variances) != NORM_LAYERS:
        message = f"{path} has {len(variances)} BN layers, expected VGG19-BN's {NORM_LAYERS}"
        raise InputError(f"{KEY}: {message}")
    return weights


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def make_weights(name: str, manifest: Path) -> None:
    """Check the published weights and write their manifest."""
    path = configured_path(name)
    weights = read_weights(path)
    content = {"name": name, "tensors": len(weights), "sha256": _sha256(path)}
    write_manifest(manifest, content)


def load_weights(name: str, manifest: Path) -> dict[str, Tensor]:
    """The state dict that `manifest` describes; InputError where the file is another one."""
    path = configured_path(name)
    weights = read_weights(path)
    try:
        is_same = read_manifest(manifest)["sha256"] == _sha256(path)
    except (ValueError, TypeError, KeyError):
        raise damage(manifest, name) from None
    if not is_same:
        message = f"{path} is not the file that {manifest} describes"
        raise InputError(f"config.yaml: data.{name}: {message}; delete {manifest} and build again")
    return weights
