"""What the update rules cost: one update of ResNet50's 161 tensors beside torch.optim.SGD(foreach), and a training step
with CLARS's per-sample norms beside one without.

    python benchmarks/train.py [--rounds 15] [--device cpu]

Ratios of medians, measured in turn in every round.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ghostgrad import models, optim
from ghostgrad.per_sample import SampleNorms
from ghostgrad.spec import expand

RULES = {
    "sgd": {},
    "lars": {"optimizer": "lars"},
    "larc": {"optimizer": "larc"},
    "lalc": {"optimizer": "lalc"},
    "lamb": {"optimizer": "lamb"},
}
BASE = {"data": "cifar10", "batch": 32, "length": 1, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "seed": 0}
RESNET50 = {"model": "resnet50", "cifar_stem": True, "init": "default"}


def medians(ways: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds of each way, in turn; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def updates(rounds: int, device: torch.device) -> None:
    """(c): the update alone, on gradients that are there."""
    steps = {}
    for name, more in RULES.items():
        spec = expand("classify", {**BASE, **RESNET50, **more})
        model = models.build(spec, 10, (3, 32, 32)).to(device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        steps[name] = optim.optimizer(spec, model).step
    found = medians(steps, rounds, device)
    for name, seconds in found.items():
        goal = " (goal: at most 1.5)" if name in ("lars", "lalc") else ""
        print(f"update, {name:5} {1000 * seconds:8.2f} ms  {seconds / found['sgd']:5.2f} times sgd's{goal}", flush=True)


def clars(rounds: int, device: torch.device) -> None:
    """(d): forward and backward of Resnet-15 and of ResNet50 at 32 x 32, with and without per-sample norms."""
    for name, more in {"preact_resnet": {"model": "preact_resnet"}, "resnet50": RESNET50}.items():
        spec = expand("classify", {**BASE, **more})
        model = models.build(spec, 10, (3, 32, 32)).to(device).train()
        x, y = torch.randn(spec["batch"], 3, 32, 32, device=device), torch.arange(spec["batch"], device=device) % 10
        norms = SampleNorms(model)

        def plain(model=model, x=x, y=y) -> None:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()

        def with_norms(norms=norms, plain=plain) -> None:
            with norms.collect():
                plain()
            norms.means()

        peaks = {}
        for what, way in (("plain", plain), ("clars", with_norms)):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            way()
            cuda = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            peaks[what] = cuda or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = medians({"plain": plain, "clars": with_norms}, rounds, device)
        ratio, memory = found["clars"] / found["plain"], peaks["clars"] / peaks["plain"]
        print(
            f"step, {name}: clars {ratio:.2f} times the time (goal: at most 1.5), {memory:.2f} times the memory (1.3)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    updates(given.rounds, device)
    clars(max(3, given.rounds // 5), device)


if __name__ == "__main__":
    main()
