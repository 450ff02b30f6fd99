"""Plain networks whose gradients at initialization the LALC paper shows (fig. 1): a fully-connected one, PlainNet of
the Ghost paper (sec. 2.1), and "a 51-layer VGG-like" one. weight -> norm -> activation, then a linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

ACTIVATIONS = {
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


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W), at each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Plain(nn.Module):
    """(N, 3, H, W) -> logits (N, classes). `outputs(x)` gives the normalized pre-activation of every layer as well."""

    def __init__(self, layers: list[nn.Sequential], head: nn.Module, flatten: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)  # each weight, norm, activation, and a pool at the end of a group
        self.head, self.flatten = head, flatten

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, normalized = x.flatten(1) if self.flatten else x, []
        for layer in self.layers:
            weight, norm, *rest = layer
            x = norm(weight(x))
            normalized.append(x)
            for module in rest:
                x = module(x)
        return self.head(x), normalized

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[0]


def mlp(classes: int, features: int, depth: int, width: int, norm: str, activation: str) -> Plain:
    """`depth` - 1 hidden layers of `width`, and the classifier; `features` is the number of values of an image."""
    norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity()}
    act = ACTIVATIONS[activation]
    into, bias = [features, *[width] * (depth - 2)], norm == "none"
    layers = [nn.Sequential(nn.Linear(n, width, bias=bias), norms[norm](width), act()) for n in into]
    return Plain(layers, nn.Linear(width, classes), flatten=True)


GROUPS = (1, 2, 4, 8, 8)  # times `filters`; a max-pool behind each


def vgg(classes: int, depth: int, filters: int, norm: str, activation: str) -> Plain:
    """(`depth` - 1)/5 convolutions 3x3 in each of five groups of 64, 128, 256, 512, 512 channels (at 64 filters), a 2x2
    max-pool behind each group that has more than one position left, global average, classifier (LALC fig. 1b)."""
    norms = {"batch": nn.BatchNorm2d, "layer": ChannelNorm, "none": lambda _: nn.Identity()}
    act = ACTIVATIONS[activation]
    layers, into = [], 3
    for factor in GROUPS:
        for _ in range((depth - 1) // len(GROUPS)):
            out = filters * factor
            convolution = nn.Conv2d(into, out, 3, padding=1, bias=norm == "none")
            layers.append(nn.Sequential(convolution, norms[norm](out), act()))
            into = out
        layers[-1].append(nn.MaxPool2d(2, ceil_mode=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))
    return Plain(layers, head)
