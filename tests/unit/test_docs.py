"""The README shows what was measured, the documentation names files and functions that exist, and
its examples work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from ghostgrad.claims.comparison import CONFIDENCE, FAMILY_SIZE, REFUTATION_ERROR, RESOLUTION
from ghostgrad.registry.registry import WORKFLOW, Registry
from ghostgrad.registry.verdict import PROVENANCE, VERDICTS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_numbers_are_those_of_the_snapshot():
    """Every row of the README's table is also in the built table of ghost.fig5."""
    table = (ROOT / "docs/snapshots/paper/tables/ghost.fig5.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| ((?:[\d.]+\\\*|–) / .*?) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for label, cell in rows:
        assert f"| {label} | {cell} |" in table


# Page -> the least numbers of links and of paths that it has. If a pattern below found fewer, it
# would no longer match, and the test would establish nothing.
COUNTS = {
    "README.md": (12, 0),
    "CONTRIBUTING.md": (3, 40),
    "docs/architecture.md": (4, 10),
    "docs/experiments.md": (1, 1),
    "docs/performance.md": (0, 5),
    "docs/slurm.md": (1, 4),
    "docs/verdicts.md": (0, 6),
    "executor/README.md": (3, 0),
    "CHANGELOG.md": (0, 2),
}
PAGES = tuple(COUNTS)


def prose(page: str) -> str:
    """The text of a page without its code blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_verdicts_has_every_word_with_its_sign():
    text = (ROOT / "docs/verdicts.md").read_text(encoding="utf-8")
    for word, sign in (VERDICTS | PROVENANCE).items():
        row = rf"^\| {re.escape(word)} \| ?{re.escape(sign)} ?\|"
        assert re.search(row, text, re.MULTILINE), word
    assert f"fewer than {FAMILY_SIZE:,} of them" in text
    assert f"an error of {100 * REFUTATION_ERROR:g} %" in text
    assert f"one-sided {100 * CONFIDENCE:g} % interval" in text
    assert f"within {100 * RESOLUTION:g} % of the number" in text


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    links = re.findall(r'(?:src="|\]\()([^)"]+)', prose(page))
    assert len(links) >= COUNTS[page][0]
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
    """Exempt are names with a placeholder, such as `<paper>`, and files that an example creates."""
    folders = "ghostgrad|workflow|tests|docs|executor|slurm|benchmarks"
    names = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(page))
    commands = re.findall(r"`pytest ([\w./ -]+)`", prose(page))
    names += [word for command in commands for word in command.split() if word != "-q"]
    assert len(names) >= COUNTS[page][1]
    text = (ROOT / page).read_text(encoding="utf-8")
    made = re.findall(r"`([\w./-]+)`:\n\n```python", text)
    places = (ROOT, ROOT / "workflow")
    missing = [name for name in names if not any((place / name).exists() for place in places)]
    assert set(missing) <= set(made)


def test_every_function_in_the_story_of_a_run_exists():
    """Each function is defined in one of the modules that its row names."""
    _, _, rest = prose("CONTRIBUTING.md").partition("## One run, from YAML to table")
    text = rest.partition("\n## ")[0]
    rows = [row.strip("|").split("|") for row in re.findall(r"^\| \d+\. .*$", text, re.MULTILINE)]
    assert len(rows) > 10
    for step, modules, names in rows:
        files = [WORKFLOW / "ghostgrad" / name for name in re.findall(r"`([\w/]+\.py)`", modules)]
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        functions = re.findall(r"`(\w+)`", names)
        assert files and functions, step
        for name in functions:
            assert re.search(rf"^ *(?:def|class) {name}\b", code, re.MULTILINE), (step, name)


def merged(into: dict, block: dict) -> dict:
    """Add `block` to the nested mapping `into`, in place, and return it."""
    for key, value in block.items():
        into[key] = merged(into.get(key, {}), value) if isinstance(value, dict) else value
    return into


def test_the_examples_of_adding_an_experiment_work(tmp_path):
    """Both YAML blocks of docs/experiments.md, pasted into the registry, give the runs and
    artifacts that the page describes."""
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
