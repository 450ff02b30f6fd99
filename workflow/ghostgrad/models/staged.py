"""What the plain networks of the Ghost paper's table 1 share with a ResNet: a stem, a 7x7 convolution of stride 2 and a
3x3 max-pool of stride 2 or what small images need in their place, then stages of blocks, then a head."""

from __future__ import annotations

from torch import Tensor, nn


def convolution(filters: int, cifar_stem: bool, small_stem: bool) -> nn.Conv2d:
    """3 -> `filters` channels; `cifar_stem` takes the stride away, `small_stem` with it makes it 3x3."""
    size = 3 if cifar_stem and small_stem else 7
    return nn.Conv2d(3, filters, size, 1 if cifar_stem else 2, padding=size // 2, bias=False)


def pool(cifar_stem: bool) -> nn.Module:
    """Halves the side, if not of a `cifar_stem`."""
    return nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, padding=1)


class Staged(nn.Module):
    """(N, 3, H, W) -> logits (N, classes), through `stem`, `stages`, each a sequence of blocks, and `head`."""

    stem: nn.Module
    stages: nn.ModuleList
    head: nn.Module

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the places where gradients are probed: the stem's output and every block's."""
        ys = [self.stem(x)]
        for stage in self.stages:
            for block in stage:
                ys.append(block(ys[-1]))
        return self.head(ys[-1]), ys

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[0]
