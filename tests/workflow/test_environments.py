"""`--software-deployment-method conda`: jobs compute with the environment that Snakemake makes.

The conda here is a stand-in that makes an environment whose Python notes each call in a file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import Checkout

CONDA = """#!/bin/sh
case "$1 $2" in
  "info --json") echo '{{"conda_prefix": "{prefix}", "platform": "linux-64"}}' ;;
  "env create"*)
    for argument; do
      case "$last" in --prefix) environment="$argument" ;; esac
      last="$argument"
    done
    mkdir -p "$environment/bin"
    printf '%s\\n' '#!/bin/sh' 'echo "$*" >> "$CONDA_PREFIX/calls"' 'exec {python} "$@"' \\
      > "$environment/bin/python3"
    chmod +x "$environment/bin/python3" ;;
  "config --get") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
  "--version "*) echo "conda 26.1.0" ;;
esac
"""
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


@pytest.fixture
def with_conda(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A checkout beside an installed conda."""
    prefix = tmp_path / "conda"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/conda").write_text(CONDA.format(prefix=prefix, python=sys.executable))
    (prefix / "bin/conda").chmod(0o755)
    (prefix / "bin/activate").write_text(ACTIVATE)
    checkout.env["PATH"] = f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return checkout


def test_a_job_runs_this_checkouts_library_in_its_environment(with_conda: Checkout):
    target = "results/smoke/tables/ghost.eq1.csv"
    with_conda.edit(
        "workflow/ghostgrad/cli/commands.py",
        "def main() -> None:",
        "def main() -> None:\n    print('mark')",
    )
    with_conda.build(target, "--config", "scale=smoke", "--software-deployment-method", "conda")
    calls = [path.read_text() for path in with_conda.path(".snakemake/conda").glob("*/calls")]
    assert len(calls) == 1, "tables need the environment of the report alone"
    assert str(with_conda.path("workflow/scripts/ghostgrad")) + " table ghost.eq1" in calls[0]
    assert "mark" in with_conda.path("results/smoke/logs/tables/ghost.eq1.log").read_text()


def test_the_environments_are_those_of_the_rules(with_conda: Checkout):
    """Snakemake reads the files of the environments and creates none."""
    listed = with_conda.snakemake("--list-conda-envs", "--config", "scale=smoke")
    names = ("envs/train.yaml", "envs/report.yaml")
    assert all(name in listed.stdout for name in names)
