"""LARS (You et al. 2017) and CLARS (Huo et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.training.optimizers.layerwise import (
    LayerwiseOptimizer,
    add_decay,
    add_scaled,
    paired_norms,
    tensor_norms,
    trust_ratios,
)


class LARS(LayerwiseOptimizer):
    """Layer-wise adaptive rate scaling.

    m <- mu m + gamma lambda (g + beta w); w <- w - m, with lambda = eta |w| / (|g| + beta |w|).
    The learning rate is inside the momentum buffer: when it falls, m keeps the larger steps.
    """

    def __init__(self, groups: list[dict[str, Any]], spec: ClassifySpec):
        super().__init__(
            groups,
            spec.lr,
            momentum=spec.momentum,
            trust_coefficient=spec.trust_coefficient,
            decay_in_trust=spec.decay_in_trust,
        )

    def update_group(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        m, ratios = self.state_tensors(w), self.ratios(group, w, g)
        learning_rates = [group["lr"] * ratio for ratio in ratios]
        torch._foreach_mul_(m, group["momentum"])
        add_scaled(m, g, learning_rates)
        add_scaled(m, w, [rate * group["weight_decay"] for rate in learning_rates])
        torch._foreach_sub_(w, m)
        return sum(ratio < 1 for ratio in ratios)

    def ratios(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[float]:
        """lambda = eta |w| / (|g| + beta |w|) of each tensor."""
        weight_norms, gradient_norms = paired_norms(w, g)
        denominators = add_decay(group, weight_norms, gradient_norms)
        return trust_ratios(group, weight_norms, denominators, 1.0, group["trust_coefficient"])


class CLARS(LARS):
    """Complete layer-wise adaptive rate scaling: LARS with the mean norm of the samples' gradients.

    `sample_norms` has that mean for every parameter and must be set before each step; see
    `ghostgrad.training.per_sample`.
    """

    sample_norms: Mapping[Tensor, float]

    def ratios(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[float]:
        """lambda = eta |w| / mean_i |g_i| of each tensor, with beta |w| under `decay_in_trust`."""
        weight_norms = tensor_norms(w)
        denominators = [self.sample_norms[parameter] for parameter in w]
        if group["decay_in_trust"]:
            denominators = add_decay(group, weight_norms, denominators)
        return trust_ratios(group, weight_norms, denominators, 1.0, group["trust_coefficient"])
