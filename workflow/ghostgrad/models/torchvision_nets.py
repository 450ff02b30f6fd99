"""Networks of torchvision with the places where gradients are probed: the BN outputs on the path of a ResNet or a VGG,
the block outputs of a transformer (LALC fig. 1a)."""

from __future__ import annotations

import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.vision_transformer import EncoderBlock

NAMES = ("resnet50", "resnet101", "vgg16_bn", "vgg19_bn", "vit_b_16", "swin_t")


class Watched(nn.Module):
    """A network and the modules, in the order in which they run, whose outputs `outputs(x)` gives beside the logits."""

    def __init__(self, net: nn.Module, watched: list[nn.Module]):
        super().__init__()
        self.net, self._watched = net, watched  # a plain list: the modules are the net's

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        seen: list[Tensor] = []
        hooks = [module.register_forward_hook(lambda _m, _i, out: seen.append(out)) for module in self._watched]
        try:
            return self.net(x), seen
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def build(name: str, classes: int, cifar_stem: bool, zero_gamma: bool, size: int, small_stem: bool = False) -> Watched:
    """The network with torchvision's own initialization, drawn from torch's global generator.

    `cifar_stem` removes "the first pooling layer and the stride of the first convolution" (LALC app. B), `small_stem`
    makes that convolution 3x3, `zero_gamma` starts each branch of a ResNet at 0. ViT is made for images of `size`, and
    its classifier, which torchvision sets to 0, is drawn like any linear layer's.
    """
    more = {"image_size": size} if name == "vit_b_16" else {"zero_init_residual": True} if zero_gamma else {}
    net = getattr(zoo, name)(weights=None, num_classes=classes, **more)
    if name == "vit_b_16":
        net.heads.head.reset_parameters()  # torchvision's zeros let no gradient through
    if cifar_stem:
        net.conv1.stride, net.maxpool = (1, 1), nn.Identity()
        if small_stem:
            net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
    kinds = (nn.BatchNorm2d, EncoderBlock, SwinTransformerBlock)
    watched = [m for path, m in net.named_modules() if isinstance(m, kinds) and "downsample" not in path]
    for module in net.modules():  # a BN's output is probed: it must not be overwritten by the ReLU behind it
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return Watched(net, watched)
