"""Mask R-CNN with a feature pyramid (He et al. 2017, Lin et al. 2017) on the networks of the Ghost paper's table 2,
from torchvision's detection modules.

The pyramid stands on the outputs of a network's four stages. A SeqNet's are those of its BNs, without ReLU, so that
they may be negative; `backbone_relu` puts one there. `heads: gn` is group normalization in the pyramid, in a box head
of four convolutions and one linear layer, and in the mask head (Wu and He 2018); `heads: 2fc` a box head of two linear
layers and no normalization. Stem and first stage are not trained; BN of the other stages is not either
(`FrozenBatchNorm2d`), or with `backbone_norm: sync` over the images of all processes (`SyncBatchNorm`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from ghostgrad.models.build import build_network
from ghostgrad.models.torchvision_nets import group_norm
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec

RATIOS = (0.5, 1.0, 2.0)


class Stages(nn.Module):
    """Images (N, 3, H, W) -> the outputs of a network's four stages, by the pyramid's names "0" to "3"."""

    def __init__(self, stem: Sequence[nn.Module], stages: Sequence[nn.Module], relu: bool):
        super().__init__()
        self.stem, self.stages, self.relu = nn.Sequential(*stem), nn.ModuleList(stages), relu

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, found = self.stem(x), OrderedDict()
        for index, stage in enumerate(self.stages):
            x = stage(x)
            found[str(index)] = x.relu() if self.relu else x
        return found


class Backbone(nn.Module):
    """`body`, then the pyramid: five levels of `channels`, the last a max-pool of the one before."""

    def __init__(self, body: Stages, widths: Sequence[int], channels: int, normalized: bool):
        super().__init__()
        self.body, self.out_channels = body, channels
        norm = group_norm if normalized else None
        self.fpn = FeaturePyramidNetwork(list(widths), channels, LastLevelMaxPool(), norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(x))


def stages_of(model: str, net: nn.Module, relu: bool = False) -> Stages:
    """The part of a classifier that a detector stands on, weights and all: of a SeqNet or of torchvision's ResNet."""
    if model.startswith("seqnet"):
        return Stages([net.stem], net.stages, relu)
    return Stages([net.conv1, net.bn1, net.relu, net.maxpool], [net.layer1, net.layer2, net.layer3, net.layer4], relu)


def widths_of(body: Stages) -> list[int]:
    """MeanStd of the four stages' outputs."""
    norms = [[m for m in stage.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))] for stage in body.stages]
    return [len(found[-1].weight) for found in norms]


def freeze(body: Stages, norms: bool) -> None:
    """The stem and the first stage keep all of theirs; with `norms` every BN keeps its statistics, gamma and beta."""
    first = (body.stem, body.stages[0])
    for part in (body,) if norms else first:
        for module in list(part.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    frozen = FrozenBatchNorm2d(child.num_features, child.eps)
                    frozen.load_state_dict({k: v for k, v in child.state_dict().items() if k != "num_batches_tracked"})
                    setattr(module, name, frozen)
    for part in first:
        for parameter in part.parameters():
            parameter.requires_grad_(False)


def classifier(spec: DetectSpec, classes: int) -> nn.Module:
    """The classifier that the backbone of a detect spec is a part of."""
    network = ClassifySpec(
        model=spec.model,
        cifar_stem=spec.cifar_stem,
        small_stem=spec.small_stem,
        stem_filters=spec.stem_filters,
        # Only the parameters of the network are read; these have no default.
        data="imagenet",
        batch=2,
        length=0,
        lr=1,
        seed=0,
    )
    return build_network(network, classes, (3, 224, 224))


def build(spec: DetectSpec, net: nn.Module, classes: int, channels: tuple[Sequence[float], ...]) -> MaskRCNN:
    """The detector of a detect spec on the classifier `net`; `classes` without the background, `channels` the mean and
    standard deviation by which it normalizes images in 0..1."""
    body = stages_of(spec.model, getattr(net, "net", net), spec.backbone_relu)
    widths = widths_of(body)
    freeze(body, spec.backbone_norm == "frozen")
    normalized, width = spec.heads == "gn", spec.fpn_channels
    backbone = Backbone(body, widths, width, normalized)
    sizes, features = tuple((size,) for size in spec.anchor_sizes), spec.head_features
    box_head: nn.Module = TwoMLPHead(width * 7**2, features)
    if normalized:
        box_head = FastRCNNConvFCHead((width, 7, 7), [width] * 4, [features], norm_layer=group_norm)
    return MaskRCNN(
        backbone,
        min_size=spec.min_size,
        max_size=spec.max_size,
        image_mean=list(channels[0]),
        image_std=list(channels[1]),
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        rpn_head=RPNHead(width, len(RATIOS)),
        rpn_pre_nms_top_n_train=spec.proposals * 2,
        rpn_post_nms_top_n_train=spec.proposals * 2,
        rpn_pre_nms_top_n_test=spec.proposals,
        rpn_post_nms_top_n_test=spec.proposals,
        box_batch_size_per_image=spec.rois,
        box_head=box_head,
        box_predictor=FastRCNNPredictor(features, classes + 1),
        mask_head=MaskRCNNHeads(width, [width] * 4, 1, norm_layer=group_norm if normalized else None),
        mask_predictor=MaskRCNNPredictor(width, width, classes + 1),
    )
