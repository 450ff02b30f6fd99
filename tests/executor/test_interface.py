"""The plugin as Snakemake sees it: its test class, its command line, and the cost of an import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import fields

import snakemake.common.tests
import yaml

from snakemake_executor_plugin_submitit import ExecutorSettings
from tests.conftest import ROOT


class TestLocal(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """Snakemake's own tests of executor plugins, with the local cluster."""

    __test__ = True

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="local", status_seconds=1)


def test_every_setting_is_in_the_help():
    """A percent sign in a help text would break `snakemake --help` for every user of the plugin."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    for name in ExecutorSettings.__dataclass_fields__:
        assert f"--submitit-{name.replace('_', '-')}" in done.stdout


def test_the_readme_lists_every_setting_with_its_default():
    readme = (ROOT / "executor" / "README.md").read_text()
    defaults = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            defaults |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1])
    for field in fields(ExecutorSettings):
        default = f"`{field.default}`" if field.default != "" else "none"
        name = field.name.replace("_", "-")
        if name != "logdir":  # its default is a folder inside that of another setting
            assert defaults.get(name) == default, name


def test_the_slurm_profile_preloads_what_exists():
    """A task only warns about a module or function that it cannot load."""
    profile = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
    for name in profile["submitit-preload"].split(","):
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_import_is_light():
    """Importing the plugin loads neither submitit nor the modules that use it.

    Snakemake imports all plugins at every start, also for workflows without a cluster.
    """
    code = "import sys, snakemake_executor_plugin_submitit; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {
        name
        for name in loaded
        if name.split(".")[0] in ("submitit", "cloudpickle", "snakemake", "pandas")
    }
    ours = {
        name.rpartition(".")[2]
        for name in loaded
        if name.startswith("snakemake_executor_plugin_submitit.")
    }
    assert ours == {"executor", "settings"}
