"""Snakemake's own tests of workflows on a cluster, from its source distribution.

This plugin takes the place of the generic one whose submit command they name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.slurm.conftest import missing, running_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.long]

FILES = ("tests/tests.py", "tests/test_logging.py")
COUNTS = "reads the log that its submit command writes, one line per submission"
CANNOT = {  # test -> why it cannot pass through this plugin
    "test_global_resource_limits_limit_scheduling_of_groups": COUNTS,
    "test_new_resources_can_be_defined_as_local": COUNTS,
    "test_resource_prefix_does_not_affect_scope_overwrite": COUNTS,
    "test_resources_can_be_overwritten_as_global": COUNTS,
    "test_string_resources": "asks for a model of GPU that the test cluster does not have",
    "test_nodelocal": "its submit command gives each job its own file system",
}

# A pytest plugin: "cluster-generic" means submitit, and only tests with `cluster=` are kept.
INSTEAD = """
import inspect, re
from dataclasses import dataclass, field
import snakemake_executor_plugin_submitit as ours
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

@dataclass
class Settings(ours.ExecutorSettings):
    submit_cmd: str | None = field(default=None, metadata={"help": "not used"})
    status_cmd: str | None = field(default=None, metadata={"help": "not used"})
    def __post_init__(self):
        self.cluster, self.status_seconds = "slurm", 2
        super().__post_init__()

class Module:
    ExecutorSettings, Executor, common_settings = Settings, ours.Executor, ours.common_settings

registry = ExecutorPluginRegistry()
registry.plugins.pop("cluster-generic", None)
registry.register_plugin("snakemake_executor_plugin_cluster_generic", Module)

def pytest_collection_modifyitems(items):
    uses_cluster = re.compile(r"^ *[^#\\n]*\\bcluster=", re.MULTILINE)
    items[:] = [item for item in items if uses_cluster.search(inspect.getsource(item.function))]
"""


@pytest.fixture
def source(tmp_path) -> Path:
    """The source distribution of the Snakemake version that is installed."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    download = [uv, "tool", "run", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*download, f"snakemake=={version('snakemake')}"], cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("snakemake-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    theirs = ["snakemake-storage-plugin-fs", "sysrsync", "pytest-mock"]
    subprocess.run([uv, "pip", "install", "--no-deps", "--target", folder, *theirs], check=True)
    (folder / "instead.py").write_text(INSTEAD)
    return folder


def test_the_cluster_tests_of_snakemake(source, tmp_path):
    if reason := missing("rsync"):
        pytest.skip(reason)
    plugins = ["-p", "instead", "-p", "pytest_mock", "-p", "no:xdist"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        "-m",
        "not needs_s3",
        "-q",
        "-rA",
        "--tb=short",
        *FILES,
    ]
    with running_cluster(tmp_path / "slurm", CPUS="8", MEM="200000") as slurm:
        env = {**os.environ, **{name: slurm.env[name] for name in ("SLURM_CONF", "PATH")}}
        env |= {"PYTHONPATH": str(source), "JOBID": "1"}  # JOBID is set by their submit command
        done = subprocess.run(
            command, cwd=source, env=env, capture_output=True, text=True, check=False
        )
    print(*re.findall(r"^(?:PASSED|FAILED|SKIPPED|ERROR) .*$", done.stdout, re.MULTILINE), sep="\n")
    assert len(re.findall(r"^PASSED", done.stdout, re.MULTILINE)) >= 30
    assert set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE)) == set(
        CANNOT
    )
