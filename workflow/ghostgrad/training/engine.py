"""How a network is computed: precision, memory format, compilation, reproducibility, data-parallel
gradients. None of these options changes what is computed beyond rounding."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.models.network import ProbedNetwork
from ghostgrad.registry.specs.classify import ClassifySpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.rng import fork_global_rng, stream_seed
from ghostgrad.training import orthogonal
from ghostgrad.training.distributed import ProcessGroup

MIN_CHANNELS_LAST = 8  # input channels of a convolution that torch can compute so on a CPU


def configure(spec: ClassifySpec | DetectSpec) -> None:
    """Set torch's global switches; must be called before the first CUDA operation.

    TF32 is allowed for convolutions on CUDA only. With deterministic algorithms a step repeats bit
    by bit on a GPU too.
    """
    torch.backends.cudnn.allow_tf32 = spec.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    # The benchmark picks the fastest algorithm by timing, so it may differ between two starts.
    torch.backends.cudnn.benchmark = not spec.deterministic
    if spec.deterministic:
        # cuBLAS reads this when CUDA is initialized; without it, torch raises an error at the first
        # matrix product in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(spec.deterministic)


def check_channels_last(model: nn.Module) -> None:
    """Raise InputError for a model that torch cannot compute in channels_last on a CPU.

    There, a narrow convolution (1x1 with stride) after the stem makes torch end the process.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    channels = [convolution.in_channels for convolution in convolutions[1:]]
    if channels and min(channels) < MIN_CHANNELS_LAST:
        reason = f"a convolution of {min(channels)} channels, fewer than {MIN_CHANNELS_LAST}"
        raise InputError(f"channels_last: torch fails on a CPU at {reason}; leave it out")


class Network:
    """A model on a device, computed with the options of a spec.

    `model` is the plain model, whose parameters are trained and saved: the compiled one shares
    them, but has other names. Raises InputError for channels_last on a CPU with a narrow network.
    """

    def __init__(
        self,
        spec: ClassifySpec,
        model: ProbedNetwork,
        device: torch.device,
        group: ProcessGroup,
    ):
        if spec.channels_last and device.type == "cpu":
            check_channels_last(model)
        self.memory_format = torch.channels_last if spec.channels_last else torch.contiguous_format
        self.model: ProbedNetwork = model.to(device).to(memory_format=self.memory_format)
        self.device, self.group = device, group
        self.bf16 = spec.precision == "bf16"
        self.micro_batch = spec.micro_batch or spec.batch // group.size
        self.orthogonal = spec.orthogonal
        self.seed = spec.seed
        self._forward = torch.compile(self.model) if spec.compile else self.model
        self._has_dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes) in float32.

        With bf16, products and convolutions are computed in bfloat16 while the model is in train
        mode; the weights stay in float32. In eval mode everything is computed in float32.
        """
        in_bf16 = self.bf16 and self.model.training
        with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16):
            logits: Tensor = self._forward(x.contiguous(memory_format=self.memory_format))
        return logits.float()

    def dropout_rng(self, step: int) -> AbstractContextManager[None]:
        """A context in which Dropout draws this process's masks of `step`.

        Dropout draws from torch's global generator. The context starts it from the stream
        dropout/<rank> at `step` and restores it on exit, so the masks do not depend on what was
        drawn before, and a resumed run has the same ones.
        """
        if not self._has_dropout:
            return nullcontext()
        return fork_global_rng(
            self.device, stream_seed(self.seed, f"dropout/{self.group.rank}", step)
        )

    def forward_backward(self, x: Tensor, y: Tensor, step: int) -> tuple[float, int]:
        """Accumulate the gradient of one step into the parameters' `grad`, which must be empty.

        x (N, 3, H, W) and y (N,) are this process's share of the batch. The gradient is that of the
        mean cross-entropy over the images of all processes, plus that of orthogonal regularization.
        Returns the mean cross-entropy and the number of correct answers, over all processes; the
        penalty is not part of that loss.
        """
        loss = correct = torch.zeros((), device=self.device)
        # The masks of all micro-batches are drawn one after the other from the stream of the step.
        with self.dropout_rng(step):
            # BN normalizes over one micro-batch at a time, and activations of only one are kept.
            chunks = zip(x.split(self.micro_batch), y.split(self.micro_batch), strict=True)
            for images, labels in chunks:
                logits = self(images)
                # Each mean is weighted by its part of the images: the sum is the mean over all N.
                weighted_loss = F.cross_entropy(logits, labels) * (len(labels) / len(y))
                weighted_loss.backward()  # adds to `grad`
                # Both stay on the device: reading them here would wait for the GPU.
                loss = loss + weighted_loss.detach()
                correct = correct + (logits.argmax(1) == labels).sum()
        # The penalty depends on the weights alone, so its gradient is added once per step, and the
        # average over processes, which all have the same weights, leaves it as it is.
        if self.orthogonal:
            matrices = orthogonal.regularized_weights(self.model)
            orthogonal.penalty(matrices, self.orthogonal).backward()
        # Shares of equal size: the mean of the processes' gradients is that of the whole batch.
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.group.all_reduce_mean(gradients)
        totals = torch.stack([loss / self.group.size, correct.float()])
        mean_loss, total_correct = self.group.all_reduce_sum(totals).tolist()
        return mean_loss, int(total_correct)
