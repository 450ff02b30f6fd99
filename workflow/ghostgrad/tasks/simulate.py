"""Random fully-connected networks at initialization, many repeats at once (Ghost sec. 2.1, 3.2,
4.2, app. A).

Plain:     x' = act(norm(W x)),  W_ij ~ N(0, c/d)
Residual:  x' = act(x + s F(x)) or x + s F(x),  F = norm W2 act norm W1; a shortcut spans two weight
           layers
Preact:    x' = x + s F(x),  F = W2 act norm W1 act norm; in the first block, the shortcut is
           W0 act norm x instead of x (BN-ResNet paper sec. 4)
SeqNet:    y  = B(M act(W x)),  W in R^{kd x d}; act is relu in the paper

Inputs are x^(0) ~ N(0, I_d), the derivative at the top is dl/dx^(L) ~ N(0, I_d/d). Each repeat
draws inputs, derivative and weights from its own generator (stream `repeat`, see tasks/blocks.py).
Weight layers are counted from 1; index 0 is the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostgrad.files import Cell
from ghostgrad.models import init
from ghostgrad.registry.specs.simulate import SimulateSpec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State
from ghostgrad.tasks.blocks import normal, run_block, series_table, summary_table

EPS = 1e-5
COLUMNS = ("gradient_norm", "forward_variance", "backward_variance")
BLOCK_COLUMNS = ("block_forward", "block_backward", "branch_forward", "branch_backward")
DEPENDENCE_COLUMNS = (
    "linear_forward",
    "linear_backward",
    "feature_correlation",
    "derivative_correlation",
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
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
    """BN with gamma 1, beta 0 and batch statistics, over dimension 1 of (repeats, batch,
    features)."""
    x = x - x.mean(1, keepdim=True)
    # A product and a mean, because torch's var() over a strided dimension takes twenty times as
    # long on a CPU.
    return x * torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)


def layer_norm(x: Tensor) -> Tensor:
    """LN with gamma 1 and beta 0 over the features of (repeats, batch, features)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": batch_norm,
    "layer": layer_norm,
    "none": lambda x: x,
}


def variance(x: Tensor) -> Tensor:
    """Var[x] of Ghost Def. 3.1, (repeats,): variance over the batch (1/B), averaged over the
    features."""
    centred = x - x.mean(1, keepdim=True)
    return (centred * centred).mean((1, 2))


@dataclass
class Signals:
    """The forward pass of a batch of repeats; every tensor is (repeats, batch, features)."""

    layers: list[Tensor]
    """x^(0), …, x^(L)."""
    blocks: list[Block] = field(default_factory=list)
    """The blocks of a residual net."""
    linear: list[Tensor] = field(default_factory=list)
    """W x of every layer of a plain net."""


@dataclass
class Block:
    """The forward pass of one residual block."""

    layer: int
    """Its last weight layer; its input is the output of the layer two before."""
    branch_input: Tensor
    """The input as the branch sees it, a node of its own in the graph: its gradient is the branch's
    share of the gradient of the input."""
    branch: Tensor
    """F(x), before the factor s."""
    total: Tensor
    """x + s F(x), before any activation."""


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """W x for every input: (repeats, batch, in) and (repeats, out, in) -> (repeats, batch, out)."""
    return torch.bmm(x, weight.transpose(1, 2))


