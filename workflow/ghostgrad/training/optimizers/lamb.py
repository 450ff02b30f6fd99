"""LAMB (You et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.training.optimizers.layerwise import (
    LayerwiseOptimizer,
    paired_norms,
    trust_ratios,
)


class LAMB(LayerwiseOptimizer):
    """Adam's direction u with decoupled weight decay, scaled to the norm of the weights.

    m <- mu m + (1 - mu) g; v <- beta2 v + (1 - beta2) g^2; w <- w - gamma |w| / |u| u,
    u = m^ / (sqrt(v^) + eps) + beta w, where m^ = m / (1 - mu^t) and v^ = v / (1 - beta2^t) correct
    the bias of the first updates t.
    """

    def __init__(self, groups: list[dict[str, Any]], spec: ClassifySpec):
        super().__init__(
            groups,
            spec.lr,
            momentum=spec.momentum,
            beta2=spec.beta2,
            adam_eps=spec.adam_eps,
        )

    def update_group(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        mu, beta2 = group["momentum"], group["beta2"]
        # The count is kept per tensor: one that gets no gradient in a step is not updated there.
        for parameter in w:
            self.state[parameter]["t"] = self.state[parameter].get("t", 0) + 1
        counts = [self.state[parameter]["t"] for parameter in w]
        m, v = self.state_tensors(w, "mean"), self.state_tensors(w, "square")
        torch._foreach_lerp_(m, g, 1 - mu)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        denominators = list(torch._foreach_div(v, [1 - beta2**t for t in counts]))
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["adam_eps"])
        u = list(torch._foreach_div(m, [1 - mu**t for t in counts]))
        torch._foreach_div_(u, denominators)
        torch._foreach_add_(u, w, alpha=group["weight_decay"])
        weight_norms, direction_norms = paired_norms(w, u)
        ratios = trust_ratios(group, weight_norms, direction_norms, fallback=1.0, coefficient=1.0)
        torch._foreach_mul_(u, [group["lr"] * ratio for ratio in ratios])
        torch._foreach_sub_(w, u)
        return sum(ratio < 1 for ratio in ratios)
