"""The parameters of freshly initialized image networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ghostgrad.registry.datasets import readable_by
from ghostgrad.registry.specs.base import Activation, Option, Spec
from ghostgrad.registry.specs.blocks import BLOCK


@dataclass(frozen=True, kw_only=True)
class InitializeSpec(Spec):
    """One `initialize` run: a block of freshly drawn image networks and one pass through each."""

    task: ClassVar[str] = "initialize"
    description: ClassVar[str] = (
        "The parameters of one `initialize` run, a block of freshly drawn image networks and one "
        "pass through each."
    )

    # The network
    model: Annotated[
        Literal[
            "preact_resnet", "mlp", "vgg", "resnet50", "resnet101", "vgg16_bn", "vit_b_16", "swin_t"
        ],
        Option(
            "Architecture. preact_resnet: BN-ResNet paper sec. 4.1. mlp, vgg: plain networks (LALC "
            "fig. 1). The others are torchvision's."
        ),
    ]
    blocks: Annotated[int, Option("preact_resnet: residual blocks per scale.", minimum=1)] = 5
    filters: Annotated[
        int, Option("preact_resnet, vgg: filters of the first scale or group.", minimum=1)
    ] = 16
    batch_norm: Annotated[bool, Option("preact_resnet: false deletes every BN (Model-3).")] = True
    shortcut: Annotated[bool, Option("preact_resnet: false deletes every shortcut (Model-2).")] = (
        True
    )
    bn_eps: Annotated[float, Option("preact_resnet: epsilon of BN.", above=0)] = 1.0e-5
    depth: Annotated[
        int, Option("mlp, vgg: number of weight layers, the classifier included.", minimum=2)
    ] = 51
    width: Annotated[int, Option("mlp: features of a hidden layer.", minimum=1)] = 256
    norm: Annotated[
        Literal["batch", "layer", "none"],
        Option("mlp, vgg: normalization before every activation."),
    ] = "batch"
    activation: Annotated[
        Activation | Literal["dropout"],
        Option("mlp, vgg: activation function; dropout has Dropout with p = 0.5 in place of it."),
    ] = "relu"
    cifar_stem: Annotated[
        bool,
        Option(
            "ResNets: the first convolution has stride 1 and the first pool is left out (LALC app. "
            "B)."
        ),
    ] = False
    zero_init_residual: Annotated[
        bool,
        Option(
            "ResNets: gamma of the last BN of every branch starts at 0, a common recipe.",
            stored_as="zero_gamma",
        ),
    ] = False
    padding_mode: Annotated[
        Literal["zeros", "circular"], Option("preact_resnet: circular padding has no border.")
    ] = "zeros"
    noise: Annotated[bool, Option("Inputs are N(0, 1) in place of the images, of their shape.")] = (
        False
    )
    init: Annotated[
        Literal["xavier_uniform", "he_normal", "default"],
        Option(
            "Initialization of convolutions and linear layers; biases start at 0. default: torch's "
            "or torchvision's own."
        ),
    ] = "he_normal"

    # The images
    data: Annotated[str, Option("Data set.", choices=readable_by("initialize"))]
    size: Annotated[
        int,
        Option(
            "Images are resized to this side bilinearly; 0 leaves them.", unit="pixels", minimum=0
        ),
    ] = 0
    standardize: Annotated[
        Literal["none", "per_image", "per_channel"], Option("As in classify.")
    ] = "per_channel"
    batch: Annotated[int, Option("Images per repeat.", unit="images", minimum=2)]
    repeats: Annotated[int, Option("Networks in this block.", minimum=2, maximum=BLOCK)]
    seed: Annotated[int, Option("The number of the block.", minimum=0)]

    @property
    def test_side(self) -> int:
        """Short side in pixels of the images whose centres are the test images; 0 leaves them."""
        return self.size
