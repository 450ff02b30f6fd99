"""`snakemake --profile slurm` in the project's root: the whole workflow at smoke scale."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Checkout
from tests.slurm.conftest import count_calls

pytestmark = pytest.mark.slurm


@pytest.fixture
def project(tmp_path, slurm) -> Checkout:
    checkout = Checkout(tmp_path / "checkout")
    checkout.env |= count_calls(tmp_path, slurm)
    return checkout


def test_everything_at_smoke_scale(project, tmp_path):
    """All artifacts exist, with few calls of Slurm; then nothing is left to do in any profile."""
    done = project.snakemake("--profile", "slurm", "--config", "scale=smoke")
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r" runs to do, .*\(ghostgrad plan\)", done.stdout), done.stdout[-5000:]
    assert project.path("results/smoke/artifacts.csv").exists()
    calls = [line.split()[1] for line in (tmp_path / ".calls").read_text().splitlines()]
    assert calls.count("sbatch") <= 30
    assert project.planned_jobs("--config", "scale=smoke") == {}


def test_the_profile_names_the_scale(project):
    """The profile sets it in a configuration file, so that --config can still override it."""
    output = project.snakemake("--profile", "slurm", "-n", "cpu").stdout
    assert "simulate   paper/plainnet_init/relu-bn-s0 " in output
    assert "gpu=0 mem_mb=1500 runtime=" in output
    output = project.snakemake("--profile", "slurm", "-n", "cpu", "--config", "scale=smoke").stdout
    assert "simulate   smoke/plainnet_init/relu-bn-s0 " in output
