"""What the README shows is what was measured, and what the documentation tells to write works."""

from __future__ import annotations

import re
import shutil

import yaml

from ghostgrad.registry.registry import WORKFLOW, Registry
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_numbers_are_those_of_the_snapshot():
    """Every row of its table stands in the built table of ghost.fig5."""
    table = (ROOT / "docs/snapshots/paper/tables/ghost.fig5.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| ([\d.]+ / .*?) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for label, cell in rows:
        assert f"| {label} | {cell} |" in table


def test_every_file_that_the_readme_names_exists():
    names = re.findall(r'(?:src="|\]\()([^)"#]+)', README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def merged(into: dict, block: dict) -> dict:
    """`block` added to nested mappings."""
    for key, value in block.items():
        into[key] = merged(into.get(key, {}), value) if isinstance(value, dict) else value
    return into


def test_the_examples_of_adding_an_experiment_work(tmp_path):
    """Both blocks of docs/experiments.md, pasted into the registry."""
    text = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    for folder in ("experiments", "claims"):
        shutil.copytree(WORKFLOW / folder, tmp_path / folder)
    for paper, block in zip(("ghost", "lalc"), blocks, strict=True):
        path = tmp_path / "experiments" / f"{paper}.yaml"
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(merged(body, block), sort_keys=False), encoding="utf-8")
    before, after = Registry(), Registry(tmp_path)
    added = {run.id for run in after.runs("laptop")} - {run.id for run in before.runs("laptop")}
    assert added == {"plainnet_init/gelu-bn-s0", "layernorm_init/relu-s0", "layernorm_init/gelu-s0"}
    assert "GELU + BN" in [cell.row for cell in after.artifact("ghost.fig5").cells]
    assert after.artifact("lalc.layernorm").table == "growth_rates"
