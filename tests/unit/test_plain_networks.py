"""The networks that SeqNet is compared with: DiracNet, ISONet, PlainNet50 and ResNets, each tested
against what defines it."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ghostgrad.models.counts import count_network
from ghostgrad.models.diracnet import DiracConv
from ghostgrad.models.isonet import SReLU
from ghostgrad.models.torchvision_nets import PlainBottleneck
from tests.unit.networks import BLOCKS, build, spec, step, unbuilt


def convolutions(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(m.weight.shape) for name, m in net.named_modules() if isinstance(m, nn.Conv2d)
    }


# --- counts ---


@pytest.mark.parametrize("model", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnets_are_torchvisions(model):
    ours = build(model, classes=1000, seed=2)
    torch.manual_seed(2)
    theirs = getattr(torchvision.models, model)(weights=None).state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in ours.net.state_dict().items())
    assert len(theirs) == len(ours.net.state_dict())


def kernels(depth: int) -> list[tuple[int, int, int]]:
    """The numbers of outputs, inputs and taps of each convolution of a ResNet, projections
    excepted."""
    shapes, into = [(64, 3, 49)], 64
    for d, blocks in zip((64, 128, 256, 512), BLOCKS[depth], strict=True):
        for _ in range(blocks):
            if depth >= 50:
                shapes += [(d, into, 1), (d, d, 9), (4 * d, d, 1)]
            else:
                shapes += [(d, into, 9), (d, d, 9)]
            into = shapes[-1][0]
    return shapes


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_parameters_are_those_counted_by_hand(depth):
    """For every output, ISONet has the b of its activation, DiracNet has a, b, gamma and beta,
    except in its stem, which has only gamma and beta, and PlainNet50 has gamma and beta."""
    weights, outputs = (
        sum(math.prod(kernel) for kernel in kernels(depth)),
        sum(out for out, *_ in kernels(depth)),
    )
    classifier = (kernels(depth)[-1][0] + 1) * 1000
    assert count_network(unbuilt(f"isonet{depth}"), 224)[0] == weights + outputs + classifier
    if depth < 50:
        assert (
            count_network(unbuilt(f"diracnet{depth}"), 224)[0]
            == weights + 4 * outputs - 2 * 64 + classifier
        )
    if depth == 50:
        assert count_network(unbuilt("plainnet50"), 224)[0] == weights + 2 * outputs + classifier


# --- DiracNet ---


@pytest.mark.parametrize(("into", "out"), [(6, 6), (4, 8)])
def test_a_dirac_convolution_is_a_sum(into, out):
    """It is a x + b conv(x, W / |W|), filter by filter; the outputs beyond the channels of x lack
    the first summand."""
    torch.manual_seed(0)
    made = DiracConv(into, out)
    assert made.a.eq(1).all()
    assert made.b.eq(0.1).all()
    with torch.no_grad():
        made.a.uniform_(-2, 2)
        made.b.uniform_(-2, 2)
    x = torch.randn(2, into, 5, 5)
    norms = made.weight.square().sum((1, 2, 3), keepdim=True).sqrt()
    passed = F.pad(x, (0, 0, 0, 0, 0, out - into))
    expected = made.a[:, None, None] * passed + made.b[:, None, None] * F.conv2d(
        x, made.weight / norms, padding=1
    )
    torch.testing.assert_close(made(x), expected)


def test_a_dirac_filter_has_no_length():
    """The gradient of a filter has no component along it, and doubling the weight leaves the layer
    as it was."""
    torch.manual_seed(0)
    made, x = DiracConv(4, 4).double(), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    y = made(x)
    y.square().sum().backward()
    along = (made.weight.grad * made.weight).sum((1, 2, 3))
    assert made.weight.grad.norm() > 1e-3
    assert along.abs().max() < 1e-12 * made.weight.grad.norm() * made.weight.norm()
    with torch.no_grad():
        made.weight.mul_(2)
    torch.testing.assert_close(made(x), y)


def test_a_diracnet_is_drawn_with_hes_variance_over_the_fan_in():
    """The weights of all convolutions and of the classifier follow N(0, 2/fan_in) and its bias is
    0. Each weight's variance is within four standard errors."""
    net = build("diracnet18", stem_filters=16)
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert (len(layers), sum(isinstance(m, DiracConv) for m in layers)) == (18, 16)
    for layer in layers:
        weight = layer.weight.detach()
        normal = weight / (2 / weight[0].numel()) ** 0.5
        error = (2 / weight.numel()) ** 0.5
        assert normal.var().item() == pytest.approx(1, abs=4 * error)
        # The fourth moment is 3 for a normal distribution and 1.8 for a uniform one.
        moment = normal.pow(4).mean().item()
        assert moment == pytest.approx(3, abs=4 * (96 / weight.numel()) ** 0.5)
    assert not net.head[-1].bias.any()


