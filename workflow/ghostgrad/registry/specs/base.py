"""How the parameters of a run are declared, checked, read and stored.

A spec is a frozen dataclass, so that an editor completes `spec.batch` and a type checker knows its
type; an `Option` beside the type says what the parameter means and which values it takes:

    batch: Annotated[int, Option("Images per step.", minimum=2)]

The JSON schema that refuses bad input is made from the dataclass, and nothing is said twice.

The canonical JSON of a spec leaves out what equals the default, so that a new parameter with a
default changes no identity and recomputes nothing. A parameter can be renamed in the same way:
`stored_as` keeps the name under which existing runs are known. The order of the fields is the order
of the keys in spec.json. Imports neither torch nor pandas.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeAlias

from ghostgrad.checks import InputError, nearest

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Schema: TypeAlias = dict[str, Any]
"""A JSON schema."""

Activation: TypeAlias = Literal[
    "relu", "leaky_relu", "selu", "elu", "gelu", "silu", "tanh", "linear"
]

SIMPLE_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Option:
    """What a parameter means, its unit, and which values it takes beyond its type."""

    meaning: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] | None = None
    """The values of a string that come from a table."""
    unique: bool = False
    """A list must not hold a value twice."""
    stored_as: str = ""
    """The parameter's name in canonical JSON and in spec.json where it is not the field's."""
    stored_values: Mapping[bool, str] | None = None
    """What true and false are stored as where that is not a boolean."""
    only_for: Mapping[str, tuple[str, ...]] | None = None
    """Another parameter, and its values for which this one is read."""

    def limits(self) -> dict[str, JSON]:
        """The keywords of the JSON schema for the limits that are set."""
        bounds: dict[str, JSON] = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
            "pattern": self.pattern,
        }
        return {key: bound for key, bound in bounds.items() if bound is not None}


def _schema_of_type(kind: object, option: Option) -> dict[str, JSON]:
    """The JSON schema of a field's type; limits of a list are those of its items."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if option.choices is not None:
        return {"enum": list(option.choices)}
    if isinstance(kind, type) and kind in SIMPLE_TYPES:
        return {"type": SIMPLE_TYPES[kind], **option.limits()}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:  # tuple[item, ...]
        unique: dict[str, JSON] = {"uniqueItems": True} if option.unique else {}
        return {"type": "array", "items": _schema_of_type(arguments[0], option), **unique}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema_of_type(arguments[1], option)}
    if origin in (types.UnionType, typing.Union):
        choices = [part for part in arguments if part is not type(None)]
        if len(choices) == 1:
            return _schema_of_type(choices[0], option)
        if all(typing.get_origin(part) is Literal for part in choices):
            return {"enum": [value for part in choices for value in typing.get_args(part)]}
        return {"oneOf": [_schema_of_type(part, option) for part in choices]}
    raise TypeError(f"a parameter cannot be of type {kind}")


def _as_json(value: Any) -> JSON:
    """A field's value as JSON has it: a tuple as a list."""
    if isinstance(value, tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, Mapping):
        return dict(value)
    plain: JSON = value
    return plain


def _as_field(value: JSON) -> JSON | tuple[JSON, ...]:
    """A value from JSON as a field has it: a list as a tuple, which cannot be changed."""
    return tuple(value) if isinstance(value, list) else value


