"""Quantities recorded inside training; a probe at t sees the weights after t updates and the batch of update t.

Every probe leaves the run as it was: it draws nothing at random, restores BN's running statistics and touches no
parameter's gradient.

gradients     gradient_variance, gradient_norm: of dl/dy_k at block output y_k (index k, 0 is the stem). Variance over
              the batch (1/B) of each feature (c, h, w), averaged over features; Frobenius norm over the batch; l is
              the mean cross-entropy (BN-ResNet paper sec. 4.4).
activations   activation_variance: of y_k, in the same way.
bn_offset     bn_offset_mean, bn_offset_median: |beta/gamma| over the channels of BN layer k (BN-ResNet paper app. F).
weight_norm   weight_norm: Frobenius norm of the k-th convolution's weight, in the order of modules(); of the k-th
              linear layer's in a net without convolutions.
weight_gradient  Frobenius norm of the loss's gradient with respect to the same.
bn_variance   variance of BN layer k's input over batch and positions, averaged over channels (Ghost app. C.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _variance(x: Tensor) -> float:
    return x.var(dim=0, correction=0).mean().item()


@dataclass
class Passes:
    """A forward and a backward pass in train mode: block outputs, the loss's gradients with respect to them and to the
    weights, and each BN's input."""

    outputs: list[Tensor]
    gradients: list[Tensor]
    of_weights: list[Tensor]
    bn_inputs: list[Tensor]


def _weights(model: nn.Module) -> list[Tensor]:
    """Of every convolution or, in a net without any, of every linear layer."""
    found = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return found or [m.weight for m in model.modules() if isinstance(m, nn.Linear)]


def _norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


def _passes(model: nn.Module, x: Tensor, y: Tensor) -> Passes:
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    bn_inputs: list[Tensor] = []
    hooks = [m.register_forward_pre_hook(lambda _, args: bn_inputs.append(args[0].detach())) for m in _norms(model)]
    logits, outputs = model.outputs(x)
    for hook in hooks:
        hook.remove()
    weights = _weights(model)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), [*outputs, *weights])
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    n = len(outputs)
    return Passes([output.detach() for output in outputs], list(gradients[:n]), list(gradients[n:]), bn_inputs)


PASSED = {"gradients", "activations", "weight_gradient", "bn_variance"}


def measure(probes: list[str], model: nn.Module, x: Tensor, y: Tensor) -> Iterator[tuple[str, int, float]]:
    """(probe, index, value) of every quantity that `probes` names, on the batch x, y."""
    if PASSED & set(probes):
        passes = _passes(model, x, y)
        for k, (output, gradient) in enumerate(zip(passes.outputs, passes.gradients, strict=True)):
            if "gradients" in probes:
                yield "gradient_variance", k, _variance(gradient)
                yield "gradient_norm", k, torch.linalg.vector_norm(gradient).item()
            if "activations" in probes:
                yield "activation_variance", k, _variance(output)
        if "weight_gradient" in probes:
            for k, gradient in enumerate(passes.of_weights):
                yield "weight_gradient", k, torch.linalg.vector_norm(gradient).item()
        if "bn_variance" in probes:
            for k, signal in enumerate(passes.bn_inputs):
                yield "bn_variance", k, signal.transpose(0, 1).flatten(1).var(1, correction=0).mean().item()
    if "bn_offset" in probes:
        for k, norm in enumerate(_norms(model)):
            offset = (norm.bias / norm.weight).detach().abs()
            yield "bn_offset_mean", k, offset.mean().item()
            yield "bn_offset_median", k, offset.median().item()
    if "weight_norm" in probes:
        for k, weight in enumerate(_weights(model)):
            yield "weight_norm", k, torch.linalg.vector_norm(weight.detach()).item()
