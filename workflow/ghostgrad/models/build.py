"""From a spec to its network. Architectures only: nothing is trained, and nothing is initialized beyond
torch's own defaults. Every network has `outputs(x)`: the logits and the places where gradients are
probed."""

from __future__ import annotations

import math

from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.registry.specs.classify import SELF_INITIALIZED, ClassifySpec
from ghostgrad.registry.specs.initialize import InitializeSpec

SMALLEST = {"vgg16_bn": 32, "vgg19_bn": 32, "swin_t": 4, "vit_b_16": 16}  # pixels that leave one position at the end


def _check_size(model: str, height: int, width: int) -> None:
    images, least = f"model: {model} cannot run on images of {width} x {height} pixels", SMALLEST.get(model, 1)
    if min(height, width) < least:
        raise InputError(f"{images}; set the spec's key size: to {least} or more")
    if model == "vit_b_16" and (height != width or height % 16):
        raise InputError(f"{images}; set the spec's key size: to a multiple of 16")


def build_network(spec: ClassifySpec | InitializeSpec, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of a classify or initialize spec, for images of `shape` (3, H, W), or of the spec's `size` where that
    is set; InputError where it cannot run on them."""
    if spec.size:
        shape = (shape[0], spec.size, spec.size)
    _check_size(spec.model, *shape[1:])
    family = spec.model.rstrip("0123456789")
    if isinstance(spec, ClassifySpec) and family in SELF_INITIALIZED:
        return _self_initialized(family, spec, classes)
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

            return mlp(
                classes,
                math.prod(shape),
                depth=spec.depth,
                width=spec.width,
                norm=spec.norm,
                activation=spec.activation,
            )
        case "vgg":
            from ghostgrad.models.plain import vgg

            return vgg(
                classes,
                depth=spec.depth,
                filters=spec.filters,
                norm=spec.norm,
                activation=spec.activation,
            )
    from ghostgrad.models import torchvision_nets

    narrow = {}
    if isinstance(spec, ClassifySpec):
        narrow = {"small_stem": spec.small_stem, "stem_filters": spec.stem_filters}
    return torchvision_nets.build(
        spec.model, classes, spec.cifar_stem, spec.zero_init_residual, shape[-1], **narrow
    )


def _self_initialized(family: str, spec: ClassifySpec, classes: int) -> nn.Module:
    """A network of a family that draws its own weights."""
    depth = int(spec.model.removeprefix(family))
    stem = {
        "cifar_stem": spec.cifar_stem,
        "small_stem": spec.small_stem,
        "stem_filters": spec.stem_filters,
    }
    if family == "seqnet":
        from ghostgrad.models.seqnet import SeqNet

        return SeqNet(
            depth,
            classes,
            **stem,
            seqnet_init=spec.seqnet_init,
            tie_conv2=spec.tie_conv2,
            tie_conv4=spec.tie_conv4,
            branch_norm=spec.branch_norm,
            position=spec.position,
            skip=spec.skip,
        )
    if family == "diracnet":
        from ghostgrad.models.diracnet import DiracNet

        return DiracNet(depth, classes, **stem)
    from ghostgrad.models.isonet import ISONet

    return ISONet(depth, classes, **stem)
