"""Lengths and positions of a run in updates, and learning rates by update (001 app. B, 004 app. G)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepSchedule:
    """Lengths and positions of a run in steps, converted from the paper's units and shrunk."""

    spec: Mapping[str, Any]
    per_epoch: int

    def steps(self, value: float) -> int:
        """A positive length is at least one step; 0 stays 0."""
        in_steps = value * (self.per_epoch if self.spec["unit"] == "epoch" else 1)
        return max(1, round(in_steps / self.spec["shrink"])) if value else 0

    @property
    def length(self) -> int:
        return self.steps(self.spec["length"])

    @property
    def boundaries(self) -> list[int]:
        return [self.steps(boundary) for boundary in self.spec["lr_boundaries"]]

    @property
    def warmup(self) -> int:
        return self.steps(self.spec["warmup"])

    @property
    def probes(self) -> dict[int, float]:
        """Step -> the paper's position; where two positions shrink to one step, the first is kept."""
        positions = sorted(self.spec["probe_at"], reverse=True)
        return {self.steps(at): at for at in positions} if self.spec["probes"] else {}

    def at(self, step: int) -> float:
        """The paper's position of a step."""
        return step * self.spec["shrink"] / (self.per_epoch if self.spec["unit"] == "epoch" else 1)

    def evaluates(self, step: int) -> bool:
        every = self.steps(self.spec["eval_every"])
        return step == self.length or bool(every and step and step % every == 0)


def learning_rate(spec: Mapping[str, Any], step: int, length: int, warmup: int, boundaries: Sequence[int]) -> float:
    """gamma of the update that follows `step` updates; all positions in updates.

    Warm-up: gamma_max t/T_w at update t = 1, …, T_w; with `warmup_from` f, gamma_max (f + (1 - f) (t - 1)/T_w), as in
    Detectron. Then `step`: gamma_max times lr_factor for every boundary that `step` has reached, or the value of
    `lr_values` that belongs to the last of them (TensorFlow's piecewise constant);
    `cosine`: gamma_max (1 + cos(pi s))/2, s from 0 to 1 over the updates that warm-up leaves, without restarts.
    """
    if step < warmup and (first := spec.get("warmup_from")):
        return spec["lr"] * (first + (1 - first) * step / warmup)
    if step < warmup:
        return spec["lr"] * (step + 1) / warmup
    if spec["schedule"] == "cosine":
        return spec["lr"] * (1 + math.cos(math.pi * (step - warmup) / max(1, length - warmup))) / 2
    reached = bisect_right(sorted(boundaries), step)
    if spec["lr_values"]:
        return [spec["lr"], *spec["lr_values"]][reached]
    return spec["lr"] * spec["lr_factor"] ** reached
