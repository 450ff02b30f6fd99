"""A mistake in a spec, in config.yaml or in a target is answered with one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ghostgrad.checks import InputError
from ghostgrad.registry.compatibility import check_together
from ghostgrad.registry.config import load_config, machine_facts
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.spec import parse_spec
from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.targets import check_target
from ghostgrad.tasks.run import choose_device
from tests.unit.fabricate import CLASSIFY, SIMULATE, experiment, one_line, registry

CLASSIFIER = {"task": "classify", **CLASSIFY, "seed": 0}
SPECS = {
    "no JSON": ("{", "--spec: not valid JSON"),
    "no object": ("[]", "--spec: expected a JSON object with the key 'task'"),
    "a number": ("5", "--spec: expected a JSON object with the key 'task'"),
    "a list for the task": (
        '{"task": [1]}',
        "--spec: task: '[1]' is not allowed; valid: classify",
    ),
    "no task": ("{}", "--spec: task: 'None' is not allowed; valid: classify"),
    "unknown task": (
        '{"task": "simulat"}',
        "--spec: task: 'simulat' is not allowed; did you mean 'simulate'?",
    ),
    "missing key": ('{"task": "simulate"}', "--spec: key 'net' is missing"),
    "unknown key": (
        json.dumps({"task": "simulate", **SIMULATE, "seed": 0, "nrom": 1}),
        "--spec: unknown key 'nrom'; did you mean 'norm'?",
    ),
    "not a number": (
        json.dumps({**CLASSIFIER, "lr": float("nan")}),
        "--spec: lr: expected a finite number, found nan",
    ),
    "infinite, in a list": (
        json.dumps({**CLASSIFIER, "lr_boundaries": [1, float("inf")]}),
        "--spec: lr_boundaries.1: expected a finite number, found inf",
    ),
    "no seed": (json.dumps({"task": "simulate", **SIMULATE}), "--spec: key 'seed' is missing"),
}


@pytest.mark.parametrize(("text", "expected"), SPECS.values(), ids=SPECS)
def test_bad_spec(text, expected):
    """`ghostgrad run --spec` refuses what the registry would refuse."""
    with pytest.raises(InputError) as error:
        parse_spec(text)
    assert expected in one_line(error)


TOGETHER = {
    "a batch that micro-batches do not fill": (
        1,
        {"micro_batch": 12},
        "micro_batch: 12 does not divide the 64 images",
    ),
    "clars, compiled": (1, {"optimizer": "clars", "compile": True}, "compile: clars needs hooks"),
    "a batch that does not divide": (
        3,
        {"micro_batch": 2},
        "batch: 64 images cannot be divided among 3 GPUs",
    ),
    "several GPUs without micro-batches": (
        2,
        {},
        "micro_batch: missing; with 2 GPUs, set how many",
    ),
    "a share that micro-batches do not fill": (
        4,
        {"micro_batch": 32},
        "micro_batch: 32 does not divide the 16 images",
    ),
}
VGG = {"model": "vgg", "depth": 21}
SEQNET = {"model": "seqnet50", "init": "default"}
UNFIT = {
    "Nesterov without momentum": (
        {"nesterov": True, "momentum": 0},
        "nesterov: it needs a momentum above 0",
    ),
    "Nesterov, of LALC": (
        {"nesterov": True, "momentum": 0, "optimizer": "lalc"},
        "nesterov: it needs a momentum",
    ),
    "Nesterov, of LARS": (
        {"nesterov": True, "momentum": 0.9, "optimizer": "lars"},
        "nesterov: optimizer lars does not use it",
    ),
    "raw_norm of SGD": (
        {"raw_norm": True},
        "raw_norm: optimizer sgd does not use it, only lalc; leave it out",
    ),
    "decay_in_trust of LARS": (
        {"decay_in_trust": True, "optimizer": "lars"},
        "decay_in_trust: optimizer lars does not use it",
    ),
    "BN of one image": ({"micro_batch": 1}, "micro_batch: BN has no variance over 1 image"),
    "a VGG of 20 layers": (
        {**VGG, "depth": 20},
        "depth: a vgg has five equal groups and a classifier, 5n + 1 layers",
    ),
    "boundaries that go back": ({"lr_boundaries": [2, 1]}, "lr_boundaries: not in ascending order"),
    "cosine with boundaries": (
        {"lr_boundaries": [2], "schedule": "cosine"},
        "lr_boundaries: schedule cosine does not use them",
    ),
    "a crop without a border": ({"augment": ["crop"]}, "pad: missing; without padding, crop"),
    "a stem in VGG19": (
        {"model": "vgg19_bn", "cifar_stem": True},
        "cifar_stem: vgg19_bn has no such stem",
    ),
    "a stem in an MLP": ({"model": "mlp", "small_stem": True}, "small_stem: mlp has no such stem"),
    "a small stem alone": (
        {"model": "resnet18", "small_stem": True},
        "small_stem: it is a form of the CIFAR stem",
    ),
    "zero gamma in a VGG": (
        {**VGG, "zero_init_residual": True},
        "zero_init_residual: vgg cannot start so",
    ),
    "zero gamma without shortcuts": (
        {"model": "plainnet50", "zero_init_residual": True},
        "zero_init_residual: plainnet50 cannot",
    ),
    "windows of memory": (
        {"data": "images", "augment": ["resized_crop"], "size": 6},
        "augment: resized_crop cuts windows out of image files; set input: files",
    ),
    "windows of any size": (
        {"data": "images", "augment": ["resized_crop"], "input": "files"},
        "augment: resized_crop cuts windows out of image files; set size: 224",
    ),
    "files of a data set that has none": (
        {"input": "files"},
        "input: files: data digits is not a folder of images; "
        "set data to images or imagenet, or input to memory",
    ),
    "He's weights in an ISONet": (
        {"model": "isonet18", "init": "he_normal"},
        "init: isonet18 has its own initialization",
    ),
    "CLARS of shared weights": (
        {"model": "seqnet50", "init": "default", "optimizer": "clars"},
        "optimizer: clars has no per-sample norms for seqnet50",
    ),
    "a second tie in a SeqBasic": (
        {**SEQNET, "model": "seqnet18", "tie_conv4": True},
        "tie_conv4: a SeqBasic has two",
    ),
    "a third 3x3 in a SeqBasic": (
        {**SEQNET, "model": "seqnet34", "position": "third"},
        "position: only SeqNet50 and 101 can have third",
    ),
    "orthogonal rows without room": (
        {**SEQNET, "position": "third", "seqnet_init": "orthogonal"},
        "seqnet_init: orthogonal cannot have 4d rows in 2d dimensions",
    ),
    "untied and tied": (
        {**SEQNET, "seqnet_init": "untied"},
        "seqnet_init: untied leaves nothing to tie",
    ),
    "zero gamma in a SeqNet": (
        {"model": "seqnet18", "init": "default", "zero_init_residual": True},
        "zero_init_residual: seqnet18 cannot",
    ),
}


def classifier(**changes) -> Spec:
    return parse_spec(json.dumps({**CLASSIFIER, **changes}))


@pytest.mark.parametrize(("changes", "expected"), UNFIT.values(), ids=UNFIT)
def test_options_that_training_would_stumble_over_or_ignore(changes, expected):
    with pytest.raises(InputError) as error:
        check_together(classifier(**changes), 0, "here")
    assert one_line(error).startswith(f"here: {expected}")


@pytest.mark.parametrize("depth", [5, 20])
def test_initialize_refuses_the_same_depths(depth):
    spec = {"model": "vgg", "data": "digits", "batch": 8, "repeats": 16, "seed": 0, "depth": depth}
    with pytest.raises(InputError, match=f"depth: a vgg .*; {depth} is not of this form$"):
        check_together(parse_spec(json.dumps({"task": "initialize", **spec})), 0, "here")
    check_together(parse_spec(json.dumps({"task": "initialize", **spec, "depth": 6})), 0, "here")


@pytest.mark.parametrize(("gpus", "changes", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_values_that_do_not_fit_each_other(ghostgrad, gpus, changes, expected):
    """`ghostgrad run` refuses them before it starts anything, and the registry refuses them before
    a job is submitted."""
    text = json.dumps({**CLASSIFIER, **changes})
    code, _, err = ghostgrad("run", "--spec", text, "--out", "out", "--gpus", str(gpus))
    assert code == 1
    assert err.startswith(f"ghostgrad: --spec: {expected}")
    assert err.count("\n") == 1
    assert list(Path().rglob("*")) == [Path("config.yaml")], "nothing was started"
    body = experiment(task="classify", base={**CLASSIFY, **changes}, resources={"gpu": gpus})
    with pytest.raises(InputError) as error:
        registry(Path(), {"nets": body}).run("paper", "nets/a-s0")
    assert f"ghost.yaml: experiments.nets.variants.a at scale paper: {expected}" in one_line(error)


def test_values_that_fit_each_other():
    fitting = {"batch": 64, "micro_batch": 8, "lr_boundaries": [1], "compile": True}
    check_together(classifier(**fitting), 4, "here")
    check_together(parse_spec(json.dumps({"task": "simulate", "seed": 0, **SIMULATE})), 1, "here")
    untied = {**SEQNET, "seqnet_init": "untied", "tie_conv2": False}
    for changes in (untied, {**SEQNET, "model": "seqnet34", "seqnet_init": "untied"}):
        check_together(classifier(**changes), 1, "here")
    for changes in ({**VGG, "norm": "layer"}, {"batch_norm": False}, {"model": "resnet50_gn"}):
        check_together(classifier(**changes, micro_batch=1), 1, "here")


def test_only_training_uses_more_than_one_gpu(ghostgrad):
    text = json.dumps({"task": "simulate", **SIMULATE, "seed": 0})
    code, _, err = ghostgrad("run", "--spec", text, "--out", "out", "--gpus", "2")
    assert code == 1
    assert (
        err == "ghostgrad: --spec: 2 GPUs for a run of simulate; "
        "only classify and detect can use more than one\n"
    )


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.delenv("GHOSTGRAD_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device(1).type == "cuda"
    with pytest.raises(InputError, match="asks for 2 GPUs, but only 1 can be seen"):
        choose_device(2)


CONFIGS = {
    "unknown key": (
        "scal: laptop\nstate_dir: state\n",
        "config.yaml: unknown key 'scal'; did you mean 'scale'?",
    ),
    "missing key": ("scale: laptop\n", "config.yaml: key 'state_dir' is missing"),
    "unknown scale": (
        "scale: labtop\nstate_dir: s\n",
        "scale: 'labtop' is not allowed; did you mean 'laptop'?",
    ),
    "wrong type": (
        "scale: laptop\nstate_dir: 3\n",
        "config.yaml: state_dir: expected string, found 3",
    ),
    "unknown data set": (
        "scale: laptop\nstate_dir: s\ndata: {cifar: /x}\n",
        "config.yaml: data: unknown key 'cifar'; did you mean 'cifar10'?",
    ),
    "data that are not there": (
        "scale: laptop\nstate_dir: s\ndata: {cifar10: /no/such/folder}\n",
        "config.yaml: data.cifar10: no folder /no/such/folder",
    ),
    "a duplicate key": (
        "scale: laptop\nscale: paper\nstate_dir: s\n",
        "config.yaml, line 2: duplicate key 'scale'",
    ),
    "broken": ("scale: [laptop\n", "config.yaml, line 2: not valid YAML"),
}


@pytest.mark.parametrize(("text", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_bad_configuration(tmp_path, monkeypatch, text, expected):
    """config.yaml is checked when it is read, before the first job, including the paths to the
    data."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_config()
    assert expected in one_line(error)


