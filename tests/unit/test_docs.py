"""What the README shows is what was measured."""

from __future__ import annotations

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_numbers_are_those_of_the_snapshot():
    """Every row of its table stands in the built table of ghost.fig5."""
    table = (ROOT / "docs/snapshots/laptop/tables/ghost.fig5.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| ([\d.]+ / .*?) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for label, cell in rows:
        assert f"| {label} | {cell} |" in table


def test_every_file_that_the_readme_names_exists():
    names = re.findall(r'(?:src="|\]\()([^)"#]+)', README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
