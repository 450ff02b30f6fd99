"""How parameters are declared and stored: their schemas, defaults and older names."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ghostgrad.checks import InputError, validate
from ghostgrad.registry.spec import canonical_json, parse_spec, run_status
from ghostgrad.registry.specs.base import Option, Spec
from ghostgrad.registry.tasks import TASKS
from tests.unit.fabricate import CLASSIFY, STEADY, experiment, one_line, publish, registry

SPECS = [task.spec for task in TASKS.values()]
RENAMED = [
    ("eta", 0.02, "trust_coefficient", 0.02),
    ("exempt", "vectors", "adapt_vectors", False),
    ("exempt", "none", "adapt_vectors", True),
    ("zero_gamma", True, "zero_init_residual", True),
    ("decay", "weights", "weight_decay_on", "weights"),
]


def name_of(spec: type[Spec]) -> str:
    return spec.task


def values_of(kind: Any, option: Option) -> st.SearchStrategy:
    """Return a strategy for the valid values of a parameter, as in JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if option.choices is not None:
        return st.sampled_from(option.choices)
    if kind is bool:
        return st.booleans()
    if kind is int:
        least = 0 if option.minimum is None else int(option.minimum)
        return st.integers(least, least + 2000 if option.maximum is None else int(option.maximum))
    if kind is float:
        least = next(bound for bound in (option.minimum, option.above, 0) if bound is not None)
        most = next(bound for bound in (option.maximum, option.below, 1e6) if bound is not None)
        sides = {"exclude_min": option.above is not None, "exclude_max": option.below is not None}
        return st.floats(least, most, **sides)
    if kind is str:
        return st.from_regex(option.pattern or "^[a-z]+$", fullmatch=True)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values_of(arguments[0], option), max_size=4, unique=option.unique)
    if origin is Mapping:
        return st.dictionaries(
            st.text("abc.", min_size=1), values_of(arguments[1], option), max_size=3
        )
    assert origin in (UnionType, typing.Union), kind
    return st.one_of([values_of(part, option) for part in arguments if part is not type(None)])


def valid_values(spec: type[Spec]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for valid specs that set some of the parameters with a default."""
    hints = typing.get_type_hints(spec)
    strategies = {name: values_of(hints[name], option) for name, option in spec.options().items()}
    required = {name: strategies.pop(name) for name in (*spec.required(), "seed")}
    return st.fixed_dictionaries(required, optional=strategies)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_every_parameter_is_declared_with_its_meaning(spec):
    hints = typing.get_type_hints(spec, include_extras=True)
    assert "seed" in spec.options()
    for field in fields(spec):
        (option,) = hints[field.name].__metadata__
        assert isinstance(option, Option), field.name
        assert option.meaning.endswith("."), field.name
        assert option.meaning[:-1].strip(), field.name


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_defaults_fit_their_own_limits(spec):
    set_defaults = {name: value for name, value in spec.defaults().items() if value is not None}
    validate(set_defaults, spec.schema(), "defaults", partial=True)
    assert spec.optional() == spec.defaults().keys() - set_defaults.keys()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_the_schema_says_what_the_dataclass_says(spec):
    schema = spec.schema()
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == [field.name for field in fields(spec)]
    assert set(schema["required"]) == {"seed", *spec.required()}
    for name, option in spec.options().items():
        described = schema["properties"][name]
        assert option.meaning.removesuffix(".") in described["description"]
        limits = (
            described["items"]
            if "items" in described
            else described.get("additionalProperties", described)
        )
        assert option.limits().items() <= limits.items(), name


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_valid_values_lead_through_canonical_json_to_the_same_spec(spec):
    @settings(STEADY, max_examples=30)
    @given(valid_values(spec))
    def round_trip(values):
        validate(values, spec.schema(), "test")
        expanded = spec.expand(values)
        text = canonical_json(spec.task, values)
        assert parse_spec(text) == expanded
        assert expanded.canonical() == text
        assert spec.expand(expanded.values()) == expanded
        assert parse_spec(json.dumps(expanded.stored())) == expanded

    round_trip()


@pytest.mark.parametrize(("old", "stored", "new", "value"), RENAMED)
def test_a_parameter_has_one_identity_under_both_of_its_names(tmp_path, old, stored, new, value):
    """Experiments may use either name.

    Canonical JSON and spec.json keep the older one, so that no run is recomputed.
    """
    runs = []
    for folder, changes in (("old", {old: stored}), ("new", {new: value})):
        body = experiment(task="classify", base={**CLASSIFY, "model": "resnet18", **changes})
        reg = registry(tmp_path / folder, {"nets": body})
        runs.append(reg.run("paper", "nets/a-s0"))
    assert runs[0].canonical == runs[1].canonical
    assert runs[0].spec == runs[1].spec
    assert getattr(runs[0].spec, new) == value
    assert runs[0].spec.stored()[old] == stored
    assert new not in runs[0].spec.stored()
    assert parse_spec(runs[0].canonical) == runs[0].spec


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("old", "stored", "new", "value"), RENAMED)
def test_both_names_of_a_parameter_are_refused(tmp_path, old, stored, new, value, order):
    both = dict([(old, stored), (new, value)][::order])
    twice = f"'{new}' is set twice, once under its older name"
    with pytest.raises(InputError) as error:
        parse_spec(json.dumps({"task": "classify", **CLASSIFY, "seed": 0, **both}))
    assert one_line(error) == f"--spec: {twice}"
    with pytest.raises(InputError) as error:
        registry(
            tmp_path,
            {"nets": experiment(task="classify", base=dict(CLASSIFY), variants={"a": both})},
        )
    assert one_line(error).endswith(f"ghost.yaml: experiments.nets.variants.a: {twice}")


def test_a_layer_may_use_another_name_than_the_one_below(tmp_path):
    base = {**CLASSIFY, "optimizer": "lars", "eta": 0.5}
    body = experiment(task="classify", base=base, variants={"a": {"trust_coefficient": 0.25}})
    assert (
        registry(tmp_path, {"nets": body}).run("paper", "nets/a-s0").spec.trust_coefficient == 0.25
    )


@pytest.mark.parametrize("value", [True, "vector", 0, []])
def test_an_unknown_value_under_an_older_name(value):
    with pytest.raises(InputError) as error:
        parse_spec(json.dumps({"task": "classify", **CLASSIFY, "seed": 0, "exempt": value}))
    assert one_line(error).startswith(f"--spec: exempt: '{value}' is not allowed")


REMOVED = {"literal": False, "gamma_outside": False, "lr_values": [], "orthogonal_trace": False}


def test_a_run_that_was_stored_with_parameters_that_are_gone(tmp_path, monkeypatch):
    """A run that was stored with the defaults of removed parameters is still current.

    With any other value of such a parameter it is stale.
    """
    monkeypatch.chdir(tmp_path)
    body = experiment(task="classify", base={**CLASSIFY, "eta": 0.5, "decay": "weights"})
    run = registry(tmp_path, {"nets": body}).run("paper", "nets/a-s0")
    publish(run, **REMOVED)
    assert run_status(run) == "done"
    for name in REMOVED:
        for other in (True, [0.1]):
            publish(run, **{**REMOVED, name: other})
            assert run_status(run) == "stale", (name, other)


@pytest.mark.parametrize("name", REMOVED)
def test_a_parameter_that_is_gone_cannot_be_set(name):
    with pytest.raises(InputError) as error:
        parse_spec(json.dumps({"task": "classify", **CLASSIFY, "seed": 0, name: True}))
    assert f"unknown key '{name}'" in one_line(error)
