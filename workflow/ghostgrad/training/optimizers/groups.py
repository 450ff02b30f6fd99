"""Which weight decay and which factor of the learning rate each parameter has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ghostgrad.checks import InputError, nearest

WEIGHT_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMALIZATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    weight_decay_on: Literal["all", "weights", "all_but_norms"],
    lr_scales: Mapping[str, float],
    adapt_vectors: bool = True,
) -> list[dict[str, Any]]:
    """The trained parameters of `model`, in groups with the same options.

    `weight_decay` is 0 for what `weight_decay_on` leaves out; `scale` multiplies the learning rate;
    `adapted` says whether a layer-wise rule scales the group's tensors by their trust ratio.
    `lr_scales` maps the beginning of parameter names to a scale, and the longest match counts.
    Raises InputError for a beginning that no trained parameter has.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    _check_prefixes(lr_scales, [name for name, _ in trained])
    # Parameters are compared by identity: `in` would compare the tensors' values.
    weights = {id(m.weight) for m in model.modules() if isinstance(m, WEIGHT_LAYERS)}
    norms = {
        id(p) for m in model.modules() if isinstance(m, NORMALIZATIONS) for p in m.parameters()
    }
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in trained:
        decays = {
            "all": True,
            "weights": id(parameter) in weights,
            "all_but_norms": id(parameter) not in norms,
        }
        decay = weight_decay if decays[weight_decay_on] else 0.0
        prefixes = [prefix for prefix in lr_scales if name.startswith(prefix)]
        scale = lr_scales[max(prefixes, key=len)] if prefixes else 1.0
        adapted = adapt_vectors or parameter.ndim > 1
        groups.setdefault((decay, scale, adapted), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "scale": scale, "adapted": adapted}
        for (decay, scale, adapted), members in groups.items()
    ]


def _check_prefixes(prefixes: Collection[str], names: list[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            suggestion = nearest(prefix, names)
            raise InputError(f"lr_scales: no parameter begins with '{prefix}'{suggestion}")
