"""What a run records of the code and the machine that computed it."""

from __future__ import annotations

import os
import platform
import subprocess

import numpy as np
import torch

from ghostgrad.runs import provenance
from ghostgrad.runs.provenance import environment, task_hash
from tests.conftest import ROOT


def test_a_process_records_the_commit_that_it_runs():
    """Tidy rows name this commit, and whether a tracked file differs from it. Both are None in a
    tree without git."""
    head = git("rev-parse", "HEAD")
    recorded = environment("simulate", "cpu")
    assert recorded["commit"] == (head.strip() or None)
    changes = git("status", "--porcelain", "--untracked-files=no")
    assert recorded["dirty"] == (bool(changes) if head else None)
    assert recorded["code"] == task_hash("simulate") != task_hash("classify")


def git(*arguments: str) -> str:
    """What git prints of this checkout; nothing in a tree without git."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_a_process_is_dirty_if_git_lists_a_changed_file(monkeypatch):
    """The commit alone does not identify the code of such a process."""
    for status, expected in ((" M workflow/ghostgrad/rng.py", True), ("", False), (None, None)):
        monkeypatch.setattr(provenance, "_git", lambda *words, s=status: words and s)
        assert environment("simulate", "cpu")["dirty"] is expected


def test_a_process_records_its_machine_and_its_packages(monkeypatch):
    """The device is that of the run, and the job is that of Slurm if there is one."""
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    recorded = environment("simulate", "a device")
    assert (recorded["device"], recorded["job"]) == ("a device", "42")
    assert recorded["host"] == platform.node()
    assert recorded["machine"].endswith(f", {os.cpu_count()} cores")
    versions = recorded["packages"]
    assert torch.__version__.startswith(versions["torch"])  # may add the version of CUDA
    assert versions["numpy"] == np.__version__
    assert None not in versions.values()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert environment("simulate", "cpu")["job"] is None
