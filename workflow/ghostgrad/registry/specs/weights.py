"""The parameters of a run that reads published weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ghostgrad.registry.datasets import readable_by
from ghostgrad.registry.specs.base import Option, Spec


@dataclass(frozen=True, kw_only=True)
class WeightsSpec(Spec):
    """One `weights` run, which reads published weights."""

    task: ClassVar[str] = "weights"
    description: ClassVar[str] = (
        "The parameters of one `weights` run, which reads published weights."
    )

    data: Annotated[
        str, Option("The weights, a key of data in config.yaml.", choices=readable_by("weights"))
    ]
    seed: Annotated[int, Option("There is one run.", minimum=0, maximum=0)]
