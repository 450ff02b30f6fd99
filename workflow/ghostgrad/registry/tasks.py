"""The table of tasks. Everything that depends on which tasks there are reads it: the registry's
schema, `ghostgrad run`, the rules, the logger, estimates and calibration.

A new task is a row here, its parameters in `ghostgrad/registry/specs/<task>.py` and its function in
`ghostgrad/tasks/<task>.py`. Imports neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass

from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.registry.specs.initialize import InitializeSpec
from ghostgrad.registry.specs.sample import SampleSpec
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.registry.specs.weights import WeightsSpec


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of run. Its function is `ghostgrad.tasks.<name>.<name>`."""

    spec: type[Spec]
    evidence: str
    """What a verdict rests on whose number comes from such a run."""
    trains: bool = False
    """Trains a network, so that its runs have a series by step and a duration that `ghostgrad
    calibrate` can measure."""
    data_parallel: bool = False
    """Computes on several GPUs, one process for each."""
    publishing_rule: str = ""
    """The rule of runs that leave their weights for others; empty where they cannot."""
    result: tuple[str, str] | None = None
    """Column of metrics.csv that `make` shows when a run ends, in percent, and what it calls it."""

    @property
    def name(self) -> str:
        return self.spec.task


TASKS = {
    task.name: task
    for task in (
        Task(spec=SimulateSpec, evidence="simulation"),
        Task(spec=SampleSpec, evidence="Monte Carlo"),
        Task(spec=InitializeSpec, evidence="networks at initialization"),
        Task(
            spec=ClassifySpec,
            evidence="training",
            trains=True,
            data_parallel=True,
            publishing_rule="pretrain",
            result=("test_accuracy", "test accuracy"),
        ),
        Task(
            spec=DetectSpec,
            evidence="training",
            trains=True,
            data_parallel=True,
            result=("box_ap", "box AP"),
        ),
        Task(spec=WeightsSpec, evidence="published weights"),
    )
}

RUN_RULES = {task.name: (task.name, False) for task in TASKS.values()} | {
    task.publishing_rule: (task.name, True) for task in TASKS.values() if task.publishing_rule
}
"""Rule -> the task whose runs it computes, and whether they publish their weights. The two rules of
`classify` do the same; Snakemake must know before a job starts whether it makes weights.pt."""
