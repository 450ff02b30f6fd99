"""One smoke-scale build that every workflow test starts from a copy of."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest

from tests.conftest import Checkout


@pytest.fixture(scope="session")
def built_once(tmp_path_factory, worker_id) -> Path:
    """A checkout in which `snakemake --config scale=smoke` has run; parallel test processes
    share it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with (shared / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "built"
        if not (folder / "complete").exists():
            checkout = Checkout(folder)
            checkout.edit("config.yaml", "scale: laptop", "scale: smoke")
            checkout.build()
            (folder / "complete").touch()
    return folder


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Checkout:
    """A copy of the built checkout, with its results, metadata and modification times."""
    shutil.copytree(built_once, tmp_path / "built", symlinks=True)
    checkout = Checkout.__new__(Checkout)
    checkout.adopt(tmp_path / "built")
    return checkout
