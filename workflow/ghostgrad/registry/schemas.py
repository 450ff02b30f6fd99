"""The JSON schemas of files that people write: workflow/schemas/*.yaml, completed from the tables
of tasks, data sets and scales. The schema of a task's parameters comes from its spec."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from ghostgrad.checks import load_yaml
from ghostgrad.registry.datasets import CONFIG_KEYS, DATA_SETS
from ghostgrad.registry.spec import SCALES
from ghostgrad.registry.tasks import TASKS
from ghostgrad.registry.verdict import PROVENANCE, RELATIONS

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


@cache
def _read(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = load_yaml(SCHEMAS / f"{name}.yaml")
    return schema


@cache
def registry_schema() -> dict[str, Any]:
    """The schema of workflow/experiments/*.yaml."""
    schema = copy.deepcopy(_read("registry"))
    definitions = schema["$defs"]
    definitions["experiment"]["properties"]["task"] = {"enum": list(TASKS)}
    definitions["scales"]["properties"] = {name: {"$ref": "#/$defs/scale"} for name in SCALES}
    return schema


@cache
def config_schema() -> dict[str, Any]:
    """The schema of config.yaml."""
    schema = copy.deepcopy(_read("config"))
    schema["properties"]["scale"] = {"enum": list(SCALES)}
    schema["properties"]["data"]["properties"] = {
        name: {"type": ["string", "null"], "description": DATA_SETS[name].location}
        for name in CONFIG_KEYS
    }
    return schema


@cache
def claims_schema() -> dict[str, Any]:
    """The schema of workflow/claims/*.yaml."""
    schema = copy.deepcopy(_read("claims"))
    keys = schema["additionalProperties"]["properties"]
    keys["relation"]["enum"] = list(RELATIONS)
    keys["numbers"]["additionalProperties"]["properties"] = {
        provenance: {"type": "string", "minLength": 1} for provenance in PROVENANCE
    }
    return schema
