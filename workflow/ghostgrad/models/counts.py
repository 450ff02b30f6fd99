"""Parameters, multiply-adds, and the number of convolutions and matrix products of a network,
counted on torch's meta device.

Nothing is computed there, so networks of any size take neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN

from ghostgrad.models.mask_rcnn import BOX_REGION_SIDE, MASK_REGION_SIDE

PRODUCTS = ("convolution", "mm", "addmm", "bmm")  # names in torch.ops.aten


class NetworkCounts(NamedTuple):
    """The size of a network, and the cost of one image in a forward pass."""

    parameters: int
    multiply_adds: int
    """Those of convolutions and matrix products."""
    products: int
    """How many convolutions and matrix products there are."""


class _ProductCounter(TorchDispatchMode):
    """Counts the convolutions and matrix products that are computed while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            self.count += 1
        return func(*args, **(kwargs or {}))


def _count(net: nn.Module, forward: Callable[[], object]) -> NetworkCounts:
    net.eval()
    with FlopCounterMode(display=False) as flops, _ProductCounter() as products:
        forward()
    parameters = sum(p.numel() for p in net.parameters())
    # torch counts a multiply-add as two operations.
    return NetworkCounts(parameters, flops.get_total_flops() // 2, products.count)


def count_network(net: nn.Module, size: int) -> NetworkCounts:
    """The counts of a classifier on the meta device, for one image (3, size, size)."""
    return _count(net, lambda: net(torch.empty(1, 3, size, size, device="meta")))


def count_detector(net: MaskRCNN, size: int, regions: int, masks: int) -> NetworkCounts:
    """The counts of a detector on the meta device, for one image (3, size, size).

    `regions` of the image go through its box head and `masks` through its mask head. Both are given
    because the network would choose them by values, which the meta device does not have.
    """
    channels = net.backbone.out_channels

    def forward() -> None:
        levels = net.backbone(torch.empty(1, 3, size, size, device="meta"))
        net.rpn.head(list(levels.values()))
        heads = net.roi_heads
        box_shape = (regions, channels, BOX_REGION_SIDE, BOX_REGION_SIDE)
        heads.box_predictor(heads.box_head(torch.empty(box_shape, device="meta")))
        mask_shape = (masks, channels, MASK_REGION_SIDE, MASK_REGION_SIDE)
        heads.mask_predictor(heads.mask_head(torch.empty(mask_shape, device="meta")))

    return _count(net, forward)
