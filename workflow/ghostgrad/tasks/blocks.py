"""Blocks of independent repeats: the frame of every random experiment at initialization.

A run is one block of up to BLOCK repeats; repeat i of block b is repeat b * BLOCK + i of the experiment, with a
generator of its own, so blocks pool exactly and neither batching nor resuming changes a number but by rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable
from ghostgrad.registry.specs.initialize import InitializeSpec
from ghostgrad.registry.specs.sample import SampleSpec
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.rng import generator
from ghostgrad.runs.record import PROBE_COLUMNS
from ghostgrad.runs.state import State

log = logging.getLogger(__name__)

BLOCK = 1024
# Bytes of weights, signals and gradients that one batch of repeats may take. On a CPU a few repeats at a time stay in
# its cache and are fastest.
MEMORY = {"cpu": 96 * 2**20, "cuda": 8 * 2**30}

Measure = Callable[[list[torch.Generator]], Tensor]


def at_once(total: int, floats: int, device: torch.device) -> int:
    """How many repeats of so many numbers fit the memory budget."""
    return max(1, min(total, MEMORY[device.type] // (4 * floats)))


def block(spec: SimulateSpec | SampleSpec | InitializeSpec, state: State, device: torch.device, measure: Measure, floats: int) -> Tensor:
    """All repeats of a block, (repeats, places, columns) on the CPU; `measure` makes those of its generators, each of
    which takes about `floats` numbers in memory."""
    total = spec.repeats
    chunk = at_once(total, floats, device)
    saved = state.load()
    # the generators of a CPU and of a GPU draw other numbers: a block is computed on one kind of device
    parts: list[Tensor] = saved["parts"] if saved and saved["device"] == device.type else []
    done = sum(len(part) for part in parts)
    log.info("%d of %d repeats done, %d at a time on %s", done, total, chunk, device)
    while done < total:
        state.checkpoint_if_due(lambda: {"parts": parts, "device": device.type}, done, total)
        first = spec.seed * BLOCK + done
        repeats = range(first, first + min(chunk, total - done))
        part = measure([generator(0, "repeat", repeat, device) for repeat in repeats]).cpu()
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise InputError(f"{state.folder}: a checkpoint of other code; delete it to start over")
        parts.append(part)
        done += len(repeats)
    return torch.cat(parts)


def normal(generators: list[torch.Generator], *shape: int, std: float = 1.0) -> Tensor:
    """N(0, std^2) of (repeats, *shape), each repeat from its own generator."""
    out = torch.empty(len(generators), *shape, device=generators[0].device)
    for one, rng in zip(out, generators, strict=True):
        one.normal_(0, std, generator=rng)
    return out


def series(spec: SimulateSpec | SampleSpec | InitializeSpec, place: str, columns: tuple[str, ...], values: Tensor) -> CsvTable:
    """Every repeat and place (a layer, say) as a row."""
    rows = CsvTable(("repeat", place, *columns))
    for repeat, places in enumerate(values.tolist(), start=spec.seed * BLOCK):
        for index, row in enumerate(places):
            rows.add(repeat, index, *row)
    return rows


def summary(columns: tuple[str, ...], values: Tensor) -> CsvTable:
    """Mean, standard error and quantiles over the block's repeats of every column at every place, in the long form of
    probes.csv; quantities that a place has not are left out."""
    rows = CsvTable(PROBE_COLUMNS)
    repeats = len(values)
    statistics = {"mean": values.mean(0), "se": values.std(0) / repeats**0.5}
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype)
    statistics |= dict(zip(("q05", "q50", "q95"), torch.quantile(values, levels, dim=0), strict=True))
    for index, column in enumerate(columns):
        for name, table in statistics.items():
            for place, value in enumerate(table[:, index].tolist()):
                if value == value:
                    rows.add(0, 0, f"{column}_{name}", place, value)
    return rows
