"""Parameters, multiply-adds and weight layers of a network on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN

PRODUCTS = ("convolution", "mm", "addmm", "bmm")  # of torch.ops.aten


class _Layers(TorchDispatchMode):
    """Counts the convolutions and products that are computed within."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def _counts(net: nn.Module, forward: Callable[[], Any]) -> tuple[int, int, int]:
    net.eval()
    with FlopCounterMode(display=False) as counter, _Layers() as layers:
        forward()
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2, layers.count


def counts(net: nn.Module, size: int) -> tuple[int, int, int]:
    """Parameters, multiply-adds of products and convolutions for one image (3, size, size), and how many of these there
    are."""
    return _counts(net, lambda: net(torch.empty(1, 3, size, size, device="meta")))


def detector_counts(net: MaskRCNN, size: int, regions: int, masks: int) -> tuple[int, int, int]:
    """The same of a detector for one image (3, size, size), of which `regions` go through its box head and `masks`
    through its mask head."""
    channels = net.backbone.out_channels

    def forward() -> None:
        net.rpn.head(list(net.backbone(torch.empty(1, 3, size, size, device="meta")).values()))
        for name, count, side in (("box", regions, 7), ("mask", masks, 14)):
            found = getattr(net.roi_heads, f"{name}_head")(torch.empty(count, channels, side, side, device="meta"))
            getattr(net.roi_heads, f"{name}_predictor")(found)

    return _counts(net, forward)
