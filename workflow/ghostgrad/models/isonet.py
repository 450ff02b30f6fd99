"""ISONet (Qi et al. 2020): a ResNet without shortcuts, BN and biases, whose convolutions start as identities and whose
activation is a shifted ReLU, max(x, b), b = -1 per channel at first, trained.

A block has two 3x3 convolutions (18, 34), or 1x1, 3x3, 1x1 (50, 101), each before an activation; the 3x3 strides. The
7x7 stem is drawn as torch does. DropOut of 0.1 before the classifier, which is worth 0.2 to 0.6 % to the paper, is left
out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models import staged

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class SReLU(nn.Module):
    """max(x, b): the identity as b goes to minus infinity, ReLU at b = 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.b = nn.Parameter(torch.full((channels,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        b = self.b[:, None, None]
        return F.relu(x - b) + b


def delta(into: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that passes channel i to channel i for as many as both sides have; the other weights are 0."""
    convolution = nn.Conv2d(into, out, size, stride, padding=size // 2, bias=False)
    nn.init.dirac_(convolution.weight)
    return convolution


class ISONet(staged.Staged):
    """Depths 18 and 34 have two, 50 and 101 three convolutions a block."""

    def __init__(self, depth: int, classes: int, cifar_stem: bool, small_stem: bool, stem_filters: int):
        super().__init__()
        convolution = staged.convolution(stem_filters, cifar_stem, small_stem)
        if convolution.kernel_size == (3, 3):
            nn.init.dirac_(convolution.weight)
        self.stem = nn.Sequential(convolution, SReLU(stem_filters), staged.pool(cifar_stem))
        self.stages, into = nn.ModuleList(), stem_filters
        for stage, blocks in enumerate(STAGES[depth]):
            built, width = [], stem_filters * 2**stage
            out = width * (4 if depth >= 50 else 1)
            for index in range(blocks):
                stride = 2 if stage and index == 0 else 1
                if depth >= 50:
                    convolutions = [delta(into, width, 1), delta(width, width, 3, stride), delta(width, out, 1)]
                else:
                    convolutions = [delta(into, width, 3, stride), delta(width, width, 3)]
                built.append(nn.Sequential(*[m for c in convolutions for m in (c, SReLU(c.out_channels))]))
                into = out
            self.stages.append(nn.Sequential(*built))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))
