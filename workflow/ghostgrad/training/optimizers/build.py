"""The table of update rules, and from a spec to its optimizer.

A new rule is a module beside this one with a class that is made from parameter groups and a spec, a
row in OPTIMIZERS, and its name in `OptimizerName` of `ghostgrad/registry/specs/classify.py`,
together with the options that only this rule reads. The formulas of all rules are in the docstring
of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ghostgrad.registry.specs.classify import ClassifySpec, OptimizerName
from ghostgrad.training.optimizers.groups import parameter_groups
from ghostgrad.training.optimizers.lalc import LALC
from ghostgrad.training.optimizers.lamb import LAMB
from ghostgrad.training.optimizers.larc import LARC
from ghostgrad.training.optimizers.lars import CLARS, LARS
from ghostgrad.training.optimizers.sgd import SGD

OptimizerClass: TypeAlias = Callable[[list[dict[str, Any]], ClassifySpec], torch.optim.Optimizer]

OPTIMIZERS: Mapping[OptimizerName, OptimizerClass] = {
    "sgd": SGD,
    "lars": LARS,
    "clars": CLARS,
    "larc": LARC,
    "lalc": LALC,
    "lamb": LAMB,
}


def build_optimizer(spec: ClassifySpec, model: nn.Module) -> torch.optim.Optimizer:
    """The update rule that a classify spec names, over all trained parameters of the model.

    Raises InputError for a learning-rate scale that names no parameter.
    """
    groups = parameter_groups(
        model, spec.weight_decay, spec.weight_decay_on, spec.lr_scales, spec.adapt_vectors
    )
    return OPTIMIZERS[spec.optimizer](groups, spec)
