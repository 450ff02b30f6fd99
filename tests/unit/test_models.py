"""Architectures: counts held in a golden file, and a second implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghostgrad import models, registry
from ghostgrad.spec import expand

GOLDEN = json.loads(Path(__file__).with_name("golden_models.json").read_text())
VARIANTS = ["model1", "model2", "model3"]


def build(variant: str, **changes) -> nn.Module:
    merged, _ = registry.load().experiments["resnet15_cifar"].merge(variant, "paper")
    torch.manual_seed(0)
    return models.build(expand("classify", {**merged, "seed": 0, **changes}), 10, (3, 8, 8))


def multiply_adds(model: nn.Module, size: int) -> int:
    """Of convolutions and linear layers, for one image."""
    total = 0

    def count(module, _inputs, out):
        nonlocal total
        weight = module.weight
        total += weight.numel() * (out.shape[2] * out.shape[3] if out.ndim == 4 else 1)

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, size, size))
    return total


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_golden(variant):
    model = build(variant)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds_32": multiply_adds(model, 32),
        "convolutions": len(convolutions),
        "batch_norms": sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()),
    }
    assert found == GOLDEN[f"resnet15_cifar/{variant}"]


def functional(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Model-1 written once more from the paper's equations, reading the weights by name."""
    p = dict(model.named_parameters())

    def norm_relu(name, y):
        return F.relu(F.batch_norm(y, None, None, p[f"{name}.0.weight"], p[f"{name}.0.bias"], training=True, eps=1e-3))

    y = F.conv2d(x, p["stem.weight"], padding=1)
    for index in range(15):
        name, first = f"blocks.{index}", index % 5 == 0
        stride = 2 if index in (5, 10) else 1
        active = norm_relu(f"{name}.before", y)
        inner = norm_relu(f"{name}.between", F.conv2d(active, p[f"{name}.conv1.weight"], stride=stride, padding=1))
        branch = F.conv2d(inner, p[f"{name}.conv2.weight"], padding=1)
        y = branch + (F.conv2d(active, p[f"{name}.project.weight"], stride=stride) if first else y)
    pooled = norm_relu("head.0", y).mean((2, 3))
    return pooled @ p["classifier.weight"].T + p["classifier.bias"]


def test_model1_equals_its_equations():
    model = build("model1").train()
    x = torch.randn(8, 3, 32, 32)
    assert torch.allclose(model(x), functional(model, x), rtol=1e-4, atol=1e-4)


def test_model2_has_no_shortcut_at_all():
    """Its block's output is the branch: with the second convolution at 0 nothing of the input comes through."""
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
