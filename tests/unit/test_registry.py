"""How workflow/experiments/*.yaml become runs: the order of merging, canonical specs, and what may
be compared.

A mistake here is silent and expensive: a sweep that collapses trains one point many times, a
canonical spec that changes repeats weeks of finished training, and a scaled cell that counts as
comparable is judged against the paper.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostgrad.checks import InputError
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import SCALES, canonical_json, expand, parse_spec
from ghostgrad.registry.specs.base import Option
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.registry.tasks import TASKS
from tests.unit.fabricate import CLASSIFY, SIMULATE, STEADY, experiment, registry, workflow

LAYERS = ("base", "scale", "variant", "adjust", "variant's scale")


def layered(names):
    """An experiment with one point, `p-q`, in which each named layer sets `depth` to its place in
    LAYERS, from 1."""
    depth = {name: {"depth": LAYERS.index(name) + 1} if name in names else {} for name in LAYERS}
    point = {**depth["variant"], "scales": {"laptop": depth["variant's scale"]}}
    return experiment(
        base={**SIMULATE, **depth["base"]},
        variants={},
        axes={"first": {"p": point}, "second": {"q": {}}},
        adjust=[{"where": {"first": ["p"], "second": ["q"]}, "set": depth["adjust"]}],
        scales={"laptop": depth["scale"]},
    )


@pytest.mark.parametrize(
    "names", [("base", *n) for r in range(5) for n in itertools.combinations(LAYERS[1:], r)]
)
def test_the_later_layer_wins(tmp_path, names):
    """The order is base < scales.X < axes < adjust < variant.scales.X, whichever of them set the
    key."""
    reg = registry(tmp_path, {"nets": layered(names)})
    assert reg.run("laptop", "nets/p-q-s0").spec.depth == LAYERS.index(names[-1]) + 1


@pytest.mark.parametrize(
    "names", [("base", *n) for r in range(5) for n in itertools.combinations(LAYERS[1:], r)]
)
def test_a_scale_says_nothing_about_another(tmp_path, names):
    """At `paper` only base, variant and adjust count."""
    reg = registry(tmp_path, {"nets": layered(names)})
    last = [name for name in names if "scale" not in name][-1]
    assert reg.run("paper", "nets/p-q-s0").spec.depth == LAYERS.index(last) + 1


def test_what_a_variant_sets_survives_the_scale(tmp_path):
    """A laptop override of the swept key leaves the sweep as it is, so that it never collapses to
    one point."""
    sweep = {f"depth-{depth}": {"depth": depth} for depth in (2, 3, 5)}
    reg = registry(
        tmp_path, {"nets": experiment(variants=sweep, scales={"laptop": {"depth": 1, "width": 4}})}
    )
    assert {run.id: (run.spec.depth, run.spec.width) for run in reg.runs("laptop")} == {
        "nets/depth-2-s0": (2, 4),
        "nets/depth-3-s0": (3, 4),
        "nets/depth-5-s0": (5, 4),
    }


def test_like_inherits_through_a_chain(tmp_path):
    """The nearest variant of a chain wins; scales and seeds are inherited too."""
    variants = {
        "grandchild": {"like": "child", "norm": "layer"},
        "child": {"like": "parent", "norm": "none", "width": 16, "seeds": 2},
        "parent": {
            "activation": "tanh",
            "norm": "batch",
            "width": 4,
            "scales": {"laptop": {"repeats": 2}},
        },
    }
    reg = registry(
        tmp_path, {"nets": experiment(variants=variants, scales={"laptop": {"repeats": 8}})}
    )
    spec = reg.run("laptop", "nets/grandchild-s1").spec
    assert (spec.activation, spec.norm, spec.width, spec.repeats) == ("tanh", "layer", 16, 2)
    assert reg.run("laptop", "nets/parent-s0").spec.norm == "batch"


def test_axes_make_every_combination(tmp_path):
    """Variants are named point-point in the order of the axes, and know their points."""
    axes = {
        "method": {"sgd": {}, "tanh": {"activation": "tanh"}},
        "batch": {"b8": {}, "b16": {"batch": 16}},
    }
    nets = registry(tmp_path, {"nets": experiment(variants={}, axes=axes)}).experiments["nets"]
    assert nets.variants == ("sgd-b8", "sgd-b16", "tanh-b8", "tanh-b16")
    assert nets.point("tanh-b16") == {"method": "tanh", "batch": "b16"}
    spec = nets.runs("paper", "tanh-b16")[0].spec
    assert (spec.activation, spec.batch) == ("tanh", 16)


def test_adjust_reaches_exactly_the_named_points(tmp_path):
    """A rule applies where every axis it names has one of its points; a later rule wins."""
    axes = {
        "method": {name: {"activation": name} for name in ("relu", "tanh", "selu")},
        "batch": {f"b{n}": {"batch": n} for n in (8, 16)},
    }
    adjust = [
        {"where": {"method": ["relu", "tanh"], "batch": ["b16"]}, "set": {"width": 32}},
        {"where": {"method": ["tanh"]}, "set": {"width": 64}},
    ]
    reg = registry(tmp_path, {"nets": experiment(variants={}, axes=axes, adjust=adjust)})
    widths = {run.variant: run.spec.width for run in reg.runs("paper")}
    changed = {"relu-b16": 32, "tanh-b8": 64, "tanh-b16": 64}
    assert widths == {"relu-b8": 8, "selu-b8": 8, "selu-b16": 8, **changed}


def test_a_star_makes_a_column_of_what_it_stands_for(tmp_path):
    """The columns are in the order of the variants; other rows may name their columns
    themselves."""
    axes = {
        "method": {"sgd": {}, "tanh": {"activation": "tanh"}},
        "batch": {"8": {}, "16": {"batch": 16}},
    }
    rows = {"SGD": "nets/sgd-*", "Tanh": {"16": "nets/tanh-16"}, "eight": "nets/*-8"}
    artifact = {"title": "x", "section": "x", "table": "growth_rates", "rows": rows}
    artifact["options"] = {"table": {"metrics": ["rate"]}}
    reg = registry(tmp_path, {"nets": experiment(variants={}, axes=axes)}, {"ghost.x": artifact})
    cells = [(cell.row, cell.column, cell.variant) for cell in reg.artifact("ghost.x").cells]
    assert cells == [
        ("SGD", "8", "sgd-8"),
        ("SGD", "16", "sgd-16"),
        ("Tanh", "16", "tanh-16"),
        ("eight", "sgd", "sgd-8"),
        ("eight", "tanh", "tanh-8"),
    ]


def test_adjust_may_set_how_many_seeds(tmp_path):
    axes = {
        "method": {"sgd": {}, "tanh": {"activation": "tanh"}},
        "batch": {"8": {}, "16": {"batch": 16}},
    }
    adjust = [{"where": {"method": ["tanh"], "batch": ["16"]}, "set": {"seeds": 1}}]
    nets = experiment(variants={}, axes=axes, adjust=adjust, seeds=3)
    reg = registry(tmp_path, {"nets": nets})
    counts = {
        name: len(reg.experiments["nets"].runs("paper", name))
        for name in reg.experiments["nets"].variants
    }
    assert counts == {"sgd-8": 3, "sgd-16": 3, "tanh-8": 3, "tanh-16": 1}


def test_an_artifacts_axes_fill_its_cells(tmp_path):
    """`row` and `column` name axes; labels are the names of their points."""
    axes = {
        "method": {"sgd": {}, "tanh": {"activation": "tanh"}},
        "batch": {"b8": {}, "b16": {"batch": 16}},
    }
    artifact = {"title": "T", "section": "s", "table": "block_ratios"}
    artifact["axes"] = {"experiment": "nets", "row": "method", "column": "batch"}
    reg = registry(tmp_path, {"nets": experiment(variants={}, axes=axes)}, {"ghost.x": artifact})
    cells = {(cell.row, cell.column): cell.variant for cell in reg.artifact("ghost.x").cells}
    assert cells == {("sgd", "b8"): "sgd-b8", ("sgd", "b16"): "sgd-b16"} | {
        ("tanh", "b8"): "tanh-b8",
        ("tanh", "b16"): "tanh-b16",
    }


SETTINGS = {
    "seeds": 2,
    "optional": True,
    "resources": {"mem_mb": 100, "runtime": 5},
    "expect": {"seconds": 7},
}


@pytest.mark.parametrize("level", ["experiment", "scale", "variant", "variant's scale"])
def test_settings_merge_at_every_level_and_never_enter_the_spec(tmp_path, level):
    """Seeds, resources, `expect` and `optional` may be set at any level, and change no number."""
    plain = experiment(expect={"seconds": 1, "result": "nothing"}, scales={"laptop": {}})
    changed = json.loads(json.dumps(plain))
    changed["variants"]["a"]["scales"] = {"laptop": {}}
    place = {
        "experiment": changed,
        "scale": changed["scales"]["laptop"],
        "variant": changed["variants"]["a"],
        "variant's scale": changed["variants"]["a"]["scales"]["laptop"],
    }[level]
    for key, value in SETTINGS.items():
        place[key] = {**place.get(key, {}), **value} if isinstance(value, dict) else value
    before = registry(tmp_path / "plain", {"nets": plain}).runs("laptop")
    after = registry(tmp_path / "changed", {"nets": changed}).runs("laptop")
    assert [run.seed for run in after] == [0, 1]
    assert after[0].canonical == before[0].canonical
    assert after[0].optional
    assert after[0].resources == {"gpu": 0, "mem_mb": 100, "runtime": 5}
    assert after[0].expect == {"seconds": 7, "result": "nothing"}
    assert not before[0].optional


def test_the_nearer_setting_wins(tmp_path):
    """Each of the four levels overrides the one before it, for one resource and for seeds."""
    levels = [{"seeds": n, "resources": {"mem_mb": n}} for n in range(1, 5)]
    body = experiment(**levels[0], scales={"laptop": levels[1]})
    body["variants"] = {
        "a": {"width": 10},
        "b": {"width": 12, **levels[2]},
        "c": {"width": 14, **levels[2], "scales": {"laptop": levels[3]}},
    }
    reg = registry(tmp_path, {"nets": body})
    merged = {
        (run.variant, run.scale): (run.resources["mem_mb"], run.seed + 1)
        for run in reg.runs("laptop")
    }
    assert merged == {("a", "laptop"): (2, 2), ("b", "laptop"): (3, 3), ("c", "laptop"): (4, 4)}
    assert {run.variant: run.resources["mem_mb"] for run in reg.runs("paper")} == {
        "a": 1,
        "b": 3,
        "c": 3,
    }


def test_only_leaves_variants_out(tmp_path):
    """`only` takes names and shell patterns; a variant that it leaves out has no runs."""
    variants = {
        name: {"depth": depth} for depth, name in enumerate(("relu", "relu-bn", "tanh", "selu"), 1)
    }
    scales = {"laptop": {"only": ["relu*", "selu"]}}
    reg = registry(tmp_path, {"nets": experiment(variants=variants, scales=scales)})
    assert [run.variant for run in reg.runs("laptop")] == ["relu", "relu-bn", "selu"]
    assert reg.experiments["nets"].runs("laptop", "tanh") == ()
    assert len(reg.runs("paper")) == 4
    with pytest.raises(InputError, match=r"no run 'nets/tanh-s0' at scale laptop"):
        reg.run("laptop", "nets/tanh-s0")


def test_only_paper_runs_unnamed(tmp_path):
    """An experiment that names no scale runs at `paper` only: nothing is run by accident."""
    small = experiment(base={**SIMULATE, "width": 4}, scales={"smoke": {}})
    reg = registry(tmp_path, {"nets": experiment(), "small": small})
    counts = {scale: [run.experiment for run in reg.runs(scale)] for scale in SCALES}
    assert counts == {
        "smoke": ["small"],
        "laptop": [],
        "substitute": [],
        "paper": ["nets", "small"],
    }


def test_a_run_knows_its_place_and_needs(tmp_path):
    """Ids and folders are readable and stable; `cpu` means neither GPU nor external data."""
    images = experiment(
        task="classify", base=dict(CLASSIFY), variants={"a": {}, "b": {"data": "cifar10"}}
    )
    nets = experiment(variants={"a": {}, "b": {"depth": 9, "resources": {"gpu": 1}}})
    reg = registry(tmp_path, {"images": images, "nets": nets})
    assert {run.id: (run.data, run.cpu) for run in reg.runs("paper")} == {
        "images/a-s0": ("digits", True),
        "images/b-s0": ("cifar10", False),
        "nets/a-s0": (None, True),
        "nets/b-s0": (None, False),
    }
    assert reg.run("paper", "nets/a-s0").directory == "results/paper/runs/nets/a-s0"


def test_canonical_spec_is_sorted_and_leaves_defaults_out(tmp_path):
    """A run is computed again if this text changes, so it is spelled out here."""
    body = experiment(
        base={"width": 8, "net": "plain", "norm": "batch", "batch": 8, "repeats": 16, "depth": 4}
    )
    run = registry(tmp_path, {"nets": body}).run("paper", "nets/a-s0")
    expected = (
        '{"batch":8,"depth":4,"net":"plain","repeats":16,"seed":0,"task":"simulate","width":8}'
    )
    assert run.canonical == expected
    assert run.spec.norm == "batch"  # a spec has every parameter
    assert set(run.spec.stored()) == {"task", *SimulateSpec.schema()["properties"]}


@pytest.mark.parametrize("task", ["simulate", "classify"])
def test_a_new_option_with_a_default_changes_no_canonical_spec(monkeypatch, task):
    """Adding an option must cause no rerun. This is checked for all runs of this checkout at every
    scale."""
    before = {(scale, run.id): run.canonical for scale in SCALES for run in Registry().runs(scale)}
    assert {scale for scale, _ in before} == set(SCALES)

    @dataclass(frozen=True, kw_only=True)
    class Extended(TASKS[task].spec):
        a_new_option: Annotated[bool, Option("It did not exist before.")] = False

    monkeypatch.setitem(TASKS, task, replace(TASKS[task], spec=Extended))
    runs = [run for scale in SCALES for run in Registry().runs(scale)]
    assert {(run.scale, run.id): run.canonical for run in runs} == before
    of_task = [run for run in runs if run.task == task]
    assert of_task
    assert all(run.spec.a_new_option is False for run in of_task)


VALUES = {
    "net": st.sampled_from(["plain", "residual", "seqnet"]),
    "depth": st.integers(1, 40).map(lambda blocks: 2 * blocks),
    "width": st.integers(2, 256),
    "batch": st.integers(2, 128),
    "activation": st.sampled_from(["relu", "selu", "tanh"]),
    "norm": st.sampled_from(["batch", "layer", "none"]),
    "weight_variance": st.sampled_from(["1/d", "2/d"]),
    "expansion": st.integers(2, 4),
    "repeats": st.integers(2, 1024),
    "seed": st.integers(0, 9),
}
REQUIRED = ("net", "depth", "width", "batch", "repeats", "seed")
OPTIONAL = [key for key in VALUES if key not in REQUIRED]
SPECS = st.fixed_dictionaries(
    {key: VALUES[key] for key in REQUIRED}, optional={key: VALUES[key] for key in OPTIONAL}
)


@STEADY
@given(SPECS, st.randoms(use_true_random=False))
def test_a_default_written_out_is_the_same_run(spec, random):
    """Canonical text depends neither on order nor on written defaults, and gives the same spec."""
    expanded = expand("simulate", spec)
    items = list(expanded.values().items())
    random.shuffle(items)
    canonical = canonical_json("simulate", spec)
    assert canonical_json("simulate", dict(items)) == canonical
    assert parse_spec(canonical) == expanded


@STEADY
@given(SPECS, SPECS)
def test_different_runs_have_different_canonical_specs(one, other):
    """The canonical spec loses nothing that can change a number."""
    same = expand("simulate", one) == expand("simulate", other)
    assert (canonical_json("simulate", one) == canonical_json("simulate", other)) == same


COMPARABLE = {
    "seeds": ({"seeds": 2}, True),
    "repeats": ({"repeats": 2}, True),
    "repeats, seeds and resources": ({"repeats": 2, "seeds": 1, "resources": {"gpu": 0}}, True),
    "a default written out": ({"norm": "batch"}, True),
    "width": ({"width": 4}, False),
    "width among repeats": ({"repeats": 2, "width": 4}, False),
    "norm": ({"norm": "none"}, False),
    "batch": ({"batch": 4}, False),
}


@pytest.mark.parametrize(("override", "expected"), COMPARABLE.values(), ids=COMPARABLE)
def test_comparable_with_the_paper(tmp_path, override, expected):
    """Fewer repeats or seeds give a noisier mean; any other change makes another experiment."""
    nets = registry(
        tmp_path, {"nets": experiment(seeds=4, scales={"laptop": override})}
    ).experiments["nets"]
    assert bool(nets.scaled("a", "laptop")) is not expected
    assert nets.scaled("a", "paper") == {}


@pytest.mark.parametrize(
    "override", [{"shrink": 2}, {"data": "cifar10"}, {"length": 5}, {"probes": ["gradients"]}]
)
def test_a_shortened_training_is_not_comparable(tmp_path, override):
    """Fewer steps, other data or other probes make another experiment, unlike fewer seeds."""
    body = experiment(
        task="classify", base=dict(CLASSIFY), scales={"laptop": override, "smoke": {"seeds": 2}}
    )
    nets = registry(tmp_path, {"nets": body}).experiments["nets"]
    assert nets.scaled("a", "laptop") == override
    assert nets.scaled("a", "smoke") == {}


def test_a_variant_that_overrules_the_scale_stays_comparable(tmp_path):
    """Whether results are comparable depends on what is run, not on what a scale says."""
    body = experiment(variants={"a": {}, "b": {"width": 16}}, scales={"laptop": {"width": 4}})
    nets = registry(tmp_path, {"nets": body}).experiments["nets"]
    assert nets.scaled("a", "laptop") == {"width": 4}
    assert nets.scaled("b", "laptop") == {}


def test_an_artifact_lists_each_run_once(tmp_path):
    """Several labels may name one variant; its runs are inputs once."""
    rows = {"A": "nets/a", "again": "nets/a", "B": {"left": "nets/b", "right": "nets/a"}}
    artifact = {"title": "T", "section": "s", "table": "block_ratios", "rows": rows}
    body = experiment(variants={"a": {}, "b": {"depth": 2}}, seeds=2)
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": artifact})
    runs = reg.artifact_runs("paper", reg.artifact("ghost.x"))
    assert [run.id for run in runs] == ["nets/a-s0", "nets/a-s1", "nets/b-s0", "nets/b-s1"]
    assert [cell.label for cell in reg.artifact("ghost.x").cells] == [
        "A",
        "again",
        "B, left",
        "B, right",
    ]


def test_why_an_artifact_cannot_be_measured(tmp_path, monkeypatch):
    """The reason is the scale, the data key, or that nothing has run; None if something can run."""
    monkeypatch.chdir(tmp_path)
    body = experiment(task="classify", base={**CLASSIFY, "data": "cifar10"})
    built = {"title": "T", "section": "s", "table": "block_ratios", "rows": {"A": "nets/a"}}
    reg = registry(tmp_path, {"nets": body}, {"ghost.x": built})
    artifact = reg.artifact("ghost.x")
    assert reg.missing("laptop", artifact, {}) == "not at scale laptop"
    assert (
        reg.missing("paper", artifact, {"cifar10": None})
        == "data.cifar10 is not set in config.yaml"
    )
    assert reg.missing("paper", artifact, {"cifar10": "/data"}) is None
    assert reg.missing("paper", artifact, {"cifar10": "/data"}, partial=True) == "no finished run"


def test_names_that_yaml_takes_for_numbers_or_booleans(tmp_path):
    """The keys `128:` and `Yes:` are read as the names that are written."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / "ghost.yaml").write_text("""
