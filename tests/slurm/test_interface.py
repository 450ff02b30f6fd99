"""Snakemake's test class for executor plugins, on Slurm."""

from __future__ import annotations

import pytest
import snakemake.common.tests

from snakemake_executor_plugin_submitit import ExecutorSettings

pytestmark = pytest.mark.slurm


class TestSlurm(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """Snakemake's own tests of executor plugins, with the Slurm of the tests."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def on_slurm(self, slurm, monkeypatch):
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, slurm.env[name])

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="slurm", status_seconds=2)
