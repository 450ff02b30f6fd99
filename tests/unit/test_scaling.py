"""No title of a scaled result lets digits pass for CIFAR-10, ImageNet or COCO."""

from __future__ import annotations

import pytest

from ghostgrad.registry.datasets import DATA_SETS
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.scaling import (
    DATA_NAMES,
    column_headings,
    describe_scaling,
    scaled_title,
)
from ghostgrad.registry.spec import SCALES
from tests.unit.fabricate import BUILT, CLASSIFY, experiment, registry

REGISTRY = Registry()


def test_every_data_set_has_a_name_for_titles():
    assert DATA_NAMES.keys() == DATA_SETS.keys()


@pytest.mark.parametrize("scale", SCALES)
def test_the_title_of_every_scaled_artifact_says_so(scale):
    """The data, size, width, batch and length that a scale changes are in the title; an artifact
    that is not scaled has its own title."""
    for artifact in REGISTRY.artifacts.values():
        changed = {
            key: value
            for cell in artifact.cells
            if REGISTRY.cell_runs(scale, cell)
            for key, value in REGISTRY.experiments[cell.experiment]
            .scaled(cell.variant, scale)
            .items()
        }
        title = scaled_title(REGISTRY, artifact, scale)
        if not changed:
            assert title == artifact.title
            continue
        assert title.startswith(f"{artifact.title}, measured ")
        words = title.removeprefix(artifact.title)
        if "data" in changed:
            assert DATA_NAMES[changed["data"]] in words, artifact.id
        for key, word in (("batch", "batch"), ("size", "size"), ("shrink", " steps")):
            if changed.get(key) and not (key == "shrink" and "epochs" in words):
                assert word in words, (artifact.id, word)


def test_nothing_is_scaled_at_the_scale_of_the_papers():
    runs = {f"{run.experiment}/{run.variant}" for run in REGISTRY.runs("paper")}
    assert describe_scaling(REGISTRY, sorted(runs), "paper") == ""


TITLES = {
    "lalc.fig1a": "measured on 8x8 digits, size 32, width 16, batch 32",
    "lalc.tab_acc": "measured on 8x8 digits, width 8, batch 32 to 128, 73 to 131 steps",
    "ghost.tab2": "measured on 64x64 scenes of digits, width 8, batch 2, 90 to 135 steps",
    "ghost.fig4_left": "measured on crops of two photographs, batch 8",
}


@pytest.mark.parametrize(("name", "words"), TITLES.items(), ids=TITLES)
def test_titles_at_laptop_scale(name, words):
    assert scaled_title(REGISTRY, REGISTRY.artifact(name), "laptop").endswith(f", {words}")


def test_an_unknown_number_of_images_gives_epochs():
    title = scaled_title(REGISTRY, REGISTRY.artifact("ghost.tab1"), "substitute")
    assert title.endswith(", measured on another set of images, size 64, 20 epochs")


def test_a_column_of_another_batch_size_says_which():
    """The columns of the LALC sweep are the paper's batch sizes; at laptop scale others are run."""
    headings = column_headings(REGISTRY, REGISTRY.artifact("lalc.tab_acc"), "laptop")
    assert headings == {"128": "128 (here 32)", "4k": "4k (here 128)"}
    assert column_headings(REGISTRY, REGISTRY.artifact("lalc.tab_acc"), "paper") == {}
    # The columns of table 1 are depths.
    assert column_headings(REGISTRY, REGISTRY.artifact("ghost.tab1"), "laptop") == {}


def test_other_settings_are_named_where_nothing_else_changes(tmp_path):
    body = experiment(
        task="classify",
        base=dict(CLASSIFY),
        variants={"a": {}, "b": {"lr": 0.2}},
        scales={"laptop": {"momentum": 0.5}, "smoke": {"eval_every": 7}},
    )
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": {**BUILT, "rows": {"A": "nets/a"}}})
    words = "measured with other settings of "
    assert describe_scaling(reg, ["nets/a", "nets/b"], "laptop") == words + "momentum"
    assert describe_scaling(reg, ["nets/a"], "smoke") == words + "eval_every"


@pytest.mark.parametrize("scale", SCALES)
def test_a_run_has_words_exactly_where_tables_do_not_judge_it(scale):
    """Claims are judged where there are no words, cells where the scale changes nothing but repeats
    and seeds; these must be the same runs."""
    for run in REGISTRY.runs(scale):
        experiment = REGISTRY.experiments[run.experiment]
        words = describe_scaling(REGISTRY, [f"{run.experiment}/{run.variant}"], scale)
        assert bool(words) == bool(experiment.scaled(run.variant, scale)), run.id
