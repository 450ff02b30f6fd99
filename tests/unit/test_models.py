"""Architectures, compared with counts in a golden file and with a second implementation."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ghostgrad.models import torchvision_nets
from ghostgrad.models.build import build_network
from ghostgrad.models.counts import count_network
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.spec import expand
from ghostgrad.training import probes
from ghostgrad.training.per_sample import SampleNorms


def build(variant: str, **changes) -> nn.Module:
    merged, _ = load_registry().experiments["resnet15_cifar"].merge(variant, "paper")
    torch.manual_seed(0)
    return build_network(expand("classify", {**merged, "seed": 0, **changes}), 10, (3, 8, 8))


def functional(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Model-1, implemented a second time from the paper's equations; the weights are read by
    name."""
    p = dict(model.named_parameters())

    def norm_relu(name, y):
        return F.relu(
            F.batch_norm(
                y, None, None, p[f"{name}.0.weight"], p[f"{name}.0.bias"], training=True, eps=1e-3
            )
        )

    y = F.conv2d(x, p["stem.weight"], padding=1)
    for index in range(15):
        name, first = f"blocks.{index}", index % 5 == 0
        stride = 2 if index in (5, 10) else 1
        active = norm_relu(f"{name}.before", y)
        inner = norm_relu(
            f"{name}.between", F.conv2d(active, p[f"{name}.conv1.weight"], stride=stride, padding=1)
        )
        branch = F.conv2d(inner, p[f"{name}.conv2.weight"], padding=1)
        y = branch + (F.conv2d(active, p[f"{name}.project.weight"], stride=stride) if first else y)
    pooled = norm_relu("head.0", y).mean((2, 3))
    return pooled @ p["classifier.weight"].T + p["classifier.bias"]


def test_model1_equals_its_equations():
    model = build("model1").train()
    x = torch.randn(8, 3, 32, 32)
    assert torch.allclose(model(x), functional(model, x), rtol=1e-4, atol=1e-4)


def test_model2_has_no_shortcut_at_all():
    """The output of a block is its branch alone: with the weights of the second convolution at 0,
    nothing of the input passes through."""
    model = build("model2").train()
    assert not [name for name, _ in model.named_parameters() if "project" in name]
    with torch.no_grad():
        model.blocks[3].conv2.weight.zero_()
    _, ys = model.outputs(torch.randn(4, 3, 8, 8))
    assert (ys[4] == 0).all()


def test_model3_has_biases_and_no_batch_norm():
    model = build("model3")
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_outputs_are_the_stem_and_every_block():
    _, ys = build("model1").outputs(torch.randn(2, 3, 32, 32))
    shapes = [tuple(y.shape[1:]) for y in ys]
    assert shapes == [(16, 32, 32)] * 6 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5


NETWORKS = Path(__file__).with_name("golden") / "networks.csv"


def networks() -> list[dict[str, str]]:
    with NETWORKS.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def network(row: Mapping[str, str]) -> nn.Module:
    """The row's network, without memory for its weights."""
    spec = {"model": row["model"], "data": "cifar10", "batch": 2, "length": 0, "lr": 1, "seed": 0}
    with torch.device("meta"):
        shape = (3, int(row["size"]), int(row["size"]))
        return build_network(
            expand("classify", {**spec, **json.loads(row["options"])}), int(row["classes"]), shape
        )


@pytest.mark.parametrize(
    "row", networks(), ids=lambda row: f"{row['model']} {row['options']} {row['size']}"
)
def test_networks_have_their_size(row):
    """The size is the number of parameters, and the multiply-adds of convolutions and matrix
    products for one image."""
    assert count_network(network(row), int(row["size"]))[:2] == (
        int(row["parameters"]),
        int(row["multiply_adds"]),
    )


def test_cifar_resnet50_has_the_papers_size():
    """ResNet50 with the changes of LALC app. B has 23.5 M parameters and takes 1.3 G multiply-adds
    per image."""
    (row,) = (row for row in networks() if row["options"] == '{"cifar_stem": true}')
    assert (int(row["parameters"]) / 1e6, int(row["multiply_adds"]) / 1e9) == pytest.approx(
        (23.529, 1.306), abs=6e-4
    )


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


def test_a_stem_of_64_filters_is_torchvisions():
    """NarrowResNet with 64 filters has torchvision's shapes too, so a narrow ResNet differs in its
    widths alone."""
    theirs = shapes(torchvision.models.resnet50(num_classes=10))
    assert (
        shapes(torchvision_nets.NarrowResNet([3, 4, 6, 3], 10, 64, zero_init_residual=False))
        == theirs
    )
    built = [
        torchvision_nets.build_torchvision_network(
            "resnet50", 10, False, False, 32, stem_filters=n
        ).net
        for n in (64, 8)
    ]
    assert shapes(built[0]) == theirs
    narrow = shapes(built[1])
    assert list(narrow) == list(theirs)
    for name, shape in narrow.items():
        wide = [n if n in (3, 10) or k > 1 else n // 8 for k, n in enumerate(theirs[name])]
        assert list(shape) == wide, name


def test_a_narrow_resnet_begins_as_torchvisions_does():
    """The weights of convolutions have He's variance over the fan-out, and gamma is 0 in the last
    BN of a branch if that is asked for."""
    torch.manual_seed(0)
    net = torchvision_nets.build_torchvision_network(
        "resnet50", 10, True, True, 32, small_stem=True, stem_filters=16
    ).net
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
    norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    last = [name for name in norms if name.endswith(".bn3")]
    assert (len(last), len(norms)) == (16, 53)
    for name, norm in norms.items():
        assert norm.weight.eq(0 if name in last else 1).all(), name
        assert not norm.bias.any(), name


def test_probes_see_what_works_in_place_overwrites():
    """torchvision's ReLU and its sum of shortcut and branch work in place. Nevertheless, probes and
    the norms of the samples' gradients see the values before they are overwritten."""
    narrow = {
        "model": "resnet50",
        "cifar_stem": True,
        "stem_filters": 8,
        "init": "default",
        "data": "digits",
    }
    spec = expand("classify", {**narrow, "batch": 8, "length": 1, "lr": 0.1, "seed": 0})
    x, y = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(8)
    measured = []
    for inplace in (True, False):
        torch.manual_seed(0)
        model = build_network(spec, 10, (3, 16, 16)).train()
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = inplace
        norms = SampleNorms(model)
        with norms.collect():
            F.cross_entropy(model(x), y).backward()
        kinds = ["statistics", "gradients", "activations", "bn_variance"]
        measured.append((list(norms.means().values()), list(probes.measure(kinds, model, x, y))))
    assert measured[0] == measured[1]
    ends = [
        value
        for name, k, value in measured[0][1]
        if name == "activation_variance" and k > 0 and k % 3 == 0
    ]
    assert len(ends) == 16
    assert max(ends) < 1.3, (
        "the last BN of a branch has variance 1 over batch and positions, its sum with y about 2"
    )
