"""config.yaml: what this machine has, checked before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, display_path, load_yaml, validate
from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.schemas import config_schema


def load_config(path: Path = Path("config.yaml")) -> dict[str, Any]:
    """The checked content of config.yaml; InputError names the key that is wrong."""
    config: dict[str, Any] = load_yaml(path)
    check_config(config, display_path(path))
    return config


def check_config(config: Mapping[str, Any], where: str = "config.yaml") -> None:
    """Raise InputError unless keys, types and data paths are right."""
    validate(dict(config) if isinstance(config, Mapping) else config, config_schema(), where)
    for name, path in (config.get("data") or {}).items():
        if not path:
            continue
        kind = "file" if DATA_SETS[name].is_file else "folder"
        exists = Path(path).is_file() if kind == "file" else Path(path).is_dir()
        if not exists:
            raise InputError(
                f"{where}: data.{name}: no {kind} {path}; give the right path, or leave it empty"
            )


def machine_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that carry config.yaml's facts about the machine to a run: the
    state folder, how often to write a checkpoint, and where the data are."""
    data = config.get("data") or {}
    return {
        "GHOSTGRAD_STATE_DIR": str(Path(config["state_dir"]).absolute()),
        "GHOSTGRAD_CHECKPOINT_MINUTES": str(config.get("checkpoint_minutes", 5)),
        "GHOSTGRAD_DAMAGED_IMAGES": config.get("damaged_images", "refuse"),
        **{f"GHOSTGRAD_DATA_{name.upper()}": str(path) for name, path in data.items() if path},
    }
