"""Values of a spec that are valid each by itself and do not fit each other, or the GPUs: refused by the registry,
before anything is submitted, and by `ghostgrad run`. Imports neither torch nor pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from ghostgrad.checks import InputError, schema
from ghostgrad.registry.spec import FOLDER_DATA, SELF_INITIALIZED, test_side

STEMLESS = ("preact_resnet", "mlp", "vgg", "vgg16_bn", "vgg19_bn", "vit_b_16", "swin_t")
RULES_WITH = {  # option -> the update rules that read it
    "nesterov": ("sgd", "larc", "lalc"),
    "raw_norm": ("lalc",),
    "gamma_outside": ("lars", "clars"),
    "decay_in_trust": ("clars",),
}


def _has_batch_norm(spec: Mapping[str, Any]) -> bool:
    """Of a classify spec's network."""
    model = spec["model"]
    if model in ("mlp", "vgg"):
        return spec["norm"] == "batch"
    if model == "preact_resnet":
        return spec["batch_norm"]
    return model != "resnet50_gn" and not model.startswith("isonet")


def _architecture_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the network of a classify or initialize spec cannot be or would ignore."""
    model = spec["model"]
    if model == "vgg" and (spec["depth"] % 5 != 1 or spec["depth"] < 6):
        yield f"depth: vgg has five equal groups and a classifier, 5n + 1 layers, not {spec['depth']}"
    for key in ("cifar_stem", "small_stem"):
        if model in STEMLESS and spec.get(key):
            yield f"{key}: {model} has no such stem; leave it out"
    if spec.get("small_stem") and not spec["cifar_stem"]:
        yield "small_stem: is a form of the CIFAR stem; set cifar_stem too"
    if spec.get("zero_gamma") and not model.startswith("resnet"):
        yield f"zero_gamma: {model} has no branches that it could set to 0; leave it out"


def _self_drawn_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What a network that its own initialization makes what it is cannot be; of SeqNets, what the paper's modules
    cannot."""
    model = spec["model"]
    if not model.startswith(SELF_INITIALIZED):
        return
    if spec["init"] != "default":
        yield f"init: {model} has an initialization of its own, default, not {spec['init']}"
    if spec["optimizer"] == "clars":  # which takes every weight for that of one plain layer
        yield f"optimizer: clars has no per-sample norms for {model}"
    if not model.startswith("seqnet"):
        return
    basic, kind = model in ("seqnet18", "seqnet34"), spec["seqnet_init"]
    ties = (not basic if spec["tie_conv2"] == "baseline" else spec["tie_conv2"], spec["tie_conv4"])
    if basic and spec["tie_conv4"]:
        yield "tie_conv4: a SeqBasic has two convolutions"
    if basic and spec["position"] != "first":
        yield f"position: {spec['position']} is of the SeqBottle, SeqNet50 and 101"
    if kind == "untied" and any(ties):
        yield "seqnet_init: untied leaves nothing to tie; set tie_conv2 and tie_conv4 to false"
    if spec["position"] == "third" and kind in ("orthogonal", "looks-linear"):
        yield f"seqnet_init: {kind} has no 4d rows in 2d dimensions, which position third asks for"


def _image_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """How images cannot be read or augmented."""
    if spec["input"] == "files" and spec["data"] not in FOLDER_DATA:
        told = f"data {spec['data']} is no folder of images; take {' or '.join(FOLDER_DATA)}, or memory"
        yield f"input: files: {told}"
    if spec["resized"] and spec["data"] not in FOLDER_DATA:
        yield f"resized: data {spec['data']} is no folder of images; take {' or '.join(FOLDER_DATA)}, or 0"
    if 0 < spec["resized"] < (short := test_side(spec)):
        yield f"resized: {spec['resized']} is smaller than {short}, to which the test images would grow again"
    if "resized_crop" in spec["augment"]:
        for key, found, wanted in (("input", spec["input"] == "files", "files"), ("size", spec["size"], "224")):
            if not found:
                yield f"augment: resized_crop cuts windows out of image files; set {key}: {wanted}"
    if "crop" in spec["augment"] and not spec["pad"]:
        yield "pad: missing; without it crop cuts the image itself"


