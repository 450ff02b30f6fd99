"""Random fully-connected networks at initialization, many repeats at once (Ghost sec. 2.1, 3.2, 4.2, app. A).

Plain:     x' = act(norm(W x)),  W_ij ~ N(0, c/d)
Residual:  x' = act(x + s F(x)) or x + s F(x),  F = norm W2 act norm W1, one skip over two weight layers
SeqNet:    y  = B(M relu(W x)),  W in R^{kd x d}
Inputs x^(0) ~ N(0, I_d), derivative dl/dx^(L) ~ N(0, I_d/d); everything is drawn afresh in each repeat, from the
repeat's own generator. Weight layers are counted from 1; index 0 is the input.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostgrad import init
from ghostgrad.record import PROBE_COLUMNS, Record, Rows
from ghostgrad.rng import generator
from ghostgrad.state import State

log = logging.getLogger(__name__)

BLOCK = 1024  # repeats of a full block; repeat i of block b is repeat b * BLOCK + i of the experiment
# Bytes of weights, signals and gradients that one batch of repeats may take. On a CPU a few repeats at a time stay in
# its cache and are fastest.
MEMORY = {"cpu": 96 * 2**20, "cuda": 8 * 2**30}
EPS = 1e-5
COLUMNS = ("gradient_norm", "forward_variance", "backward_variance")
BLOCK_COLUMNS = ("block_forward", "block_backward", "branch_forward", "branch_backward")

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "selu": F.selu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


def batch_norm(x: Tensor) -> Tensor:
    """BN with gamma 1, beta 0 and batch statistics, over dimension 1 of (repeats, batch, features)."""
    x = x - x.mean(1, keepdim=True)
    # As a product and a mean: torch's var() over a strided dimension takes twenty times as long on a CPU.
    return x * torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)


def layer_norm(x: Tensor) -> Tensor:
    """LN with gamma 1 and beta 0 over the features of (repeats, batch, features)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


NORMS = {"batch": batch_norm, "layer": layer_norm, "none": lambda x: x}


def variance(x: Tensor) -> Tensor:
    """Var[x] of Ghost Def. 3.1, (repeats,): variance over the batch (1/B), averaged over the features."""
    centred = x - x.mean(1, keepdim=True)
    return (centred * centred).mean((1, 2))


@dataclass
class Signals:
    """The forward pass of a batch of repeats: x^(0..L), and what a residual net's blocks are made of."""

    layers: list[Tensor]
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Block:
    """One residual block: its last layer, input, the branch's own view of the input, branch output and the sum."""

    layer: int
    input: Tensor
    branch_input: Tensor
    branch: Tensor
    total: Tensor


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """W x for every input: (repeats, batch, in) and (repeats, out, in) -> (repeats, batch, out)."""
    return torch.bmm(x, weight.transpose(1, 2))


def plain(spec: Mapping[str, Any], x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec["activation"]], NORMS[spec["norm"]]
    layers = [x]
    for weight in weights:
        layers.append(act(norm(matmul(layers[-1], weight))))
    return Signals(layers)


def residual(spec: Mapping[str, Any], x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec["activation"]], NORMS[spec["norm"]]
    after_sum = act if spec["residual_sum"] == "activation" else ACTIVATIONS["linear"]
    scale = branch_factor(spec)
    signals = Signals([x])
    for first in range(0, len(weights), 2):
        x = signals.layers[-1]
        branch_input = x.view_as(x)  # a node of its own, so that the branch's share of the gradient can be read
        hidden = act(norm(matmul(branch_input, weights[first])))
        branch = norm(matmul(hidden, weights[first + 1]))
        total = x + scale * branch
        signals.layers += [hidden, after_sum(total)]
        signals.blocks.append(Block(first + 2, x, branch_input, branch, total))
    return signals


def seqnet(spec: Mapping[str, Any], x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec["activation"]], NORMS[spec["norm"]]
    layers = [x]
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        hidden = act(matmul(layers[-1], first))
        layers += [hidden, norm(matmul(hidden, second))]
    return Signals(layers)


NETS = {"plain": plain, "residual": residual, "seqnet": seqnet}


