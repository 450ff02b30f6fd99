"""Architectures only: no training, no initialization beyond torch's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ghostgrad.models.preact_resnet import PreactResNet


def build(spec: Mapping[str, Any], classes: int) -> nn.Module:
    """The network of a classify spec."""
    return PreactResNet(
        classes,
        blocks=spec["blocks"],
        filters=spec["filters"],
        batch_norm=spec["batch_norm"],
        shortcut=spec["shortcut"],
        bn_eps=spec["bn_eps"],
    )
