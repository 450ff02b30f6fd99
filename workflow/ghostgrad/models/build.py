"""From a spec to its network.

Nothing is trained here, and nothing is initialized beyond the network's own defaults, which are
drawn from torch's global generator. Modules of networks are imported where they are needed:
torchvision alone takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ghostgrad.checks import InputError
from ghostgrad.models.network import ProbedNetwork
from ghostgrad.models.staged import STEM_WIDTH
from ghostgrad.registry.specs.classify import SELF_INITIALIZED, ClassifySpec
from ghostgrad.registry.specs.initialize import InitializeSpec

MIN_IMAGE_SIDE: Mapping[str, int] = {"vgg16_bn": 32, "vgg19_bn": 32, "swin_t": 4, "vit_b_16": 16}
"""Pixels that leave one position at the end; every other network runs on a single pixel."""

VIT_PATCH = 16  # pixels


def _check_size(model: str, height: int, width: int) -> None:
    problem = f"model: {model} cannot run on images of {width} x {height} pixels"
    remedy = "set size in the spec to"
    minimum = MIN_IMAGE_SIDE.get(model, 1)
    if min(height, width) < minimum:
        raise InputError(f"{problem}; {remedy} {minimum} or more")
    if model == "vit_b_16" and (height != width or height % VIT_PATCH):
        raise InputError(f"{problem}; {remedy} a multiple of {VIT_PATCH}")


def build_network(
    spec: ClassifySpec | InitializeSpec, classes: int, shape: tuple[int, ...]
) -> ProbedNetwork:
    """The network of a classify or initialize spec, for images of `shape` (3, H, W).

    The spec's `size` replaces H and W where it is set. Raises InputError for a network that cannot
    run on such images.
    """
    if spec.size:
        shape = (shape[0], spec.size, spec.size)
    _check_size(spec.model, *shape[1:])
    family = spec.model.rstrip("0123456789")
    if isinstance(spec, ClassifySpec) and family in SELF_INITIALIZED:
        return _build_self_initialized(family, spec, classes)
    match spec.model:
        case "preact_resnet":
            from ghostgrad.models.preact_resnet import PreactResNet

            return PreactResNet(
                classes,
                blocks=spec.blocks,
                filters=spec.filters,
                batch_norm=spec.batch_norm,
                shortcut=spec.shortcut,
                bn_eps=spec.bn_eps,
                padding_mode=spec.padding_mode if isinstance(spec, InitializeSpec) else "zeros",
            )
        case "mlp":
            from ghostgrad.models.plain import mlp

            features = math.prod(shape)
            return mlp(classes, features, spec.depth, spec.width, spec.norm, spec.activation)
        case "vgg":
            from ghostgrad.models.plain import vgg

            return vgg(classes, spec.depth, spec.filters, spec.norm, spec.activation)
    from ghostgrad.models.torchvision_nets import build_torchvision_network

    return build_torchvision_network(
        spec.model,
        classes,
        spec.cifar_stem,
        spec.zero_init_residual,
        shape[-1],
        small_stem=spec.small_stem if isinstance(spec, ClassifySpec) else False,
        stem_filters=spec.stem_filters if isinstance(spec, ClassifySpec) else STEM_WIDTH,
    )


def _build_self_initialized(family: str, spec: ClassifySpec, classes: int) -> ProbedNetwork:
    """A network of a family that draws its own weights, whatever the spec's `init` says."""
    depth = int(spec.model.removeprefix(family))
    if family == "seqnet":
        from ghostgrad.models.seqnet import SeqNet

        return SeqNet(
            depth,
            classes,
            seqnet_init=spec.seqnet_init,
            tie_conv2=spec.tie_conv2,
            tie_conv4=spec.tie_conv4,
            branch_norm=spec.branch_norm,
            position=spec.position,
            skip=spec.skip,
            cifar_stem=spec.cifar_stem,
            small_stem=spec.small_stem,
            stem_filters=spec.stem_filters,
        )
    if family == "diracnet":
        from ghostgrad.models.diracnet import DiracNet

        return DiracNet(depth, classes, spec.cifar_stem, spec.small_stem, spec.stem_filters)
    from ghostgrad.models.isonet import ISONet

    return ISONet(depth, classes, spec.cifar_stem, spec.small_stem, spec.stem_filters)