def branch_factor(spec: Mapping[str, Any]) -> float:
    """s, the factor on a residual branch; L counts blocks of two weight layers (Ghost Prop. 3.17)."""
    return (spec["depth"] // 2) ** -0.5 if spec["branch_scale"] == "1/sqrt(L)" else 1.0


def weight_shapes(spec: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(out, in) of every weight layer."""
    d, depth = spec["width"], spec["depth"]
    if spec["net"] == "seqnet":
        return [(spec["expansion"] * d, d), (d, spec["expansion"] * d)] * depth
    return [(d, d)] * depth


def draw(spec: Mapping[str, Any], generators: list[torch.Generator], device: torch.device):
    """Inputs, top derivatives (repeats, batch, d) and weights [(repeats, out, in)], each repeat from its generator."""
    repeats, batch, d = len(generators), spec["batch"], spec["width"]

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        out = torch.empty(repeats, *shape, device=device)
        for one, rng in zip(out, generators, strict=True):
            one.normal_(0, std, generator=rng)
        return out

    inputs, top = normal(batch, d), normal(batch, d, std=d**-0.5)
    if spec["net"] != "seqnet":
        std = (float(spec["weight_variance"].removesuffix("/d")) / d) ** 0.5
        return inputs, top, [normal(*shape, std=std) for shape in weight_shapes(spec)]
    weights, kind = [], spec["module_init"]
    for shape in weight_shapes(spec)[::2]:
        first = init.seqnet_module(kind, normal(*shape))
        tied = first.transpose(1, 2)
        second = normal(*shape[::-1], std=(2 / shape[0]) ** 0.5) if kind == "untied" else tied
        weights += [first, second]
    return inputs, top, weights


def measure(spec: Mapping[str, Any], generators: list[torch.Generator], device: torch.device) -> Tensor:
    """One forward and backward pass of len(generators) repeats -> (repeats, layers + 1, columns), float32.

    Columns: Frobenius norm of the weight's gradient (summed over the batch), Var[x^(k)], Var[dl/dx^(k)], and for
    residual nets, at a block's last layer, R_f and R_b of the block and of its branch F (Def. 3.1); NaN where a
    layer has no such quantity.
    """
    inputs, top, weights = draw(spec, generators, device)
    inputs.requires_grad_()
    weights = [weight.requires_grad_() for weight in weights]
    signals = NETS[spec["net"]](spec, inputs, weights)
    blocks = signals.blocks
    wanted = [*weights, *signals.layers[:-1], *(b.branch_input for b in blocks), *(b.total for b in blocks)]
    gradients = list(torch.autograd.grad(signals.layers[-1], wanted, top))
    depth = len(weights)
    weight_gradients, layer_gradients = gradients[:depth], [*gradients[depth : 2 * depth], top]

    columns = COLUMNS + (BLOCK_COLUMNS if blocks else ())
    out = torch.full((len(generators), depth + 1, len(columns)), torch.nan, device=device)
    with torch.no_grad():
        for k, gradient in enumerate(weight_gradients, start=1):
            out[:, k, 0] = torch.linalg.vector_norm(gradient, dim=(1, 2))
        for k, (signal, gradient) in enumerate(zip(signals.layers, layer_gradients, strict=True)):
            out[:, k, 1], out[:, k, 2] = variance(signal), variance(gradient)
        factor = branch_factor(spec) if blocks else 1.0
        through_branch = gradients[2 * depth : 2 * depth + len(blocks)]
        at_sum = gradients[2 * depth + len(blocks) :]
        for block, branch_gradient, sum_gradient in zip(blocks, through_branch, at_sum, strict=True):
            var_in, var_sum = out[:, block.layer - 2, 1], variance(sum_gradient)
            out[:, block.layer, 3] = variance(block.total) / var_in
            out[:, block.layer, 4] = out[:, block.layer - 2, 2] / var_sum
            out[:, block.layer, 5] = variance(block.branch) / var_in
            out[:, block.layer, 6] = variance(branch_gradient) / (factor**2 * var_sum)
    return out


def repeats_at_once(spec: Mapping[str, Any], device: torch.device) -> int:
    """How many repeats fit the memory budget: weights and their gradients, and about five tensors per signal."""
    shapes = weight_shapes(spec)
    floats = sum(2 * out * into + 5 * spec["batch"] * out for out, into in shapes)
    return max(1, min(spec["repeats"], MEMORY[device.type] // (4 * floats)))


def simulate(spec: Mapping[str, Any], state: State, device: torch.device) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly."""
    total, chunk = spec["repeats"], repeats_at_once(spec, device)
    saved = state.load()
    # the generators of a CPU and of a GPU draw other numbers: a block is computed on one kind of device
    parts: list[Tensor] = saved["parts"] if saved and saved["device"] == device.type else []
    done = sum(len(part) for part in parts)
    log.info("%d of %d repeats done, %d at a time on %s", done, total, chunk, device)
    while done < total:
        state.pause(lambda: {"parts": parts, "device": device.type}, done, total)
        first = spec["seed"] * BLOCK + done
        generators = [
            generator(0, "repeat", repeat, device) for repeat in range(first, first + min(chunk, total - done))
        ]
        parts.append(measure(spec, generators, device).cpu())
        done += len(generators)
    return record(spec, torch.cat(parts))


def summary(columns: tuple[str, ...], values: Tensor) -> Rows:
    """Mean, standard error and quantiles over the block's repeats of every column at every layer, in the long form of
    probes.csv; quantities that a layer has not are left out."""
    rows = Rows(PROBE_COLUMNS)
    repeats = len(values)
    statistics = {"mean": values.mean(0), "se": values.std(0) / repeats**0.5}
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype)
    statistics |= dict(zip(("q05", "q50", "q95"), torch.quantile(values, levels, dim=0), strict=True))
    for index, column in enumerate(columns):
        for name, table in statistics.items():
            for layer, value in enumerate(table[:, index].tolist()):
                if value == value:
                    rows.add(0, 0, f"{column}_{name}", layer, value)
    return rows


def record(spec: Mapping[str, Any], values: Tensor) -> Record:
    """The files of a block from the (repeats, layers + 1, columns) it measured."""
    columns = COLUMNS + (BLOCK_COLUMNS if values.shape[2] > len(COLUMNS) else ())
    first = spec["seed"] * BLOCK
    series = Rows(("repeat", "layer", *columns))
    for repeat, layers in enumerate(values.tolist(), start=first):
        for layer, row in enumerate(layers):
            series.add(repeat, layer, *row)
    values = values.double()
    forward, backward = values[:, -1, 1] / values[:, 0, 1], values[:, 0, 2] / values[:, -1, 2]
    metrics = {
        "status": "done",
        "repeats": len(values),
        "first_gradient_norm": values[:, 1, 0].mean().item(),
        "last_gradient_norm": values[:, -1, 0].mean().item(),
        "R_f": forward.mean().item(),
        "R_f_se": forward.std().item() / len(values) ** 0.5,
        "R_b": backward.mean().item(),
        "R_b_se": backward.std().item() / len(values) ** 0.5,
    }
    return Record(metrics, series, summary(columns, values))
