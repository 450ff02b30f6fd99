"""Architectures only: no training, no initialization beyond torch's own. Every model has `outputs(x)`: the logits and
the places where gradients are probed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn


def build(spec: Mapping[str, Any], classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of a classify or initialize spec, for images of `shape` (3, H, W)."""
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
