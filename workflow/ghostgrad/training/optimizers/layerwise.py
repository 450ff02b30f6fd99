"""What the layer-wise rules share: the loop over groups, norms, trust ratios.

The formulas of all rules are in the docstring of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class LayerwiseOptimizer(torch.optim.Optimizer):
    """An update rule that scales the update of every tensor by a ratio of norms.

    Each group has, besides the options of its rule, `weight_decay`, `scale` and `adapted`; see
    `groups.parameter_groups`. `clipped_fraction` is the fraction of all tensors whose own learning
    rate was below that of the schedule in the last update.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, **options: Any):
        super().__init__(groups, {"lr": lr, **options})
        self.clipped_fraction = 0.0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no rule here evaluates a closure
        clipped = total = 0
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if pairs:
                weights, gradients = (list(part) for part in zip(*pairs, strict=True))
                clipped += self.update_group(group, weights, gradients)
                total += len(pairs)
        self.clipped_fraction = clipped / max(1, total)

    def update_group(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        """Update the weights w of one group in place from their gradients g.

        Returns how many tensors had a learning rate below that of the group.
        """
        raise NotImplementedError

    def state_tensors(self, w: list[Tensor], name: str = "momentum_buffer") -> list[Tensor]:
        """The state `name` of each tensor, made of zeros at its first update."""
        for parameter in w:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in w]


def tensor_norms(tensors: list[Tensor]) -> list[float]:
    """The Euclidean norm of each tensor, copied to the host at once."""
    norms: list[float] = torch.stack(torch._foreach_norm(tensors)).tolist()
    return norms


def paired_norms(w: list[Tensor], g: list[Tensor]) -> tuple[list[float], list[float]]:
    """The norms of two lists of the same length; one copy to the host instead of two."""
    norms = tensor_norms([*w, *g])
    return norms[: len(w)], norms[len(w) :]


def trust_ratios(
    group: dict[str, Any],
    weight_norms: Sequence[float],
    denominators: Sequence[float],
    fallback: float,
    coefficient: float,
) -> list[float]:
    """`coefficient` |w| / denominator of each tensor.

    `fallback` where |w| or the denominator is 0, and for all tensors of a group without `adapted`.
    """
    if not group["adapted"]:
        return [fallback] * len(weight_norms)
    return [
        coefficient * norm / denominator if norm and denominator else fallback
        for norm, denominator in zip(weight_norms, denominators, strict=True)
    ]


def add_decay(
    group: dict[str, Any], weight_norms: Sequence[float], gradient_norms: Sequence[float]
) -> list[float]:
    """|g| + beta |w| of each tensor, the denominator of LARS."""
    decay = group["weight_decay"]
    return [b + decay * a for a, b in zip(weight_norms, gradient_norms, strict=True)]


def decayed_gradients(group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
    """g + beta w of each tensor, in new memory."""
    return list(torch._foreach_add(g, w, alpha=group["weight_decay"]))


def add_scaled(y: list[Tensor], x: list[Tensor], scales: Sequence[float]) -> None:
    """y <- y + scale x, in place; each tensor has its own scale.

    On a GPU the launches of kernels dominate the cost, so all tensors share two. On a CPU passes
    over memory dominate, and `add_` with alpha needs one where the foreach functions need two.
    """
    if y[0].is_cuda:
        torch._foreach_add_(y, torch._foreach_mul(x, scales))
        return
    for target, addend, scale in zip(y, x, scales, strict=True):
        target.add_(addend, alpha=scale)
