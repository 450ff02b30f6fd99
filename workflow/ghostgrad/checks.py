"""Errors for bad input: one line that names the file, the key, what is wrong and the nearest valid
value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

if TYPE_CHECKING:
    from yaml import SafeLoader as _FastLoader
else:
    # LibYAML's parser is several times faster; some builds of PyYAML come without it.
    _FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Schema = dict[str, Any]  # a JSON schema


class InputError(Exception):
    """A mistake in something that a person wrote.

    Its text is one line, which the command line prints before it exits with 1.
    """


def nearest(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the first valid words where none is similar."""
    words = sorted(str(text) for text in valid)
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    listed = ", ".join(words[:12]) + (", …" if len(words) > 12 else "")
    return f"; valid: {listed}" if words else ""


class _Loader(_FastLoader):
    """A YAML loader that refuses duplicate keys; PyYAML silently keeps the last of them."""


def _line(node: yaml.Node) -> str:
    return f"{display_path(Path(node.start_mark.name))}, line {node.start_mark.line + 1}"


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            reason = "a key is a word; put text that begins with { or [ in quotes"
            raise InputError(f"{_line(key)}: not valid YAML ({reason})")
        if key.value in mapping:
            raise InputError(f"{_line(key)}: duplicate key '{key.value}'")
        # Keys are taken as they are written: `18` and `Yes` are labels of rows and columns, which
        # YAML would turn into a number and a truth value.
        mapping[key.value] = loader.construct_object(value, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def display_path(path: Path) -> str:
    """A path as a person would type it: relative if it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; InputError if it cannot be read or parsed."""
    where = display_path(path)
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
    # A date that does not exist, `!!int abc`, an integer of thousands of digits, endless nesting.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: not valid YAML ({reason})") from None


def refuse_unknown_files(folder: Path, known: Iterable[str]) -> None:
    """InputError for a YAML file in `folder` whose name without suffix is not one of `known`: it
    would never be read."""
    known = tuple(known)
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if path.stem not in known or path.suffix != ".yaml":
            where = display_path(path)
            raise InputError(f"{where}: this file is never read{nearest(path.stem, known)}")


_validators: dict[tuple[int, bool], tuple[Schema, Draft202012Validator]] = {}


def _validator(schema: Schema, partial: bool) -> Draft202012Validator:
    """The validator of a schema, made once; it keeps the schema, so that no other gets its id."""
    key = (id(schema), partial)
    if key not in _validators:
        left_out = {"required"} if partial else set()
        body = {name: rule for name, rule in schema.items() if name not in left_out}
        _validators[key] = (schema, Draft202012Validator(body))
    return _validators[key][1]


def validate(value: Any, schema: Schema, where: str, partial: bool = False) -> None:
    """Raise InputError unless `value` fits a JSON schema.

    With `partial`, keys may be missing: `value` is one layer of a merge.
    """
    _refuse_unfit(_validator(schema, partial), value, where)


def _not_finite(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """(key, value) of every .inf and .nan: YAML and JSON schemas accept them, but JSON, in which
    specs are stored and hashed, does not have them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield ".".join(path), value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, (*path, str(key)))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _not_finite(part, (*path, str(index)))


def _refuse_unfit(validator: Draft202012Validator, value: Any, where: str) -> None:
    for path, number in _not_finite(value):
        raise InputError(f"{where}: {path}: expected a finite number, found {number}")
    error = best_match(validator.iter_errors(value))
    if error is not None:
        raise InputError(_one_line(error, where))


def _one_line(error: ValidationError, where: str) -> str:
    """The message for a violated schema, by the keyword of the schema that is violated."""
    path = ".".join(str(part) for part in error.absolute_path)
    place = f"{where}: {path}" if path else where
    value: Any = error.instance
    rule: Any = error.validator_value  # of the keyword, such as the list of `enum`
    schema: Any = error.schema
    match error.validator:
        case "additionalProperties":
            known = schema.get("properties", {})
            unknown = next(key for key in value if key not in known)
            return f"{place}: unknown key '{unknown}'{nearest(unknown, known)}"
        case "pattern":
            return f"{place}: '{value}' is not of the form {rule}"
        case "enum":
            return f"{place}: '{value}' is not allowed{nearest(str(value), rule)}"
        case "type":
            kind = rule if isinstance(rule, str) else " or ".join(rule)
            return f"{place}: expected {kind}, found {value!r}"
        case "multipleOf":
            return f"{place}: {value} is not a multiple of {rule}"
        case "oneOf":
            kinds = schema["description"].partition(". ")[0]  # a sentence on the values comes first
            return f"{place}: expected {kinds}, found {value!r}"
        case "required":
            missing = next(key for key in rule if key not in value)
            return f"{place}: key '{missing}' is missing"
    return f"{place}: {error.message}"
