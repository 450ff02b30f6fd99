"""Statistics of published weights: the running variance of every BN layer (Ghost sec. 2.2, fig. 1
right)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ghostgrad.data.vgg19_bn import load_weights
from ghostgrad.files import CsvTable
from ghostgrad.registry.specs.weights import WeightsSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State

SUFFIX = ".running_var"


def load_data(spec: WeightsSpec, manifest: Path) -> Mapping[str, Tensor]:
    """The state dict that a run measures."""
    return load_weights(spec.data, manifest)


def weights(
    spec: WeightsSpec, state: State, device: torch.device, parameters: Mapping[str, Tensor]
) -> Record:
    """sigma = sqrt(mean_i running_var_i) of each BN layer, counted from 1 at the input."""
    series = CsvTable(("repeat", "layer", "sigma", "channels"))
    for layer, values in enumerate(running_variances(parameters), start=1):
        series.add(0, layer, values.double().mean().sqrt().item(), len(values))
    return Record({"status": "done", "layers": len(series.rows)}, series)


def running_variances(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """The running variance (C,) of each BN layer, in the order of the state dict, which is that of
    the layers."""
    return [values for name, values in parameters.items() if name.endswith(SUFFIX)]
