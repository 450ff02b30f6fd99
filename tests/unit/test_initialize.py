"""Networks at initialization: the places that are watched, the statistics, and what the random
draws depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ghostgrad.data.builtin import digits as read_digits
from ghostgrad.models.build import build_network
from ghostgrad.models.plain import ChannelNorm
from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.base import Spec
from ghostgrad.rng import generator
from ghostgrad.tasks import initialize

DIGITS = read_digits()
CPU = torch.device("cpu")


def spec(model: str, **keys) -> Spec:
    return expand(
        "initialize",
        {"model": model, "data": "digits", "batch": 6, "repeats": 2, "seed": 0, **keys},
    )


def measure(keys: Spec, repeat: int = 0) -> torch.Tensor:
    return initialize.measure_repeat(keys, DIGITS, generator(0, "repeat", repeat), CPU)


PLACES = {
    "mlp": ({"depth": 51}, 50),
    "vgg": ({"depth": 51, "filters": 2}, 50),
    "resnet50": ({"cifar_stem": True, "init": "default"}, 49),
    "vit_b_16": ({"size": 32, "init": "default"}, 12),
    "swin_t": ({"size": 32, "init": "default"}, 12),
    "preact_resnet": ({"filters": 2}, 16),
    "vgg16_bn": ({"size": 32, "init": "default"}, 13),
}


@pytest.mark.parametrize("model", PLACES)
def test_every_place_is_watched(model):
    """There is one row for the input and one for each watched output, which is that of a
    normalization on the path or of a block. All values are finite."""
    keys, places = PLACES[model]
    values = measure(spec(model, **keys))
    assert values.shape == (places + 1, 4)
    assert torch.isfinite(values).all()
    assert (values[:, 1] > 0).all()


def test_watched_modules_run_in_the_order_in_which_they_are_listed():
    """The n-th watched output is that of the n-th BN of a ResNet, not counting those of its
    downsampling shortcuts. The numbers of channels show it."""
    watched = build_network(spec("resnet50", init="default"), 10, (3, 8, 8))
    channels = [output.shape[1] for output in watched.outputs(torch.randn(2, 3, 32, 32))[1]]
    assert channels[:4] == [64, 64, 64, 256]
    assert channels[-3:] == [512, 512, 2048]
    plain = torchvision.models.resnet50(weights=None, num_classes=10)
    assert sum(p.numel() for p in watched.parameters()) == sum(
        p.numel() for p in plain.parameters()
    )


def test_the_statistics_are_torchs():
    """The pooled variances, the variance over the batch and the mean norm of an image's own
    gradient equal those that torch computes from signals caught by hooks."""
    keys = spec("mlp", depth=4, width=8, norm="layer")
    measured = measure(keys)
    rng = generator(0, "repeat", 0)
    x, y = initialize.draw_batch(keys, DIGITS, rng)
    x.requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
        model = build_network(keys, 10, (3, 8, 8))
        initialize.init.initialize(model, "he_normal", rng)
    seen = []

    def watch(_module, _inputs, out):
        out.retain_grad()
        seen.append(out)

    for layer in model.layers:
        layer[1].register_forward_hook(watch)
    nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    for row, signal in zip(measured, [x, *seen], strict=True):
        gradient = signal.grad
        assert row[0].item() == pytest.approx(signal.detach().var(correction=0).item(), rel=1e-5)
        assert row[1].item() == pytest.approx(gradient.var(correction=0).item() / 36, rel=1e-5)
        assert row[2].item() == pytest.approx(
            gradient.var(0, correction=0).mean().item() / 36, rel=1e-5
        )
        assert row[3].item() == pytest.approx(
            gradient.flatten(1).norm(dim=1).mean().item(), rel=1e-5
        )


def test_repeats_are_networks_of_their_own():
    keys = spec("mlp", depth=6, width=8)
    assert torch.equal(measure(keys, 1), measure(keys, 1)), "the repeat's number decides everything"
    assert not torch.equal(measure(keys, 0), measure(keys, 1))


def dropout_masks(keys: Spec, repeat: int) -> list[torch.Tensor]:
    """Which values each Dropout layer of a repeat's network lets through."""
    masks = []

    def keep_mask(module: nn.Module, _inputs, output: torch.Tensor) -> None:
        if isinstance(module, nn.Dropout):
            masks.append(output != 0)

    hook = nn.modules.module.register_module_forward_hook(keep_mask)
    try:
        measure(keys, repeat)
    finally:
        hook.remove()
    return masks


