"""config.yaml: what this machine has, checked before anything is planned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, display_path, load_yaml, validate
from ghostgrad.registry.datasets import CONFIG_KEYS, DATA_SETS, path_variable
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


def export_machine_facts(config: Mapping[str, Any]) -> None:
    """Set `machine_facts` in this process for a command that is used by hand.

    A variable that is set already wins over config.yaml, as in a job of the workflow.
    """
    for key, value in machine_facts(config).items():
        os.environ.setdefault(key, value)


def exported_data() -> dict[str, str]:
    """Data set -> configured path, as the environment of a job has them."""
    paths = {name: os.environ.get(path_variable(name)) for name in CONFIG_KEYS}
    return {name: path for name, path in paths.items() if path}


def machine_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that carry config.yaml's facts about the machine to a run: the
    state folder, how often to write a checkpoint, what to do with damaged images, and where the
    data are."""
    data = config.get("data") or {}
    facts = {
        "GHOSTGRAD_STATE_DIR": str(Path(config["state_dir"]).absolute()),
        "GHOSTGRAD_DAMAGED_IMAGES": config.get("damaged_images", "refuse"),
        **{path_variable(name): str(path) for name, path in data.items() if path},
    }
    if minutes := config.get("checkpoint_minutes"):  # the default is that of runs/state.py
        facts["GHOSTGRAD_CHECKPOINT_MINUTES"] = str(minutes)
    return facts
