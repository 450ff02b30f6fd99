"""SeqNet (Ghost sec. 4.2): a plain network of modules y = BN(M relu(W x)) in which M starts as the
transpose of W.

    SeqBasic(d)   3x3 d -> 2d, ReLU, 1x1 2d -> d, BN
    SeqBottle(d)  the same, then 1x1 d -> 4d, ReLU, 1x1 4d -> d, BN

There is no ReLU after a BN. The position of the 3x3 in a SeqBottle (tab. 3c) is `first`; `second`,
with 1x1 d -> 2d and 3x3 2d -> d; or `third`, with the 4d module before the other one. The paper is
silent on what joins the stages. As in its author's code, every convolution has stride 1, the first
module of stages 2 to 4 pools before its ReLU, the last convolution of a stage gives the next width,
and the head is average, BN, ReLU, linear.

In the paper's numbering Conv1 and Conv2 are the convolutions of the module with the 3x3, Conv3 and
Conv4 those of the other one. SeqNet18 and 34 have as many weight layers as their names say,
SeqNet50 and 101 have 66 and 134.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models import init
from ghostgrad.models.staged import STAGE_DEPTHS, StagedNetwork, stem_convolution, stem_pool


@dataclass(frozen=True)
class ModuleShape:
    """The shape of a module: its middle has `expansion` d channels (k in the paper)."""

    expansion: int
    first_size: int
    """Side of the first convolution's kernel."""
    second_size: int


# The modules of a SeqBottle by the position of the 3x3; a SeqBasic has the first of `first` only.
POSITIONS: Mapping[str, tuple[ModuleShape, ...]] = {
    "first": (ModuleShape(2, 3, 1), ModuleShape(4, 1, 1)),
    "second": (ModuleShape(2, 1, 3), ModuleShape(4, 1, 1)),
    "third": (ModuleShape(4, 1, 1), ModuleShape(2, 3, 1)),
}


class Ring(nn.Conv2d):
    """A 3x3 convolution whose center tap (out, in) is given from outside.

    Its own weight (out, in, 8) has the eight taps around the center, in reading order, 0 at first.
    """

    def __init__(self, into: int, out: int):
        # Draws a weight from torch's global generator that is replaced at once. It has to stay:
        # without it all weights that are drawn later would be others than in existing runs.
        super().__init__(into, out, 3, padding=1, bias=False)
        self.weight = nn.Parameter(torch.zeros(out, into, 8))

    def forward(self, x: Tensor, center: Tensor) -> Tensor:  # type: ignore[override]
        taps = torch.cat([self.weight[..., :4], center.unsqueeze(-1), self.weight[..., 4:]], -1)
        return F.conv2d(x, taps.view(*taps.shape[:2], 3, 3), padding=1)


class Tied(nn.Module):
    """The second convolution of a module, kd -> out, tied to the first one.

    For the first d outputs, its center tap is the transpose of the first convolution's center tap.
    What remains is its own weight: the rows of the outputs beyond d (`rest`, where a stage ends)
    and the taps around the center (`ring`, for a 3x3).
    """

    def __init__(self, into: int, d: int, out: int, size: int):
        super().__init__()
        self.ring = Ring(into, d) if size == 3 else None
        self.rest = nn.Conv2d(into, out - d, 1, bias=False) if out > d else None

    def forward(self, x: Tensor, first_weight: Tensor) -> Tensor:
        """(N, kd, H, W) -> (N, out, H, W), given the first convolution's weight (kd, d, …)."""
        # The gradient flows into the first convolution's weight through this transpose as well.
        center = init.center_tap(first_weight).mT
        y = F.conv2d(x, center[:, :, None, None]) if self.ring is None else self.ring(x, center)
        return y if self.rest is None else torch.cat([y, self.rest(x)], 1)


