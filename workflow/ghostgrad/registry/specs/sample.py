"""The parameters of a single random operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ghostgrad.registry.specs.base import Option, Spec
from ghostgrad.registry.specs.blocks import BLOCK


@dataclass(frozen=True, kw_only=True)
class SampleSpec(Spec):
    """One `sample` run: a block of independent repeats of a single random operator."""

    task: ClassVar[str] = "sample"
    description: ClassVar[str] = (
        "The parameters of one `sample` run, a block of independent repeats of a single random "
        "operator."
    )

    quantity: Annotated[
        Literal["bn", "linear", "module", "correlated", "pool", "blocked"],
        Option("The operator and what is measured; see ghostgrad/tasks/sample.py."),
    ]
    width: Annotated[int, Option("Features d.", minimum=2)] = 256
    expansion: Annotated[int, Option("linear, module: k = D/d.", minimum=1)] = 1
    batch: Annotated[int, Option("Inputs B per repeat.", minimum=4)] = 128
    tied: Annotated[bool, Option("module: M = W^T; false draws M independently of W.")] = True
    weight_scale: Annotated[float, Option("module: c of W_ij ~ N(0, c/D).", above=0)] = 2
    norm: Annotated[Literal["batch", "none"], Option("bn: none takes the normalization away.")] = (
        "batch"
    )
    correlation: Annotated[
        float,
        Option(
            "Correlation of what the proposition takes to be independent. bn: of dl/dy and y. "
            "linear: of the dimensions. correlated: of the inputs, 0 or 1.",
            minimum=0,
            maximum=1,
        ),
    ] = 0
    repeats: Annotated[int, Option("Repeats in this block.", minimum=2, maximum=BLOCK)]
    seed: Annotated[int, Option("The number of the block.", minimum=0)]
