"""Looking at results is quick and works on a login node without torch: what may import what, each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ghostgrad.registry import Registry
from tests.conftest import ROOT
from tests.unit.fabricate import publish

HEAVY = ("torch", "torchvision", "pandas")
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


MODULES = ("registry", "record", "tidy", "render", "overview", "checks", "controller", "state", "run", "cli")


def test_reading_modules_load_neither_torch_nor_pandas():
    """All of them in one process, so that none drags it in through another."""
    code = "\n".join(f"import ghostgrad.{name}" for name in MODULES)
    assert loaded(code)[0] == []


def test_tables_load_no_torch():
    """Tables are made where torch need not be installed."""
    names, _ = loaded("import ghostgrad.tables, ghostgrad.measures, ghostgrad.results, ghostgrad.theory")
    assert names == ["pandas"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a finished run, a begun one, and a table."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    reg = Registry()
    publish(reg.run("smoke", "plainnet_init/relu-bn-s0"))
    Path("results/smoke/tables").mkdir()
    Path("results/smoke/tables/ghost.eq1.csv").write_text("row,verdict\nReLU,match\n")
    return tmp_path


COMMANDS = {
    "status": (["status", "--runs"], "1 match"),
    "plan": (["plan"], "resnet15_cifar"),
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
