"""Quantities recorded inside training; a probe at t sees the weights after t updates and the batch of update t.

Every probe leaves the run as it was: it draws nothing at random, restores BN's running statistics and touches no
parameter's gradient.

gradients     gradient_variance, gradient_norm: of dl/dy_k at block output y_k (index k, 0 is the stem). Variance over
              the batch (1/B) of each feature (c, h, w), averaged over features; Frobenius norm over the batch; l is
              the mean cross-entropy (BN-ResNet paper sec. 4.4).
activations   activation_variance: of y_k, in the same way.
bn_offset     bn_offset_mean, bn_offset_median: |beta/gamma| over the channels of BN layer k (BN-ResNet paper app. F).
weight_norm   weight_norm: Frobenius norm of convolution k's weight, in the order of modules().
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _variance(x: Tensor) -> float:
    return x.var(dim=0, correction=0).mean().item()


def _passes(model: nn.Module, x: Tensor, y: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Block outputs and the gradients of the loss with respect to them, in train mode."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    logits, outputs = model.outputs(x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), outputs)
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return [output.detach() for output in outputs], gradients


def measure(probes: list[str], model: nn.Module, x: Tensor, y: Tensor) -> Iterator[tuple[str, int, float]]:
    """(probe, index, value) of every quantity that `probes` names, on the batch x, y."""
    if "gradients" in probes or "activations" in probes:
        outputs, gradients = _passes(model, x, y)
        for k, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
            if "gradients" in probes:
                yield "gradient_variance", k, _variance(gradient)
                yield "gradient_norm", k, torch.linalg.vector_norm(gradient).item()
            if "activations" in probes:
                yield "activation_variance", k, _variance(output)
    if "bn_offset" in probes:
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for k, norm in enumerate(norms):
            offset = (norm.bias / norm.weight).detach().abs()
            yield "bn_offset_mean", k, offset.mean().item()
            yield "bn_offset_median", k, offset.median().item()
    if "weight_norm" in probes:
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        for k, convolution in enumerate(convolutions):
            yield "weight_norm", k, torch.linalg.vector_norm(convolution.weight.detach()).item()
