"""Which hashes change and which artifacts are redrawn after an edit of a module, tried on each
module of a copy of the library.

dependencies.txt lists them for every module, so that after a change of the imports its diff shows
what happens to the hashes of runs and to the artifacts. After such a change, write the list again
with

    python -m tests.unit.test_dependencies > tests/unit/dependencies.txt

and check that every line of the diff is intended.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ghostgrad import dependencies
from ghostgrad.cli.rules import RULE_MODULES
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.tasks import RUN_RULES
from ghostgrad.runs import provenance

EXPECTED = Path(__file__).with_name("dependencies.txt")
STATEMENT = "\nADDED_BY_A_TEST = 1\n"


def _remember_while_unchanged(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Cache a function of a module; it is computed again only after the module's file was
    written."""
    results: dict[str, tuple[int, Any]] = {}

    def remembered(module: str) -> Any:
        path = dependencies.module_file(module)
        written = path.stat().st_mtime_ns if path else 0
        if module not in results or results[module][0] != written:
            results[module] = (written, function(module))
        return results[module][1]

    return remembered


@contextmanager
def copied_library(folder: Path) -> Iterator[Path]:
    """A copy of the library on which `ghostgrad.dependencies` and `ghostgrad.runs.provenance` work.

    The library itself never changes while it runs, so these functions cache their results for the
    whole process; here they cache them until a file is written.
    """
    copy = folder / "ghostgrad"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(dependencies.PACKAGE, copy, ignore=ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "PACKAGE", copy)
        dependencies.module_file.cache_clear()
        parse = _remember_while_unchanged(dependencies.parse.__wrapped__)
        patch.setattr(dependencies, "parse", parse)
        patch.setattr(provenance, "parse", parse)
        imports = _remember_while_unchanged(dependencies.imports.__wrapped__)
        patch.setattr(dependencies, "imports", imports)
        digest = _remember_while_unchanged(provenance.module_digest.__wrapped__)
        patch.setattr(provenance, "module_digest", digest)
        patch.setattr(provenance, "code_hash", provenance.code_hash.__wrapped__)
        yield copy
    dependencies.module_file.cache_clear()


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Iterator[Path]:
    with copied_library(tmp_path_factory.mktemp("library")) as copy:
        yield copy


def products() -> dict[str, tuple[str, ...]]:
    """The modules that make each product, where a product is anything that is hashed or redrawn."""
    registry = load_registry()
    roots_of_product: dict[str, set[tuple[str, ...]]] = {}
    for task, _ in RUN_RULES.values():
        roots_of_product[f"runs of {task}"] = {(f"tasks.{task}",)}
    for rule, modules in RULE_MODULES.items():
        roots_of_product[rule] = {modules}
    roots_of_product["claims"] = {registry.claim_modules()}
    for artifact in registry.artifacts.values():
        if artifact.table == "claim":
            name = f"tables of {registry.claims[artifact.id].module} claims"
            roots_of_product.setdefault(name, set()).add(registry.table_modules(artifact))
        elif artifact.has_table:
            roots_of_product.setdefault("tables", set()).add(registry.table_modules(artifact))
        if artifact.has_figure:
            name = f"{artifact.paper} figures"
            roots_of_product.setdefault(name, set()).add(registry.figure_modules(artifact))
    assert all(len(roots) == 1 for roots in roots_of_product.values())
    return {name: roots.pop() for name, roots in sorted(roots_of_product.items())}


def hashes(made_by: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: provenance.code_hash(*modules) for name, modules in made_by.items()}


def effects(library: Path) -> dict[str, list[str]]:
    """For each module, the products whose hash changes if a statement is added to the module."""
    made_by = products()
    before = hashes(made_by)
    changed: dict[str, list[str]] = {}
    for module in dependencies.all_modules():
        with edited(module, STATEMENT):
            after = hashes(made_by)
        changed[module] = [name for name in made_by if after[name] != before[name]]
    return changed


@contextmanager
def edited(module: str, addition: str) -> Iterator[None]:
    """A context in which the module's file has this text at its end."""
    path = dependencies.module_file(module)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + addition, encoding="utf-8")
    yield
    path.write_text(text, encoding="utf-8")


def listing(changed: Mapping[str, list[str]]) -> str:
    """The content of dependencies.txt."""
    lines = [
        f"{module}: {', '.join(names) if names else 'nothing'}" for module, names in changed.items()
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def changed(library) -> dict[str, list[str]]:
    return effects(library)


def test_a_statement_in_a_module_changes_what_the_list_says(changed):
    renew = "python -m tests.unit.test_dependencies > tests/unit/dependencies.txt"
    expected = EXPECTED.read_text().splitlines()
    assert listing(changed).splitlines() == expected, f"if this is meant, renew the list: {renew}"


def test_what_is_redrawn_is_what_changes_hash(library, changed):
    """Snakemake redraws an artifact if one of its rule's input files is newer, and tables show the
    hash; both have to follow from the same modules."""
    for name, modules in products().items():
        paths = dependencies.files(modules)
        expected = [module for module in changed if name in changed[module]]
        assert sorted(paths) == sorted(map(dependencies.module_file, expected)), name


WITHOUT_EFFECT = """
import math
from collections import OrderedDict

if TYPE_CHECKING:
    from ghostgrad.training import probes

# A comment.

"""


def test_imports_comments_and_empty_lines_are_not_hashed(library):
    made_by = products()
    before = hashes(made_by)
    for module in dependencies.all_modules():
        with edited(module, WITHOUT_EFFECT):
            assert hashes(made_by) == before, module


class _Rewriter(ast.NodeTransformer):
    """Changes docstrings and drops annotations."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Another docstring."))
        return node

    visit_Module = visit_ClassDef = _body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.returns = None
        arguments = node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            argument.annotation = None
        return self._body(node)


def test_docstrings_annotations_and_layout_are_not_hashed(library):
    """Each module is replaced by what `ast.unparse` makes of its syntax tree, with changed
    docstrings and without the annotations of its functions. The result has no comments and other
    line breaks."""
    made_by = products()
    before = hashes(made_by)
    for module in dependencies.all_modules():
        path = dependencies.module_file(module)
        text = path.read_text(encoding="utf-8")
        tree = _Rewriter().visit(ast.parse(text))
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
        after = hashes(made_by)
        path.write_text(text, encoding="utf-8")
        assert after == before, module


def test_a_new_dependency_is_hashed(library):
    """An import changes no digest of its module, but it adds the digest of another one."""
    made_by = {"runs of sample": products()["runs of sample"]}
    assert "training.probes" not in dependencies.dependencies("tasks.sample")
    before = hashes(made_by)
    with edited("tasks.sample", "\nfrom ghostgrad.training import probes\n"):
        assert hashes(made_by) != before
    assert hashes(made_by) == before


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary, copied_library(Path(temporary)) as copy:
        sys.stdout.write(listing(effects(copy)))
