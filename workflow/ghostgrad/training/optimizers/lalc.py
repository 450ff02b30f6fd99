"""LALC, layer-wise asymmetric learning-rate clipping (LALC paper, sec. 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.training.optimizers.layerwise import (
    LayerwiseOptimizer,
    add_decay,
    add_scaled,
    decayed_gradients,
    paired_norms,
    trust_ratios,
)


class LALC(LayerwiseOptimizer):
    """w <- w - min(gamma, lambda) h with lambda = eta |w| / |h|.

    An update is thus at most eta |w| long, unless w is 0, `raw_norm` is set or the tensor is not
    adapted. LARS and LARC scale the gradient before it enters the momentum buffer; here the bound
    applies to the whole step h, which is computed from the buffer.
    """

    def __init__(self, groups: list[dict[str, Any]], spec: ClassifySpec):
        super().__init__(
            groups,
            spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            trust_coefficient=spec.trust_coefficient,
            raw_norm=spec.raw_norm,
        )

    def update_group(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        learning_rate = group["lr"]
        m = self.state_tensors(w)
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, g)
        torch._foreach_add_(m, w, alpha=group["weight_decay"])
        h = m
        if group["nesterov"]:
            h = decayed_gradients(group, w, g)
            torch._foreach_add_(h, m, alpha=group["momentum"])
        if group["raw_norm"]:
            weight_norms, gradient_norms = paired_norms(w, g)
            denominators = add_decay(group, weight_norms, gradient_norms)
        else:
            weight_norms, denominators = paired_norms(w, h)
        bounds = trust_ratios(
            group, weight_norms, denominators, learning_rate, group["trust_coefficient"]
        )
        add_scaled(w, h, [-min(learning_rate, bound) for bound in bounds])
        return sum(bound < learning_rate for bound in bounds)
