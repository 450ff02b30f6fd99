"""Plain networks whose gradients at initialization the LALC paper shows (fig. 1).

`mlp` is a fully-connected network, PlainNet of the Ghost paper (sec. 2.1); `vgg` is the LALC
paper's "51-layer VGG-like" one. Every layer is weight -> norm -> activation; a linear classifier
follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ghostgrad.models.network import ProbedNetwork

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "selu": nn.SELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
    "dropout": lambda: nn.Dropout(0.5),
}

# Width of each group of convolutions in multiples of `filters`; a max-pool follows each.
VGG_GROUPS = (1, 2, 4, 8, 8)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W), at each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _no_norm(_channels: int) -> nn.Module:
    return nn.Identity()


FEATURE_NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": _no_norm,
}
CHANNEL_NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": ChannelNorm,
    "none": _no_norm,
}


class PlainNetwork(ProbedNetwork):
    """A chain of layers, each weight, norm, activation, and a pool at the end of a group.

    Gradients are probed at the normalized pre-activation of every layer. With `flatten` an image
    enters as a vector.
    """

    def __init__(self, layers: list[nn.Sequential], head: nn.Module, flatten: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head, self.flatten = head, flatten

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.flatten:
            x = x.flatten(1)
        normalized: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, nn.Sequential)
            weight, norm, *rest = layer
            x = norm(weight(x))
            normalized.append(x)
            for module in rest:
                x = module(x)
        logits: Tensor = self.head(x)
        return logits, normalized


def mlp(
    classes: int, features: int, depth: int, width: int, norm: str, activation: str
) -> PlainNetwork:
    """`depth` - 1 hidden layers of `width` units, and the classifier.

    `features` is the number of values of an image. Layers have a bias where there is no norm.
    """
    layers, into = [], features
    for _ in range(depth - 1):
        linear = nn.Linear(into, width, bias=norm == "none")
        layers.append(nn.Sequential(linear, FEATURE_NORMS[norm](width), ACTIVATIONS[activation]()))
        into = width
    return PlainNetwork(layers, nn.Linear(width, classes), flatten=True)


def vgg(classes: int, depth: int, filters: int, norm: str, activation: str) -> PlainNetwork:
    """A VGG-like network (LALC fig. 1b) with `depth` weight layers, if 5 divides depth - 1.

    (depth - 1)/5 convolutions 3x3 in each of five groups, which have 64, 128, 256, 512, 512
    channels at 64 filters, a 2x2 max-pool after each group (without effect on a single position),
    the global average, and the classifier.
    """
    layers, into = [], 3
    for factor in VGG_GROUPS:
        for _ in range((depth - 1) // len(VGG_GROUPS)):
            out = filters * factor
            convolution = nn.Conv2d(into, out, 3, padding=1, bias=norm == "none")
            layer = nn.Sequential(convolution, CHANNEL_NORMS[norm](out), ACTIVATIONS[activation]())
            layers.append(layer)
            into = out
        layers[-1].append(nn.MaxPool2d(2, ceil_mode=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))
    return PlainNetwork(layers, head)
