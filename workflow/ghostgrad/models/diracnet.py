"""DiracNet (Zagoruyko and Komodakis 2017, version 2): a plain network whose convolutions are an identity plus a
normalized weight, diag(a) I + diag(b) W_norm, a = 1 and b = 0.1 per output channel at first.

A block is ReLU, such a 3x3 convolution, BN; 2-2-2-2 (18) or 3-4-6-3 (34) times two blocks of 64 to 512 channels, a 2x2
max-pool between the stages, ReLU, average, linear. The stem has no ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models import staged

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class DiracConv(nn.Conv2d):
    """A 3x3 convolution of stride 1 with the weight diag(a) I + diag(b) W_norm: I passes channel i to channel i for as
    many as both sides have, W_norm is `weight` with every output's filter divided by its norm."""

    def __init__(self, into: int, out: int):
        super().__init__(into, out, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.weight)
        self.a, self.b = nn.Parameter(torch.ones(out)), nn.Parameter(torch.full((out,), 0.1))
        self.register_buffer("identity", nn.init.dirac_(torch.empty_like(self.weight)), persistent=False)

    def explicit(self) -> Tensor:
        """The weight (out, in, 3, 3) of the convolution that this one is."""
        normalized = F.normalize(self.weight.flatten(1)).view_as(self.weight)
        return self.a[:, None, None, None] * self.identity + self.b[:, None, None, None] * normalized

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.explicit(), padding=1)


class DiracNet(staged.Staged):
    """Weights are drawn N(0, 2/fan_in) from torch's global generator."""

    def __init__(self, depth: int, classes: int, cifar_stem: bool, small_stem: bool, stem_filters: int):
        super().__init__()
        convolution = staged.convolution(stem_filters, cifar_stem, small_stem)
        nn.init.kaiming_normal_(convolution.weight)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(stem_filters), staged.pool(cifar_stem))
        self.stages, into = nn.ModuleList(), stem_filters
        for stage, blocks in enumerate(STAGES[depth]):
            built, out = [], stem_filters * 2**stage
            for index in range(2 * blocks):
                # rounded up, where a small image's side is odd
                pool = [nn.MaxPool2d(2, ceil_mode=True)] if stage and index == 0 else []
                built.append(nn.Sequential(*pool, nn.ReLU(), DiracConv(into, out), nn.BatchNorm2d(out)))
                into = out
            self.stages.append(nn.Sequential(*built))
        linear = nn.Linear(into, classes)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
