"""Quantities that are recorded inside training.

A probe at t sees the weights after t updates and the batch of update t + 1, which follows. It uses
the first `micro_batch` images of the batch, as many as BN sees at a time, in float32 whatever the
run's precision. With `probe_batches` it is the mean over that batch and the next ones. In the
formulas, l is the mean cross-entropy of these images and y_k the k-th output of `model.outputs`.

Every probe leaves the run as it was: it restores torch's generators, from which Dropout draws, and
BN's running statistics, and it touches no parameter's `grad`.

gradients     gradient_variance and gradient_norm of dl/dy_k at block output y_k. Index 0 is the
              stem of a BN-ResNet or SeqNet, in other networks the first normalization's output.
              The variance is that over the batch (1/B) of each feature (c, h, w), averaged over
              features; the norm is the Frobenius norm over the batch (BN-ResNet paper sec. 4.4).
activations   activation_variance of y_k, computed in the same way.
bn_offset     bn_offset_mean and bn_offset_median of |beta/gamma| over the channels of BN layer k
              (BN-ResNet paper app. F).
weight_norm   Frobenius norm of the weight of the k-th convolution, in the order of modules() and
              without the projections of shortcuts (`downsample`); in a network without
              convolutions, of the k-th linear layer.
weight_gradient
              Frobenius norm of dl/dw for the same weights.
bn_variance   Variance of BN layer k's input over batch and positions, averaged over channels
              (Ghost app. C.2).
updates       The update that follows is measured: update_ratio is |dw|/|w| of the weights of
              weight_norm, and clipped_fraction the fraction of all tensors whose learning rate a
              layer-wise rule holds below that of the schedule.
statistics    The output x of the k-th convolution or linear layer but the classifier, of the k-th
              normalization and of the k-th activation (conv_, norm_, act_) is measured, with
              g = dl/dx, per channel over batch and positions, then averaged over channels (LALC
              paper fig. 3): activation_variance and gradient_variance; activation_offset and
              gradient_offset, |mean|/std; activation_gradient_correlation, |Corr(x_i, g_i)|;
              activation_correlation, |Corr(x_i, x_j)| over all pairs i != j. Here the projections
              of shortcuts count. Each weight as a whole has weight_variance and weight_offset.
              Channels without variance do not count; at most MAX_CHANNELS of a layer are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models.network import ProbedNetwork
from ghostgrad.rng import fork_global_rng
from ghostgrad.training.optimizers.layerwise import LayerwiseOptimizer

ProbeValues: TypeAlias = Iterator[tuple[str, int, float]]
"""(name of the quantity, index, value)."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# The kinds of outputs that the probe `statistics` looks at, with the prefix of their quantities.
SIGNAL_KINDS: Mapping[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv2d, nn.Linear),
    "norm": (*BATCH_NORMS, nn.LayerNorm),
    "act": (nn.ReLU, nn.LeakyReLU, nn.SELU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh),
}
MAX_CHANNELS = 128  # of a layer, at even distances

NEED_PASSES = {"gradients", "activations", "weight_gradient", "bn_variance"}


@dataclass
class Passes:
    """What one forward and one backward pass in train mode give."""

    outputs: list[Tensor]
    """The block outputs y_k."""
    gradients: list[Tensor]
    """dl/dy_k."""
    weight_gradients: list[Tensor]
    bn_inputs: list[Tensor]


def measure(probes: Sequence[str], model: ProbedNetwork, x: Tensor, y: Tensor) -> ProbeValues:
    """Yield every quantity that `probes` names on images x (N, 3, H, W) with labels y (N,).

    The probe `updates` is not among them; see `measure_update`.
    """
    if NEED_PASSES & set(probes):
        passes = _run_passes(model, x, y)
        for k, (output, gradient) in enumerate(zip(passes.outputs, passes.gradients, strict=True)):
            if "gradients" in probes:
                yield "gradient_variance", k, _batch_variance(gradient)
                yield "gradient_norm", k, _norm(gradient)
            if "activations" in probes:
                yield "activation_variance", k, _batch_variance(output)
        if "weight_gradient" in probes:
            for k, gradient in enumerate(passes.weight_gradients):
                yield "weight_gradient", k, _norm(gradient)
        if "bn_variance" in probes:
            for k, signal in enumerate(passes.bn_inputs):
                channels = signal.transpose(0, 1).flatten(1)  # (C, N positions)
                yield "bn_variance", k, channels.var(1, correction=0).mean().item()
    if "bn_offset" in probes:
        for k, norm in enumerate(_batch_norms(model)):
            offset = (norm.bias / norm.weight).detach().abs()
            yield "bn_offset_mean", k, offset.mean().item()
            yield "bn_offset_median", k, offset.median().item()
    if "weight_norm" in probes:
        for k, weight in enumerate(_probed_weights(model)):
            yield "weight_norm", k, _norm(weight.detach())
    if "statistics" in probes:
        yield from _measure_statistics(model, x, y)


def copy_weights(model: nn.Module) -> list[Tensor]:
    """A copy of the weights that `measure_update` compares, to be made before the update."""
    return [weight.detach().clone() for weight in _probed_weights(model)]