def folded(convolution: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `convolution` followed by `norm` in eval
    mode."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution * scale[:, None, None, None], norm.bias - norm.running_mean * scale


@pytest.mark.parametrize("model", ["diracnet18", "diracnet34"])
def test_a_trained_diracnet_is_a_chain_of_relu_and_convolution(model):
    """The paper folds it to this chain, which has as many layers as the network's name says."""
    net = build(model, stem_filters=4).train()
    for _ in range(2):
        net(torch.randn(8, 3, 64, 64))
    net.double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    y = F.max_pool2d(
        F.conv2d(x, *folded(net.stem[0].weight, net.stem[1]), stride=2, padding=3), 3, 2, 1
    )
    layers = 2
    for stage, blocks in enumerate(net.stages):
        y = F.max_pool2d(y, 2) if stage else y
        for block in blocks:
            y = F.conv2d(F.relu(y), *folded(block[-2].explicit_weight(), block[-1]), padding=1)
            layers += 1
    logits = F.linear(F.relu(y).mean((2, 3)), net.head[-1].weight, net.head[-1].bias)
    torch.testing.assert_close(net(x), logits)
    assert layers == int(model[-2:])


# --- ISONet ---


def test_shifted_relu():
    """SReLU is max(x, b) with b = -1 at first. On N(0, 1) its slope is 1 with probability Phi(1),
    so it passes 0.84 of a gradient's square, where ReLU passes half. What it does not pass is the
    gradient of b."""
    torch.manual_seed(0)
    made, x = (
        SReLU(2).double(),
        torch.randn(4, 2, 500, 500, dtype=torch.float64, requires_grad=True),
    )
    y = made(x)
    torch.testing.assert_close(y, x.clamp(min=-1))
    y.sum().backward()
    share, phi = x.grad.square().mean().item(), 0.5 * (1 + math.erf(math.sqrt(0.5)))
    assert share == pytest.approx(phi, abs=4 * math.sqrt(phi * (1 - phi) / x.numel()))
    torch.testing.assert_close(made.b.grad, (x.grad == 0).sum((0, 2, 3)).double())
    with torch.no_grad():
        made.b.zero_()
        assert torch.equal(made(x), F.relu(x))


@pytest.mark.parametrize("model", ["isonet18", "isonet34", "isonet50", "isonet101"])
def test_an_isonet_is_an_isometry_at_first(model):
    """With the activations disabled, the first stage keeps the norm of a signal and of a gradient.
    The others, which have a stride of 2, keep every other position."""
    net = build(model, stem_filters=4).double()
    for module in net.modules():
        if isinstance(module, SReLU):
            nn.init.constant_(module.b, -1e6)
    torch.manual_seed(0)
    for stage in net.stages:
        into = next(m for m in stage.modules() if isinstance(m, nn.Conv2d)).in_channels
        x = torch.randn(2, into, 8, 8, dtype=torch.float64, requires_grad=True)
        y = stage(x)
        kept = x[..., :: 8 // y.shape[-1], :: 8 // y.shape[-1]]
        shared = min(
            into, y.shape[1], *(m.out_channels for m in stage.modules() if isinstance(m, nn.Conv2d))
        )
        torch.testing.assert_close(y[:, :shared], kept[:, :shared])
        assert not y[:, shared:].abs().gt(1e-6).any()
        y.backward(y.detach())
        assert x.grad.norm().item() == pytest.approx(kept[:, :shared].norm().item())
        if stage is net.stages[0]:
            assert y.norm().item() == pytest.approx(x.norm().item())


def test_an_isonet_has_neither_norms_nor_biases():
    net = build("isonet50", stem_filters=4)
    assert not [m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]
    assert not [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert sum(isinstance(m, SReLU) for m in net.modules()) == 49


# --- PlainNet50 and ResNets ---


def test_plainnet50_has_resnet50s_convolutions_without_its_shortcuts():
    """With the same seed, their weights are the same too."""
    plain, residual = build("plainnet50", seed=3), build("resnet50", seed=3)
    shapes = convolutions(residual.net)
    downsampling = {name for name in shapes if "downsample" in name}
    assert len(downsampling) == 4
    assert convolutions(plain.net) == {
        name: shapes[name] for name in shapes if name not in downsampling
    }
    other = residual.net.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.net.state_dict().items())


def test_plainnet50_has_no_shortcut_and_a_relu_behind_every_norm():
    net = build("plainnet50", stem_filters=4).double().train()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    y = F.max_pool2d(F.relu(net.net.bn1(net.net.conv1(x))), 3, 2, 1)
    blocks = [m for m in net.net.modules() if isinstance(m, PlainBottleneck)]
    assert len(blocks) == 16
    for block in blocks:
        for number in (1, 2, 3):
            y = F.relu(getattr(block, f"bn{number}")(getattr(block, f"conv{number}")(y)))
    logits, seen = net.outputs(x)
    torch.testing.assert_close(logits, net.net.fc(y.mean((2, 3))))
    assert len(seen) == 49


def test_resnet50_gn_has_group_norms_alone():
    net = unbuilt("resnet50_gn")
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)] == [32] * 53
    narrow = unbuilt("resnet50_gn", stem_filters=12)
    assert {m.num_groups for m in narrow.modules() if isinstance(m, nn.GroupNorm)} == {4, 8, 16, 32}
    _, seen = narrow.outputs(torch.empty(2, 3, 64, 64, device="meta"))
    assert len(seen) == 49


