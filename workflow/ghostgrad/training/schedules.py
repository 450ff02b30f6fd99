"""Lengths and positions of a run in updates, and the learning rate of each update (LALC paper
app. B, Ghost app. G)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec


@dataclass(frozen=True)
class StepSchedule:
    """The lengths and positions of a spec in steps, one step being one update.

    A spec has them in the paper's unit (steps or epochs) and for the paper's full length; here they
    are converted to steps and divided by `shrink`.
    """

    spec: ClassifySpec | DetectSpec
    steps_per_epoch: int

    def to_steps(self, value: float) -> int:
        """A length or position of the spec in steps; a positive one is at least one step."""
        in_steps = value * (self.steps_per_epoch if self.spec.unit == "epoch" else 1)
        return max(1, round(in_steps / self.spec.shrink)) if value else 0

    @cached_property
    def length(self) -> int:
        """Number of updates of the whole run."""
        return self.to_steps(self.spec.length)

    @cached_property
    def boundaries(self) -> list[int]:
        """Steps at which the learning rate falls."""
        return sorted(self.to_steps(boundary) for boundary in self.spec.lr_boundaries)

    @cached_property
    def warmup(self) -> int:
        """Number of updates over which the learning rate rises."""
        return self.to_steps(self.spec.warmup)

    @cached_property
    def probe_positions(self) -> dict[int, float]:
        """Step -> position in the spec's unit, of every probe; empty where nothing is probed.

        Two positions may shrink to one step; the smaller one is kept.
        """
        if not isinstance(self.spec, ClassifySpec) or not self.spec.probes:
            return {}
        # Later assignments replace earlier ones, so the positions run from the largest down.
        positions = sorted(self.spec.probe_at, reverse=True)
        return {self.to_steps(position): position for position in positions}

    def position(self, step: int) -> float:
        """The position of a step in the spec's unit, as on the axes of the papers' figures."""
        return step * self.spec.shrink / (self.steps_per_epoch if self.spec.unit == "epoch" else 1)

    def evaluates_at(self, step: int) -> bool:
        """True if the test images are evaluated after `step` updates; always after the last."""
        every = self.to_steps(self.spec.eval_every)
        return step == self.length or bool(every and step and step % every == 0)

    def learning_rate(self, step: int) -> float:
        """gamma of the update that follows `step` updates.

        Warm-up over T_w updates: gamma_max t/T_w at update t = 1, …, T_w; with `warmup_from` f, as
        in Detectron, gamma_max (f + (1 - f) (t - 1)/T_w). Then schedule `step`: gamma_max times
        lr_factor for every boundary that `step` has reached; `cosine`: gamma_max (1 + cos(pi s))/2,
        where s runs from 0 to 1 over the updates that warm-up leaves, without restarts.
        """
        spec = self.spec
        if step < self.warmup and isinstance(spec, DetectSpec):
            return spec.lr * (spec.warmup_from + (1 - spec.warmup_from) * step / self.warmup)
        if step < self.warmup:
            return spec.lr * (step + 1) / self.warmup
        if isinstance(spec, ClassifySpec) and spec.schedule == "cosine":
            progress = (step - self.warmup) / max(1, self.length - self.warmup)
            return spec.lr * (1 + math.cos(math.pi * progress)) / 2
        reached = bisect_right(self.boundaries, step)  # a boundary equal to `step` counts
        return spec.lr * spec.lr_factor**reached
