"""Orthogonal regularization (Ghost app. B.2): to the loss is added, for every weight W of D x d that it takes,

l(W) = eta |(n / tr S) S - I_n|_F^2,  S = W^T W if D >= d, else W W^T,  n = min(D, d).

It vanishes where the smaller side is orthogonal, whatever its length. As in the paper's code the trace is a constant
for the gradient; the paper's formula, read literally, has a gradient through it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghostgrad.checks import InputError
from ghostgrad.models import init
from ghostgrad.models.seqnet import SeqModule, SeqNet

TINY = 1e-8  # what the paper's code adds to the trace


def weights(model: nn.Module) -> list[Tensor]:
    """The matrices (out, in) that are regularized, in the order of modules(): every 1x1 convolution's, shortcuts too,
    which is what the paper's code takes; InputError for a network that has none.

    So Conv3, Conv4 and, where it is untied, Conv2 of a SeqBottle, not its 3x3; of a tied convolution the rows that are
    its own. In a SeqBasic with a tied Conv2, which would have none, the matrix that both share.
    """
    found, basic = [], isinstance(model, SeqNet) and not model.bottleneck
    for module in model.modules():
        if basic and isinstance(module, SeqModule) and module.tied:
            found.append(init.centre(module.first.weight))
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            found.append(module.weight.flatten(1))
    if not found:
        raise InputError("orthogonal regularization: the network has no 1x1 convolution")
    return found


def penalty(matrices: Sequence[Tensor], eta: float) -> Tensor:
    """The sum of l(W), a scalar; those of one shape are computed together, in the weights' own precision."""
    shapes: dict[tuple[int, int], list[Tensor]] = {}
    for matrix in matrices:
        wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
        shapes.setdefault(tuple(wide.shape), []).append(wide)
    with torch.autocast(matrices[0].device.type, enabled=False):
        parts = [_Penalty.apply(torch.stack(wide), eta) for wide in shapes.values()]
    return torch.stack(parts).sum()


class _Penalty(torch.autograd.Function):
    """eta |R|_F^2, R = s S - I_n, S = A A^T, s = n / tr S, summed over the matrices A of (layers, n, m), n <= m.

    Its gradient is 4 eta s R A; one product, where autograd, which
    does not know that R is symmetric, computes two.
    """

    @staticmethod
    def forward(ctx: Any, wide: Tensor, eta: float) -> Tensor:
        rest, n = wide @ wide.mT, wide.shape[1]
        trace = rest.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + TINY
        scale = n / trace
        rest.mul_(scale).diagonal(dim1=1, dim2=2).sub_(1)
        squares = rest.square().sum((1, 2), keepdim=True)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(4 * (rest.mul_(eta).mul_(scale) @ wide))
        return eta * squares.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope * ctx.saved_tensors[0], None