def test_with_group_norm_no_image_sees_another():
    """In train mode, the output for an image does not depend on the other images of the batch,
    unlike with BN."""
    x = torch.randn(4, 3, 64, 64)
    for model, alone in (("resnet50_gn", True), ("resnet50", False)):
        net = build(model, stem_filters=32).train()
        same = torch.allclose(net(x)[:2], net(x[:2]), rtol=1e-3, atol=1e-3)
        assert same == alone


@pytest.mark.parametrize(
    "model", ["resnet18", "resnet34", "resnet101", "resnet50_gn", "plainnet50"]
)
def test_narrow_networks_are_in_proportion(model):
    wide, narrow = convolutions(unbuilt(model)), convolutions(unbuilt(model, stem_filters=16))
    assert narrow == {
        name: (out // 4, into // 4 if into > 3 else 3, *size)
        for name, (out, into, *size) in wide.items()
    }


@pytest.mark.parametrize("filters", [64, 16])
@pytest.mark.parametrize(("model", "places"), [("resnet18", 17), ("resnet34", 33)])
def test_zero_gamma_of_a_basic_block(model, places, filters):
    """No gradient enters a branch; all of it flows through the shortcuts. Every normalization on
    the path is watched."""
    net = build(model, stem_filters=filters, zero_gamma=True).train()
    logits, seen = net.outputs(torch.randn(2, 3, 32, 32))
    gradients = torch.autograd.grad(logits.square().sum(), seen)
    assert len(seen) == places
    assert all((g == 0).all() for g in gradients[1::2])
    assert all(g.any() for g in gradients[::2])


# --- all of them ---


NETWORKS = """
    resnet18 resnet34 resnet50 resnet101 resnet50_gn plainnet50 diracnet18 diracnet34 isonet18
    isonet34 isonet50 isonet101
""".split()


@pytest.mark.parametrize("model", NETWORKS)
def test_one_update(model):
    """An update moves every parameter. Only in ISONet may the b of some activations stay: where all
    inputs are 0, max(x, b) with b = -1 gives b no gradient."""
    stuck = step(build(model, stem_filters=8), spec(model, weight_decay=1e-4))
    assert not [name for name in stuck if not re.search(r"\.\d+\.b$", name)]
    assert "isonet" in model or not stuck


@pytest.mark.parametrize("model", ["diracnet18", "isonet50", "resnet18", "plainnet50"])
def test_images_of_eight_pixels(model):
    net = build(model, stem_filters=8, cifar_stem=True, small_stem=True)
    step(net, spec(model), size=8)
    assert net.outputs(torch.randn(2, 3, 8, 8))[1][-1].shape[-2:] == (1, 1)


@pytest.mark.parametrize("model", ["diracnet18", "isonet18"])
def test_the_initialization_follows_from_the_seed(model):
    first, again, other = (
        build(model, seed=seed, stem_filters=4).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
