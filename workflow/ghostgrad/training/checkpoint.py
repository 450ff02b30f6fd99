"""What a checkpoint holds of model and optimizer, and how a run continues from it.

`runs/state.py` reads and writes the file and `tasks/progress.py` restores the step and the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec


def training_state(
    spec: ClassifySpec | DetectSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    processes: int,
) -> dict[str, Any]:
    """What `restore_checkpoint` needs of a run with this number of processes."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "spec": spec.canonical(),
        "processes": processes,
    }


def restore_checkpoint(
    saved: Mapping[str, Any],
    spec: ClassifySpec | DetectSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    processes: int,
    folder: Path,
) -> None:
    """Load the weights and the optimizer's state of a checkpoint from the state folder `folder`.

    Raises InputError if the checkpoint has another spec, was written by another version of the code
    or by another number of processes. That number matters because gradients are summed in a
    different order, so the resumed run would round differently from an undisturbed one.
    """
    try:
        if saved["spec"] != spec.canonical():
            raise InputError(f"{folder}: the checkpoint has another spec; delete it to start over")
        if saved["processes"] != processes:
            reason = f"saved by {saved['processes']} process(es), one per GPU, not {processes}"
            remedy = "give it as many GPUs again, or delete it to start over"
            raise InputError(f"{folder}: {reason}; {remedy}")
        model.load_state_dict(saved["model"])
        restore_optimizer(optimizer, saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        # torch's messages list every parameter that does not fit, one per line.
        reason = f"was written by a different version of the code ({str(error).splitlines()[0]})"
        raise InputError(f"{folder}: the checkpoint {reason}; delete it to start over") from None


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the tensors and counts of an optimizer's state_dict, but keep the options of its groups.

    `load_state_dict` would replace those as well. They follow from the spec, and a state that was
    saved before an option was added would lack it.
    """
    options = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own_options in zip(optimizer.param_groups, options, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(params=parameters, **own_options)
