"""The parameters of an image classifier's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias

from ghostgrad.registry.datasets import readable_by
from ghostgrad.registry.specs.base import JSON, Activation, Option, Spec

Model: TypeAlias = Literal[
    "preact_resnet",
    "mlp",
    "vgg",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet50_gn",
    "plainnet50",
    "vgg19_bn",
    "seqnet18",
    "seqnet34",
    "seqnet50",
    "seqnet101",
    "diracnet18",
    "diracnet34",
    "isonet18",
    "isonet34",
    "isonet50",
    "isonet101",
]
SELF_INITIALIZED = ("seqnet", "diracnet", "isonet")
"""Families of networks that draw their own weights, whatever `init` says."""

OptimizerName: TypeAlias = Literal["sgd", "lars", "clars", "larc", "lalc", "lamb"]
"""The update rules; `ghostgrad/training/optimizers/build.py` has a row for each."""

Probe: TypeAlias = Literal[
    "gradients",
    "activations",
    "bn_offset",
    "weight_norm",
    "weight_gradient",
    "bn_variance",
    "updates",
    "statistics",
]


@dataclass(frozen=True, kw_only=True)
class ClassifySpec(Spec):
    """One `classify` run: an image classifier that is trained or, with length 0, only
    initialized."""

    task: ClassVar[str] = "classify"
    description: ClassVar[str] = "The parameters of one `classify` run, an image classifier."
    removed: ClassVar[Mapping[str, JSON]] = {
        "literal": False,
        "gamma_outside": False,
        "lr_values": [],
        "orthogonal_trace": False,
    }

    # The network
    model: Annotated[
        Model,
        Option(
            "Architecture. preact_resnet: BN-ReLU-CONV residual blocks in three scales (BN-ResNet "
            "paper sec. 4.1). mlp, vgg: plain networks (LALC fig. 1). seqnet: Ghost sec. 4.2. "
            "diracnet: Zagoruyko and Komodakis 2017. isonet: Qi et al. 2020. plainnet50: ResNet50 "
            "without shortcuts. resnet50_gn: with GroupNorm. The others are torchvision's."
        ),
    ]
    blocks: Annotated[int, Option("preact_resnet: residual blocks per scale.", minimum=1)] = 5
    filters: Annotated[
        int,
        Option(
            "preact_resnet, vgg: filters of the stem and of the first scale; each later scale "
            "doubles them.",
            minimum=1,
        ),
    ] = 16
    batch_norm: Annotated[
        bool,
        Option(
            "preact_resnet: false deletes every BN and adds biases to the convolutions (Model-3)."
        ),
    ] = True
    shortcut: Annotated[
        bool,
        Option("preact_resnet: false deletes every shortcut, the 1x1 ones included (Model-2)."),
    ] = True
    bn_eps: Annotated[float, Option("preact_resnet: epsilon of BN.", above=0)] = 1.0e-5
    cifar_stem: Annotated[
        bool,
        Option(
            "ResNets, SeqNets, DiracNets, ISONets: the first convolution has stride 1 and the "
            "first pool is left out (LALC app. B)."
        ),
    ] = False
    small_stem: Annotated[bool, Option("With cifar_stem: the first convolution is 3x3.")] = False
    stem_filters: Annotated[
        int,
        Option("The same networks: filters of the stem; every width scales with them.", minimum=1),
    ] = 64
    zero_init_residual: Annotated[
        bool,
        Option(
            "ResNets: gamma of the last normalization of every branch starts at 0, as in common "
            "recipes.",
            stored_as="zero_gamma",
        ),
    ] = False
    seqnet_init: Annotated[
        Literal["random", "orthogonal", "looks-linear", "untied"],
        Option(
            "SeqNets: R-, O- or L-Init, or two independent random weights (Ghost app. B.2).",
        ),
    ] = "random"
    tie_conv2: Annotated[
        bool | Literal["baseline"],
        Option(
            "true, false or baseline (true for SeqNet50 and 101). Whether the module of the 3x3 "
            "convolution has one matrix in training (Ghost tab. 5).",
        ),
    ] = "baseline"
    tie_conv4: Annotated[
        bool, Option("SeqNet50 and 101: the same for the other module of a block.")
    ] = False
    branch_norm: Annotated[
        Literal["none", "bias", "batch"],
        Option("SeqNets: the normalization before the ReLU of every module (Ghost tab. 3b)."),
    ] = "none"
    position: Annotated[
        Literal["first", "second", "third"],
        Option(
            "SeqNet50 and 101: position of the 3x3 among the four convolutions of a block (Ghost "
            "tab. 3c)."
        ),
    ] = "first"
    skip: Annotated[bool, Option("SeqNets: a shortcut around every block (Ghost fig. 9).")] = False
    depth: Annotated[
        int, Option("mlp, vgg: number of weight layers, the classifier included.", minimum=2)
    ] = 21
    width: Annotated[int, Option("mlp: features of a hidden layer.", minimum=1)] = 256
    norm: Annotated[
        Literal["batch", "layer", "none"],
        Option("mlp, vgg: normalization before every activation."),
    ] = "batch"
    activation: Annotated[Activation, Option("mlp, vgg: activation function.")] = "relu"
    init: Annotated[
        Literal["xavier_uniform", "he_normal", "lecun_normal", "normal", "default"],
        Option(
            "Initialization of convolutions and linear layers; biases start at 0. normal: "
            "N(0, init_std^2). default: torch's or torchvision's own; SeqNets, DiracNets and "
            "ISONets have no other than their own."
        ),
    ] = "he_normal"
    init_std: Annotated[float, Option("Standard deviation of init normal.", above=0)] = 0.01

    # The images
    data: Annotated[
        str,
        Option(
            "Data set. digits and photographs are shipped; the others are keys of data in "
            "config.yaml.",
            choices=readable_by("classify"),
        ),
    ]
    input: Annotated[
        Literal["memory", "files"],
        Option(
            "images, imagenet: memory reads all images at the start; files leaves them on disk and "
            "decodes them batch by batch in GHOSTGRAD_LOADER_WORKERS processes (default: one fewer "
            "than threads)."
        ),
    ] = "memory"
    resized: Annotated[
        int,
        Option(
            "images, imagenet: short side of a copy that is read in place of the images. The copy "
            "is made once in results/data: larger images are resized bilinearly with antialiasing "
            "and stored as JPEG of quality 95, or PNG where they were none. 0 reads the images.",
            unit="pixels",
            minimum=0,
        ),
    ] = 0
    size: Annotated[
        int,
        Option(
            "Images are resized to this side bilinearly; those of images and imagenet while they "
            "are read (short side, with antialiasing, then the centre). 0 leaves them, and then "
            "all must have one size.",
            unit="pixels",
            minimum=0,
        ),
    ] = 0
    augment: Annotated[
        tuple[Literal["crop", "flip", "resized_crop"], ...],
        Option(
            "Random augmentation of training images. crop: pad by `pad` zeros and cut a window of "
            "the old size. flip: mirror left-right with probability 1/2. resized_crop, with input "
            "files: a window of 8 to 100 % of the area and a ratio of 3/4 to 4/3 is resized to "
            "`size`, and test images are the centre of those with short side size*256/224.",
            unique=True,
        ),
    ] = ()
    pad: Annotated[int, Option("Zeros on every side before crop.", unit="pixels", minimum=0)] = 0
    standardize: Annotated[
        Literal["none", "per_image", "per_channel"],
        Option(
            "per_image: subtract the image's mean and divide by max(its standard deviation, "
            "1/sqrt(number of values)). per_channel: with the constants of the data set, which the "
            "data rule measures for images."
        ),
    ] = "none"

    # Length and learning rate
    batch: Annotated[
        int,
        Option(
            "Images per step over all GPUs; the last partial batch of an epoch is dropped.",
            unit="images",
            minimum=2,
        ),
    ]
    unit: Annotated[
        Literal["step", "epoch"],
        Option("Unit of length, lr_boundaries, warmup, probe_at and eval_every."),
    ] = "step"
    length: Annotated[float, Option("Updates (or epochs) in all.", minimum=0)]
    shrink: Annotated[
        float,
        Option(
            "Divides length, lr_boundaries, warmup, probe_at and eval_every after they were "
            "converted to steps.",
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
    schedule: Annotated[
        Literal["step", "cosine"],
        Option(
            "After warm-up. step: by lr_boundaries. cosine: to 0 over the remaining updates, "
            "without restarts."
        ),
    ] = "step"
    warmup: Annotated[
        float,
        Option("Updates (or epochs) over which the learning rate rises linearly.", minimum=0),
    ] = 0
    lr_scales: Annotated[
        Mapping[str, float],
        Option("Beginning of parameter names -> factor of their learning rate.", above=0),
    ] = field(default_factory=dict)

    # The update rule
    optimizer: Annotated[
        OptimizerName,
        Option("Update rule; the formulas are in ghostgrad/training/optimizers/__init__.py."),
    ] = "sgd"
    nesterov: Annotated[
        bool,
        Option(
            "Nesterov momentum.",
            only_for={"optimizer": ("sgd", "larc", "lalc")},
        ),
    ] = False
    trust_coefficient: Annotated[
        float,
        Option("Trust coefficient eta of a layer-wise rule.", above=0, stored_as="eta"),
    ] = 0.01
    adapt_vectors: Annotated[
        bool,
        Option(
            "Layer-wise rules: false leaves tensors of one dimension, such as those of BN, at the "
            "plain learning rate.",
            stored_as="exempt",
            stored_values={True: "none", False: "vectors"},
        ),
    ] = True
    decay_in_trust: Annotated[
        bool,
        Option(
            "The denominator of the trust ratio has the term beta |w|.",
            only_for={"optimizer": ("clars",)},
        ),
    ] = False
    raw_norm: Annotated[
        bool,
        Option(
            "Ablation: the trust ratio has the norm of the gradient in place of that of the step.",
            only_for={"optimizer": ("lalc",)},
        ),
    ] = False
    beta2: Annotated[
        float,
        Option("lamb: decay of the second moment; its beta1 is momentum.", minimum=0, below=1),
    ] = 0.999
    adam_eps: Annotated[float, Option("lamb: epsilon in the denominator.", above=0)] = 1.0e-6

    # How a step is computed
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"],
        Option(
            "tf32: convolutions on CUDA only, torch's default. bf16: autocast; weights and updates "
            "stay in fp32."
        ),
    ] = "fp32"
    channels_last: Annotated[
        bool,
        Option(
            "Memory format; on a CPU not with convolutions of fewer than 8 channels after the stem."
        ),
    ] = False
    compile: Annotated[bool, Option("Compile the network with torch.compile.")] = False
    deterministic: Annotated[
        bool, Option("Deterministic algorithms on a GPU; on a CPU they always are.")
    ] = False
    micro_batch: Annotated[
        int,
        Option(
            "Images that BN sees at a time while gradients add up to those of the batch; it "
            "divides the share of each GPU. 0 is the whole batch, on one GPU.",
            unit="images",
            minimum=0,
        ),
    ] = 0
    # Parameters of the update rule and of regularization; they are declared here because the
    # order of the fields is that of spec.json.
    momentum: Annotated[float, Option("Momentum mu.", minimum=0, below=1)] = 0
    weight_decay: Annotated[float, Option("Weight decay beta.", minimum=0)] = 0
    orthogonal: Annotated[
        float,
        Option("Coefficient eta of orthogonal regularization (Ghost app. B.2).", minimum=0),
    ] = 0
    weight_decay_on: Annotated[
        Literal["all", "weights"],
        Option(
            "Parameters that weight_decay acts on: all, or only the weights of convolutions and "
            "linear layers.",
            stored_as="decay",
        ),
    ] = "all"

    # What is recorded
    eval_every: Annotated[
        float,
        Option("Updates (or epochs) between evaluations; 0 evaluates once, at the end.", minimum=0),
    ] = 0
    probes: Annotated[
        tuple[Probe, ...],
        Option(
            "Quantities recorded inside training; see ghostgrad/training/probes.py.", unique=True
        ),
    ] = ()
    probe_at: Annotated[
        tuple[float, ...],
        Option(
            "Positions of the probes; a probe at t sees the weights after t updates.", minimum=0
        ),
    ] = ()
    probe_batches: Annotated[
        int,
        Option(
            "Batches that a probe averages over: that of its step and those that follow. The probe "
            "updates uses one.",
            minimum=1,
        ),
    ] = 1
    seed: Annotated[int, Option("Seed of every random stream of the run.", minimum=0)]

    @property
    def test_side(self) -> int:
        """Short side in pixels of the images whose centres are the test images, as in torchvision's
        recipe; 0 leaves them as they are."""
        return round(self.size * 256 / 224) if "resized_crop" in self.augment else self.size
