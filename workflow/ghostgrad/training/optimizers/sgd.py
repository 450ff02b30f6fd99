"""Stochastic gradient descent with momentum, torch's own."""

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
