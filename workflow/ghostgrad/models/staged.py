"""What the plain networks of the Ghost paper's table 1 share with a ResNet.

A stem, which is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2, or what small images
need in their place; then four stages of blocks, each with twice the width of the one before; then a
head.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ghostgrad.models.network import ProbedNetwork

STAGE_DEPTHS: Mapping[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
"""Blocks in the four stages of ResNet18 to 101 (He et al. 2016), which the other networks copy."""

STEM_WIDTH = 64
"""Channels of a ResNet's stem in the papers and in torchvision."""


def stem_convolution(filters: int, cifar_stem: bool, small_stem: bool) -> nn.Conv2d:
    """The first convolution, 3 -> `filters` channels.

    `cifar_stem` sets its stride to 1 (LALC app. B), and `small_stem` makes it 3x3 then.
    """
    size = 3 if cifar_stem and small_stem else 7
    stride = 1 if cifar_stem else 2
    return nn.Conv2d(3, filters, size, stride, padding=size // 2, bias=False)


def stem_pool(cifar_stem: bool) -> nn.Module:
    """The pool after the first convolution, which halves the side; none with `cifar_stem`."""
    return nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, padding=1)


class StagedNetwork(ProbedNetwork):
    """A network of `stem`, `stages`, each a sequence of blocks, and `head`.

    Gradients are probed at the output of the stem and of every block.
    """

    stem: nn.Module
    stages: nn.ModuleList
    head: nn.Module

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        ys: list[Tensor] = [self.stem(x)]
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                ys.append(block(ys[-1]))
        logits: Tensor = self.head(ys[-1])
        return logits, ys
