"""SeqNet, a plain network of modules y = BN(M relu(W x)) in which M starts as the transpose of W (Ghost sec. 4.2).

SeqBasic(d): 3x3 d -> 2d, ReLU, 1x1 2d -> d, BN. SeqBottle(d): the same, then 1x1 d -> 4d, ReLU, 1x1 4d -> d, BN. No
ReLU behind a BN. `position` of the 3x3 in a SeqBottle (table 3c): first; second, 1x1 d -> 2d and 3x3 2d -> d; third,
the 4d module before the other. The paper is silent on what joins the stages; as in its author's code, every convolution
has stride 1, the first module of stages 2 to 4 pools before its ReLU, a stage's last convolution gives the next width,
and the head is average, BN, ReLU, linear.

SeqNet18 and 34 have so many weight layers, SeqNet50 and 101 have 66 and 134 (E-G21).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models import init, staged

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# k, and the sizes of the two kernels, of a SeqBottle's modules
POSITIONS = {
    "first": ((2, 3, 1), (4, 1, 1)),
    "second": ((2, 1, 3), (4, 1, 1)),
    "third": ((4, 1, 1), (2, 3, 1)),
}


class Ring(nn.Conv2d):
    """A 3x3 convolution whose middle tap (out, in) is given; the weight (out, in, 8) is the other taps, 0 at first."""

    def __init__(self, into: int, out: int):
        super().__init__(into, out, 3, padding=1, bias=False)
        self.weight = nn.Parameter(torch.zeros(out, into, 8))

    def forward(self, x: Tensor, middle: Tensor) -> Tensor:
        taps = torch.cat([self.weight[..., :4], middle.unsqueeze(-1), self.weight[..., 4:]], -1)
        return F.conv2d(x, taps.unflatten(-1, (3, 3)), padding=1)


class Tied(nn.Module):
    """The second convolution of a module, kd -> out, whose middle tap is for the first d outputs the transpose of the
    first's; what is left of its weight is its own: rows beyond d (`rest`), other taps than the middle one (`ring`)."""

    def __init__(self, into: int, d: int, out: int, size: int):
        super().__init__()
        self.ring = Ring(into, d) if size == 3 else None
        self.rest = nn.Conv2d(into, out - d, 1, bias=False) if out > d else None

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """(N, kd, H, W) -> (N, out, H, W), with the first convolution's weight."""
        middle = init.centre(first).mT
        y = F.conv2d(x, middle[:, :, None, None]) if self.ring is None else self.ring(x, middle)
        return y if self.rest is None else torch.cat([y, self.rest(x)], 1)


class SeqModule(nn.Module):
    """(N, d, H, W) -> (N, out, H, W): `first` d -> kd, an optional bias or BN, a pool if it halves the side, ReLU,
    `second` kd -> out, BN."""

    def __init__(self, d: int, k: int, sizes: tuple[int, int], out: int, tied: bool, pool: bool, branch_norm: str):
        super().__init__()
        wide = k * d
        self.first = nn.Conv2d(d, wide, sizes[0], padding=sizes[0] // 2, bias=branch_norm == "bias")
        self.branch_norm = nn.BatchNorm2d(wide) if branch_norm == "batch" else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2, padding=1) if pool else nn.Identity()
        self.relu = nn.ReLU()
        self.tied, size = tied, sizes[1]
        plain = {"padding": size // 2, "bias": False}
        self.second = Tied(wide, d, out, size) if tied else nn.Conv2d(wide, out, size, **plain)
        self.norm = nn.BatchNorm2d(out)

    @torch.no_grad()
    def draw(self, kind: str) -> None:
        """The initialization of app. B.2 in the middle taps, from torch's global generator; the other taps and biases
        are 0, and trained."""
        wide, d = self.first.weight.shape[:2]
        first, second = init.seqnet_pair(kind, d, wide // d, self.norm.num_features)
        init.centre_only(self.first.weight, first)
        if self.first.bias is not None:
            nn.init.zeros_(self.first.bias)
        if not self.tied:
            init.centre_only(self.second.weight, second)
        elif self.second.rest is not None:
            init.centre_only(self.second.rest.weight, second[d:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.pool(self.branch_norm(self.first(x))))
        return self.norm(self.second(x, self.first.weight) if self.tied else self.second(x))


class SeqBlock(nn.Module):
    """Modules in a row and, of a Skip-SeqNet, the shortcut around them: pooled as they are, and 1x1 and BN where they
    widen; no ReLU behind the sum. `kinds` as in POSITIONS, `ties` by k."""

    def __init__(
        self,
        d: int,
        out: int,
        pool: bool,
        kinds: tuple[tuple[int, int, int], ...],
        ties: dict[int, bool],
        branch_norm: str,
        skip: bool,
    ):
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(), None
        for place, (k, *sizes) in enumerate(kinds):
            last = place == len(kinds) - 1
            module = SeqModule(d, k, tuple(sizes), out if last else d, ties[k], pool and place == 0, branch_norm)
            self.branch.append(module)
        if skip:
            pooled = [nn.MaxPool2d(3, 2, padding=1)] if pool else []
            widened = [nn.Conv2d(d, out, 1, bias=False), nn.BatchNorm2d(out)] if out > d else []
            self.shortcut = nn.Sequential(*pooled, *widened)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return y if self.shortcut is None else self.shortcut(x) + y


class SeqNet(staged.Staged):
    """`tie_conv2` is of the module of the 3x3, `tie_conv4` of the other; "baseline" ties the former in a SeqBottle."""

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
        ties = {2: self.bottleneck if tie_conv2 == "baseline" else bool(tie_conv2), 4: tie_conv4}
        kinds = POSITIONS[position] if self.bottleneck else POSITIONS["first"][:1]
        convolution = staged.convolution(stem_filters, cifar_stem, small_stem)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(stem_filters), staged.pool(cifar_stem))
        widths = [stem_filters * 2**stage for stage in range(4)]
        widths.append(widths[-1] * (4 if self.bottleneck else 1))
        self.stages = nn.ModuleList()
        for stage, blocks in enumerate(STAGES[depth]):
            d, built = widths[stage], []
            for index in range(blocks):
                out, pool = widths[stage + 1] if index == blocks - 1 else d, stage > 0 and index == 0
                built.append(SeqBlock(d, out, pool, kinds, ties, branch_norm, skip))
            self.stages.append(nn.Sequential(*built))
        end = widths[-1]
        average = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.head = nn.Sequential(*average, nn.BatchNorm1d(end), nn.ReLU(), nn.Linear(end, classes))
        for module in self.modules():
            if isinstance(module, SeqModule):
                module.draw(seqnet_init)