def test_data_left_empty_are_no_mistake(tmp_path, monkeypatch):
    """An empty key, an empty block and no block at all are all valid: this machine does not have
    the data, and no environment variable tells a run where they are."""
    monkeypatch.chdir(tmp_path)
    located = {"GHOSTGRAD_DATA_CIFAR10": str(tmp_path)}
    for data, expected in (
        ("data: {cifar10: }\n", {}),
        ("data: {cifar10: ''}\n", {}),
        ("data:\n", {}),
        ("", {}),
        (f"data: {{cifar10: {tmp_path}, imagenet: }}\n", located),
    ):
        Path("config.yaml").write_text(f"scale: laptop\nstate_dir: s\n{data}")
        facts = machine_facts(load_config())
        assert {key: facts[key] for key in facts if "_DATA_" in key} == expected


RULES = ("all", "ghost", "lalc", "bnres", "cpu")
TARGETS = {
    "scale": ("results/papr/tables/ghost.fig5.csv", "no scale 'papr'; did you mean 'paper'?"),
    "artifact": (
        "results/laptop/figures/ghost.fg5.svg",
        "no artifact 'ghost.fg5'; did you mean 'ghost.fig5'?",
    ),
    "no table": (
        "results/paper/tables/bnres.fig5.csv",
        "no table; build results/paper/figures/bnres.fig5.svg",
    ),
    "no figure": (
        "results/paper/figures/ghost.eq1.svg",
        "no figure; build results/paper/tables/ghost.eq1.md",
    ),
    "run": (
        "results/smoke/runs/plainnet_init/relu-bn-s9/metrics.csv",
        "did you mean 'plainnet_init/relu-bn-s0'?",
    ),
    "bare artifact": (
        "ghost.fig5",
        "ghost.fig5: name a file; build results/<scale>/tables/ghost.fig5.md or "
        "results/<scale>/figures/ghost.fig5.svg",
    ),
    "bare artifact without a figure": (
        "ghost.eq1",
        "ghost.eq1: name a file; build results/<scale>/tables/ghost.eq1.md",
    ),
    "nearly a bare artifact": (
        "ghost.fg5",
        "ghost.fg5: no such target; did you mean 'ghost.fig5'?",
    ),
    "nearly a named target": ("ghots", "ghots: no such target; did you mean 'ghost'?"),
}


@pytest.mark.parametrize(("target", "expected"), TARGETS.values(), ids=TARGETS)
def test_a_target_that_no_rule_makes(target, expected):
    """Snakemake itself would say "No rule to produce", or would plan trainings for a table that the
    artifact does not have."""
    with pytest.raises(InputError) as error:
        check_target(load_registry(), target, RULES)
    assert one_line(error).endswith(expected)


@pytest.mark.parametrize(
    "target",
    [
        "results/laptop/tables/ghost.fig5.tex",
        "results/laptop/report.html",
        "results/reports/today.html",  # the value of --report
        "results/data/digits.json",
        "ghost",
        "somewhere/else.csv",
    ],
)
def test_a_target_that_is_none_of_these_mistakes(target):
    check_target(load_registry(), target, RULES)


@pytest.mark.parametrize("text", ["", "- a\n", "laptop\n", "3\n"])
def test_a_configuration_that_is_no_mapping(tmp_path, monkeypatch, text):
    """The file is empty or holds a list, a word or a number."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^config\.yaml: expected object, found "):
        load_config()
