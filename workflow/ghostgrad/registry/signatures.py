"""Which table and figure functions an artifact may name, with the JSON schema of their options, read from the modules'
text: importing them would import all that they compute and draw with."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError, check, nearest

PACKAGE = Path(__file__).resolve().parents[1]
TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _schema(annotation: ast.expr) -> dict[str, Any]:
    """Of str, int, float, bool, Literal[...] and lists of them."""
    match annotation:
        case ast.Name(id=name):
            return {"type": TYPES[name]}
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return {"type": "array", "items": _schema(item), "minItems": 1}
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return {"enum": list(ast.literal_eval(values)) if isinstance(values, ast.Tuple) else [values.value]}
    raise TypeError(f"an option of a table or figure function cannot be {ast.unparse(annotation)}")


@cache
def functions(module: str) -> Mapping[str, dict]:
    """The functions of Results in a module such as `measures` or `figures/ghost`, with the schema of their options;
    none where there is no such file."""
    path = PACKAGE / f"{module}.py"
    if not path.exists():
        return {}
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.args:
            first, *others = node.args.args
            if isinstance(first.annotation, ast.Name) and first.annotation.id == "Results":
                properties = {argument.arg: _schema(argument.annotation) for argument in others}
                required = list(properties)[: len(others) - len(node.args.defaults)]
                found[node.name] = {"properties": properties, "required": required, "additionalProperties": False}
    return found


def check_artifact(body: Mapping[str, Any], paper: str, where: str) -> None:
    """Raise InputError unless the table and figure functions that an artifact names exist and take its options."""
    options = body.get("options", {})
    for kind, module in (("table", "analysis/measures"), ("figure", f"figures/{paper}")):
        name, known = body.get(kind), functions(module)
        if name is None:
            if kind in options:
                raise InputError(f"{where}.options.{kind}: the artifact names no {kind}")
            continue
        if name not in known:
            place = f"{PACKAGE.name}/{module}.py"
            raise InputError(f"{where}.{kind}: no function '{name}' in {place}{nearest(name, known)}")
        check(options.get(kind, {}), known[name], f"{where}.options.{kind}")
