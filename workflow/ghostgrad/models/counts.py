"""Parameters and multiply-adds of a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def counts(net: nn.Module, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of products and convolutions for one image (3, size, size), of a network on torch's
    meta device."""
    with FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2
