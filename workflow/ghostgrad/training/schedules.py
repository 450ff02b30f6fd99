"""Lengths and positions of a run in updates, and learning rates by update (001 app. B, 004 app. G)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec


@dataclass(frozen=True)
class StepSchedule:
    """Lengths and positions of a run in steps, converted from the paper's units and shrunk."""

    spec: ClassifySpec | DetectSpec
    per_epoch: int

    def steps(self, value: float) -> int:
        """A positive length is at least one step; 0 stays 0."""
        in_steps = value * (self.per_epoch if self.spec.unit == "epoch" else 1)
        return max(1, round(in_steps / self.spec.shrink)) if value else 0

    @cached_property
    def length(self) -> int:
        return self.steps(self.spec.length)

    @cached_property
    def boundaries(self) -> list[int]:
        return sorted(self.steps(boundary) for boundary in self.spec.lr_boundaries)

    @cached_property
    def warmup(self) -> int:
        return self.steps(self.spec.warmup)

    @cached_property
    def probes(self) -> dict[int, float]:
        """Step -> the paper's position; where two positions shrink to one step, the first is kept."""
        if not isinstance(self.spec, ClassifySpec) or not self.spec.probes:
            return {}
        # Of two positions at one step the later assignment stays: the smaller position.
        positions = sorted(self.spec.probe_at, reverse=True)
        return {self.steps(position): position for position in positions}

    def at(self, step: int) -> float:
        """The paper's position of a step."""
        return step * self.spec.shrink / (self.per_epoch if self.spec.unit == "epoch" else 1)

    def evaluates(self, step: int) -> bool:
        every = self.steps(self.spec.eval_every)
        return step == self.length or bool(every and step and step % every == 0)

    def learning_rate(self, step: int) -> float:
        """gamma of the update that follows `step` updates.

        Warm-up over T_w updates: gamma_max t/T_w at update t = 1, …, T_w; with `warmup_from` f, as in
        Detectron, gamma_max (f + (1 - f) (t - 1)/T_w). Then schedule `step`: gamma_max times lr_factor
        for every boundary that `step` has reached; `cosine`: gamma_max (1 + cos(pi s))/2, where s runs
        from 0 to 1 over the updates that warm-up leaves, without restarts.
        """
        spec = self.spec
        if step < self.warmup and isinstance(spec, DetectSpec):
            return spec.lr * (spec.warmup_from + (1 - spec.warmup_from) * step / self.warmup)
        if step < self.warmup:
            return spec.lr * (step + 1) / self.warmup
        if isinstance(spec, ClassifySpec) and spec.schedule == "cosine":
            progress = (step - self.warmup) / max(1, self.length - self.warmup)
            return spec.lr * (1 + math.cos(math.pi * progress)) / 2
        return spec.lr * spec.lr_factor ** bisect_right(self.boundaries, step)
