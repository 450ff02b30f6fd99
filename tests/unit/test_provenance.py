"""What a run records of the code and the machine that computed it."""

from __future__ import annotations

import subprocess

from ghostgrad.runs.provenance import environment, task_hash
from tests.conftest import ROOT


def test_a_process_records_the_commit_that_it_runs():
    """What tidy rows name; a tree without git has none."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    found = environment("simulate", "cpu")
    assert found["commit"] == (done.stdout.strip() or None)
    assert found["code"] == task_hash("simulate") != task_hash("classify")