def measure_update(
    before: list[Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> ProbeValues:
    """The probe `updates`, of the update since `before` was copied."""
    for k, (old, new) in enumerate(zip(before, _probed_weights(model), strict=True)):
        change = torch.linalg.vector_norm(new.detach() - old)
        yield "update_ratio", k, (change / torch.linalg.vector_norm(old)).item()
    if isinstance(optimizer, LayerwiseOptimizer):
        yield "clipped_fraction", 0, optimizer.clipped_fraction


def _norm(x: Tensor) -> float:
    norm: float = torch.linalg.vector_norm(x).item()
    return norm


def _batch_variance(x: Tensor) -> float:
    """The variance over the batch (1/B) of each feature, averaged over features."""
    return x.var(dim=0, correction=0).mean().item()


def _probed_weights(model: nn.Module) -> list[Tensor]:
    """The weights of all convolutions, except in the shortcuts of torchvision's ResNets
    (`downsample`); in a network without convolutions, those of all linear layers."""
    convolutions: list[Tensor] = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    return convolutions or [m.weight for m in model.modules() if isinstance(m, nn.Linear)]


def _batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, BATCH_NORMS)]


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore BN's running statistics and, for Dropout, torch's generators on exit."""
    buffers = [value.clone() for value in model.buffers()]
    with fork_global_rng(device):
        yield
    with torch.no_grad():
        for value, kept in zip(model.buffers(), buffers, strict=True):
            value.copy_(kept)


def _run_passes(model: ProbedNetwork, x: Tensor, y: Tensor) -> Passes:
    bn_inputs: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs: bn_inputs.append(inputs[0].detach()))
        for norm in _batch_norms(model)
    ]
    with _undisturbed(model, x.device):
        logits, outputs = model.outputs(x)
        # `autograd.grad` returns the gradients and leaves the parameters' `grad` alone.
        places = [*outputs, *_probed_weights(model)]
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), places)
    for hook in hooks:
        hook.remove()
    n = len(outputs)
    return Passes(
        outputs=[output.detach() for output in outputs],
        gradients=list(gradients[:n]),
        weight_gradients=list(gradients[n:]),
        bn_inputs=bn_inputs,
    )


def _measure_statistics(model: nn.Module, x: Tensor, y: Tensor) -> ProbeValues:
    """The probe `statistics`, from one pass in train mode."""
    signals: dict[str, list[Tensor]] = {kind: [] for kind in SIGNAL_KINDS}

    def keep(kind: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        signals[kind].append(output)
        return output.clone()  # the next module may work in place

    hooks = [
        module.register_forward_hook(partial(keep, kind))
        for module in model.modules()
        for kind, classes in SIGNAL_KINDS.items()
        if isinstance(module, classes)
    ]
    with _undisturbed(model, x.device):
        logits = model(x)
        signals["conv"].pop()  # the classifier's output, which is the logits
        places = [
            (kind, k, output)
            for kind, outputs in signals.items()
            for k, output in enumerate(outputs)
        ]
        gradients = torch.autograd.grad(
            F.cross_entropy(logits, y), [output for *_, output in places]
        )
    for hook in hooks:
        hook.remove()
    for (kind, k, output), gradient in zip(places, gradients, strict=True):
        for name, value in _channel_statistics(output.detach(), gradient).items():
            yield f"{kind}_{name}", k, value
    for k, weight in enumerate(_probed_weights(model)):
        values = weight.detach()
        yield "weight_variance", k, values.var(correction=0).item()
        yield "weight_offset", k, (values.mean().abs() / values.std(correction=0)).item()


def _channel_statistics(x: Tensor, g: Tensor) -> dict[str, float]:
    """Statistics of a signal x (B, C, …) and of its gradient g, averaged over channels.

    Empty where fewer than two channels have variance.
    """
    # Correlations over all pairs cost C^2; a subset at even distances is enough for their mean.
    count = min(MAX_CHANNELS, x.shape[1])
    chosen = torch.linspace(0, x.shape[1] - 1, count).round().long().to(x.device)
    # (channels, B positions), in double precision whatever the network's precision is.
    x, g = (signal[:, chosen].transpose(0, 1).flatten(1).double() for signal in (x, g))
    varies = (x.var(1, correction=0) > 0) & (g.var(1, correction=0) > 0)
    x, g = x[varies], g[varies]
    count = len(x)
    if count < 2:
        return {}
    x_mean, x_std = x.mean(1), x.std(1, correction=0)
    g_mean, g_std = g.mean(1), g.std(1, correction=0)
    x = (x - x_mean[:, None]) / x_std[:, None]
    g = (g - g_mean[:, None]) / g_std[:, None]
    correlations = (x @ x.mT / x.shape[1]).abs()
    off_diagonal = correlations.sum() - correlations.diagonal().sum()
    return {
        "activation_variance": x_std.square().mean().item(),
        "gradient_variance": g_std.square().mean().item(),
        "activation_offset": (x_mean.abs() / x_std).mean().item(),
        "gradient_offset": (g_mean.abs() / g_std).mean().item(),
        "activation_gradient_correlation": (x * g).mean(1).abs().mean().item(),
        "activation_correlation": (off_diagonal / (count * (count - 1))).item(),
    }
