"""Which modules of the library a module depends on, derived from its import statements.

Three things follow from this graph: the hash of the code behind a number (`runs/provenance.py`),
the files that make Snakemake redraw a table or a figure (`cli/rules.py`), and the
test that packages import only from those above them. Modules are parsed and never imported,
so that asking costs milliseconds and needs neither torch nor pandas.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# These check input, decide which runs exist, and store what was computed. No number depends on
# them, so they are neither hashed nor followed: a better error message changes no hash and redraws
# nothing. What the registry says of a run or an artifact is compared by Snakemake as `params`.
BOOKKEEPING = (
    "checks",
    "dependencies",
    "registry.artifact",
    "registry.cells",
    "registry.claim",
    "registry.compatibility",
    "registry.config",
    "registry.experiment",
    "registry.registry",
    "registry.signatures",
    "registry.schemas",
    "registry.spec",
    "registry.specs.base",
    "registry.targets",
    "registry.tasks",
    "runs",
)


def is_bookkeeping(module: str) -> bool:
    """True for a module that no number depends on."""
    return any(module == name or module.startswith(f"{name}.") for name in BOOKKEEPING)


@cache
def module_file(module: str) -> Path | None:
    """The file of a module such as `training.schedules`, or the `__init__.py` of a package; None
    where there is none."""
    path = PACKAGE.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def all_modules() -> list[str]:
    """Every module of the library; the name of a package means its `__init__.py`."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.parts).removesuffix(".__init__") for path in paths)
    return sorted(name for name in names if name not in ("__init__", "__main__"))


def is_type_checking(node: ast.AST) -> bool:
    """True for `if TYPE_CHECKING:`, whose imports serve annotations only. Its `else` branch, which
    no module that is hashed has, would be left out too."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _import_statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not is_type_checking(child):
            yield from _import_statements(child)


@cache
def parse(module: str) -> ast.Module:
    """The syntax tree of a module."""
    path = module_file(module)
    if path is None:
        raise LookupError(f"no module ghostgrad.{module}")
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the library that `module` imports, at its top or inside a function."""
    names: set[str] = set()
    for statement in _import_statements(parse(module)):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif statement.module:
            # `from ghostgrad.training import probes` imports a module, others import a name.
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
            names.add(statement.module)
    own = {name.removeprefix("ghostgrad.") for name in names if name.startswith("ghostgrad.")}
    modules = {name for name in own if module_file(name)}
    packages = {name.rpartition(".")[0] for name in modules} - {""}
    return frozenset((modules | packages) - {module})


def _packages(module: str) -> list[str]:
    """`registry.specs` and `registry` for `registry.specs.base`."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def dependencies(*roots: str) -> tuple[str, ...]:
    """`roots` and all that they import, directly or not, without bookkeeping; sorted.

    Python runs the `__init__.py` of every package that holds one of them, so these count too.
    """
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        module = pending.pop()
        if module not in reached and not is_bookkeeping(module):
            reached.add(module)
            pending += [*imports(module), *_packages(module)]
    return tuple(sorted(reached))


def files(roots: Iterable[str]) -> list[Path]:
    """The files of `dependencies(*roots)`."""
    return [path for name in dependencies(*roots) if (path := module_file(name))]