def test_dropout_masks_follow_from_the_repeat():
    """The repeat's number decides the masks, whatever the state of torch's global generator. They
    drop half of the values, and other ones in each layer and in each repeat."""
    keys = spec("mlp", depth=4, width=256, activation="dropout")
    first = dropout_masks(keys, 0)
    torch.manual_seed(99)
    again, other = dropout_masks(keys, 0), dropout_masks(keys, 1)
    assert len(first) == 3
    assert torch.equal(measure(keys), measure(keys))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    different = [*zip(first, other, strict=True), *itertools.pairwise(first)]
    for a, b in different:
        assert (a != b).float().mean().item() == pytest.approx(0.5, abs=0.06)
    for mask in first:
        assert mask.float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    measure(spec("mlp", depth=4, width=8))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_layernorm_over_channels_is_layernorms():
    norm = ChannelNorm(4)
    x = torch.randn(2, 4, 3, 3)
    for position in ((0, 0), (2, 1)):
        expected = nn.functional.layer_norm(x[:, :, *position], (4,))
        assert torch.allclose(norm(x)[:, :, *position], expected, atol=1e-6)


def test_zero_gamma_silences_the_branches():
    """No gradient enters a branch; all of it flows through the shortcuts."""
    values = measure(spec("resnet50", init="default", zero_init_residual=True))
    variances = values[2:, 1].reshape(16, 3)
    assert (variances[:, :2] == 0).all()
    assert (variances[:, 2] > 0).all()


def preact_net_by_hand(rng: np.random.Generator, batch: int = 32) -> list[float]:
    """The variance of the gradient at the stem and after every block of Model-1, computed with
    torch.nn.functional alone. Weights are He's, padding is circular, and N(0, 1) replaces the
    images."""

    def draw(out: int, into: int, size: int) -> torch.Tensor:
        return torch.from_numpy(
            rng.normal(0, (2 / (out * size**2)) ** 0.5, (out, into, size, size))
        ).float()

    def bn_relu(x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.batch_norm(x, None, None, training=True))

    def conv3(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, stride=stride)

    y = conv3(
        torch.from_numpy(rng.normal(size=(batch, 3, 16, 16))).float(), draw(16, 3, 3)
    ).requires_grad_()
    places, width = [y], 16
    for scale in range(3):
        for block in range(5):
            out, stride = 16 * 2**scale, 2 if scale and block == 0 else 1
            active = bn_relu(y)
            branch = conv3(bn_relu(conv3(active, draw(out, width, 3), stride)), draw(out, out, 3))
            y = branch + (y if block else F.conv2d(active, draw(out, width, 1), stride=stride))
            width = out
            places.append(y)
    logits = bn_relu(y).mean((2, 3)) @ draw(10, width, 1)[:, :, 0, 0].T
    loss = F.cross_entropy(logits, torch.from_numpy(rng.integers(10, size=batch)))
    return [gradient.var().item() for gradient in torch.autograd.grad(loss, places)]


@pytest.mark.slow
def test_convolutional_block_ratios_are_those_of_a_loop_by_hand():
    """For blocks 2 to 5 of each scale, the mean log ratios over 12 networks of ours and 12 written
    by hand, drawn independently, differ by less than four standard errors."""
    keys = spec("preact_resnet", size=16, noise=True, padding_mode="circular", batch=32)
    ours = np.stack([measure(keys, i)[1:, 1].numpy() for i in range(12)])
    theirs = np.array([preact_net_by_hand(np.random.default_rng(i)) for i in range(12)])
    for block in (2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15):
        a, b = (np.log(values[:, block - 1] / values[:, block]) for values in (ours, theirs))
        error = np.hypot(a.std(ddof=1), b.std(ddof=1)) / 12**0.5
        assert abs(a.mean() - b.mean()) < 4 * error, block