def plain(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    """x' = act(norm(W x))."""
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    signals = Signals([x])
    for weight in weights:
        signals.linear.append(matmul(signals.layers[-1], weight))
        signals.layers.append(act(norm(signals.linear[-1])))
    return signals


def residual(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    """x' = act(x + s F(x)) or x + s F(x), F = norm W2 act norm W1."""
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    after_sum = act if spec.residual_sum == "activation" else ACTIVATIONS["linear"]
    scale = branch_factor(spec)
    signals = Signals([x])
    for first in range(0, len(weights), 2):
        x = signals.layers[-1]
        branch_input = x.view_as(x)
        hidden = act(norm(matmul(branch_input, weights[first])))
        branch = norm(matmul(hidden, weights[first + 1]))
        total = x + scale * branch
        signals.layers += [hidden, after_sum(total)]
        signals.blocks.append(Block(first + 2, branch_input, branch, total))
    return signals


def preact(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    """x' = x + s F(x), F = W2 act norm W1 act norm; the last weight is W0, of the first
    shortcut."""
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    *weights, projection = weights
    scale = branch_factor(spec)
    signals = Signals([x])
    for first in range(0, len(weights), 2):
        x = signals.layers[-1]
        branch_input = x.view_as(x)
        hidden = matmul(act(norm(branch_input)), weights[first])
        branch = matmul(act(norm(hidden)), weights[first + 1])
        shortcut = x if first else matmul(act(norm(x)), projection)
        total = shortcut + scale * branch
        signals.layers += [hidden, total]
        signals.blocks.append(Block(first + 2, branch_input, branch, total))
    return signals


def seqnet(spec: SimulateSpec, x: Tensor, weights: list[Tensor]) -> Signals:
    """y = B(M act(W x)); both weights of a module count as layers."""
    act, norm = ACTIVATIONS[spec.activation], NORMS[spec.norm]
    layers = [x]
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        hidden = act(matmul(layers[-1], first))
        layers += [hidden, norm(matmul(hidden, second))]
    return Signals(layers)


NETS: dict[str, Callable[[SimulateSpec, Tensor, list[Tensor]], Signals]] = {
    "plain": plain,
    "residual": residual,
    "preact": preact,
    "seqnet": seqnet,
}


def branch_factor(spec: SimulateSpec) -> float:
    """s, the factor on a residual branch; L counts blocks of two weight layers (Ghost Prop.
    3.17)."""
    return (spec.depth // 2) ** -0.5 if spec.branch_scale == "1/sqrt(L)" else 1.0


def weight_shapes(spec: SimulateSpec) -> list[tuple[int, int]]:
    """(out, in) of every weight layer; that of preact's first shortcut comes last."""
    d, depth = spec.width, spec.depth
    if spec.net == "seqnet":
        return [(spec.expansion * d, d), (d, spec.expansion * d)] * depth
    if spec.net == "preact":
        return [(d, d)] * (depth + 1)
    return [(d, d)] * depth


def draw(
    spec: SimulateSpec, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Inputs and derivatives at the top, (repeats, batch, d) each, and the weights of every layer,
    (repeats, out, in); each repeat draws in this order from its generator."""
    batch, d = spec.batch, spec.width
    inputs, top = normal(generators, batch, d), normal(generators, batch, d, std=d**-0.5)
    if spec.net != "seqnet":
        std = (float(spec.weight_variance.removesuffix("/d")) / d) ** 0.5
        return inputs, top, [normal(generators, *shape, std=std) for shape in weight_shapes(spec)]
    weights: list[Tensor] = []
    kind = spec.module_init
    for shape in weight_shapes(spec)[::2]:
        first = init.seqnet_matrix(kind, normal(generators, *shape))
        second = first.transpose(1, 2)
        if kind == "untied":
            second = normal(generators, *shape[::-1], std=(2 / shape[0]) ** 0.5)
        weights += [first, second]
    return inputs, top, weights


def columns(spec: SimulateSpec) -> tuple[str, ...]:
    """The quantities that are measured at every layer."""
    blocks = BLOCK_COLUMNS if spec.net in ("residual", "preact") else ()
    return COLUMNS + blocks + (DEPENDENCE_COLUMNS if spec.dependence else ())


@dataclass
class Gradients:
    """The gradients of one backward pass, in the order of the tensors in `Signals`."""

    weights: list[Tensor]
    layers: list[Tensor]
    branch_inputs: list[Tensor]
    totals: list[Tensor]
    linear: list[Tensor]


def backward(signals: Signals, weights: list[Tensor], top: Tensor) -> Gradients:
    """The gradients of the loss whose derivative at the output is `top`, from one backward pass."""
    parts = [
        weights,
        signals.layers[:-1],
        [block.branch_input for block in signals.blocks],
        [block.total for block in signals.blocks],
        signals.linear,
    ]
    tensors = [tensor for part in parts for tensor in part]
    # One call for all: the graph is walked, and freed, once.
    gradients = iter(torch.autograd.grad(signals.layers[-1], tensors, top))
    result = Gradients(*([next(gradients) for _ in part] for part in parts))
    result.layers.append(top)
    return result


def measure(spec: SimulateSpec, generators: list[torch.Generator]) -> Tensor:
    """One forward and backward pass of len(generators) repeats; (repeats, layers + 1, columns) in
    float32, NaN where a layer has no such quantity.

    gradient_norm         Frobenius norm of the gradient of the layer's weight, a sum over the batch
    forward_variance      Var[x^(k)] (Ghost Def. 3.1)
    backward_variance     Var[dl/dx^(k)]
    block_*, branch_*     R_f and R_b (Def. 3.1) of a residual block and of its branch F alone, in
                          the row of the block's last layer
    linear_*, …           see `dependence`
    """
    inputs, top, weights = draw(spec, generators)
    inputs.requires_grad_()
    weights = [weight.requires_grad_() for weight in weights]
    signals = NETS[spec.net](spec, inputs, weights)
    if not spec.dependence:
        signals.linear.clear()  # whose gradients nobody needs
    depth = len(signals.layers) - 1
    gradients = backward(signals, weights[:depth], top)  # without that of preact's first shortcut

    names = columns(spec)
    shape = (len(generators), depth + 1, len(names))
    out = torch.full(shape, torch.nan, device=top.device)
    column = {name: out[:, :, index] for index, name in enumerate(names)}  # views of `out`
    with torch.no_grad():
        for k, gradient in enumerate(gradients.weights, start=1):
            column["gradient_norm"][:, k] = torch.linalg.vector_norm(gradient, dim=(1, 2))
        for k, (signal, gradient) in enumerate(zip(signals.layers, gradients.layers, strict=True)):
            column["forward_variance"][:, k] = variance(signal)
            column["backward_variance"][:, k] = variance(gradient)
        _measure_blocks(spec, signals, gradients, column)
        for k in range(1, len(signals.linear) + 1):
            for name, values in dependence(k, weights[k - 1], signals, gradients).items():
                column[name][:, k] = values
    return out


def _measure_blocks(
    spec: SimulateSpec, signals: Signals, gradients: Gradients, column: dict[str, Tensor]
) -> None:
    """Fill in the columns of residual blocks; `column` holds (repeats, layers + 1) for each
    name."""
    scale = branch_factor(spec)
    for block, of_branch_input, of_total in zip(
        signals.blocks, gradients.branch_inputs, gradients.totals, strict=True
    ):
        k, first = block.layer, block.layer - 2
        forward_in = column["forward_variance"][:, first]
        backward_out = variance(of_total)
        column["block_forward"][:, k] = variance(block.total) / forward_in
        column["block_backward"][:, k] = column["backward_variance"][:, first] / backward_out
        column["branch_forward"][:, k] = variance(block.branch) / forward_in
        # dl/dF is s times the gradient of the sum, so that its variance has the factor s^2.
        column["branch_backward"][:, k] = variance(of_branch_input) / (scale**2 * backward_out)


def dependence(k: int, weight: Tensor, signals: Signals, gradients: Gradients) -> dict[str, Tensor]:
    """How far layer k of a plain net, z = W x and y = act(norm(z)), is from the assumptions;
    (repeats,) each.

    linear_forward, linear_backward: R_f and R_b of W over what Prop. 3.4 gives for independent
    dimensions, ||W||^2/D and ||W||^2/d with W in R^{D x d}. feature_correlation: mean |correlation|
    over the batch of two features of y (Rem. 3.5). derivative_correlation: the same of a feature of
    y with its derivative (Rem. 3.9).
    """
    x, y, z = signals.layers[k - 1], signals.layers[k], signals.linear[k - 1]
    of_x, of_y, of_z = gradients.layers[k - 1], gradients.layers[k], gradients.linear[k - 1]
    squares = (weight * weight).sum((1, 2))
    unit, of_unit = _standardized(y), _standardized(of_y)
    features = unit.shape[2]
    # The sum over all pairs, minus the pairs of a feature with itself.
    pairs = (unit.transpose(1, 2) @ unit).abs().sum((1, 2)) - (unit * unit).sum((1, 2))
    return {
        "linear_forward": variance(z) / variance(x) / (squares / weight.shape[1]),
        "linear_backward": variance(of_x) / variance(of_z) / (squares / weight.shape[2]),
        "feature_correlation": pairs / (features * (features - 1)),
        "derivative_correlation": (unit * of_unit).sum(1).abs().mean(1),
    }


def _standardized(x: Tensor) -> Tensor:
    """(repeats, batch, features) of mean 0 and Euclidean norm 1 over the batch, so that a product
    of two features is their correlation; a constant feature becomes 0."""
    centred = x - x.mean(1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / norm.clamp(min=1e-30)


def floats_per_repeat(spec: SimulateSpec) -> int:
    """Numbers that a repeat holds in memory: weights and their gradients, and about five tensors
    per signal."""
    return sum(2 * rows * columns + 5 * spec.batch * rows for rows, columns in weight_shapes(spec))


def simulate(spec: SimulateSpec, state: State, device: torch.device) -> Record:
    """One block of repeats; the series holds every repeat, so that blocks pool exactly."""
    values = run_block(spec, state, device, partial(measure, spec), floats_per_repeat(spec))
    return record(spec, values)


def record(spec: SimulateSpec, values: Tensor) -> Record:
    """The files of a block from its measurements (repeats, layers + 1, columns)."""
    names = columns(spec)
    series = series_table(spec, "layer", names, values)
    values = values.double()  # only the statistics over repeats are computed in float64
    norms = values[:, :, names.index("gradient_norm")]
    forward = values[:, :, names.index("forward_variance")]
    backward = values[:, :, names.index("backward_variance")]
    # R_f and R_b of the whole network: output over input, and input over output.
    r_f, r_b = forward[:, -1] / forward[:, 0], backward[:, 0] / backward[:, -1]
    metrics: dict[str, Cell] = {
        "status": "done",
        "repeats": len(values),
        "first_gradient_norm": norms[:, 1].mean().item(),
        "last_gradient_norm": norms[:, -1].mean().item(),
        "R_f": r_f.mean().item(),
        "R_f_se": r_f.std().item() / len(values) ** 0.5,
        "R_b": r_b.mean().item(),
        "R_b_se": r_b.std().item() / len(values) ** 0.5,
    }
    return Record(metrics, series, summary_table(names, values))
