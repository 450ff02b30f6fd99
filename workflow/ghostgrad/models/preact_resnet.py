"""The networks of "Analysis on gradient propagation in batch normalized residual networks"
(BN-ResNet paper sec. 4.1 and 5).

y_L = shortcut(y_{L-1}) + CONV ReLU BN CONV ReLU BN y_{L-1}, in three scales with 1, 2, 4 times the
filters of the stem and strides 1, 2, 2. The first block of each scale has as its shortcut a 1x1
convolution of BN-ReLU of its input; that BN-ReLU is the same as the branch's. Model-1 is the whole,
Model-2 has no shortcuts at all, Model-3 has no BN, and its convolutions have biases. "Resnet-15"
counts the residual blocks, five in each scale; it has 32 weight layers.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ghostgrad.models.network import ProbedNetwork


def _norm_relu(channels: int, batch_norm: bool, eps: float) -> nn.Sequential:
    norm = nn.BatchNorm2d(channels, eps=eps) if batch_norm else nn.Identity()
    return nn.Sequential(norm, nn.ReLU())


class Block(nn.Module):
    """A residual block, (N, into, H, W) -> (N, out, H/stride, W/stride).

    The first block of a scale changes the width and may have a stride.
    """

    def __init__(
        self,
        into: int,
        out: int,
        stride: int,
        first: bool,
        batch_norm: bool,
        shortcut: bool,
        eps: float,
        padding_mode: Literal["zeros", "circular"],
    ):
        super().__init__()
        bias = not batch_norm  # BN has a beta, which makes a bias before it useless
        self.before = _norm_relu(into, batch_norm, eps)
        self.conv1 = nn.Conv2d(
            into, out, 3, stride, padding=1, bias=bias, padding_mode=padding_mode
        )
        self.between = _norm_relu(out, batch_norm, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=bias, padding_mode=padding_mode)
        self.project = (
            nn.Conv2d(into, out, 1, stride, bias=bias, padding_mode=padding_mode)
            if first and shortcut
            else None
        )
        self.shortcut = shortcut

    def forward(self, y: Tensor) -> Tensor:
        active = self.before(y)
        branch: Tensor = self.conv2(self.between(self.conv1(active)))
        if not self.shortcut:
            return branch
        return branch + (self.project(active) if self.project is not None else y)


class PreactResNet(ProbedNetwork):
    """Model-1, or with `shortcut` false Model-2, or with `batch_norm` false Model-3.

    `blocks` are those of one scale. Gradients are probed at y_0, the stem's output, and at the
    output of every block.
    """

    def __init__(
        self,
        classes: int,
        blocks: int = 5,
        filters: int = 16,
        batch_norm: bool = True,
        shortcut: bool = True,
        bn_eps: float = 1e-5,
        padding_mode: Literal["zeros", "circular"] = "zeros",
    ):
        super().__init__()
        self.stem = nn.Conv2d(
            3, filters, 3, padding=1, bias=not batch_norm, padding_mode=padding_mode
        )
        self.blocks = nn.ModuleList()
        into = filters
        for scale, scale_stride in enumerate((1, 2, 2)):
            out = filters * 2**scale
            for index in range(blocks):
                first = index == 0
                stride = scale_stride if first else 1
                block = Block(into, out, stride, first, batch_norm, shortcut, bn_eps, padding_mode)
                self.blocks.append(block)
                into = out
        self.head = nn.Sequential(
            _norm_relu(into, batch_norm, bn_eps), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.classifier = nn.Linear(into, classes)

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        ys: list[Tensor] = [self.stem(x)]
        for block in self.blocks:
            ys.append(block(ys[-1]))
        logits: Tensor = self.classifier(self.head(ys[-1]))
        return logits, ys
