"""Orthogonal regularization (Ghost app. B.2): to the loss is added, for every weight W of D x d that it takes,

l(W) = eta |(n / tr S) S - I_n|_F^2,  S = W^T W if D >= d, else W W^T,  n = min(D, d).

It vanishes where the smaller side is orthogonal, whatever its length. As in the paper's code the trace is a constant
unless `through_trace`; the paper's formula, read literally, has a gradient through it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ghostgrad import init
from ghostgrad.checks import InputError
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


def penalty(matrices: Sequence[Tensor], eta: float, through_trace: bool = False) -> Tensor:
    """The sum of l(W), a scalar; those of one shape are computed together, in the weights' own precision."""
    shapes: dict[tuple[int, int], list[Tensor]] = {}
    for matrix in matrices:
        wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
        shapes.setdefault(tuple(wide.shape), []).append(wide)
    with torch.autocast(matrices[0].device.type, enabled=False):
        return eta * torch.stack([_squares(torch.stack(wide), through_trace) for wide in shapes.values()]).sum()


def _squares(wide: Tensor, through_trace: bool) -> Tensor:
    """|(n / tr S) S - I_n|_F^2, S = A A^T, summed over the matrices A of (layers, n, m), n <= m."""
    gram, n = wide @ wide.mT, wide.shape[1]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    scale = n / ((trace if through_trace else trace.detach()) + TINY)
    return (scale[:, None, None] * gram - torch.eye(n, dtype=gram.dtype, device=gram.device)).square().sum()
