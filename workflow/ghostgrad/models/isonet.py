"""ISONet (Qi et al. 2020), one of the networks in Ghost tab. 1.

A ResNet without shortcuts, BN and biases, whose convolutions start as identities and whose
activation is a shifted ReLU, max(x, b), with a trained b per channel that is -1 at first. A block
has two 3x3 convolutions (ISONet18, 34), or 1x1, 3x3, 1x1 (50, 101), each followed by an activation;
the first 3x3 of stages 2 to 4 has stride 2. A 7x7 stem is drawn as torch draws it. The Dropout of
0.1 before the classifier, which improves the paper's accuracies by 0.2 to 0.6 %, is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models.staged import STAGE_DEPTHS, StagedNetwork, stem_convolution, stem_pool


class SReLU(nn.Module):
    """max(x, b) per channel: the identity as b goes to minus infinity, ReLU at b = 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.b = nn.Parameter(torch.full((channels,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        b = self.b[:, None, None]
        return F.relu(x - b) + b


def delta_convolution(into: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that passes channel i to channel i, for as many channels as both sides have.

    All other weights are 0.
    """
    convolution = nn.Conv2d(into, out, size, stride, padding=size // 2, bias=False)
    nn.init.dirac_(convolution.weight)
    return convolution


class ISONet(StagedNetwork):
    """ISONet18 and 34 with two, ISONet50 and 101 with three convolutions per block."""

    def __init__(
        self, depth: int, classes: int, cifar_stem: bool, small_stem: bool, stem_filters: int
    ):
        super().__init__()
        convolution = stem_convolution(stem_filters, cifar_stem, small_stem)
        if convolution.kernel_size == (3, 3):
            nn.init.dirac_(convolution.weight)
        self.stem = nn.Sequential(convolution, SReLU(stem_filters), stem_pool(cifar_stem))
        self.stages = nn.ModuleList()
        into = stem_filters
        for stage, count in enumerate(STAGE_DEPTHS[depth]):
            blocks, width = [], stem_filters * 2**stage
            out = width * (4 if depth >= 50 else 1)
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                if depth >= 50:
                    convolutions = [
                        delta_convolution(into, width, 1),
                        delta_convolution(width, width, 3, stride),
                        delta_convolution(width, out, 1),
                    ]
                else:
                    convolutions = [
                        delta_convolution(into, width, 3, stride),
                        delta_convolution(width, width, 3),
                    ]
                layers: list[nn.Module] = []
                for convolution in convolutions:
                    layers += [convolution, SReLU(convolution.out_channels)]
                blocks.append(nn.Sequential(*layers))
                into = out
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))