def _batch_problems(spec: Mapping[str, Any], gpus: int) -> Iterator[str]:
    """How a batch does not fit its parts."""
    batch, micro, each = spec["batch"], spec["micro_batch"], spec["batch"] // max(1, gpus)
    if gpus > 1 and batch % gpus:
        yield f"batch: {batch} images do not divide by {gpus} GPUs"
    if gpus > 1 and not micro:
        yield f"micro_batch: missing; {gpus} GPUs need to be told how many images BN sees at a time"
    if micro and each % micro:
        yield f"micro_batch: {micro} does not divide the {each} images of batch that a GPU has"
    if (micro or each) == 1 and _has_batch_norm(spec):
        yield "micro_batch: BN has no variance of 1 image; give it 2 or more"


def _rate_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """How a learning rate's schedule does not fit its boundaries."""
    rates, boundaries = len(spec["lr_values"]), len(spec["lr_boundaries"])
    if rates not in (0, boundaries):
        yield f"lr_values: {rates} rates for {boundaries} lr_boundaries; give one for each"
    if spec["lr_boundaries"] != sorted(spec["lr_boundaries"]):
        yield "lr_boundaries: not in ascending order"
    if spec["schedule"] == "cosine" and boundaries:
        yield "lr_boundaries: schedule cosine has none; leave them out"


def _rule_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the update rule cannot do or would ignore."""
    rule = spec["optimizer"]
    if rule == "clars" and spec["compile"]:
        yield "compile: clars needs hooks, which are not compiled; leave it out"
    if rule == "clars" and spec["orthogonal"]:
        yield "orthogonal: clars is of the samples' losses alone; leave it out"
    for option, rules in RULES_WITH.items():
        if spec[option] and rule not in rules:
            yield f"{option}: {rule} has no such option, but {', '.join(rules)}; leave it out"
    if spec["nesterov"] and not spec["momentum"]:
        yield "nesterov: needs a momentum above 0"


BACKBONE = ("model", "cifar_stem", "small_stem", "stem_filters")  # of a detect spec, and of the run it starts from
PLAIN = ("tie_conv2", "tie_conv4", "branch_norm", "position", "skip")  # of that run: a detector has the defaults


def check_weights(spec: Mapping[str, Any], upstream: Mapping[str, Any], where: str) -> None:
    """InputError where the network of a detect spec is not the one that its weights are of."""
    for key in BACKBONE:
        if spec[key] != upstream[key]:
            raise InputError(f"{where}: {key}: {spec[key]}, but its weights are of a network with {upstream[key]}")
    for key in PLAIN:
        if upstream[key] != (usual := schema("classify")["properties"][key]["default"]):
            told = f"is of a network with {key} {upstream[key]}; a detector has {usual}"
            raise InputError(f"{where}: weights: {spec['weights']} {told}")


def _detect_problems(spec: Mapping[str, Any], gpus: int) -> Iterator[str]:
    """What a detector's spec asks for that does not fit."""
    if spec["batch"] % max(1, gpus):
        yield f"batch: {spec['batch']} images do not divide by {gpus} GPUs"
    if spec["min_size"] > spec["max_size"]:
        yield f"min_size: {spec['min_size']} is above max_size, {spec['max_size']}"
    if len(spec["anchor_sizes"]) != 5:
        yield f"anchor_sizes: {len(spec['anchor_sizes'])} for the pyramid's five levels; give one for each"
    if spec["lr_boundaries"] != sorted(spec["lr_boundaries"]):
        yield "lr_boundaries: not in ascending order"
    if spec["small_stem"] and not spec["cifar_stem"]:
        yield "small_stem: is a form of the CIFAR stem; set cifar_stem too"
    if spec["backbone_norm"] == "sync" and spec["model"] == "resnet50_gn":
        yield "backbone_norm: resnet50_gn has no BN; leave it out"


def check_together(task: str, spec: Mapping[str, Any], gpus: int, where: str) -> None:
    """InputError where the values of an expanded spec, each valid by itself, do not fit each other or the GPUs."""
    problems: list[Iterable[str]] = []
    if task not in ("classify", "detect") and gpus > 1:
        problems.append([f"{gpus} GPUs for a run of {task}; only classify and detect compute on more than one"])
    if task in ("classify", "initialize"):
        problems.append(_architecture_problems(spec))
    if task == "classify":
        problems += [_self_drawn_problems(spec), _image_problems(spec)]
        problems += [_rate_problems(spec), _batch_problems(spec, gpus), _rule_problems(spec)]
    if task == "detect":
        problems.append(_detect_problems(spec, gpus))
    for problem in chain.from_iterable(problems):
        raise InputError(f"{where}: {problem}")
