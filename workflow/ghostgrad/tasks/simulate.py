"""Random fully-connected networks at initialization, many repeats at once (Ghost sec. 2.1, 3.2, 4.2, app. A).

Plain:     x' = act(norm(W x)),  W_ij ~ N(0, c/d)
Residual:  x' = act(x + s F(x)) or x + s F(x),  F = norm W2 act norm W1, one skip over two weight layers
Preact:    x' = x + s F(x),  F = W2 act norm W1 act norm; in the first block W0 act norm x in the place of x
           (BN-ResNet paper sec. 4)
SeqNet:    y  = B(M relu(W x)),  W in R^{kd x d}
Inputs x^(0) ~ N(0, I_d), derivative dl/dx^(L) ~ N(0, I_d/d); everything is drawn afresh in each repeat, from the
repeat's own generator. Weight layers are counted from 1; index 0 is the input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostgrad.models import init
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks import blocks as repeats
from ghostgrad.tasks.blocks import normal

EPS = 1e-5
COLUMNS = ("gradient_norm", "forward_variance", "backward_variance")
BLOCK_COLUMNS = ("block_forward", "block_backward", "branch_forward", "branch_backward")
DEPENDENCE_COLUMNS = ("linear_forward", "linear_backward", "feature_correlation", "derivative_correlation")

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
    linear: list[Tensor] = field(default_factory=list)  # W x of every layer of a plain net


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


def plain(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    signals = Signals([x])
    for weight in weights:
        signals.linear.append(matmul(signals.layers[-1], weight))
        signals.layers.append(act(norm(signals.linear[-1])))
    return signals


def residual(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    after_sum = act if spec.residual_sum == "activation" else ACTIVATIONS["linear"]
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


def preact(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    *weights, projection = weights
    scale = branch_factor(spec)
    signals = Signals([x])
    for first in range(0, len(weights), 2):
        x = signals.layers[-1]
        branch_input = x.view_as(x)
        hidden = matmul(act(norm(branch_input)), weights[first])
        branch = matmul(act(norm(hidden)), weights[first + 1])
        total = (x if first else matmul(act(norm(x)), projection)) + scale * branch
        signals.layers += [hidden, total]
        signals.blocks.append(Block(first + 2, x, branch_input, branch, total))
    return signals


def seqnet(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    layers = [x]
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        hidden = act(matmul(layers[-1], first))
        layers += [hidden, norm(matmul(hidden, second))]
    return Signals(layers)


NETS = {"plain": plain, "residual": residual, "preact": preact, "seqnet": seqnet}


def branch_factor(spec: SimulateSpec) -> float:
    """s, the factor on a residual branch; L counts blocks of two weight layers (Ghost Prop. 3.17)."""
    return (spec.depth // 2) ** -0.5 if spec.branch_scale == "1/sqrt(L)" else 1.0


def weight_shapes(spec: SimulateSpec) -> list[tuple[int, int]]:
    """(out, in) of every weight layer."""
    d, depth = spec.width, spec.depth
    if spec.net == "seqnet":
        return [(spec.expansion * d, d), (d, spec.expansion * d)] * depth
    return [(d, d)] * (depth + (spec.net == "preact"))


def draw(spec: SimulateSpec, generators: list[torch.Generator]):
    """Inputs, top derivatives (repeats, batch, d) and weights [(repeats, out, in)], each repeat from its generator."""
    batch, d = spec.batch, spec.width
    inputs, top = normal(generators, batch, d), normal(generators, batch, d, std=d**-0.5)
    if spec.net != "seqnet":
        std = (float(spec.weight_variance.removesuffix("/d")) / d) ** 0.5
        return inputs, top, [normal(generators, *shape, std=std) for shape in weight_shapes(spec)]
    weights, kind = [], spec.module_init
    for shape in weight_shapes(spec)[::2]:
        first = init.seqnet_module(kind, normal(generators, *shape))
        tied = first.transpose(1, 2)
        second = normal(generators, *shape[::-1], std=(2 / shape[0]) ** 0.5) if kind == "untied" else tied
        weights += [first, second]
    return inputs, top, weights


def columns(spec: SimulateSpec) -> tuple[str, ...]:
    """What is measured of every layer."""
    blocks = BLOCK_COLUMNS if spec.net in ("residual", "preact") else ()
    return COLUMNS + blocks + (DEPENDENCE_COLUMNS if spec.dependence else ())


def measure(spec: SimulateSpec, generators: list[torch.Generator]) -> Tensor:
    """One forward and backward pass of len(generators) repeats -> (repeats, layers + 1, columns), float32.

    Columns: Frobenius norm of the weight's gradient (summed over the batch), Var[x^(k)], Var[dl/dx^(k)]; for residual
    nets, at a block's last layer, R_f and R_b of the block and of its branch F (Def. 3.1); for a plain net with
    `dependence` what `dependence` below gives. NaN where a layer has no such quantity.
    """
    inputs, top, weights = draw(spec, generators)
    inputs.requires_grad_()
    weights = [weight.requires_grad_() for weight in weights]
    signals = NETS[spec.net](spec, inputs, weights)
    depth, blocks = len(signals.layers) - 1, signals.blocks
    linear = signals.linear if spec.dependence else []
    wanted = [weights[:depth], signals.layers[:-1], [b.branch_input for b in blocks], [b.total for b in blocks], linear]
    found = iter(torch.autograd.grad(signals.layers[-1], [tensor for part in wanted for tensor in part], top))
    of_weights, of_layers, of_branches, of_sums, of_linear = ([next(found) for _ in part] for part in wanted)
    of_layers.append(top)

    out = torch.full((len(generators), depth + 1, len(columns(spec))), torch.nan, device=top.device)
    with torch.no_grad():
        for k, gradient in enumerate(of_weights, start=1):
            out[:, k, 0] = torch.linalg.vector_norm(gradient, dim=(1, 2))
        for k, (signal, gradient) in enumerate(zip(signals.layers, of_layers, strict=True)):
            out[:, k, 1], out[:, k, 2] = variance(signal), variance(gradient)
        factor = branch_factor(spec) if blocks else 1.0
        for block, branch_gradient, sum_gradient in zip(blocks, of_branches, of_sums, strict=True):
            var_in, var_sum = out[:, block.layer - 2, 1], variance(sum_gradient)
            out[:, block.layer, 3] = variance(block.total) / var_in
            out[:, block.layer, 4] = out[:, block.layer - 2, 2] / var_sum
            out[:, block.layer, 5] = variance(block.branch) / var_in
            out[:, block.layer, 6] = variance(branch_gradient) / (factor**2 * var_sum)
        for k, (weight, z, gradient) in enumerate(zip(weights, linear, of_linear, strict=False), start=1):
            before, at_output = (signals.layers[k - 1], of_layers[k - 1]), (signals.layers[k], of_layers[k])
            out[:, k, -4:] = dependence(weight, *before, z, gradient, *at_output)
    return out


def dependence(weight: Tensor, x: Tensor, of_x: Tensor, z: Tensor, of_z: Tensor, y: Tensor, of_y: Tensor) -> Tensor:
    """How far a layer z = W x, y = act(norm(z)) is from the assumptions, (repeats, 4): R_f and R_b of W over what
    Prop. 3.4 gives for independent dimensions; mean |correlation| over the batch of two features of y (Rem. 3.5), and
    of a feature of y with its derivative (Rem. 3.9)."""
    squares = (weight * weight).sum((1, 2))
    forward = variance(z) / variance(x) / (squares / weight.shape[1])
    backward = variance(of_x) / variance(of_z) / (squares / weight.shape[2])
    unit, of_unit = ((v - v.mean(1, keepdim=True)) for v in (y, of_y))
    unit, of_unit = (v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=1e-30) for v in (unit, of_unit))
    features = unit.shape[2]
    pairs = (unit.transpose(1, 2) @ unit).abs().sum((1, 2)) - (unit * unit).sum((1, 2))
    with_derivative = (unit * of_unit).sum(1).abs().mean(1)
    return torch.stack([forward, backward, pairs / (features * (features - 1)), with_derivative], dim=1)


def floats(spec: SimulateSpec) -> int:
    """Numbers that a repeat holds: weights and their gradients, and about five tensors per signal."""
    return sum(2 * out * into + 5 * spec.batch * out for out, into in weight_shapes(spec))


def simulate(spec: SimulateSpec, state: State, device: torch.device) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly."""
    return record(spec, repeats.block(spec, state, device, partial(measure, spec), floats(spec)))


def record(spec: SimulateSpec, values: Tensor) -> Record:
    """The files of a block from the (repeats, layers + 1, columns) it measured."""
    series = repeats.series(spec, "layer", columns(spec), values)
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
    return Record(metrics, series, repeats.summary(columns(spec), values))
