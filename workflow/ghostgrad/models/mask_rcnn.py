"""Mask R-CNN with a feature pyramid (He et al. 2017, Lin et al. 2017) on the networks of the Ghost
paper's table 2, from torchvision's detection modules.

The pyramid takes the outputs of a network's four stages. Those of a SeqNet are outputs of BN
without ReLU and may be negative; `backbone_relu` puts a ReLU there. With `heads: gn` there is group
normalization in the pyramid, in a box head of four convolutions and one linear layer, and in the
mask head (Wu and He 2018); with `heads: 2fc` a box head of two linear layers and no normalization.
Stem and first stage are not trained. With `backbone_norm: frozen`, BN of the other stages is not
trained either (`FrozenBatchNorm2d`); with `sync` it is, over the images of all processes
(`SyncBatchNorm`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from ghostgrad.models.build import build_network
from ghostgrad.models.network import ProbedNetwork
from ghostgrad.models.staged import StagedNetwork
from ghostgrad.models.torchvision_nets import WatchedNetwork, group_norm
from ghostgrad.registry.datasets import MeanStd
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec

ASPECT_RATIOS = (0.5, 1.0, 2.0)
BOX_REGION_SIDE, MASK_REGION_SIDE = 7, 14  # positions to which torchvision pools a region
HEAD_CONVOLUTIONS = 4  # in the mask head, and in the box head with group normalization


class StageOutputs(nn.Module):
    """Images (N, 3, H, W) -> the outputs of a network's four stages.

    The keys are "0" to "3", as the pyramid expects them. With `relu` the outputs are rectified, but
    the next stage still takes what the last one gave.
    """

    def __init__(self, stem: Sequence[nn.Module], stages: Sequence[nn.Module], relu: bool):
        super().__init__()
        self.stem, self.stages, self.relu = nn.Sequential(*stem), nn.ModuleList(stages), relu

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, outputs = self.stem(x), OrderedDict()
        for index, stage in enumerate(self.stages):
            x = stage(x)
            outputs[str(index)] = x.relu() if self.relu else x
        return outputs


class Backbone(nn.Module):
    """`body`, then the pyramid: five levels of `channels`, the last a max-pool of the one before.

    `widths` are the channels of the body's four outputs.
    """

    def __init__(self, body: StageOutputs, widths: Sequence[int], channels: int, normalized: bool):
        super().__init__()
        self.body, self.out_channels = body, channels
        norm = group_norm if normalized else None
        self.fpn = FeaturePyramidNetwork(list(widths), channels, LastLevelMaxPool(), norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.fpn(self.body(x))
        return levels


def backbone_stages(classifier: ProbedNetwork, relu: bool = False) -> StageOutputs:
    """The part of a SeqNet or a torchvision ResNet that a detector uses; it shares the weights."""
    if isinstance(classifier, StagedNetwork):
        return StageOutputs([classifier.stem], list(classifier.stages), relu)
    net = cast(WatchedNetwork, classifier).net
    stem, stages = (
        [net.get_submodule(name) for name in names.split()]
        for names in ("conv1 bn1 relu maxpool", "layer1 layer2 layer3 layer4")
    )
    return StageOutputs(stem, stages, relu)


def stage_widths(body: StageOutputs) -> list[int]:
    """The channels of the four stages' outputs, read off the last normalization of each stage."""
    widths = []
    for stage in body.stages:
        norms = [m for m in stage.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]
        widths.append(len(norms[-1].weight))
    return widths


def freeze_backbone(body: StageOutputs, all_norms: bool) -> None:
    """Make stem and first stage untrained; with `all_norms` also every BN of the other stages.

    A frozen BN keeps its running statistics, gamma and beta.
    """
    first = (body.stem, body.stages[0])
    for part in (body,) if all_norms else first:
        # A list, because the loop replaces modules while it runs.
        for module in list(part.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, _frozen(child))
    for part in first:
        for parameter in part.parameters():
            parameter.requires_grad_(False)


def _frozen(norm: nn.BatchNorm2d) -> nn.Module:
    frozen: nn.Module = FrozenBatchNorm2d(norm.num_features, norm.eps)
    state = norm.state_dict()
    del state["num_batches_tracked"]  # a frozen BN counts none
    frozen.load_state_dict(state)
    return frozen


def build_classifier(spec: DetectSpec, classes: int) -> ProbedNetwork:
    """The classifier whose stages are the backbone of a detect spec."""
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


def build_detector(
    spec: DetectSpec, classifier: ProbedNetwork, classes: int, mean_std: MeanStd
) -> MaskRCNN:
    """The detector of a detect spec on the stages of `classifier`.

    `classes` do not include the background. `mean_std` are the constants by which the detector
    normalizes images in [0, 1].
    """
    body = backbone_stages(classifier, spec.backbone_relu)
    widths = stage_widths(body)  # before BN is replaced
    freeze_backbone(body, all_norms=spec.backbone_norm == "frozen")
    use_group_norm, channels = spec.heads == "gn", spec.fpn_channels
    features = spec.head_features
    # The parts draw their weights from torch's global generator, so their order matters: pyramid,
    # box head, and then the arguments of MaskRCNN from the first to the last.
    backbone = Backbone(body, widths, channels, use_group_norm)
    box_head = _build_box_head(channels, features, use_group_norm)
    # One size of anchors per level of the pyramid, each in three aspect ratios.
    sizes = tuple((size,) for size in spec.anchor_sizes)
    anchors = AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes))
    return MaskRCNN(
        backbone,
        min_size=spec.min_size,
        max_size=spec.max_size,
        image_mean=list(mean_std[0]),
        image_std=list(mean_std[1]),
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, len(ASPECT_RATIOS)),
        rpn_pre_nms_top_n_train=spec.proposals * 2,
        rpn_post_nms_top_n_train=spec.proposals * 2,
        rpn_pre_nms_top_n_test=spec.proposals,
        rpn_post_nms_top_n_test=spec.proposals,
        box_batch_size_per_image=spec.rois,
        box_head=box_head,
        box_predictor=FastRCNNPredictor(features, classes + 1),
        mask_head=MaskRCNNHeads(
            channels,
            [channels] * HEAD_CONVOLUTIONS,
            1,  # dilation
            norm_layer=group_norm if use_group_norm else None,
        ),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
    )


def _build_box_head(channels: int, features: int, use_group_norm: bool) -> nn.Module:
    # Drawn in both cases: all weights that are drawn later depend on it.
    head: nn.Module = TwoMLPHead(channels * BOX_REGION_SIDE**2, features)
    if use_group_norm:
        shape = (channels, BOX_REGION_SIDE, BOX_REGION_SIDE)
        convolutions = [channels] * HEAD_CONVOLUTIONS
        head = FastRCNNConvFCHead(shape, convolutions, [features], norm_layer=group_norm)
    return head
