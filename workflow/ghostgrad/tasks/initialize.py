"""Image networks at initialization: one forward and one backward pass of newly drawn networks on
real images (LALC fig. 1, Ghost sec. 6, the initialization parts of the BN-ResNet paper). A repeat
is a network, a batch of images and, for Dropout, its masks; it draws, in this order, the images,
the noise that may replace them, and the seed of torch's global generator for weights and masks.

Place 0 is the input, place n the n-th watched output: of the n-th normalization on the path (plain
nets, ResNets, VGG), of the n-th block (transformers, BN-ResNets, where 1 is the stem).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostgrad.checks import InputError
from ghostgrad.data.image_sets import load_images
from ghostgrad.data.images import Images
from ghostgrad.data.transforms import resize, standardize
from ghostgrad.files import Cell
from ghostgrad.models import init
from ghostgrad.models.build import build_network
from ghostgrad.registry.specs.initialize import InitializeSpec
from ghostgrad.rng import fork_global_rng
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks.blocks import run_block, series_table, summary_table

COLUMNS = ("activation_variance", "gradient_variance", "feature_variance", "image_gradient")
FLOATS_PER_REPEAT = 64 * 2**20  # so many that one network at a time is in memory


def load_data(spec: InitializeSpec, manifest: Path) -> Images:
    """The images of a run, in memory; those of a folder at the spec's size."""
    return load_images(spec.data, manifest, size=spec.size, test_side=spec.size)


def draw_batch(spec: InitializeSpec, images: Images, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and labels (B,) of a repeat, at the spec's size."""
    chosen = torch.randperm(len(images.train_y), generator=rng)[: spec.batch]
    pixels, labels = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    x, y = pixels[chosen].float().div_(255), labels[chosen]
    x = resize(x, spec.size)
    if spec.noise:
        return torch.randn(x.shape, generator=rng), y
    return standardize(x, spec.standardize, images.mean_std), y


def measure_repeat(
    spec: InitializeSpec, images: Images, rng: torch.Generator, device: torch.device
) -> Tensor:
    """One repeat, (places, columns); l is the mean cross-entropy over the batch, y a place's
    signal.

    activation_variance, gradient_variance: of y and of dl/dy, pooled over batch, channels and
    positions. feature_variance: of dl/dy over the batch (1/B), averaged over features.
    image_gradient: norm of the gradient of an image's own loss, mean over images.
    """
    x, y = (part.to(device) for part in draw_batch(spec, images, rng))
    x.requires_grad_()
    # torchvision's initialization and Dropout draw from torch's global generators.
    with fork_global_rng(device, int(torch.randint(2**31, (1,), generator=rng))):
        model = build_network(spec, len(images.classes), tuple(x.shape[1:]))
        if spec.init != "default":
            init.initialize(model, spec.init, rng)
        logits, outputs = model.to(device).train().outputs(x)
        signals = [x, *outputs]
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), signals)
    rows = [
        [
            signal.var(correction=0),
            gradient.var(correction=0),
            gradient.var(0, correction=0).mean(),
            # l is a mean over images: the gradient of an image's own loss is B times its share.
            len(y) * torch.linalg.vector_norm(gradient.flatten(1), dim=1).mean(),
        ]
        for signal, gradient in zip(signals, gradients, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows]).detach()


def initialize(spec: InitializeSpec, state: State, device: torch.device, images: Images) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly.

    Raises InputError where the training images do not fill one batch.
    """
    count = len(images.train_y)
    if count < spec.batch:
        raise InputError(
            f"{spec.data}: {count} training images do not fill one batch of {spec.batch}"
        )

    # By default torch computes convolutions on a GPU in TF32. This task computes in float32.
    torch.backends.cudnn.allow_tf32 = False

    def measure(generators: list[torch.Generator]) -> Tensor:
        return torch.stack([measure_repeat(spec, images, rng, device) for rng in generators])

    # The generators are those of the CPU, on which images and weights are drawn, whatever the
    # device that computes the network.
    values = run_block(spec, state, torch.device("cpu"), measure, FLOATS_PER_REPEAT)
    variances = values[:, :, COLUMNS.index("gradient_variance")].double()
    metrics: dict[str, Cell] = {
        "status": "done",
        "repeats": len(values),
        "places": values.shape[1] - 1,
        "first_gradient_variance": variances[:, 1].mean().item(),
        "last_gradient_variance": variances[:, -1].mean().item(),
    }
    series = series_table(spec, "place", COLUMNS, values)
    return Record(metrics, series, summary_table(COLUMNS, values))
