"""Every mistake in a file of the registry is reported in one line with its file, its place and the
nearest valid value.

People edit these files by hand; a traceback, a silent default or an error without a place costs
them an afternoon.
"""

from __future__ import annotations

import pytest

from ghostgrad.checks import InputError, load_yaml
from ghostgrad.registry.registry import PAPERS, Registry
from tests.unit.fabricate import (
    BUILT,
    CLASSIFY,
    OPTIONS,
    SIMULATE,
    experiment,
    one_line,
    registry,
    workflow,
)

AXES = {"method": {"sgd": {}}, "batch": {"b8": {}}}
NETS = {"A": "nets/a"}


def without(body, key):
    return {name: value for name, value in body.items() if name != key}


def variant(**body):
    return {"nets": experiment(variants={"a": {}, "abc": {"depth": 9, **body}})}


def axes(**body):
    return {"nets": experiment(**{"variants": {}, "axes": AXES, **body})}


def base(**body):
    return {"nets": experiment(base={**SIMULATE, **body})}


EXPERIMENTS = {
    "unknown key of an experiment": (
        {"nets": experiment(variant={})},
        "experiments.nets: unknown key 'variant'; did you mean 'variants'?",
    ),
    "unknown spec key in base": (
        base(widht=8),
        "experiments.nets.base: unknown key 'widht'; did you mean 'width'?",
    ),
    "not a number": (
        base(weight_scale=float("inf")),
        "ghost.yaml: experiments.nets.base.weight_scale: expected a finite number, found inf",
    ),
    "setting in base": (base(seeds=2), "experiments.nets.base: unknown key 'seeds'"),
    "unknown key in a variant": (
        variant(nrom=1),
        "nets.variants.abc: unknown key 'nrom'; did you mean 'norm'?",
    ),
    "unknown scale": (
        {"nets": experiment(scales={"labtop": {}})},
        "experiments.nets.scales: unknown key 'labtop'; did you mean 'laptop'?",
    ),
    "unknown key in a scale": (
        {"nets": experiment(scales={"laptop": {"repaets": 8}})},
        "experiments.nets.scales.laptop: unknown key 'repaets'; did you mean 'repeats'?",
    ),
    "unknown scale of a variant": (
        variant(scales={"smok": {}}),
        "nets.variants.abc.scales: unknown key 'smok'; did you mean 'smoke'?",
    ),
    "unknown key in a scale of a variant": (
        variant(scales={"smoke": {"dpeth": 8}}),
        "nets.variants.abc.scales.smoke: unknown key 'dpeth'; did you mean 'depth'?",
    ),
    "unknown key in a point of an axis": (
        axes(axes={"method": {"tanh": {"activaton": "tanh"}}}),
        "nets.axes.method.tanh: unknown key 'activaton'; did you mean 'activation'?",
    ),
    "unknown key in a rule of adjust": (
        axes(adjust=[{"wher": {"method": ["sgd"]}, "set": {}}]),
        "nets.adjust.0: unknown key 'wher'; did you mean 'where'?",
    ),
    "unknown spec key in adjust": (
        axes(
            adjust=[
                {"where": {"method": ["sgd"]}, "set": {}},
                {"where": {"batch": ["b8"]}, "set": {"bacth": 8}},
            ]
        ),
        "nets.adjust.1.set: unknown key 'bacth'; did you mean 'batch'?",
    ),
    "unknown resource": (
        {"nets": experiment(resources={"gpus": 1})},
        "nets.resources: unknown key 'gpus'; did you mean 'gpu'?",
    ),
    "unknown resource of a variant": (
        variant(resources={"mem": 1}),
        "nets.variants.abc.resources: unknown key 'mem'; did you mean 'mem_mb'?",
    ),
    "unknown expectation": (
        {"nets": experiment(expect={"second": 1})},
        "nets.expect: unknown key 'second'; did you mean 'seconds'?",
    ),
    "unknown key in a deviation": (
        {"nets": experiment(deviations=[{"what": "x", "wy": "y"}])},
        "nets.deviations.0: unknown key 'wy'; did you mean 'why'?",
    ),
    "number as text": (base(width="8"), "nets.base: width: expected integer, found '8'"),
    "text as number": (
        base(net=3),
        "nets.base: net: '3' is not allowed; valid: plain, preact, residual, seqnet",
    ),
    "seeds as text": ({"nets": experiment(seeds="4")}, "nets.seeds: expected integer, found '4'"),
    "list as text": (
        {"nets": experiment(task="classify", base={**CLASSIFY, "augment": "crop"})},
        "nets.base: augment: expected array, found 'crop'",
    ),
    "value outside its list": (
        base(net="plane"),
        "nets.base: net: 'plane' is not allowed; did you mean 'plain'?",
    ),
    "value outside its list, in a list": (
        {"nets": experiment(task="classify", base={**CLASSIFY, "augment": ["crop", "flp"]})},
        "nets.base: augment.1: 'flp' is not allowed; did you mean 'flip'?",
    ),
    "unknown task": (
        {"nets": experiment(task="simulat")},
        "nets.task: 'simulat' is not allowed; did you mean 'simulate'?",
    ),
    "value out of range": (base(width=1), "nets.base: width: 1 is less than the minimum of 2"),
    "value of another form": (
        base(weight_variance="2"),
        "nets.base: weight_variance: '2' is not of the form",
    ),
    "missing key of an experiment": (
        {"nets": without(experiment(), "resources")},
        "experiments.nets: key 'resources' is missing",
    ),
    "missing spec key": (
        {"nets": experiment(base=without(SIMULATE, "width"))},
        "nets.variants.a at scale paper: key 'width' is missing",
    ),
    "name of an experiment": ({"Nets": experiment()}, "experiments: 'Nets' is not of the form"),
    "name of a variant": (
        {"nets": experiment(variants={"a b": {}})},
        "nets.variants: 'a b' is not of the form",
    ),
    "empty block": ({"nets": experiment(base=None)}, "nets.base: expected object, found None"),
    "like of nothing": (variant(like="x"), "like: no variant 'x'; valid: a, abc"),
    "like of a misspelt variant": (
        {"nets": experiment(variants={"relu-bn": {}, "relu": {"like": "relu-nb", "norm": "none"}})},
        "like: no variant 'relu-nb'; did you mean 'relu-bn'?",
    ),
    "like in a circle": (
        {"nets": experiment(variants={"a": {"like": "b"}, "b": {"like": "a", "depth": 5}})},
        "nets.variants.a: like: 'a' leads back to itself",
    ),
    "only of nothing": (
        {
            "nets": experiment(
                variants={"relu-bn": {}}, scales={"laptop": {"only": ["tanh*", "relu-bm"]}}
            )
        },
        "nets.scales.laptop.only: no variant like 'tanh*'; valid: relu-bn",
    ),
    "the same run twice": (
        {"nets": experiment(variants={"a": {}, "b": {"norm": "batch"}})},
        "experiments.nets: nets/b-s0 and nets/a-s0 are the same run at scale paper",
    ),
    "the same run in two experiments": (
        {"nets": experiment(), "others": experiment()},
        "experiments.others: others/a-s0 and nets/a-s0 are the same run at scale paper",
    ),
    "the same run at one scale": (
        {
            "nets": experiment(
                variants={"a": {}, "b": {"depth": 9, "scales": {"laptop": {"depth": 4}}}},
                scales={"laptop": {}},
            )
        },
        "experiments.nets: nets/b-s0 and nets/a-s0 are the same run at scale laptop",
    ),
}


