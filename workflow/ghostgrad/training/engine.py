"""How a network is computed: precision, memory format, compilation, reproducibility, over several processes. None of it
changes what is computed beyond rounding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import fork_global_rng, generator
from ghostgrad.training import optim, orthogonal
from ghostgrad.training.distributed import ProcessGroup

NARROW = 8  # channels


def configure(spec: ClassifySpec | DetectSpec) -> None:
    """Set torch's switches; to be called before the first CUDA operation. TF32 is of convolutions on CUDA only; with
    deterministic algorithms a step repeats bit by bit on a GPU too."""
    torch.backends.cudnn.allow_tf32 = spec.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = not spec.deterministic
    if spec.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(spec.deterministic)


def check_layout(model: nn.Module) -> None:
    """InputError for a model that torch cannot compute in channels_last on a CPU: it ends the process at narrow
    convolutions (1x1 with stride) behind the stem."""
    channels = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)][1:]
    if channels and min(channels) < NARROW:
        told = f"a convolution of {min(channels)} channels, fewer than {NARROW}"
        raise InputError(f"channels_last: torch fails on a CPU at {told}; leave it out")


class Network:
    """A model on a device as a spec has it computed; `model` is the model itself."""

    def __init__(self, spec: ClassifySpec, model: nn.Module, device: torch.device, group: ProcessGroup):
        if spec.channels_last and device.type == "cpu":
            check_layout(model)
        self.layout = torch.channels_last if spec.channels_last else torch.contiguous_format
        self.model = model.to(device, memory_format=self.layout)
        self.device, self.group, self.bf16 = device, group, spec.precision == "bf16"
        self.micro = spec.micro_batch or spec.batch // group.size
        self.run = torch.compile(self.model) if spec.compile else self.model
        self.seed, self.drops = spec.seed, any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
        self.orthogonal = spec.orthogonal

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) in float32. In bfloat16 weights and their updates stay float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.run(x.contiguous(memory_format=self.layout)).float()

    def dropout_rng(self, step: int) -> AbstractContextManager[None]:
        """Within, Dropout draws this process's masks of a step, whatever was drawn before."""
        if not self.drops:
            return nullcontext()
        return fork_global_rng(self.device, generator(self.seed, f"dropout/{self.group.rank}", step).initial_seed())

    def forward_backward(self, x: Tensor, y: Tensor, step: int) -> tuple[float, int]:
        """Give the parameters the gradient of the mean cross-entropy over every process's images, `micro` images at a
        time and with the masks of `step`, and of orthogonal regularization; the mean cross-entropy and the number of
        correct answers, over all processes."""
        loss = correct = torch.zeros((), device=self.device)
        with self.dropout_rng(step):
            for images, labels in zip(x.split(self.micro), y.split(self.micro), strict=True):
                logits = self(images)
                share = F.cross_entropy(logits, labels) * (len(labels) / len(y))
                share.backward()
                loss, correct = loss + share.detach(), correct + (logits.argmax(1) == labels).sum()
        if self.orthogonal:
            orthogonal.penalty(orthogonal.weights(self.model), self.orthogonal).backward()
        self.group.all_reduce_mean([p.grad for p in self.model.parameters() if p.grad is not None])
        loss, correct = self.group.all_reduce_sum(torch.stack([loss / self.group.size, correct.float()])).tolist()
        return loss, int(correct)


def restore(
    saved: Mapping[str, Any],
    spec: ClassifySpec | DetectSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    processes: int,
    folder: Path,
) -> None:
    """Put a checkpoint into model and optimizer; InputError where it is of another spec, of other code or of another
    process count, of which the sums of gradients are rounded otherwise."""
    try:
        if saved["spec"] != spec.canonical():
            raise InputError(f"{folder}: a checkpoint of another spec; delete it to start over")
        if saved["processes"] != processes:
            told = f"saved by {saved['processes']} process(es), one per GPU, not {processes}"
            raise InputError(f"{folder}: {told}; give it as many GPUs again, or delete it to start over")
        model.load_state_dict(saved["model"])
        optim.resume(optimizer, saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        remedy = f"({str(error).splitlines()[0]}); delete it to start over"
        raise InputError(f"{folder}: a checkpoint of other code {remedy}") from None
