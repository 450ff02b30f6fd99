"""Quantities recorded inside training; a probe at t sees the weights after t updates and the batch of update t, of it
the first `micro_batch` images, which BN sees at a time, where the spec has such; with `probe_batches`, the mean over
that batch and those behind it.

Every probe leaves the run as it was: it restores torch's generators, from which Dropout draws, and BN's running
statistics and touches no parameter's gradient.

gradients     gradient_variance, gradient_norm: of dl/dy_k at block output y_k, index k; 0 is the stem of a BN-ResNet
              or SeqNet, else the first normalization's output. Variance over the batch (1/B) of each feature
              (c, h, w), averaged over features; Frobenius norm over the batch; l is the mean cross-entropy
              (BN-ResNet paper sec. 4.4).
activations   activation_variance: of y_k, in the same way.
bn_offset     bn_offset_mean, bn_offset_median: |beta/gamma| over the channels of BN layer k (BN-ResNet paper app. F).
weight_norm   weight_norm: Frobenius norm of the k-th convolution's weight, in the order of modules(); of the k-th
              linear layer's in a net without convolutions.
weight_gradient  Frobenius norm of the loss's gradient with respect to the same.
bn_variance   variance of BN layer k's input over batch and positions, averaged over channels (Ghost app. C.2).
updates       of the update that follows: update_ratio, |dw|/|w| of the weights of weight_norm; clipped_fraction, of all
              tensors those whose rate a layer-wise rule holds below the learning rate.
statistics    of the k-th convolution's, normalization's and activation's output x (conv_, norm_, act_) and of
              g = dl/dx, per channel over batch and positions, then averaged over channels: activation_variance,
              gradient_variance; activation_offset and gradient_offset, |mean|/std; activation_gradient_correlation,
              |Corr(x_i, g_i)|; activation_correlation, |Corr(x_i, x_j)| over all pairs i != j. Of the weights,
              pooled: weight_variance, weight_offset. MeanStd without variance do not count; at most 128 of a layer
              (LALC paper fig. 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.rng import fork_global_rng
from ghostgrad.training.optim import Layerwise


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
    """Of every convolution, but for those that torchvision's ResNets have in their shortcuts, or, in a net without any,
    of every linear layer."""
    found = [m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in name]
    return found or [m.weight for m in model.modules() if isinstance(m, nn.Linear)]


def _norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """BN's running statistics and, for Dropout, torch's generators are afterwards what they were."""
    buffers = [value.clone() for value in model.buffers()]
    with fork_global_rng(device):
        yield
    with torch.no_grad():
        for value, kept in zip(model.buffers(), buffers, strict=True):
            value.copy_(kept)


def _passes(model: nn.Module, x: Tensor, y: Tensor) -> Passes:
    bn_inputs: list[Tensor] = []
    hooks = [m.register_forward_pre_hook(lambda _, args: bn_inputs.append(args[0].detach())) for m in _norms(model)]
    with _undisturbed(model, x.device):
        logits, outputs = model.outputs(x)
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), [*outputs, *_weights(model)])
    for hook in hooks:
        hook.remove()
    n = len(outputs)
    return Passes([output.detach() for output in outputs], list(gradients[:n]), list(gradients[n:]), bn_inputs)


PLACES = {
    "conv": (nn.Conv2d, nn.Linear),
    "norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm),
    "act": (nn.ReLU, nn.LeakyReLU, nn.SELU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh),
}
CHANNELS = 128  # of a layer, at even distances


def _statistics(model: nn.Module, x: Tensor, y: Tensor) -> Iterator[tuple[str, int, float]]:
    """The probe `statistics`, from one pass in train mode."""
    seen: dict[str, list[Tensor]] = {place: [] for place in PLACES}

    def watch(place: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen[place].append(output)
        return output.clone()  # what comes behind may work in place

    hooks = [
        module.register_forward_hook(partial(watch, place))
        for module in model.modules()
        for place, kinds in PLACES.items()
        if isinstance(module, kinds)
    ]
    with _undisturbed(model, x.device):
        logits = model(x)
        seen["conv"].pop()  # the logits
        signals = [(place, k, signal) for place, outputs in seen.items() for k, signal in enumerate(outputs)]
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), [signal for *_, signal in signals])
    for hook in hooks:
        hook.remove()
    for (place, k, signal), gradient in zip(signals, gradients, strict=True):
        for name, value in _of_channels(signal.detach(), gradient).items():
            yield f"{place}_{name}", k, value
    for k, weight in enumerate(_weights(model)):
        yield "weight_variance", k, weight.detach().var(correction=0).item()
        yield "weight_offset", k, (weight.detach().mean().abs() / weight.detach().std(correction=0)).item()


def _of_channels(x: Tensor, g: Tensor) -> dict[str, float]:
    """Statistics of a signal (B, C, …) and of its gradient."""
    chosen = torch.linspace(0, x.shape[1] - 1, min(CHANNELS, x.shape[1])).round().long().to(x.device)
    x, g = (part[:, chosen].transpose(0, 1).flatten(1).double() for part in (x, g))
    alive = (x.var(1, correction=0) > 0) & (g.var(1, correction=0) > 0)
    x, g = x[alive], g[alive]
    count = len(x)
    if count < 2:
        return {}
    means, deviations = zip(*((part.mean(1), part.std(1, correction=0)) for part in (x, g)), strict=True)
    x, g = ((part - m[:, None]) / s[:, None] for part, m, s in zip((x, g), means, deviations, strict=True))
    between = (x @ x.mT / x.shape[1]).abs()
    return {
        "activation_variance": deviations[0].square().mean().item(),
        "gradient_variance": deviations[1].square().mean().item(),
        "activation_offset": (means[0].abs() / deviations[0]).mean().item(),
        "gradient_offset": (means[1].abs() / deviations[1]).mean().item(),
        "activation_gradient_correlation": (x * g).mean(1).abs().mean().item(),
        "activation_correlation": ((between.sum() - between.diagonal().sum()) / (count * (count - 1))).item(),
    }


def weights(model: nn.Module) -> list[Tensor]:
    """A copy of the weights, for `updates`."""
    return [weight.detach().clone() for weight in _weights(model)]


def updates(
    before: list[Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, int, float]]:
    """The probe `updates`, of the update since `before`."""
    for k, (old, new) in enumerate(zip(before, _weights(model), strict=True)):
        change, norm = torch.linalg.vector_norm(new.detach() - old), torch.linalg.vector_norm(old)
        yield "update_ratio", k, (change / norm).item()
    if isinstance(optimizer, Layerwise):
        yield "clipped_fraction", 0, optimizer.clipped


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
    if "statistics" in probes:
        yield from _statistics(model, x, y)
