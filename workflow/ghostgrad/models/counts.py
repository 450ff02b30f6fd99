"""Parameters, multiply-adds and weight layers of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

PRODUCTS = ("convolution", "mm", "addmm", "bmm")  # of torch.ops.aten


class _Layers(TorchDispatchMode):
    """Counts the convolutions and products that are computed within."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def counts(net: nn.Module, size: int) -> tuple[int, int, int]:
    """Parameters, multiply-adds of products and convolutions for one image (3, size, size), and how many of these there
    are, of a network on torch's meta device."""
    with FlopCounterMode(display=False) as counter, _Layers() as layers:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2, layers.count
