"""The parameters of the fine-tuning of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias

from ghostgrad.registry.datasets import readable_by
from ghostgrad.registry.specs.base import Option, Spec

Backbone: TypeAlias = Literal[
    "seqnet18",
    "seqnet34",
    "seqnet50",
    "seqnet101",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet50_gn",
]


@dataclass(frozen=True, kw_only=True)
class DetectSpec(Spec):
    """One `detect` run: Mask R-CNN with a feature pyramid, trained on images in COCO's format."""

    task: ClassVar[str] = "detect"
    description: ClassVar[str] = (
        "The parameters of one `detect` run, Mask R-CNN with a feature pyramid trained on images "
        "in COCO's format."
    )

    # The network
    model: Annotated[
        Backbone,
        Option(
            "Classifier whose four stages are the backbone; its stem and first stage stay as they "
            "were trained."
        ),
    ]
    cifar_stem: Annotated[bool, Option("As in classify.")] = False
    small_stem: Annotated[bool, Option("As in classify.")] = False
    stem_filters: Annotated[int, Option("As in classify.", minimum=1)] = 64
    weights: Annotated[
        str | None,
        Option(
            "Run whose weights the backbone starts from, <experiment>/<variant>-s<seed>; without "
            "it the backbone is initialized at random.",
            pattern="^[a-z0-9_]+/[A-Za-z0-9_.-]+-s[0-9]+$",
        ),
    ] = None
    backbone_relu: Annotated[
        bool, Option("ReLU between the outputs of the stages and the pyramid.")
    ] = False
    backbone_norm: Annotated[
        Literal["frozen", "sync"],
        Option(
            "BN in the stages that are trained. frozen: as it was in the classifier. sync: trained "
            "over the images of all GPUs."
        ),
    ] = "frozen"
    heads: Annotated[
        Literal["gn", "2fc"],
        Option(
            "gn: GroupNorm in the pyramid, in a box head of four convolutions and a linear layer, "
            "and in the mask head (Wu and He 2018). 2fc: a box head of two linear layers and no "
            "normalization."
        ),
    ] = "gn"
    fpn_channels: Annotated[
        int, Option("Channels of the pyramid and of the convolutions in the heads.", minimum=1)
    ] = 256
    head_features: Annotated[
        int, Option("Features of the linear layers in the box head.", minimum=1)
    ] = 1024
    anchor_sizes: Annotated[
        tuple[int, ...],
        Option(
            "Sides of the anchors, one for each of the pyramid's five levels.",
            unit="pixels",
            minimum=1,
        ),
    ] = (32, 64, 128, 256, 512)
    proposals: Annotated[
        int,
        Option("Proposals kept in a test image; in training twice as many are kept.", minimum=1),
    ] = 1000
    rois: Annotated[
        int, Option("Regions sampled in a training image for the heads.", minimum=1)
    ] = 512

    # The images
    data: Annotated[
        str,
        Option(
            "Data set. digit_scenes is shipped; the others are keys of data in config.yaml.",
            choices=readable_by("detect"),
        ),
    ]
    min_size: Annotated[
        int, Option("Short side that images are resized to.", unit="pixels", minimum=1)
    ] = 800
    max_size: Annotated[
        int, Option("Largest long side of a resized image.", unit="pixels", minimum=1)
    ] = 1333
    augment: Annotated[
        tuple[Literal["flip"], ...],
        Option("flip: mirror training images left-right with probability 1/2.", unique=True),
    ] = ("flip",)

    # Length, learning rate and update rule
    batch: Annotated[int, Option("Images per step over all GPUs.", unit="images", minimum=1)]
    unit: Annotated[
        Literal["step", "epoch"], Option("Unit of length, lr_boundaries, warmup and eval_every.")
    ] = "step"
    length: Annotated[float, Option("Updates (or epochs) in all.", minimum=0)]
    shrink: Annotated[
        float,
        Option(
            "Divides length, lr_boundaries, warmup and eval_every after they were converted to "
            "steps.",
            minimum=1,
        ),
    ] = 1
    lr: Annotated[float, Option("Learning rate after warm-up, before the first boundary.", above=0)]
    lr_boundaries: Annotated[
        tuple[float, ...],
        Option(
            "At each boundary the learning rate is multiplied by lr_factor once more.", minimum=0
        ),
    ] = ()
    lr_factor: Annotated[
        float, Option("Factor of the learning rate at each of lr_boundaries.", above=0)
    ] = 0.1
    lr_scales: Annotated[
        Mapping[str, float],
        Option(
            "Beginning of parameter names -> factor of their learning rate, such as "
            "{backbone.body: 0.2}.",
            above=0,
        ),
    ] = field(default_factory=dict)
    warmup: Annotated[float, Option("Updates (or epochs) of the linear warm-up.", minimum=0)] = 0
    warmup_from: Annotated[
        float, Option("Fraction of lr that warm-up starts from.", above=0, maximum=1)
    ] = 1 / 3
    momentum: Annotated[float, Option("Momentum mu.", minimum=0, below=1)] = 0.9
    weight_decay: Annotated[
        float, Option("Weight decay of everything but normalization.", minimum=0)
    ] = 0.0001

    # How a step is computed, and when it is evaluated
    precision: Annotated[
        Literal["fp32", "tf32"], Option("tf32: convolutions on CUDA only, torch's default.")
    ] = "fp32"
    deterministic: Annotated[bool, Option("torch's deterministic algorithms; slower on a GPU.")] = (
        False
    )
    eval_every: Annotated[
        float,
        Option("Updates (or epochs) between evaluations; 0 evaluates once, at the end.", minimum=0),
    ] = 0
    seed: Annotated[int, Option("Seed of every random stream of the run.", minimum=0)]
