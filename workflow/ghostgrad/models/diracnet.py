"""DiracNet (Zagoruyko and Komodakis 2017, version 2), one of the networks in Ghost tab. 1.

A plain network whose convolutions are an identity plus a normalized weight, diag(a) I +
diag(b) W_norm, with a = 1 and b = 0.1 per output channel at first. A block is ReLU, such a 3x3
convolution, BN. The four stages have 64 to 512 channels and twice as many blocks as a ResNet of the
same depth (18 or 34), because each has one convolution where a residual block has two. A 2x2
max-pool follows every stage but the last; ReLU, average and linear layer come at the end. The stem
has no ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models.staged import STAGE_DEPTHS, StagedNetwork, stem_convolution, stem_pool


class DiracConv(nn.Conv2d):
    """A 3x3 convolution of stride 1 with the weight diag(a) I + diag(b) W_norm.

    I passes channel i to channel i for as many channels as both sides have. W_norm is `weight` with
    the filter of every output divided by its norm, so the length of a filter has no effect.
    """

    identity: Tensor

    def __init__(self, into: int, out: int):
        super().__init__(into, out, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.weight)
        self.a = nn.Parameter(torch.ones(out))
        self.b = nn.Parameter(torch.full((out,), 0.1))
        # Follows from the shape alone, so it is not saved with the weights.
        identity = nn.init.dirac_(torch.empty_like(self.weight))
        self.register_buffer("identity", identity, persistent=False)

    def explicit_weight(self) -> Tensor:
        """The weight (out, in, 3, 3) of the plain convolution that this one equals."""
        normalized = F.normalize(self.weight.flatten(1)).view_as(self.weight)
        a, b = (scale[:, None, None, None] for scale in (self.a, self.b))
        return a * self.identity + b * normalized

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.explicit_weight(), padding=1)


class DiracNet(StagedNetwork):
    """DiracNet18 or 34; weights are drawn N(0, 2/fan_in) from torch's global generator."""

    def __init__(
        self, depth: int, classes: int, cifar_stem: bool, small_stem: bool, stem_filters: int
    ):
        super().__init__()
        convolution = stem_convolution(stem_filters, cifar_stem, small_stem)
        nn.init.kaiming_normal_(convolution.weight)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(stem_filters), stem_pool(cifar_stem))
        self.stages = nn.ModuleList()
        into = stem_filters
        for stage, residual_blocks in enumerate(STAGE_DEPTHS[depth]):
            blocks, out = [], stem_filters * 2**stage
            for index in range(2 * residual_blocks):
                # ceil_mode rounds the side up where that of a small image is odd.
                pool = [nn.MaxPool2d(2, ceil_mode=True)] if stage and index == 0 else []
                layers = [nn.ReLU(), DiracConv(into, out), nn.BatchNorm2d(out)]
                blocks.append(nn.Sequential(*pool, *layers))
                into = out
            self.stages.append(nn.Sequential(*blocks))
        linear = nn.Linear(into, classes)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