@pytest.mark.parametrize(("experiments", "expected"), EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_mistake_in_an_experiment(tmp_path, experiments, expected):
    """The error is one line with the file, the path of the key and the nearest valid value."""
    with pytest.raises(InputError) as error:
        registry(tmp_path, experiments)
    assert one_line(error).startswith(f"{tmp_path}/workflow/experiments/ghost.yaml: experiments")
    assert expected in one_line(error)


def artifact(**body):
    return {"ghost.x": {**BUILT, **body}}


ARTIFACTS = {
    "unknown key": (artifact(tabel="x"), "ghost.x: unknown key 'tabel'; did you mean 'table'?"),
    "missing key": ({"ghost.x": without(BUILT, "title")}, "ghost.x: key 'title' is missing"),
    "id of another form": ({"ghostx": BUILT}, "artifacts: 'ghostx' is not of the form"),
    "unknown experiment": (
        artifact(rows={"A": "net/a"}),
        "rows.A: no experiment 'net'; did you mean 'nets'?",
    ),
    "unknown variant": (
        artifact(rows={"A": "nets/abd"}),
        "rows.A: nets has no variant 'abd'; did you mean 'abc'?",
    ),
    "unknown variant in a column": (
        artifact(rows={"A": {"18": "nets/a", "34": "nets/abd"}}),
        "rows.A: nets has no variant 'abd'; did you mean 'abc'?",
    ),
    "pattern without a variant": (
        artifact(rows={"A": "nets/abd-*"}),
        "rows.A: nets has no variant like 'abd-*'; did you mean 'abc'?",
    ),
    "no run's name": (artifact(rows={"A": "nets"}), "rows.A: 'nets' is not of the form"),
    "number for a run": (
        artifact(rows={"A": 3}),
        "ghost.x.rows.A: expected experiment/variant, experiment/a-* or "
        "{column label: experiment/variant}, found 3",
    ),
    "axes of an unknown experiment": (
        artifact(axes={"experiment": "nts", "row": "method"}),
        "ghost.x.axes: no experiment 'nts'; did you mean 'nets'?",
    ),
    "unknown key in axes": (
        artifact(axes={"experiment": "nets", "rwo": "x"}),
        "unknown key 'rwo'; did you mean 'row'?",
    ),
    "like of nothing": (
        {
            "ghost.xy": {**BUILT, "from": "none"},
            "ghost.x": {"title": "T", "section": "s", "like": "ghost.xz"},
        },
        "ghost.x.like: no artifact 'ghost.xz'; did you mean 'ghost.x",
    ),
    "unknown kind": (
        artifact(kind="tabel"),
        "ghost.x.kind: 'tabel' is not allowed; did you mean 'table'?",
    ),
    "neither table nor figure": (
        {"ghost.x": without(BUILT, "table")},
        "ghost.x: has neither table nor figure; name one",
    ),
    "no run": (artifact(), "ghost.x: names no run; give rows or axes, or set from: none"),
    "probe that no schema knows": (
        artifact(rows={"A": "probed/a"}, probes=["gradient"]),
        "ghost.x.probes: 'gradient' is not recorded by probed/a at scale paper; "
        "did you mean 'gradients'?",
    ),
    "probe that one of its runs does not record": (
        artifact(rows={"A": "probed/a", "B": "probed/b"}, probes=["gradients"]),
        "ghost.x.probes: 'gradients' is not recorded by probed/b at scale paper; "
        "valid: weight_norm",
    ),
    "probe of a run that records none": (
        artifact(rows={"A": "nets/a"}, probes=["gradients"]),
        "ghost.x.probes: 'gradients' is not recorded by nets/a",
    ),
    "unknown table function": (
        artifact(table="final_metric", rows=NETS),
        "ghost.x.table: no function 'final_metric' in ghostgrad/analysis/measures.py; "
        "did you mean 'final_metrics'?",
    ),
    "helper for a table function": (
        artifact(table="jackknife", rows=NETS),
        "ghost.x.table: no function 'jackknife' in ghostgrad/analysis/measures.py",
    ),
    "unknown option of a table": (
        artifact(options={"table": {"metrics": ["x"], "units": "%"}}, rows=NETS),
        "ghost.x.options.table: unknown key 'units'; did you mean 'unit'?",
    ),
    "missing option of a table": (
        artifact(options={}, rows=NETS),
        "ghost.x.options.table: key 'metrics' is missing",
    ),
    "unknown figure function": (
        artifact(figure="gradient_norm", rows=NETS),
        "ghost.x.figure: no function 'gradient_norm' in ghostgrad/figures/ghost.py; "
        "did you mean 'gradient_norms'?",
    ),
    "figure of another paper": (
        artifact(figure="block_curves", rows=NETS),
        "ghost.x.figure: no function 'block_curves' in ghostgrad/figures/ghost.py",
    ),
    "empty options": (
        artifact(options={"table": None}, rows=NETS),
        "ghost.x.options.table: expected object, found None",
    ),
    "options of neither": (
        artifact(options={**OPTIONS, "figur": {"x": 1}}, rows=NETS),
        "ghost.x.options: unknown key 'figur'; did you mean 'figure'?",
    ),
    "options of a figure that there is not": (
        artifact(options={**OPTIONS, "figure": {"x": 1}}, rows=NETS),
        "ghost.x.options.figure: the artifact has no figure",
    ),
    "text for a list": (
        artifact(options={"table": {"metrics": "rate"}}, rows=NETS),
        "ghost.x.options.table: metrics: expected array, found 'rate'",
    ),
    "unknown statistic": (
        artifact(table="growth_rates", options={"table": {"metrics": ["rat"]}}, rows=NETS),
        "ghost.x.options.table: metrics.0: 'rat' is not allowed; did you mean 'rate'?",
    ),
    "unknown activation": (
        artifact(
            figure="prediction", options={**OPTIONS, "figure": {"activation": "Relu"}}, rows=NETS
        ),
        "ghost.x.options.figure: activation: 'Relu' is not allowed; did you mean 'ReLU'?",
    ),
    "unknown option of a figure": (
        artifact(
            figure="gradient_norms", options={**OPTIONS, "figure": {"metric": "rate"}}, rows=NETS
        ),
        "ghost.x.options.figure: unknown key 'metric'",
    ),
}


def probed():
    variants = {"a": {}, "b": {"probes": ["weight_norm"]}}
    return experiment(
        task="classify",
        base={**CLASSIFY, "probes": ["gradients", "weight_norm"]},
        variants=variants,
    )


@pytest.mark.parametrize(("artifacts", "expected"), ARTIFACTS.values(), ids=ARTIFACTS)
def test_mistake_in_an_artifact(tmp_path, artifacts, expected):
    """Errors have the same form as for experiments. An artifact that names a missing run or probe
    never reaches a build."""
    with pytest.raises(InputError) as error:
        registry(tmp_path, {**variant(), "probed": probed()}, artifacts)
    assert one_line(error).startswith(f"{tmp_path}/workflow/experiments/ghost.yaml: artifacts")
    assert expected in one_line(error)


def test_a_recorded_probe_is_accepted(tmp_path):
    """The refusals above are due to the probe, not to the key."""
    reg = registry(
        tmp_path, {"probed": probed()}, artifact(rows={"A": "probed/a"}, probes=["gradients"])
    )
    assert reg.artifact("ghost.x").probes == ("gradients",)


YAML = {
    "a duplicate key": (
        "paper: {title: t, cite: c}\nartifacts: {}\nartifacts: {}\n",
        ", line 3: duplicate key 'artifacts'",
    ),
    "a nested duplicate key": (
        "paper:\n  title: t\n  cite: c\n  title: u\n",
        ", line 4: duplicate key 'title'",
    ),
    "a bracket left open": ("paper: {title: t\nartifacts: {}\n", ", line 2: not valid YAML"),
    "a quotation left open": ("paper: 'a\n", "not valid YAML"),
    "a tab": ("paper:\n\ttitle: t\n", ", line 2: not valid YAML"),
    "an anchor that is not there": (
        "paper: *other\n",
        ", line 1: not valid YAML (found undefined alias)",
    ),
    "nothing": ("", ": expected object, found None"),
    "a list": ("- paper\n", ": expected object, found ['paper']"),
    "an unknown key": ("papers: {}\n", ": unknown key 'papers'; did you mean 'paper'?"),
}


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(("text", "expected"), YAML.values(), ids=YAML)
def test_damaged_file(tmp_path, paper, text, expected):
    """Each of the three files is checked. If a key occurs twice, the last value does not silently
    win."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / f"{paper}.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        Registry(folder)
    assert one_line(error).startswith(f"{folder}/experiments/{paper}.yaml")
    assert expected in one_line(error)


@pytest.mark.parametrize("paper", PAPERS)
def test_missing_file(tmp_path, paper):
    """The error names the file and the reason."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / f"{paper}.yaml").unlink()
    with pytest.raises(InputError) as error:
        Registry(folder)
    assert (
        one_line(error)
        == f"{folder}/experiments/{paper}.yaml: cannot be read (No such file or directory)"
    )


def test_paths_are_shown_as_a_person_would_type_them(tmp_path, monkeypatch):
    """The path is relative if the file lies below the working directory."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / "lalc.yaml").write_text("- paper\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^workflow/experiments/lalc\.yaml: expected object"):
        Registry(folder)


@pytest.mark.parametrize(
    ("name", "near"),
    [("nets/a-s9", "nets/a-s0"), ("net/a-s0", "nets/a-s0"), ("nets/abc", "nets/abc-s0")],
)
def test_unknown_run(tmp_path, name, near):
    """The error names the scale and the nearest run."""
    with pytest.raises(InputError) as error:
        registry(tmp_path, variant()).run("paper", name)
    assert one_line(error) == f"no run '{name}' at scale paper; did you mean '{near}'?"


DAMAGED = {
    "not UTF-8": b"paper: {title: \xff, cite: b}\n",
    "control character": b"paper: {title: a\x00b, cite: b}\n",
    "braces without quotes": b"paper: {title: {{ t }}, cite: b}\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_not_yaml(tmp_path, data):
    """The error is one line, whatever is wrong with the file."""
    folder = workflow(tmp_path / "workflow")
    (folder / "experiments" / "ghost.yaml").write_bytes(data)
    with pytest.raises(InputError, match=r"ghost\.yaml.*not valid YAML") as error:
        Registry(folder)
    assert "\n" not in str(error.value)


def by_axes(**body):
    return {"ghost.x": {**BUILT, "axes": {"experiment": "nets", **body}}}


TANH = {"method": {"sgd": {}, "tanh": {"activation": "tanh"}}, "batch": {"b8": {}}}
UNMATCHED = {
    "axis of adjust": (
        axes(axes=TANH, adjust=[{"where": {"metod": ["tanh"]}, "set": {"width": 9}}]),
        {},
        "nets.adjust.0.where: no axis 'metod'; did you mean 'method'?",
    ),
    "point of adjust": (
        axes(axes=TANH, adjust=[{"where": {"method": ["tnh"]}, "set": {"width": 9}}]),
        {},
        "nets.adjust.0.where.method: no point 'tnh'; did you mean 'tanh'?",
    ),
    "row": (
        axes(),
        by_axes(row="metod"),
        "ghost.x.axes.row: nets has no axis 'metod'; did you mean 'method'?",
    ),
    "column": (
        axes(),
        by_axes(row="method", column="bacth"),
        "ghost.x.axes.column: nets has no axis 'bacth'; did you mean 'batch'?",
    ),
    "scale of a point": (
        axes(axes={"m": {"p": {"scales": {"labtop": {"repeats": 2}}}}}),
        {},
        "nets.axes.m.p.scales: unknown key 'labtop'; did you mean 'laptop'?",
    ),
    "scales of a point": (
        axes(axes={"m": {"p": {"scales": 3}}}),
        {},
        "nets.axes.m.p.scales: expected object, found 3",
    ),
    "like in a point": (
        axes(axes={"m": {"p": {"like": "q"}}}),
        {},
        "nets.axes.m.p: unknown key 'like'",
    ),
    "only in a variant": (
        {"nets": experiment(variants={"a": {"scales": {"laptop": {"only": ["a"]}}}})},
        {},
        "nets.variants.a.scales.laptop: unknown key 'only'",
    ),
    "seed": (
        {"nets": experiment(base={**SIMULATE, "seed": 3})},
        {},
        "nets.base: 'seed' is the number of each run; set seeds to how many there are",
    ),
    "one depth in two forms": (
        {"nets": experiment(variants={"a": {"depth": 5}, "b": {"depth": 5.0}})},
        {},
        "nets/b-s0 and nets/a-s0 are the same run",
    ),
    "no variants": ({"nets": experiment(variants={})}, {}, "experiments.nets: has no variants"),
    "variant of a like": (
        {"nets": experiment(variants={"relu": {}, "x": {"like": "rel", "depth": 9}})},
        {},
        "nets.variants.x.like: no variant 'rel'; did you mean 'relu'?",
    ),
    "id of another paper": (
        {},
        {"gost.y": {**BUILT, "from": "none"}},
        "artifacts.gost.y: 'gost' is not this paper",
    ),
}


@pytest.mark.parametrize(
    ("experiments", "artifacts", "expected"), UNMATCHED.values(), ids=UNMATCHED
)
def test_a_name_that_would_match_nothing(tmp_path, experiments, artifacts, expected):
    """It is refused, because a misspelled name would otherwise silently have no effect."""
    with pytest.raises(InputError) as error:
        registry(tmp_path, experiments, artifacts)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("experiments", "artifacts"),
    [({"nets": experiment()}, {}), ({}, {"ghost.x": {**BUILT, "from": "none"}})],
    ids=["experiment", "artifact"],
)
def test_one_name_in_two_files(tmp_path, experiments, artifacts):
    """The later file does not silently win."""
    folder = workflow(tmp_path / "workflow", experiments, artifacts)
    text = (folder / "experiments" / "ghost.yaml").read_text()
    (folder / "experiments" / "lalc.yaml").write_text(text)
    with pytest.raises(InputError, match=r"lalc\.yaml: .*: duplicate .*, also in .*ghost\.yaml: "):
        Registry(folder)


def test_a_probe_that_a_scale_drops(tmp_path):
    """At that scale, the artifact would have nothing to draw."""
    body = experiment(
        task="classify",
        base={**CLASSIFY, "probes": ["gradients"]},
        scales={"laptop": {"probes": []}},
    )
    artifact = {**BUILT, "rows": {"A": "nets/a"}, "probes": ["gradients"]}
    with pytest.raises(InputError, match=r"'gradients' is not recorded by nets/a at scale laptop"):
        registry(tmp_path, {"nets": body}, {"ghost.x": artifact})


UNREADABLE = {
    "no such date": "a: 2020-13-45\n",
    "no integer": "a: !!int abc\n",
    "no truth value": "a: !!bool abc\n",
    "thousands of digits": f"a: {'9' * 5000}\n",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_scalar_that_yaml_cannot_convert_is_one_line(tmp_path, name):
    path = tmp_path / "ghost.yaml"
    path.write_text(UNREADABLE[name])
    with pytest.raises(InputError) as error:
        load_yaml(path)
    assert one_line(error).startswith(f"{path}: not valid YAML (")


@pytest.mark.parametrize("folder", ["experiments", "claims"])
def test_a_file_that_is_never_read_is_refused(tmp_path, folder):
    root = workflow(tmp_path, {})
    (root / folder).mkdir(exist_ok=True)
    (root / folder / "lalk.yaml").write_text("{}")
    with pytest.raises(InputError) as error:
        Registry(root)
    assert "lalk.yaml: this file is never read; did you mean 'lalc'?" in one_line(error)
