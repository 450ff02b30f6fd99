"""Statistics of a published checkpoint: the running variance of every BN layer (Ghost sec. 2.2, fig. 1 right)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ghostgrad.data.vgg19_bn import load_weights
from ghostgrad.files import CsvTable
from ghostgrad.registry.specs.weights import WeightsSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State

SUFFIX = ".running_var"


def load_data(spec: WeightsSpec, manifest: Path) -> Mapping[str, torch.Tensor]:
    """The state dict that a run measures."""
    return load_weights(spec.data, manifest)


def weights(spec: WeightsSpec, state: State, device: torch.device, found: Mapping[str, Any]) -> Record:
    """sigma = sqrt(mean_i running_var_i) of each BN layer, counted from 1 at the input."""
    series = CsvTable(("repeat", "layer", "sigma", "channels"))
    for layer, (_, values) in enumerate(running_variances(found), start=1):
        series.add(0, layer, values.double().mean().sqrt().item(), len(values))
    return Record({"status": "done", "layers": len(series.rows)}, series)


def running_variances(found: Mapping[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """(name, running variance) of each BN layer, in the order of the state dict, which is that of the layers."""
    return [(name.removesuffix(SUFFIX), values) for name, values in found.items() if name.endswith(SUFFIX)]
