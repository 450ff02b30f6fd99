"""The networks of "Analysis on gradient propagation in batch normalized residual networks" (sec. 4.1, 5).

y_L = shortcut(y_{L-1}) + CONV ReLU BN CONV ReLU BN y_{L-1}, three scales with 1, 2, 4 times the stem's filters and
strides 1, 2, 2. The first block of each scale sends BN-ReLU of its input through a 1x1 convolution as its shortcut.
Model-1 is the whole, Model-2 has no shortcuts at all, Model-3 no BN (convolutions then have biases).
"Resnet-15" counts the residual blocks: five a scale, 32 weight layers.
"""

from __future__ import annotations

from torch import Tensor, nn


def _norm_relu(channels: int, batch_norm: bool, eps: float) -> nn.Sequential:
    norm = nn.BatchNorm2d(channels, eps=eps) if batch_norm else nn.Identity()
    return nn.Sequential(norm, nn.ReLU())


class Block(nn.Module):
    """A residual block; the first of a scale changes the width and strides. BN-ReLU is shared with its shortcut."""

    def __init__(
        self, into: int, out: int, stride: int, first: bool, batch_norm: bool, shortcut: bool, eps: float, mode: str
    ):
        super().__init__()
        more = {"bias": not batch_norm, "padding_mode": mode}
        self.before = _norm_relu(into, batch_norm, eps)
        self.conv1 = nn.Conv2d(into, out, 3, stride, padding=1, **more)
        self.between = _norm_relu(out, batch_norm, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, **more)
        self.project = nn.Conv2d(into, out, 1, stride, **more) if first and shortcut else None
        self.shortcut = shortcut

    def forward(self, y: Tensor) -> Tensor:
        active = self.before(y)
        branch = self.conv2(self.between(self.conv1(active)))
        if not self.shortcut:
            return branch
        return branch + (self.project(active) if self.project is not None else y)


class PreactResNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes). `outputs(x)` gives y_0 (the stem) to y_{3 blocks} as well."""

    def __init__(
        self,
        classes: int,
        blocks: int = 5,
        filters: int = 16,
        batch_norm: bool = True,
        shortcut: bool = True,
        bn_eps: float = 1e-5,
        padding_mode: str = "zeros",
    ):
        super().__init__()
        self.stem = nn.Conv2d(3, filters, 3, padding=1, bias=not batch_norm, padding_mode=padding_mode)
        self.blocks = nn.ModuleList()
        into = filters
        for scale, stride in enumerate((1, 2, 2)):
            out = filters * 2**scale
            for index in range(blocks):
                first = index == 0
                block = Block(into, out, stride if first else 1, first, batch_norm, shortcut, bn_eps, padding_mode)
                self.blocks.append(block)
                into = out
        self.head = nn.Sequential(_norm_relu(into, batch_norm, bn_eps), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(into, classes)

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and [y_0, …, y_n], the places where gradients are probed."""
        ys = [self.stem(x)]
        for block in self.blocks:
            ys.append(block(ys[-1]))
        return self.classifier(self.head(ys[-1])), ys

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[0]
