"""Networks of the Ghost paper's tables, built from a classify spec and trained for one step, for
the tests."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models.build import build_network
from ghostgrad.models.seqnet import ModuleShape, SeqModule
from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.base import Spec
from ghostgrad.training.optimizers.build import build_optimizer

# Depth -> blocks per stage of a ResNet, and of a SeqNet.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def spec(model: str, **keys: Any) -> Spec:
    given = {
        "model": model,
        "data": "digits",
        "batch": 4,
        "length": 1,
        "lr": 0.01,
        "seed": 0,
        "init": "default",
    }
    return expand("classify", {**given, **keys})


def build(model: str, seed: int = 0, classes: int = 10, **keys: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(spec(model, **keys), classes, (3, 64, 64))


def unbuilt(model: str, **keys: Any) -> nn.Module:
    """A network at its paper's size on the meta device, so that no memory is allocated for it."""
    with torch.device("meta"):
        return build_network(spec(model, **keys), 1000, (3, 224, 224))


def step(net: nn.Module, keys: Spec, size: int = 64) -> list[str]:
    """Do one update on random images and return the names of the parameters that it did not
    change."""
    images = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 3, size, size, generator=images), torch.tensor([0, 1, 2, 3])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = build_optimizer(keys, net)
    loss = F.cross_entropy(net.train()(x), y)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    return [name for name, p in net.named_parameters() if torch.equal(p, before[name])]


def modules(net: nn.Module) -> list[SeqModule]:
    return [m for m in net.modules() if isinstance(m, SeqModule)]


def module(
    d: int = 8,
    k: int = 2,
    sizes: tuple[int, int] = (3, 1),
    out: int = 0,
    kind: str = "random",
    tied: bool = False,
) -> SeqModule:
    """One initialized SeqModule in float64, without a pool."""
    torch.manual_seed(3)
    made = SeqModule(d, ModuleShape(k, *sizes), out or d, tied, False, "none")
    made.draw(kind)
    return made.double()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(
        generator=torch.Generator().manual_seed(seed)
    )
