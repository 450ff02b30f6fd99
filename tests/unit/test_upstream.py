"""Runs that start from another run's weights.

The registry finds their inputs, and refuses what cannot work before any job starts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostgrad.checks import InputError
from ghostgrad.registry.spec import available, unset_data
from tests.unit.fabricate import experiment, one_line, publish, registry

NET = {
    "model": "seqnet18",
    "init": "default",
    "data": "imagenet",
    "batch": 64,
    "length": 10,
    "lr": 0.1,
}
HEAD = {
    "model": "seqnet18",
    "data": "coco",
    "batch": 4,
    "length": 10,
    "lr": 0.1,
    "weights": "nets/a-s0",
}


def experiments(head: dict | None = None, heads: dict | None = None, **nets) -> dict:
    variants = {"a": {}, "wide": {"stem_filters": 128}, "skip": {"skip": True}}
    upstream = {
        "task": "classify",
        "base": NET,
        "variants": variants,
        "publish_weights": True,
        **nets,
    }
    return {
        "nets": experiment(**upstream),
        "heads": experiment(
            task="detect", base={**HEAD, **(head or {})}, variants={"b": {}}, **(heads or {})
        ),
    }


def test_its_inputs_are_the_manifest_and_the_weights(tmp_path):
    reg = registry(tmp_path, experiments())
    run = reg.run("paper", "heads/b-s0")
    assert run.upstream is reg.run("paper", "nets/a-s0")
    assert run.inputs == ["results/data/coco.json", "results/paper/runs/nets/a-s0/weights.pt"]
    assert run.upstream.inputs == ["results/data/imagenet.json"]
    assert not run.cpu


def test_both_data_sets_are_needed_until_the_weights_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = registry(tmp_path, experiments()).run("paper", "heads/b-s0")
    assert unset_data(run, {}) == "coco"
    assert unset_data(run, {"coco": "/x"}) == "imagenet"
    assert unset_data(run, {"coco": "/x", "imagenet": "/y"}) is None
    assert not available(run, {"coco": "/x"})
    publish(run.upstream)
    Path(run.upstream.directory, "weights.pt").touch()
    assert available(run, {"coco": "/x"})


def test_publishing_is_no_part_of_the_spec(tmp_path):
    """Asking for weights later changes no canonical spec."""
    (tmp_path / "b").mkdir()
    with_weights, without = (
        registry(
            tmp_path / name,
            {"nets": experiment(task="classify", base=NET, variants={"a": {}}, **more)},
        )
        for name, more in (("a", {"publish_weights": True}), ("b", {}))
    )
    runs = [reg.run("paper", "nets/a-s0") for reg in (with_weights, without)]
    assert runs[0].canonical == runs[1].canonical
    assert [run.publishes_weights for run in runs] == [True, False]


REFUSED = {
    "no such experiment": (
        {"head": {"weights": "net/a-s0"}},
        "weights: no experiment 'net'; did you mean 'nets'?",
    ),
    "no such run": (
        {"head": {"weights": "nets/b-s0"}},
        "weights: no run 'nets/b-s0' at scale paper; did you mean 'nets/a-s0'?",
    ),
    "no such seed": (
        {"head": {"weights": "nets/a-s3"}},
        "weights: no run 'nets/a-s3' at scale paper",
    ),
    "weights are not kept": (
        {"publish_weights": False},
        "weights: nets does not publish weights; set publish_weights: true",
    ),
    "another network": (
        {"head": {"model": "seqnet34"}},
        "model: seqnet34, but the weights come from a network with seqnet18",
    ),
    "another width": (
        {"head": {"weights": "nets/wide-s0"}},
        "stem_filters: 64, but the weights come from a network with 128",
    ),
    "another form": (
        {"head": {"weights": "nets/skip-s0"}},
        "weights: nets/skip-s0 has skip True; a detector needs False",
    ),
    "not a run's name": ({"head": {"weights": "nets"}}, "weights: 'nets' is not of the form"),
    "weights of a detector": (
        {"heads": {"publish_weights": True}},
        "publish_weights: task detect cannot publish weights; leave it out",
    ),
    "anchors": (
        {"head": {"anchor_sizes": [8]}},
        "anchor_sizes: 1 given for the five levels of the pyramid",
    ),
    "no BN": (
        {"head": {"model": "resnet50_gn", "backbone_norm": "sync"}},
        "backbone_norm: resnet50_gn has no BN",
    ),
    "sizes": ({"head": {"min_size": 2000}}, "min_size: 2000 is above max_size, 1333"),
    "boundaries": ({"head": {"lr_boundaries": [5, 2]}}, "lr_boundaries: not in ascending order"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_before_any_job(case, tmp_path):
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as error:
        registry(tmp_path, experiments(**changes)).runs("paper")
    assert message in one_line(error)
