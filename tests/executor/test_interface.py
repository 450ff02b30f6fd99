"""The plugin as Snakemake sees it: the test class for executor plugins, the command line, what an import costs."""

from __future__ import annotations

import subprocess
import sys

import snakemake.common.tests

from snakemake_executor_plugin_submitit import ExecutorSettings


class TestLocal(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """Snakemake's own, on this machine."""

    __test__ = True

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="local", status_seconds=1)


def test_every_setting_is_in_the_help():
    """A percent sign in one of them would break `snakemake --help` for everybody who has installed the plugin."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    for name in ExecutorSettings.__dataclass_fields__:
        assert f"--submitit-{name.replace('_', '-')}" in done.stdout


def test_the_import_is_light():
    """Every start of Snakemake imports every plugin: nothing of submitit, nor of ours that only a submission needs."""
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
