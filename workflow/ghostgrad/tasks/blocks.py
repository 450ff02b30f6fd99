"""Blocks of independent repeats: the frame of every random experiment at initialization.

A run is one block of up to BLOCK repeats. Repeat i of block b is repeat b * BLOCK + i of the
experiment and draws from its own generator: stream `repeat` of seed 0 at that number. So blocks
pool exactly, and neither how many repeats are computed at once nor resuming changes a number beyond
rounding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ghostgrad.checks import InputError
from ghostgrad.files import CsvTable
from ghostgrad.registry.specs.blocks import BLOCK
from ghostgrad.rng import generator
from ghostgrad.runs.record import PROBE_COLUMNS
from ghostgrad.runs.state import State

log = logging.getLogger(__name__)

# Bytes of weights, signals and gradients that the repeats computed at once may take. On a CPU a few
# repeats at a time stay in its cache and are fastest.
MEMORY = {"cpu": 96 * 2**20, "cuda": 8 * 2**30}
BYTES_PER_FLOAT = 4

Measure: TypeAlias = Callable[[list[torch.Generator]], Tensor]
"""Generators, one for each repeat -> (repeats, places, columns)."""


class BlockSpec(Protocol):
    """The parameters that every task of blocks has."""

    @property
    def repeats(self) -> int:
        """Repeats in the block, at most BLOCK."""

    @property
    def seed(self) -> int:
        """The number of the block."""


def repeats_at_once(total: int, floats_per_repeat: int, device: torch.device) -> int:
    """How many of `total` repeats fit the memory budget if each holds so many numbers."""
    fitting = MEMORY[device.type] // (BYTES_PER_FLOAT * floats_per_repeat)
    return max(1, min(total, fitting))


def run_block(
    spec: BlockSpec, state: State, device: torch.device, measure: Measure, floats_per_repeat: int
) -> Tensor:
    """All repeats of a block, (repeats, places, columns) on the CPU.

    `measure` computes the repeats of its generators, each of which holds about `floats_per_repeat`
    numbers in memory. Raises Stopped where the run is asked to stop; it has saved itself then.
    """
    total = spec.repeats
    chunk = repeats_at_once(total, floats_per_repeat, device)
    saved = state.load()
    # The generators of a CPU and of a GPU draw different numbers, so repeats of the other kind of
    # device are dropped: a block is computed on one kind.
    parts: list[Tensor] = saved["parts"] if saved and saved["device"] == device.type else []
    done = sum(len(part) for part in parts)
    log.info("%d of %d repeats done, %d at a time on %s", done, total, chunk, device)
    while done < total:
        state.checkpoint_if_due(lambda: {"parts": parts, "device": device.type}, done, total)
        first = spec.seed * BLOCK + done
        numbers = range(first, first + min(chunk, total - done))
        part = measure([generator(0, "repeat", number, device) for number in numbers]).cpu()
        # A checkpoint has no names of columns; only their number reveals that other code wrote it.
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise InputError(
                f"{state.folder}: the checkpoint was written by a different version of the code;"
                " delete it to start over"
            )
        parts.append(part)
        done += len(numbers)
    return torch.cat(parts)


def normal(generators: list[torch.Generator], *shape: int, std: float = 1.0) -> Tensor:
    """N(0, std^2), (repeats, *shape), each repeat from its own generator."""
    out = torch.empty(len(generators), *shape, device=generators[0].device)
    for repeat, rng in zip(out, generators, strict=True):
        repeat.normal_(0, std, generator=rng)
    return out


def series_table(
    spec: BlockSpec, place_column: str, columns: tuple[str, ...], values: Tensor
) -> CsvTable:
    """A row for every repeat and place (a layer, say) of values (repeats, places, columns)."""
    table = CsvTable(("repeat", place_column, *columns))
    for repeat, places in enumerate(values.tolist(), start=spec.seed * BLOCK):
        for place, row in enumerate(places):
            table.add(repeat, place, *row)
    return table


def summary_table(columns: tuple[str, ...], values: Tensor) -> CsvTable:
    """Mean, standard error and quantiles over the repeats of values (repeats, places, columns), in
    the long form of probes.csv, without the quantities that a place does not have."""
    table = CsvTable(PROBE_COLUMNS)
    statistics = {"mean": values.mean(0), "se": values.std(0) / len(values) ** 0.5}
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype)
    quantiles = torch.quantile(values, levels, dim=0)
    statistics |= dict(zip(("q05", "q50", "q95"), quantiles, strict=True))
    for index, column in enumerate(columns):
        for name, statistic in statistics.items():
            for place, value in enumerate(statistic[:, index].tolist()):
                if not math.isnan(value):
                    table.add(0, 0, f"{column}_{name}", place, value)
    return table
