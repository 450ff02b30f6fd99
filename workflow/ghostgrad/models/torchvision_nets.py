"""Networks of torchvision with the places where gradients are probed: the outputs of the normalizations on the path of
a ResNet or a VGG, the block outputs of a transformer (LALC fig. 1a).

PlainNet50 is ResNet50 without its shortcuts (Ghost sec. 5), ResNet50-GN has GroupNorm of 32 groups in the place of BN
(Wu and He 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.vision_transformer import EncoderBlock

from ghostgrad.models import staged


class Watched(nn.Module):
    """A network and the modules, in the order in which they run, whose outputs `outputs(x)` gives beside the logits."""

    def __init__(self, net: nn.Module, watched: list[nn.Module]):
        super().__init__()
        self.net, self._watched = net, watched  # a plain list: the modules are the net's

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            seen.append(out)
            return out.clone()  # what comes behind works in place

        hooks = [module.register_forward_hook(keep) for module in self._watched]
        try:
            return self.net(x), seen
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PlainBottleneck(Bottleneck):
    """A ResNet's bottleneck whose output is the branch."""

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = self.relu(norm(convolution(x)))
        return x


RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet50_gn": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "plainnet50": (PlainBottleneck, [3, 4, 6, 3]),
}
WIDTH = 64  # torchvision's filters of a ResNet's stem


class NarrowResNet(ResNet):
    """torchvision's ResNet with `filters` in the place of 64 and every other width in proportion."""

    def __init__(
        self,
        layers: list[int],
        classes: int,
        filters: int,
        zero_gamma: bool,
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ):
        self.filters = filters
        super().__init__(block, layers, classes, zero_init_residual=zero_gamma, norm_layer=norm_layer)
        self.conv1 = nn.Conv2d(3, filters, 7, stride=2, padding=3, bias=False)
        he(self.conv1)
        self.bn1 = norm_layer(filters)
        self.fc = nn.Linear(8 * filters * block.expansion, classes)

    def _make_layer(self, block: type[Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False):
        if planes == WIDTH:
            self.inplanes = self.filters
        return super()._make_layer(block, planes * self.filters // WIDTH, blocks, stride, dilate)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups; of fewer or other channels as many as divide both."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def resnet(name: str, classes: int, filters: int, zero_gamma: bool) -> ResNet:
    """A network of RESNETS. PlainNet50 is drawn as ResNet50 is: the same seed gives both the same convolutions."""
    block, layers = RESNETS[name]
    norm = group_norm if name == "resnet50_gn" else nn.BatchNorm2d
    if filters == WIDTH:
        net = ResNet(block, layers, classes, zero_init_residual=zero_gamma, norm_layer=norm)
    else:
        net = NarrowResNet(layers, classes, filters, zero_gamma, block, norm)
    for module in net.modules():
        if isinstance(module, PlainBottleneck):
            module.downsample = None
    return net


def he(convolution: nn.Conv2d) -> None:
    """torchvision's own initialization of a ResNet's convolutions."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def build(
    name: str,
    classes: int,
    cifar_stem: bool,
    zero_gamma: bool,
    size: int,
    small_stem: bool = False,
    stem_filters: int = WIDTH,
) -> Watched:
    """The network with torchvision's own initialization, drawn from torch's global generator.

    `cifar_stem` removes "the first pooling layer and the stride of the first convolution" (LALC app. B), `small_stem`
    makes that convolution 3x3, `zero_gamma` starts each branch of a ResNet at 0, `stem_filters` narrows it. ViT is
    made for images of `size`, and its classifier, which torchvision sets to 0, is drawn like any linear layer's.
    """
    if name in RESNETS:
        net = resnet(name, classes, stem_filters, zero_gamma)
    else:
        more = {"image_size": size} if name == "vit_b_16" else {}
        net = getattr(zoo, name)(weights=None, num_classes=classes, **more)
    if name == "vit_b_16":
        net.heads.head.reset_parameters()  # torchvision's zeros let no gradient through
    if cifar_stem:
        net.conv1.stride, net.maxpool = (1, 1), nn.Identity()
        if small_stem:
            net.conv1 = staged.convolution(stem_filters, cifar_stem, small_stem)
            he(net.conv1)
    kinds = (nn.BatchNorm2d, nn.GroupNorm, EncoderBlock, SwinTransformerBlock)
    watched = [m for path, m in net.named_modules() if isinstance(m, kinds) and "downsample" not in path]
    return Watched(net, watched)
