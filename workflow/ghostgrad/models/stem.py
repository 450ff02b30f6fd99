"""The beginning of a ResNet, which the plain networks of the Ghost paper's table 1 keep: a 7x7 convolution of stride 2
and a 3x3 max-pool of stride 2, or what small images need in their place."""

from __future__ import annotations

from torch import nn


def convolution(filters: int, cifar_stem: bool, small_stem: bool) -> nn.Conv2d:
    """3 -> `filters` channels; `cifar_stem` takes the stride away, `small_stem` with it makes it 3x3."""
    size = 3 if cifar_stem and small_stem else 7
    return nn.Conv2d(3, filters, size, 1 if cifar_stem else 2, padding=size // 2, bias=False)


def pool(cifar_stem: bool) -> nn.Module:
    """Halves the side, if not of a `cifar_stem`."""
    return nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, padding=1)
