"""The conda environments of the rules hold every package that the rules' commands import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
import yaml

from ghostgrad import dependencies
from tests.conftest import ROOT

DISTRIBUTIONS = packages_distributions()
# Environment -> the packages and modules of the library that its rules' commands import.
USED = {
    "train": ("tasks", "data"),
    "report": ("analysis.tidy", "claims", "figures", "report"),
}


def import_statements(module: str) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements of a module; of a module of the command line only those at its top
    level, which every command executes."""
    tree = dependencies.parse(module)
    nodes = tree.body if module.startswith("cli") else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def imported_names(module: str) -> set[str]:
    names: set[str] = set()
    for statement in import_statements(module):
        if isinstance(statement, ast.ImportFrom):
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
        else:
            names |= {alias.name for alias in statement.names}
    return names


def library_modules(names: set[str]) -> set[str]:
    """The modules of the library among imported names; `from ghostgrad.x import y` names both."""
    own = {name.removeprefix("ghostgrad.") for name in names if name.startswith("ghostgrad.")}
    own |= {name.rpartition(".")[0] for name in own}
    return {name for name in own if name and dependencies.module_file(name)}


def needed_distributions(roots: tuple[str, ...]) -> set[str]:
    """The distributions that `ghostgrad` and these parts of the library need."""
    pending = {
        module
        for module in dependencies.all_modules()
        if any(module == root or module.startswith(f"{root}.") for root in roots)
    } | {"cli.commands"}
    seen: set[str] = set()
    third_party: set[str] = set()
    while pending:
        module = pending.pop()
        seen.add(module)
        names = imported_names(module)
        pending |= library_modules(names) - seen
        third_party |= {name.partition(".")[0] for name in names}
    third_party -= {"ghostgrad", *sys.stdlib_module_names}
    return {DISTRIBUTIONS[name][0].lower().replace("_", "-") for name in third_party}


def environment_packages(name: str) -> set[str]:
    content = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    (pins,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    return {pin.partition("==")[0] for pin in pins}


@pytest.mark.parametrize("name", USED)
def test_an_environment_holds_all_that_its_commands_import(name):
    needed = needed_distributions(USED[name])
    assert {"numpy", "typer"} < needed
    assert needed <= environment_packages(name)


def test_every_environment_is_checked():
    assert {path.stem for path in (ROOT / "envs").glob("*.yaml")} == set(USED)


def test_only_the_training_environment_holds_torch():
    """Tables and figures can be made where torch is not installed."""
    assert "torch" in needed_distributions(USED["train"])
    assert "torch" not in needed_distributions(USED["report"])
