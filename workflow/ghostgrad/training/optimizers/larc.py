"""LARC, layer-wise adaptive rate clipping, as in NVIDIA apex with clip=True."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.training.optimizers.layerwise import (
    LayerwiseOptimizer,
    add_decay,
    decayed_gradients,
    paired_norms,
    trust_ratios,
)


class LARC(LayerwiseOptimizer):
    """g' = min(lambda / gamma, 1) (g + beta w), then SGD's rule on g' without weight decay.

    lambda is that of LARS, eta |w| / (|g| + beta |w|), and bounds the learning rate of a tensor.
    """

    def __init__(self, groups: list[dict[str, Any]], spec: ClassifySpec):
        super().__init__(
            groups,
            spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            trust_coefficient=spec.trust_coefficient,
        )

    def update_group(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        learning_rate = group["lr"]
        weight_norms, gradient_norms = paired_norms(w, g)
        denominators = add_decay(group, weight_norms, gradient_norms)
        bounds = trust_ratios(
            group, weight_norms, denominators, learning_rate, group["trust_coefficient"]
        )
        # Where |w| or |g| is 0, apex applies no weight decay either.
        undecayed = [
            group["adapted"] and not (a and b)
            for a, b in zip(weight_norms, gradient_norms, strict=True)
        ]
        scaled = [
            raw.clone() if skip else decayed
            for raw, decayed, skip in zip(g, decayed_gradients(group, w, g), undecayed, strict=True)
        ]
        # A learning rate of 0 moves nothing; the scale only has to be finite.
        scales = [min(bound / learning_rate, 1.0) if learning_rate else 1.0 for bound in bounds]
        torch._foreach_mul_(scaled, scales)
        m = self.state_tensors(w)
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, scaled)
        direction = m
        if group["nesterov"]:
            torch._foreach_add_(scaled, m, alpha=group["momentum"])
            direction = scaled
        torch._foreach_add_(w, direction, alpha=-learning_rate)
        return sum(bound < learning_rate for bound in bounds)