paper: {title: t, cite: c}
experiments:
  nets:
    task: simulate
    section: s
    base: {net: plain, depth: 4, width: 8, batch: 8, repeats: 16}
    axes: {size: {128: {batch: 128}, 256: {batch: 256}}}
    resources: {gpu: 0}
    expect: {seconds: 1}
    scales: {laptop: {only: ["128"]}, smoke: {only: ["256"]}}
artifacts:
  ghost.tab5: {title: t, section: s, table: block_ratios, rows: {Yes: {No: nets/128}}}
""")
    reg = Registry(folder)
    assert [run.id for run in reg.runs("paper")] == ["nets/128-s0", "nets/256-s0"]
    assert [run.id for run in reg.runs("smoke")] == ["nets/256-s0"]
    assert reg.artifact("ghost.tab5").cells[0].label == "Yes, No"


def test_an_artifact_like_one_that_is_like_another(tmp_path):
    """The last artifact of a chain has the reference numbers of the first one."""
    place = {"title": "T", "section": "s"}
    artifacts = {
        "ghost.x": {**place, "table": "block_ratios", "rows": {"L": "nets/a"}},
        "ghost.y": {**place, "like": "ghost.x"},
    }
    reg = registry(
        tmp_path, {"nets": experiment()}, {**artifacts, "ghost.z": {**place, "like": "ghost.y"}}
    )
    first, last = reg.artifact("ghost.x"), reg.artifact("ghost.z")
    assert (last.cells, last.table, last.source) == (first.cells, first.table, "ghost.x")


def test_what_a_variant_sets_survives_the_scale_of_the_one_it_is_like(tmp_path):
    """b keeps its width at every scale, because a's override of the width is for a; b inherits the
    override of the repeats."""
    variants = {
        "a": {"scales": {"laptop": {"width": 4, "repeats": 2}}},
        "b": {"like": "a", "width": 16},
    }
    reg = registry(tmp_path, {"nets": experiment(variants=variants, scales={"laptop": {}})})
    spec = reg.run("laptop", "nets/b-s0").spec
    assert (spec.width, spec.repeats) == (16, 2)


def test_seeds_written_as_a_float(tmp_path):
    """The schema accepts YAML's 2.0 as an integer."""
    assert len(registry(tmp_path, {"nets": experiment(seeds=2.0)}).runs("paper")) == 2
