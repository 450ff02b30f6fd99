"""The parameters of a random fully-connected network at initialization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ghostgrad.registry.specs.base import Activation, Option, Spec
from ghostgrad.registry.specs.blocks import BLOCK


@dataclass(frozen=True, kw_only=True)
class SimulateSpec(Spec):
    """One `simulate` run: a block of independent repeats of a random network (Ghost sec. 2.1)."""

    task: ClassVar[str] = "simulate"
    description: ClassVar[str] = (
        "The parameters of one `simulate` run, a block of independent repeats of a random network "
        "(Ghost sec. 2.1)."
    )

    net: Annotated[
        Literal["plain", "residual", "preact", "seqnet"],
        Option(
            "plain, residual: Ghost sec. 2.1. preact: BN-ResNet paper sec. 4. seqnet: a stack of "
            "y = B(M act(W x)), Ghost sec. 4.2, which has relu."
        ),
    ]
    depth: Annotated[int, Option("Number of weight layers, or of modules of a seqnet.", minimum=1)]
    width: Annotated[int, Option("Features d of every layer.", minimum=2)]
    batch: Annotated[int, Option("Inputs B per repeat.", minimum=2)]
    activation: Annotated[
        Activation,
        Option("Activation function, called act in the other descriptions."),
    ] = "relu"
    norm: Annotated[
        Literal["batch", "layer", "none"],
        Option(
            "Normalization after every weight layer, with gamma 1, beta 0 and eps 1e-5; a seqnet "
            "has it after M only, and a preact network before every activation."
        ),
    ] = "batch"
    weight_variance: Annotated[
        str,
        Option(
            "plain, residual, preact: c/d for weights from N(0, c/d).",
            pattern="^([0-9]+([.][0-9]+)?|[.][0-9]+)/d$",
            only_for={"net": ("plain", "residual", "preact")},
        ),
    ] = "2/d"
    residual_sum: Annotated[
        Literal["activation", "identity"],
        Option(
            "What follows the sum of shortcut and branch: x' = act(x + s F(x)) (fig. 1) or "
            "x' = x + s F(x) (Prop. 3.17).",
            only_for={"net": ("residual",)},
        ),
    ] = "activation"
    branch_scale: Annotated[
        Literal["1", "1/sqrt(L)"],
        Option(
            "Factor s of the residual branch; L counts blocks.",
            only_for={"net": ("residual", "preact")},
        ),
    ] = "1"
    expansion: Annotated[
        int, Option("seqnet: k, the hidden width over d.", minimum=2, only_for={"net": ("seqnet",)})
    ] = 2
    module_init: Annotated[
        Literal["random", "orthogonal", "looks-linear", "untied"],
        Option(
            "seqnet: R-, O- or L-Init with M = W^T, or W and M independent (Ghost app. B.2).",
            only_for={"net": ("seqnet",)},
        ),
    ] = "random"
    dependence: Annotated[
        bool,
        Option(
            "plain: record how far each layer is from the assumptions of Prop. 3.4 and 3.8 (Ghost "
            "Rem. 3.5, 3.9).",
            only_for={"net": ("plain",)},
        ),
    ] = False
    repeats: Annotated[int, Option("Repeats in this block.", minimum=2, maximum=BLOCK)]
    seed: Annotated[int, Option("The number of the block.", minimum=0)]
