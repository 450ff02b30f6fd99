"""Bad input becomes one line that names the file, the key, what is wrong and the nearest valid value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


class InputError(Exception):
    """Something a person wrote is wrong. Its text is one line; the command line prints it and exits with 1."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the valid words where nothing is near."""
    valid = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(valid[:12]) + (", …" if len(valid) > 12 else "")
    return f"; valid: {shown}" if valid else ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which a key that stands twice is an error: the plain loader silently keeps the last one."""


def _line(node: yaml.Node) -> str:
    return f"{shown(Path(node.start_mark.name))}, line {node.start_mark.line + 1}"


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            reason = "a key is a word; put text that begins with { or [ in quotes"
            raise InputError(f"{_line(key_node)}: not valid YAML ({reason})")
        if key_node.value in out:
            raise InputError(f"{_line(key_node)}: key '{key_node.value}' stands twice; keep one")
        out[key_node.value] = loader.construct_object(value_node, deep=True)  # keys as written: 18, Yes
    return out


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; InputError if it cannot be read or parsed."""
    where = shown(path)
    try:
        with path.open(encoding="utf-8") as stream:
            return yaml.load(stream, Loader=_Loader)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not valid YAML (not UTF-8)") from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", "cannot be parsed")
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not valid YAML ({problem})") from None


@cache
def schema(name: str) -> dict:
    """The JSON schema workflow/schemas/<name>.yaml."""
    return load_yaml(SCHEMAS / f"{name}.yaml")


@cache
def _validator(name: str, partial: bool) -> Draft202012Validator:
    body = schema(name)
    if partial:
        body = {key: value for key, value in body.items() if key != "required"}
    return Draft202012Validator(body)


def validate(value: Any, name: str, where: str, partial: bool = False) -> None:
    """Raise InputError unless `value` fits the schema `name`; `partial` forgives missing keys (a layer of a merge)."""
    _refuse(_validator(name, partial), value, where)


def require(value: Mapping[str, Any], name: str, where: str) -> None:
    """Raise InputError where a key is missing that the schema `name` requires; of a merge whose layers are valid."""
    if missing := next((key for key in schema(name)["required"] if key not in value), None):
        raise InputError(f"{where}: key '{missing}' is missing")


def check(value: Any, schema: dict, where: str) -> None:
    """Raise InputError unless `value` fits this JSON schema."""
    _refuse(Draft202012Validator(schema), value, where)


def _not_finite(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """(place, value) of every .inf and .nan, which a JSON schema takes for a number; JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        yield ".".join(path), value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _not_finite(part, (*path, str(key)))


def _refuse(validator: Draft202012Validator, value: Any, where: str) -> None:
    for path, number in _not_finite(value):
        raise InputError(f"{where}: {path}: expected a finite number, found {number}")
    error = best_match(validator.iter_errors(value))
    if error is not None:
        raise InputError(_one_line(error, where))


def _one_line(error: ValidationError, where: str) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    place = f"{where}: {path}" if path else where
    value, rule = error.instance, error.validator_value
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            unknown = next(key for key in value if key not in known)
            return f"{place}: unknown key '{unknown}'{nearest(unknown, known)}"
        case "propertyNames" | "pattern":
            return f"{place}: '{value}' is not of the form {rule if isinstance(rule, str) else rule.get('pattern')}"
        case "enum":
            return f"{place}: '{value}' is not allowed{nearest(str(value), rule)}"
        case "type":
            kind = rule if isinstance(rule, str) else " or ".join(rule)
            return f"{place}: expected {kind}, found {value!r}"
        case "multipleOf":
            return f"{place}: {value} is not a multiple of {rule}"
        case "oneOf":
            return f"{place}: expected {error.schema['description']}, found {value!r}"
        case "required":
            missing = next(key for key in rule if key not in value)
            return f"{place}: key '{missing}' is missing"
    return f"{place}: {error.message}"
