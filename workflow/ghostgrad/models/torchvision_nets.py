"""Networks of torchvision, with the places where gradients are probed (LALC fig. 1a).

These are the outputs of the normalizations on the path of a ResNet or a VGG, and the block outputs
of a transformer. PlainNet50 is ResNet50 without its shortcuts (Ghost sec. 5); ResNet50-GN has
GroupNorm of 32 groups in place of BN (Wu and He 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.vision_transformer import EncoderBlock

from ghostgrad.models.network import ProbedNetwork
from ghostgrad.models.staged import STAGE_DEPTHS, STEM_WIDTH, stem_convolution


class WatchedNetwork(ProbedNetwork):
    """The network `net`; gradients are probed at the outputs of the modules `watched`.

    `watched` is in the order in which the modules run.
    """

    def __init__(self, net: nn.Module, watched: list[nn.Module]):
        super().__init__()
        self.net = net
        # A plain list does not register the modules, which are those of `net`, a second time.
        self._watched = watched

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen.append(output)
            return output.clone()  # the next module works in place

        hooks = [module.register_forward_hook(keep) for module in self._watched]
        try:
            return self.net(x), seen
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, x: Tensor) -> Tensor:
        # Without hooks: they would copy every watched output in training.
        logits: Tensor = self.net(x)
        return logits


class PlainBottleneck(Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """A ResNet's bottleneck without the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        layers = ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3))
        for convolution, norm in layers:
            x = self.relu(norm(convolution(x)))
        return x


RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], int]] = {
    "resnet18": (BasicBlock, 18),
    "resnet34": (BasicBlock, 34),
    "resnet50": (Bottleneck, 50),
    "resnet50_gn": (Bottleneck, 50),
    "resnet101": (Bottleneck, 101),
    "plainnet50": (PlainBottleneck, 50),
}
"""Block and depth of the networks that are built from torchvision's ResNet."""


class NarrowResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet with `filters` in place of 64 and every other width in proportion."""

    def __init__(
        self,
        stage_depths: Sequence[int],
        classes: int,
        filters: int,
        zero_init_residual: bool,
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ):
        self.filters = filters
        super().__init__(
            block,
            list(stage_depths),
            classes,
            zero_init_residual=zero_init_residual,
            norm_layer=norm_layer,
        )
        # torchvision's constructor has made stem and classifier for 64 filters.
        self.conv1 = nn.Conv2d(3, filters, 7, stride=2, padding=3, bias=False)
        he_normal(self.conv1)
        self.bn1 = norm_layer(filters)
        self.fc = nn.Linear(8 * filters * block.expansion, classes)

    def _make_layer(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        """Make one stage; called by torchvision's constructor with planes = 64, 128, 256, 512."""
        if planes == STEM_WIDTH:
            # The first stage: torchvision has just set the number of its input channels to 64.
            self.inplanes = self.filters
        planes = planes * self.filters // STEM_WIDTH
        stage: nn.Sequential = super()._make_layer(block, planes, blocks, stride, dilate)
        return stage


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, or of the largest number of groups that divides 32 and `channels`."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def build_resnet(name: str, classes: int, filters: int, zero_init_residual: bool) -> ResNet:
    """A network of RESNETS.

    PlainNet50 draws the shortcuts' weights too before it drops them, so the same seed gives it and
    ResNet50 the same convolutions.
    """
    block, depth = RESNETS[name]
    stage_depths = STAGE_DEPTHS[depth]
    norm = group_norm if name == "resnet50_gn" else nn.BatchNorm2d
    if filters == STEM_WIDTH:
        net = ResNet(
            block,
            list(stage_depths),
            classes,
            zero_init_residual=zero_init_residual,
            norm_layer=norm,
        )
    else:
        net = NarrowResNet(stage_depths, classes, filters, zero_init_residual, block, norm)
    for module in net.modules():
        if isinstance(module, PlainBottleneck):
            module.downsample = None
    return net


def he_normal(convolution: nn.Conv2d) -> None:
    """Draw N(0, 2/fan_out), torchvision's own initialization of a ResNet's convolutions."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def build_torchvision_network(
    name: str,
    classes: int,
    cifar_stem: bool,
    zero_init_residual: bool,
    size: int,
    small_stem: bool = False,
    stem_filters: int = STEM_WIDTH,
) -> WatchedNetwork:
    """The network with torchvision's own initialization, drawn from torch's global generator.

    `cifar_stem` removes "the first pooling layer and the stride of the first convolution" (LALC
    app. B), `small_stem` makes that convolution 3x3, `zero_init_residual` starts each branch of a
    ResNet at 0, `stem_filters` narrows it. A ViT is made for images of `size` pixels, and its
    classifier, which torchvision sets to 0, is drawn as torch draws any linear layer.
    """
    if name in RESNETS:
        net = build_resnet(name, classes, stem_filters, zero_init_residual)
    elif name == "vit_b_16":
        net = zoo.vit_b_16(weights=None, num_classes=classes, image_size=size)
        net.heads.head.reset_parameters()  # zeros would let no gradient through
    else:
        net = getattr(zoo, name)(weights=None, num_classes=classes)
    if cifar_stem:
        net.conv1.stride, net.maxpool = (1, 1), nn.Identity()
        if small_stem:
            net.conv1 = stem_convolution(stem_filters, cifar_stem, small_stem)
            he_normal(net.conv1)
    # Shortcuts (`downsample`) are not on the path.
    kinds = (nn.BatchNorm2d, nn.GroupNorm, EncoderBlock, SwinTransformerBlock)
    watched = [
        module
        for name, module in net.named_modules()
        if isinstance(module, kinds) and "downsample" not in name
    ]
    return WatchedNetwork(net, watched)
