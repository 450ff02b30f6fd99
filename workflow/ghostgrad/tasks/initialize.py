"""Image networks at initialization: one forward and one backward pass of freshly drawn networks on real images (LALC
fig. 1, Ghost sec. 6, the initialization parts of the BN-ResNet paper). A repeat is a network, a batch of images and,
for DropOut, its masks.

Place 0 is the input, place n the n-th watched output: of the n-th normalization on the path (plain nets, ResNets, VGG),
of the n-th block (transformers, BN-ResNets, where 1 is the stem).
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
from ghostgrad.models import init
from ghostgrad.models.build import build_network
from ghostgrad.registry.specs.initialize import InitializeSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks import blocks as repeats

COLUMNS = ("activation_variance", "gradient_variance", "feature_variance", "image_gradient")
FLOATS = 64 * 2**20  # more than one network at a time is never in memory


def load_data(spec: InitializeSpec, manifest: Path) -> Images:
    """The images of a run, in memory; those of a folder at the spec's size."""
    return load_images(spec.data, manifest, size=spec.size, test_side=spec.size)


def batch(spec: InitializeSpec, images: Images, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and labels (B,) of a repeat, at the spec's size."""
    chosen = torch.randperm(len(images.train_y), generator=rng)[: spec.batch]
    x, y = torch.from_numpy(images.train_x)[chosen].float().div_(255), torch.from_numpy(images.train_y)[chosen]
    x = resize(x, spec.size)
    if spec.noise:
        return torch.randn(x.shape, generator=rng), y
    return standardize(x, spec.standardize, images.mean_std), y


def passes(spec: InitializeSpec, images: Images, rng: torch.Generator, device: torch.device) -> Tensor:
    """One repeat -> (places, columns).

    Of every place: Var of the signal and of dl/dy, pooled over batch, channels and positions; Var of dl/dy over the
    batch (1/B), averaged over features; and the mean norm over images of the gradient of an image's own loss. l is the
    mean cross-entropy.
    """
    x, y = (part.to(device) for part in batch(spec, images, rng))
    x.requires_grad_()
    # torchvision's initialization and DropOut draw from torch's global generator
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
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
            len(y) * torch.linalg.vector_norm(gradient.flatten(1), dim=1).mean(),
        ]
        for signal, gradient in zip(signals, gradients, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows]).detach()


def initialize(spec: InitializeSpec, state: State, device: torch.device, images: Images) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly."""
    if (there := len(images.train_y)) < spec.batch:
        raise InputError(f"{spec.data}: {there} training images do not fill one batch of {spec.batch}")

    def measure(generators: list[torch.Generator]) -> Tensor:
        return torch.stack([passes(spec, images, rng, device) for rng in generators])

    values = repeats.block(spec, state, torch.device("cpu"), measure, FLOATS)
    gradient = values[:, :, 1].double()
    metrics = {"status": "done", "repeats": len(values), "places": values.shape[1] - 1}
    metrics |= {"first_gradient_variance": gradient[:, 1].mean().item()}
    metrics |= {"last_gradient_variance": gradient[:, -1].mean().item()}
    series = repeats.series(spec, "place", COLUMNS, values)
    return Record(metrics, series, repeats.summary(COLUMNS, values))
