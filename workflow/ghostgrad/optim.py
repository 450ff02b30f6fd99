"""Update rules and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def optimizer(spec: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """m <- mu m + g + beta w; w <- w - gamma m (torch's SGD, TensorFlow's MomentumOptimizer with an L2 loss beta/2)."""
    weights = [p for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) for p in [m.weight]]
    decayed = list(model.parameters()) if spec["decay"] == "all" else weights
    rest = [p for p in model.parameters() if not any(p is q for q in decayed)]
    groups = [{"params": decayed, "weight_decay": spec["weight_decay"]}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=spec["lr"], momentum=spec["momentum"])


def learning_rate(spec: Mapping[str, Any], boundaries: list[int], step: int) -> float:
    """gamma_t of a stepwise schedule: lr times lr_factor for every boundary (in steps) that `step` has reached."""
    return spec["lr"] * spec["lr_factor"] ** sum(step >= boundary for boundary in boundaries)