class SeqModule(nn.Module):
    """(N, d, H, W) -> (N, out, H, W), a module y = BN(M relu(W x)).

    `first` (W) d -> kd, an optional bias or BN (`branch_norm`: none, bias, batch; Ghost tab. 3b), a
    max-pool if `pool`, which halves the side, ReLU, `second` (M) kd -> out, BN.
    """

    def __init__(
        self, d: int, shape: ModuleShape, out: int, tied: bool, pool: bool, branch_norm: str
    ):
        super().__init__()
        inner = shape.expansion * d
        first, second = shape.first_size, shape.second_size
        bias = branch_norm == "bias"
        self.first = nn.Conv2d(d, inner, first, padding=first // 2, bias=bias)
        self.branch_norm = nn.BatchNorm2d(inner) if branch_norm == "batch" else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2, padding=1) if pool else nn.Identity()
        self.relu = nn.ReLU()
        self.tied = tied
        self.second: Tied | nn.Conv2d
        if tied:
            self.second = Tied(inner, d, out, second)
        else:
            self.second = nn.Conv2d(inner, out, second, padding=second // 2, bias=False)
        self.norm = nn.BatchNorm2d(out)

    @torch.no_grad()
    def draw(self, kind: str) -> None:
        """Draw the initialization of app. B.2 into the center taps, from torch's global generator.

        The other taps and the biases start at 0; they are trained.
        """
        inner, d = self.first.weight.shape[:2]
        first, second = init.seqnet_matrices(kind, d, inner // d, self.norm.num_features)
        init.set_center_tap(self.first.weight, first)
        if self.first.bias is not None:
            nn.init.zeros_(self.first.bias)
        if isinstance(self.second, nn.Conv2d):
            init.set_center_tap(self.second.weight, second)
        elif self.second.rest is not None:
            init.set_center_tap(self.second.rest.weight, second[d:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.pool(self.branch_norm(self.first(x))))
        y = self.second(x, self.first.weight) if self.tied else self.second(x)
        normalized: Tensor = self.norm(y)
        return normalized


class SeqBlock(nn.Module):
    """One or two modules and, in a Skip-SeqNet (Ghost fig. 9), the shortcut around them.

    The shortcut pools as the block does, and is a 1x1 convolution with BN where the block widens.
    There is no ReLU after the sum. `ties` says by expansion k whether a module is tied.
    """

    def __init__(
        self,
        d: int,
        out: int,
        pool: bool,
        shapes: Sequence[ModuleShape],
        ties: Mapping[int, bool],
        branch_norm: str,
        skip: bool,
    ):
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(), None
        for index, shape in enumerate(shapes):
            is_last = index == len(shapes) - 1
            module = SeqModule(
                d,
                shape,
                out=out if is_last else d,
                tied=ties[shape.expansion],
                pool=pool and index == 0,
                branch_norm=branch_norm,
            )
            self.branch.append(module)
        if skip:
            layers: list[nn.Module] = [nn.MaxPool2d(3, 2, padding=1)] if pool else []
            if out > d:
                layers += [nn.Conv2d(d, out, 1, bias=False), nn.BatchNorm2d(out)]
            self.shortcut = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return y if self.shortcut is None else self.shortcut(x) + y


class SeqNet(StagedNetwork):
    """SeqNet18, 34 (of SeqBasics), 50 or 101 (of SeqBottles).

    `tie_conv2` ties the convolutions of the modules with the 3x3 in training as well, `tie_conv4`
    those of the others (Ghost tab. 5); the baseline ties Conv2 of a SeqBottle only. All weights of
    modules are drawn by `seqnet_init`, other layers as torch draws them.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        seqnet_init: str = "random",
        tie_conv2: bool | str = "baseline",
        tie_conv4: bool = False,
        branch_norm: str = "none",
        position: str = "first",
        skip: bool = False,
        cifar_stem: bool = False,
        small_stem: bool = False,
        stem_filters: int = 64,
    ):
        super().__init__()
        self.bottleneck = depth >= 50
        if tie_conv2 == "baseline":
            tie_conv2 = self.bottleneck
        ties = {2: bool(tie_conv2), 4: tie_conv4}
        shapes = POSITIONS[position] if self.bottleneck else POSITIONS["first"][:1]
        convolution = stem_convolution(stem_filters, cifar_stem, small_stem)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(stem_filters), stem_pool(cifar_stem))
        # Width of the four stages, and of the output of the last one.
        widths = [stem_filters * 2**stage for stage in range(4)]
        widths.append(widths[-1] * (4 if self.bottleneck else 1))
        self.stages = nn.ModuleList()
        for stage, count in enumerate(STAGE_DEPTHS[depth]):
            blocks, d = [], widths[stage]
            for index in range(count):
                out = widths[stage + 1] if index == count - 1 else d
                pool = stage > 0 and index == 0
                blocks.append(SeqBlock(d, out, pool, shapes, ties, branch_norm, skip))
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.BatchNorm1d(widths[-1]),
            nn.ReLU(),
            nn.Linear(widths[-1], classes),
        )
        for module in self.modules():
            if isinstance(module, SeqModule):
                module.draw(seqnet_init)
