"""Looking at results is quick and works on a login node without torch: what may import what, each in a new process."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ghostgrad.record import NUMERIC_MODULES
from ghostgrad.registry import Registry
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
    """`ghostgrad.simulate` is known to need torch: were it not seen here, the tests below would hold nothing."""
    assert "torch" in loaded("import ghostgrad.simulate")[0]


MODULES = (
    "registry",
    "record",
    "tidy",
    "render",
    "overview",
    "checks",
    "controller",
    "state",
    "run",
    "estimates",
    "cli",
)


def test_reading_modules_load_neither_torch_nor_pandas():
    """All of them in one process, so that none drags it in through another."""
    code = "\n".join(f"import ghostgrad.{name}" for name in MODULES)
    assert loaded(code)[0] == []


def test_tables_load_no_torch():
    """Tables are made where torch need not be installed, in a hundred processes: scipy.stats alone takes a second."""
    modules = ("tables", "measures", "results", "theory", "claims.lalc", "claims.bnres", "claims.ghost")
    seeds = "import numpy\nfrom ghostgrad.claims import comparison\ncomparison.over_seeds('', numpy.arange(3.0), 1.0)\n"
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
    Path("results/smoke/tables/ghost.eq1.csv").write_text("row,verdict\nReLU,match\n")
    return tmp_path


COMMANDS = {
    "status": (["status", "--runs"], "1 match"),
    "plan": (["plan"], "bnres.tab1"),
    "show --runs": (["show", "ghost.fig5", "--runs"], "c0de0001"),
    "show of a built table": (["show", "ghost.eq1", "--csv"], "ReLU,match"),
    "unlock": (["unlock"], "nothing is locked"),
    "forget": (["forget", "plainnet_init/relu-bn-s0"], "deleted results/smoke/runs/plainnet_init/relu-bn-s0"),
}


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_commands_that_read_load_neither_torch_nor_pandas(folder, arguments, expected):
    """They are run many times an hour beside a build, and on login nodes."""
    code = f"from ghostgrad.cli import app\napp({arguments!r}, standalone_mode=False)"
    names, output = loaded(code)
    assert names == []
    assert expected in output


# What may import what (docs/architecture.md): a module imports from its own room or an earlier one, what computes never
# learns of the registry, and what reads results never touches what computes them.
ROOMS = (
    ("checks", "controller"),
    ("spec", "crops", "consistency", "functions", "ledger", "experiment", "registry"),
    ("record", "rng", "init", "optim", "orthogonal", "schedules", "models", "theory"),
    ("state", "archives", "folders", "coco", "scenes", "data", "resized", "probes", "repeats"),
    ("parallel", "per_sample", "batches", "engine"),
    ("simulate", "sample", "initialize", "weights", "classify", "detect"),
    ("run",),
    ("tidy", "results", "measures", "claims", "render", "tables", "figures", "overview"),
    ("inspection",),
    ("estimates",),
    ("planning", "calibrate"),
    ("cli",),
)
COMPUTING = {*ROOMS[3], *ROOMS[4], *ROOMS[5], "crops", "rng", "init", "optim", "orthogonal", "schedules", "models"}
READING = {*ROOMS[7], "theory"}
LIBRARY = ROOT / "workflow" / "ghostgrad"


def own_imports(module: str) -> set[str]:
    """The modules of ours that a module or package imports, at its top or inside a function."""
    path = LIBRARY / f"{module}.py"
    found = set()
    for file in [path] if path.exists() else (LIBRARY / module).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("ghostgrad.")} & {m for room in ROOMS for m in room}


# What a task imports though no number of it hangs on that.
UNRELATED = {"initialize": {"coco", "scenes"}, "classify": {"coco", "scenes"}, "detect": {"orthogonal"}}


@pytest.mark.parametrize("task", sorted({*ROOMS[5]}))
def test_the_code_hash_covers_what_a_tasks_numbers_hang_on(task):
    """All that it imports of what computes, and what that imports."""
    seen, left = set(), {task}
    while left:
        module = left.pop()
        seen.add(module)
        left |= (own_imports(module) & COMPUTING) - seen
    assert seen - {"state", "archives"} - UNRELATED.get(task, set()) <= set(NUMERIC_MODULES[task])
    assert {name for module in seen for name in own_imports(module)} & set(ROOMS[1]) <= {"spec", "crops"}


def test_every_module_has_its_room():
    modules = {path.stem for path in LIBRARY.iterdir() if not path.name.startswith("__")}
    assert modules == {module for room in ROOMS for module in room}


@pytest.mark.parametrize("module", [module for room in ROOMS for module in room])
def test_modules_import_from_their_own_room_or_an_earlier_one(module):
    place = next(index for index, room in enumerate(ROOMS) if module in room)
    imported = own_imports(module)
    assert imported <= {name for room in ROOMS[: place + 1] for name in room}
    if module in COMPUTING:
        assert not imported & {"registry", "experiment"}
    if module in READING:
        assert not imported & (COMPUTING | {"run"})


def test_the_import_check_sees_imports():
    assert {"repeats", "state", "init"} <= own_imports("simulate")
    assert "style" not in own_imports("figures"), "a package's own modules are its own matter"
    assert {"results", "registry"} <= own_imports("figures")
    assert "run" in own_imports("cli"), "imports inside functions count"
