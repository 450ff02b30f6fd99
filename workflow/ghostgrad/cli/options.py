"""What the commands share: the option --scale, the configuration and the folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.config import load_config
from ghostgrad.registry.spec import SCALES

_NAMES = f"{', '.join(SCALES[:-1])} or {SCALES[-1]}"
Scale = Annotated[
    str,
    typer.Option(help=f"{_NAMES}; the scale of config.yaml by default"),
]


def configured(scale: str) -> tuple[dict[str, Any], str]:
    """config.yaml, and the scale that was given or else is configured."""
    config = load_config()
    scale = scale or config["scale"]
    if scale not in SCALES:
        raise InputError(f"--scale: '{scale}' is not allowed{nearest(scale, SCALES)}")
    return config, scale


def results_of(scale: str) -> Path:
    return Path("results") / scale
