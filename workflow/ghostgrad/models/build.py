"""From a spec to its network. Architectures only: nothing is trained, and nothing is initialized beyond
torch's own defaults. Every network has `outputs(x)`: the logits and the places where gradients are
probed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.registry.spec import SELF_INITIALIZED

STEM = ("cifar_stem", "small_stem", "stem_filters")
SEQNET = ("seqnet_init", "tie_conv2", "tie_conv4", "branch_norm", "position", "skip")
SMALLEST = {"vgg16_bn": 32, "vgg19_bn": 32, "swin_t": 4, "vit_b_16": 16}  # pixels that leave one position at the end


def _check_size(model: str, height: int, width: int) -> None:
    images, least = f"model: {model} cannot run on images of {width} x {height} pixels", SMALLEST.get(model, 1)
    if min(height, width) < least:
        raise InputError(f"{images}; set the spec's key size: to {least} or more")
    if model == "vit_b_16" and (height != width or height % 16):
        raise InputError(f"{images}; set the spec's key size: to a multiple of 16")


def build_network(spec: Mapping[str, Any], classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of a classify or initialize spec, for images of `shape` (3, H, W), or of the spec's `size` where that
    is set; InputError where it cannot run on them."""
    shape = (shape[0], *[spec["size"]] * 2) if spec.get("size") else shape
    _check_size(spec["model"], *shape[1:])
    family = spec["model"].rstrip("0123456789")
    if family in SELF_INITIALIZED:
        return _self_drawn(family, spec, classes)
    match spec["model"]:
        case "preact_resnet":
            from ghostgrad.models.preact_resnet import PreactResNet

            keys = ("blocks", "filters", "batch_norm", "shortcut", "bn_eps", "padding_mode")
            return PreactResNet(classes, **{key: spec[key] for key in keys if key in spec})
        case "mlp":
            from ghostgrad.models.plain import mlp

            keys = ("depth", "width", "norm", "activation")
            return mlp(classes, math.prod(shape), **{key: spec[key] for key in keys})
        case "vgg":
            from ghostgrad.models.plain import vgg

            keys = ("depth", "filters", "norm", "activation")
            return vgg(classes, **{key: spec[key] for key in keys})
    from ghostgrad.models import torchvision_nets

    more = {key: spec[key] for key in ("small_stem", "stem_filters") if key in spec}
    return torchvision_nets.build(spec["model"], classes, spec["cifar_stem"], spec["zero_gamma"], shape[-1], **more)


def _self_drawn(family: str, spec: Mapping[str, Any], classes: int) -> nn.Module:
    """A network that its own initialization makes what it is."""
    depth, options = int(spec["model"].removeprefix(family)), {key: spec[key] for key in STEM}
    if family == "seqnet":
        from ghostgrad.models.seqnet import SeqNet

        return SeqNet(depth, classes, **options, **{key: spec[key] for key in SEQNET})
    if family == "diracnet":
        from ghostgrad.models.diracnet import DiracNet

        return DiracNet(depth, classes, **options)
    from ghostgrad.models.isonet import ISONet

    return ISONet(depth, classes, **options)
