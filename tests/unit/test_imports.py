"""Which modules may import which. Looking at results must be quick and work on a login node without
torch, which new processes show. The layers of the library are checked on its import statements."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ghostgrad
from ghostgrad import dependencies
from ghostgrad.registry.registry import Registry
from tests.conftest import ROOT
from tests.unit.fabricate import publish

HEAVY = ("torch", "torchvision", "pandas", "scipy.stats")
CONFIG = "scale: smoke\nstate_dir: state\ndata: {cifar10: }\n"


def loaded(code: str) -> tuple[list[str], str]:
    """Which of HEAVY a new interpreter has loaded after `code`, and what it printed."""
    report = f"print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    # A new process: in this one the other tests have loaded everything.
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output, _, names = done.stdout.rpartition("loaded:")
    return names.split(), output


def test_the_check_sees_an_import():
    """`ghostgrad.tasks.simulate` is known to need torch. If its import went unnoticed here, the
    tests below would establish nothing."""
    assert "torch" in loaded("import ghostgrad.tasks.simulate")[0]


MODULES = (
    "analysis.tidy",
    "checks",
    "cli.commands",
    "cli.estimates",
    "cli.lock",
    "dependencies",
    "registry.config",
    "registry.reference",
    "registry.registry",
    "report.overview",
    "report.render",
    "runs.provenance",
    "runs.record",
    "runs.state",
    "tasks.run",
)


def test_reading_modules_load_neither_torch_nor_pandas():
    """All of them are imported in one process. If it loads none of HEAVY, none of the modules does
    so, directly or through another one."""
    code = "\n".join(f"import ghostgrad.{name}" for name in MODULES)
    assert loaded(code)[0] == []


def test_tables_load_no_torch():
    """Tables are made where torch need not be installed, and by a hundred processes, to each of
    which the import of scipy.stats alone would add a second."""
    modules = (
        "report.tables",
        "analysis.measures",
        "analysis.results",
        "theory",
        "claims.lalc",
        "claims.bnres",
        "claims.ghost",
    )
    seeds = (
        "import numpy\nfrom ghostgrad.claims import comparison\n"
        "comparison.over_seeds('', numpy.arange(3.0), 1.0)\n"
    )
    names, _ = loaded(seeds + "\n".join(f"import ghostgrad.{name}" for name in modules))
    assert names == ["pandas"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a finished run, a begun one, and a table."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    reg = Registry()
    publish(reg.run("smoke", "plainnet_init/relu-bn-s0"), code="c0de0001")
    Path("results/smoke/tables").mkdir()
    Path("results/smoke/tables/ghost.eq1.csv").write_text(
        "row,provenance,verdict\nReLU,printed,holds\n"
    )
    return tmp_path


COMMANDS = {
    "status": (["status", "--runs"], "1 holds"),
    "plan": (["plan"], "bnres.tab1"),
    "show --runs": (["show", "ghost.fig5", "--runs"], "c0de0001"),
    "show of a built table": (["show", "ghost.eq1", "--csv"], "ReLU,printed,holds"),
    "unlock": (["unlock"], "nothing is locked"),
    "forget": (
        ["forget", "plainnet_init/relu-bn-s0"],
        "deleted results/smoke/runs/plainnet_init/relu-bn-s0",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_commands_that_read_load_neither_torch_nor_pandas(folder, arguments, expected):
    """They are run many times an hour beside a build, and on login nodes."""
    code = f"from ghostgrad.cli.commands import app\napp({arguments!r}, standalone_mode=False)"
    names, output = loaded(code)
    assert names == []
    assert expected in output


def layers() -> list[str]:
    """The modules and packages in the order of the package's docstring."""
    lines = [line for line in ghostgrad.__doc__.splitlines() if line.startswith("    ")]
    return [line.split()[0] for line in lines]


LAYERS = layers()
MODULES_OF_ALL = dependencies.all_modules()
COMPUTING = ("data", "models", "training", "tasks")
READING = ("analysis", "claims", "figures", "report", "theory")


def layer(module: str) -> str:
    return module.partition(".")[0]


def test_the_docstring_lists_every_module_and_package():
    assert sorted(LAYERS) == sorted({layer(module) for module in MODULES_OF_ALL})


@pytest.mark.parametrize("module", MODULES_OF_ALL)
def test_a_module_imports_only_from_its_own_layer_and_those_above(module):
    allowed = set(LAYERS[: LAYERS.index(layer(module)) + 1])
    assert {layer(name) for name in dependencies.imports(module)} <= allowed


@pytest.mark.parametrize("module", [name for name in MODULES_OF_ALL if layer(name) in COMPUTING])
def test_what_computes_never_learns_which_runs_exist(module):
    assert not dependencies.imports(module) & {"registry.registry", "registry.experiment"}


@pytest.mark.parametrize("module", [name for name in MODULES_OF_ALL if layer(name) in READING])
def test_what_reads_results_never_touches_what_computes_them(module):
    assert not {layer(name) for name in dependencies.imports(module)} & set(COMPUTING)


def test_modules_import_each_other_in_no_circle():
    """There is no circle within a layer either."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join((*path, module))
        if module not in done:
            for name in dependencies.imports(module):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES_OF_ALL:
        visit(module, ())


def test_imports_are_seen_anywhere_in_a_module():
    assert {"tasks.blocks", "runs.state", "models.init"} <= dependencies.imports("tasks.simulate")
    assert "tasks.run" in dependencies.imports("cli.commands"), "imports inside functions count"
    assert "training.distributed" in dependencies.imports("tasks.run")
    assert "torch" not in dependencies.imports("rng"), "only the library's own modules"


@pytest.mark.parametrize("module", MODULES_OF_ALL)
def test_no_import_is_relative(module):
    """`dependencies.imports` does not follow relative imports, so that one would escape the tests
    above and the hash of the code."""
    tree = dependencies.parse(module)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [ast.unparse(node) for node in statements if node.level]


def test_imports_for_annotations_do_not_count(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ghostgrad import b\n"
    )
    (tmp_path / "b.py").write_text("")
    monkeypatch.setattr(dependencies, "PACKAGE", tmp_path)
    for cached in (dependencies.imports, dependencies.parse, dependencies.module_file):
        monkeypatch.setattr(dependencies, cached.__name__, cached.__wrapped__)
    assert dependencies.imports("a") == set()
