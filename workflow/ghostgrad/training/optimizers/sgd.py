"""Stochastic gradient descent with momentum, torch's own: m <- mu m + g + beta w; w <- w - gamma m.

The learning rate gamma is outside the momentum buffer m. The formulas of all rules, and what their
letters mean, are in `training/optimizers/__init__.py`.
"""

from __future__ import annotations

from typing import Any

import torch

from ghostgrad.registry.specs.classify import ClassifySpec


class SGD(torch.optim.SGD):
    """torch.optim.SGD with the options of a spec; all tensors of a group are updated together."""

    def __init__(self, groups: list[dict[str, Any]], spec: ClassifySpec):
        super().__init__(
            groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, foreach=True
        )
