"""One smoke-scale build that every workflow test starts from a copy of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Checkout

FINISHED = "results/smoke"


@pytest.fixture(scope="session")
def built_once(tmp_path_factory, worker_id) -> Path:
    """A checkout in which `snakemake --config scale=smoke` has run."""
    checkout = Checkout(tmp_path_factory.mktemp(f"built-{worker_id}") / "checkout")
    checkout.edit("config.yaml", "scale: laptop", "scale: smoke")
    checkout.build()
    return checkout.folder


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Checkout:
    """A copy of it, with its results, metadata and modification times."""
    shutil.copytree(built_once, tmp_path / "built", symlinks=True)
    checkout = Checkout.__new__(Checkout)
    checkout.adopt(tmp_path / "built")
    return checkout