def _default(field: Field[Any]) -> Any:
    """A field's default; MISSING where it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The parameters of one run of a task.

    Every spec declares a field `seed` last: the seed of the run, or the number of its block.
    """

    task: ClassVar[str]
    description: ClassVar[str]
    removed: ClassVar[Mapping[str, JSON]] = {}
    """Parameters that runs were once stored with, and the value at which such a run is still the
    same run."""

    @classmethod
    @cache
    def options(cls) -> Mapping[str, Option]:
        """The `Option` of every parameter, in the order of the fields."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name].__metadata__[0] for field in fields(cls)}

    @classmethod
    @cache
    def defaults(cls) -> Mapping[str, JSON]:
        """The default of every parameter that has one, as JSON."""
        values = {field.name: _default(field) for field in fields(cls)}
        return {name: _as_json(value) for name, value in values.items() if value is not MISSING}

    @classmethod
    @cache
    def required(cls) -> tuple[str, ...]:
        """The parameters without a default, except the seed, which is the number of a run."""
        names = (field.name for field in fields(cls))
        return tuple(name for name in names if name not in cls.defaults() and name != "seed")

    @classmethod
    @cache
    def optional(cls) -> frozenset[str]:
        """Parameters that a stored spec has only if they are set: their default is None."""
        return frozenset(name for name, value in cls.defaults().items() if value is None)

    @classmethod
    @cache
    def schema(cls) -> Schema:
        """The JSON schema of a spec as a person writes it."""
        hints = typing.get_type_hints(cls)
        properties: dict[str, JSON] = {}
        for name, option in cls.options().items():
            unit = f" ({option.unit})" if option.unit else ""
            properties[name] = {
                **_schema_of_type(hints[name], option),
                "description": option.meaning.removesuffix(".") + unit,
            }
        return {
            "description": cls.description,
            "type": "object",
            "additionalProperties": False,
            "required": [*cls.required(), "seed"],
            "properties": properties,
        }

    @classmethod
    @cache
    def _field_names(cls) -> Mapping[str, str]:
        """Stored name -> field name, where the two differ."""
        options = cls.options().items()
        return {option.stored_as: name for name, option in options if option.stored_as}

    @classmethod
    @cache
    def _other_names(cls) -> frozenset[str]:
        """The names in stored specs that are no names of fields."""
        return frozenset((*cls._field_names(), *cls.removed))

    @classmethod
    def renamed(cls, values: Mapping[str, JSON], where: str = "spec") -> dict[str, JSON]:
        """`values` under the names of the fields.

        The names of stored specs are accepted as well. A removed parameter is dropped if it has the
        value with which it counts, and else kept, so that validation refuses it. InputError, with
        `where` in front, for a parameter that is given under both of its names.
        """
        if not values.keys() & cls._other_names():
            return dict(values)
        result: dict[str, JSON] = {}
        for key, value in values.items():
            # The type is compared too: in Python, 0 equals False.
            if key in cls.removed and repr(value) == repr(cls.removed[key]):
                continue
            name = cls._field_names().get(key, key)
            if name in result:
                raise InputError(f"{where}: '{name}' is set twice, once under its older name")
            result[name] = value if name == key else cls._value_of_stored(name, value, where)
        return result

    @classmethod
    def _value_of_stored(cls, name: str, value: JSON, where: str) -> JSON:
        """The value of field `name` that is stored as `value` under its stored name."""
        option = cls.options()[name]
        if option.stored_values is None:
            return value
        for flag, text in option.stored_values.items():
            if value == text:
                return flag
        hint = nearest(str(value), option.stored_values.values())
        raise InputError(f"{where}: {option.stored_as}: '{value}' is not allowed{hint}")

    @classmethod
    def expand(cls, values: Mapping[str, JSON]) -> Self:
        """The spec of valid `values`, under the fields' or the stored names, with the defaults."""
        return cls(**{name: _as_field(value) for name, value in cls.renamed(values).items()})

    def with_seed(self, seed: int) -> Self:
        """The same parameters with another seed."""
        changes: dict[str, Any] = {"seed": seed}  # a field of every task, declared last in each
        return replace(self, **changes)

    def values(self) -> dict[str, JSON]:
        """Every parameter under its field's name, as JSON, in the order of the fields."""
        return {field.name: _as_json(getattr(self, field.name)) for field in fields(self)}

    def stored(self) -> dict[str, JSON]:
        """What spec.json holds: task and all parameters under their stored names."""
        return {"task": self.task} | self._stored(self.values())

    @classmethod
    def _stored(cls, values: Mapping[str, JSON]) -> dict[str, JSON]:
        """`values` of fields under their stored names."""
        result: dict[str, JSON] = {}
        for name, value in values.items():
            option = cls.options()[name]
            if value is None and name in cls.optional():
                continue
            if option.stored_values is not None and isinstance(value, bool):
                value = option.stored_values[value]
            result[option.stored_as or name] = value
        return result

    @classmethod
    def canonical_json(cls, values: Mapping[str, JSON]) -> str:
        """Sorted compact JSON of `values` without those that equal the default: the identity of a
        run. KeyError for a parameter that the task does not have."""
        values = cls.renamed(values)
        for name in values:
            if name not in cls.options():
                raise KeyError(name)
        kept = {
            name: _shortest_number(value)
            for name, value in values.items()
            if name not in cls.defaults() or cls.defaults()[name] != value
        }
        stored = {"task": cls.task, **cls._stored(kept)}
        return json.dumps(stored, sort_keys=True, separators=(",", ":"))

    def canonical(self) -> str:
        """The canonical JSON of this spec."""
        return self.canonical_json(self.values())


def _shortest_number(value: JSON) -> JSON:
    """2.0 as 2, in lists and mappings too, so that equal numbers have the same text."""
    if isinstance(value, list):
        return [_shortest_number(part) for part in value]
    if isinstance(value, dict):
        return {key: _shortest_number(part) for key, part in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
