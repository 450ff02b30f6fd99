"""`make help` names every target, and `make check` leaves out the slow tests."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def test_help_lists_every_target_with_its_text():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = dict(re.findall(r"^make (\S+) +(\S.*)$", done.stdout, re.MULTILINE))
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    assert sorted(listed) == sorted(targets)


def test_every_target_exists():
    for target in re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split():
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_check_runs_the_quick_unit_tests():
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0]
    assert '-m "not slow and not long" tests/unit' in recipe
