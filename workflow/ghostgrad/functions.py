"""Which table and figure functions an artifact may name, with their options, read from the modules' text: importing
them would import all that they compute and draw with."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ghostgrad.checks import InputError, nearest

PACKAGE = Path(__file__).resolve().parent


class Options(NamedTuple):
    """Keyword arguments of a function."""

    known: tuple[str, ...]
    required: tuple[str, ...]


@cache
def functions(module: str) -> Mapping[str, Options]:
    """The functions of Results in a module such as `measures` or `figures/ghost`; none where there is no such file."""
    path = PACKAGE / f"{module}.py"
    if not path.exists():
        return {}
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.args:
            first, *others = node.args.args
            if isinstance(first.annotation, ast.Name) and first.annotation.id == "Results":
                names = tuple(argument.arg for argument in others)
                found[node.name] = Options(names, names[: len(names) - len(node.args.defaults)])
    return found


def check(module: str, name: str, options: Mapping, where: str, kind: str) -> None:
    """Raise InputError unless `module` has the function and it takes these options; `kind` is table or figure."""
    known = functions(module)
    if name not in known:
        place = f"{PACKAGE.name}/{module}.py"
        raise InputError(f"{where}.{kind}: no function '{name}' in {place}{nearest(name, known)}")
    for key in options:
        if key not in known[name].known:
            raise InputError(f"{where}.options.{kind}: unknown key '{key}'{nearest(key, known[name].known)}")
    for key in known[name].required:
        if key not in options:
            raise InputError(f"{where}.options.{kind}: key '{key}' is missing; {name} needs it")
