"""Orthogonal regularization (Ghost app. B.2).

For every regularized weight W of D x d, the loss has the additional term

    l(W) = eta |(n / tr S) S - I_n|_F^2,  S = W^T W if D >= d, else W W^T,  n = min(D, d).

It vanishes where the smaller side of W is orthogonal, whatever its length. As in the paper's code,
the trace is a constant for the gradient; the paper's formula, read literally, has a gradient
through the trace as well.
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

TRACE_EPS = 1e-8  # added to the trace, as in the paper's code


def regularized_weights(model: nn.Module) -> list[Tensor]:
    """The matrices (out, in) that are regularized, in the order of `modules()`.

    They are the weights of all 1x1 convolutions, shortcuts included, as in the paper's code. In a
    SeqBottle these are Conv3, Conv4 and, where it is not tied, Conv2. A tied convolution has no
    weight of its own for its first d outputs, which are the transpose of the other convolution's;
    only its further rows, a 1x1 convolution `rest`, are taken. In a SeqBasic whose Conv2 is tied,
    that would leave nothing, so the matrix is taken that both convolutions share: the center tap of
    the 3x3. Raises InputError for a network without a 1x1 convolution.
    """
    matrices = []
    has_basic_blocks = isinstance(model, SeqNet) and not model.bottleneck
    for module in model.modules():
        if has_basic_blocks and isinstance(module, SeqModule) and module.tied:
            matrices.append(init.center_tap(module.first.weight))
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            matrices.append(module.weight.flatten(1))
    if not matrices:
        raise InputError("orthogonal regularization: the network has no 1x1 convolution")
    return matrices


def penalty(matrices: Sequence[Tensor], eta: float) -> Tensor:
    """The sum of l(W) over `matrices`, a scalar, in the precision of the weights."""
    # Matrices of one shape are stacked and computed together; all lie on their longer side.
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
        by_shape.setdefault(tuple(wide.shape), []).append(wide)
    with torch.autocast(matrices[0].device.type, enabled=False):
        parts: list[Tensor] = [
            _Penalty.apply(torch.stack(group), eta) for group in by_shape.values()
        ]
    return torch.stack(parts).sum()


class _Penalty(torch.autograd.Function):
    """eta |R|_F^2 with R = s S - I_n, S = A A^T, s = n / tr S, summed over matrices A.

    The matrices are (layers, n, m) with n <= m. With s held constant, the gradient with respect to
    A is 4 eta s R A, because R is symmetric. That is one product; autograd does not know of the
    symmetry and computes two.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, eta: float) -> Tensor:
        gram, n = a @ a.mT, a.shape[1]  # S (layers, n, n)
        trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + TRACE_EPS
        scale = n / trace  # s (layers, 1, 1)
        # From here on the memory of S holds R = s S - I.
        residual = gram.mul_(scale)
        residual.diagonal(dim1=1, dim2=2).sub_(1)
        squared_norms = residual.square().sum((1, 2), keepdim=True)
        if ctx.needs_input_grad[0]:
            # The gradient is computed here, where R is at hand, and then R's memory holds eta s R.
            scaled_residual = residual.mul_(eta).mul_(scale)
            ctx.save_for_backward(4 * (scaled_residual @ a))
        return eta * squared_norms.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None
