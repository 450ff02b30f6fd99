"""What a run records of the code and the machine that computed it."""

from __future__ import annotations

import subprocess

from ghostgrad.runs.provenance import environment, task_hash
from tests.conftest import ROOT


def test_a_process_records_the_commit_that_it_runs():
    """Tidy rows name this commit. It is None in a tree without git."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    recorded = environment("simulate", "cpu")
    assert recorded["commit"] == (done.stdout.strip() or None)
    assert recorded["code"] == task_hash("simulate") != task_hash("classify")
