"""What the registry has to know of the functions that make tables, draw figures and decide claims.

It is read from the syntax trees of their modules: importing them would import everything that they
compute and draw with.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, nearest, validate

PACKAGE = Path(__file__).resolve().parents[1]
TABLES = "analysis/measures"
TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}

Schema = dict[str, Any]  # a JSON schema


@dataclass(frozen=True)
class Report:
    """What one `@reports(...)` of a table function declares.

    `metrics` are the metrics of its rows, with option names in braces (`largest at step {at:,.0f}`
    stands for one metric for each value of the option `at`). `rows` are labels; without them, the
    rows are those of the artifact's cells.
    """

    metrics: tuple[str, ...]
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """A table or figure function: the JSON schema of its options, and what a table reports."""

    options: Schema
    reports: tuple[Report, ...] = ()


def _option_schema(annotation: ast.expr) -> Schema:
    """The JSON schema of str, int, float, bool, Literal[...] and lists of them."""
    match annotation:
        case ast.Name(id=name) if name in TYPES:
            return {"type": TYPES[name]}
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return {"type": "array", "items": _option_schema(item), "minItems": 1}
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            literal = ast.literal_eval(values)
            return {"enum": list(literal) if isinstance(literal, tuple) else [literal]}
    raise TypeError(
        f"a table or figure function cannot have an option of type {ast.unparse(annotation)}"
    )


def _reports(decorators: list[ast.expr]) -> Iterator[Report]:
    """The decorators `@reports(...)`, whose arguments are literals."""
    for decorator in decorators:
        match decorator:
            case ast.Call(func=ast.Name(id="reports"), args=metrics, keywords=keywords):
                values = {word.arg: ast.literal_eval(word.value) for word in keywords if word.arg}
                yield Report(tuple(map(ast.literal_eval, metrics)), **values)


@cache
def _functions(module: str, first: str) -> dict[str, ast.FunctionDef]:
    """The public functions of a module, such as `claims/ghost`, whose first parameter is annotated
    with the class `first`; none where the module does not exist."""
    path = PACKAGE / f"{module}.py"
    if not path.exists():
        return {}
    functions = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(
                name=name,
                args=ast.arguments(args=[ast.arg(annotation=ast.Name(id=annotation)), *_]),
            ) if annotation == first and not name.startswith("_"):
                functions[name] = node
    return functions


@cache
def result_functions(module: str) -> Mapping[str, Signature]:
    """The functions of Results in a module such as `analysis/measures` or `figures/ghost`."""
    signatures = {}
    for name, node in _functions(module, "Results").items():
        options = node.args.args[1:]
        properties = {
            option.arg: _option_schema(option.annotation) for option in options if option.annotation
        }
        required = list(properties)[: len(options) - len(node.args.defaults)]
        schema = {"properties": properties, "required": required, "additionalProperties": False}
        signatures[name] = Signature(schema, tuple(_reports(node.decorator_list)))
    return signatures


def claim_functions(module: str) -> frozenset[str]:
    """The functions of Evidence in ghostgrad/claims/`module`.py, each of which decides a claim."""
    return frozenset(_functions(f"claims/{module}", "Evidence"))


def check_functions(body: Mapping[str, Any], paper: str, where: str) -> None:
    """Raise InputError unless the table and the figure function that an artifact names exist and
    take its options."""
    options = body.get("options", {})
    for kind, module in (("table", TABLES), ("figure", f"figures/{paper}")):
        name, known = body.get(kind), result_functions(module)
        if name is None:
            if kind in options:
                raise InputError(f"{where}.options.{kind}: the artifact has no {kind}")
            continue
        if name not in known:
            place = f"{PACKAGE.name}/{module}.py"
            raise InputError(
                f"{where}.{kind}: no function '{name}' in {place}{nearest(name, known)}"
            )
        validate(options.get(kind, {}), known[name].options, f"{where}.options.{kind}")
