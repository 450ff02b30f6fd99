"""Every initialization of the four papers.

Weights are (…, out, in); leading dimensions are independent networks. Tests compare each one with
its definition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostgrad.checks import InputError


def orthonormal_columns(gaussian: Tensor) -> Tensor:
    """R with R^T R = I, uniformly distributed, from a standard Gaussian G (…, D, d), D >= d.

    R is the Q of the decomposition G = Q U in which the diagonal of U is positive; with the signs
    that a QR routine happens to give, Q is not uniform. A tall Gaussian is well conditioned, so
    there U is the Cholesky factor of G^T G, which is several times faster on a GPU than Householder
    reflections and as exact. A square one is not well conditioned.
    """
    rows, columns = gaussian.shape[-2:]
    if rows >= 2 * columns:
        gram = gaussian.mT @ gaussian
        upper = torch.linalg.cholesky(gram, upper=True)  # its diagonal is positive
        # Q = G U^-1
        q: Tensor = torch.linalg.solve_triangular(upper, gaussian, upper=True, left=False)
        return q
    return _qr_with_positive_diagonal(gaussian)


def _qr_with_positive_diagonal(matrix: Tensor) -> Tensor:
    """The Q (…, D, d) of the decomposition Q U of `matrix` in which U's diagonal is positive."""
    q, upper = torch.linalg.qr(matrix)
    signs = torch.sign(torch.diagonal(upper, dim1=-2, dim2=-1)).unsqueeze(-2)
    signed: Tensor = q * signs
    return signed


def seqnet_matrix(kind: str, gaussian: Tensor) -> Tensor:
    """The first weight W (…, kd, d) of a SeqNet module from a standard Gaussian of that shape
    (Ghost app. B.2).

    random and untied: W_ij ~ N(0, 2/(kd)). orthogonal: W = sqrt2 R with R^T R = I. looks-linear:
    W = sqrt2 [R; -R] with R in R^{(kd/2) x d}. The second weight is W^T, except for untied, where
    it is drawn independently.
    """
    rows = gaussian.shape[-2]
    match kind:
        case "random" | "untied":
            std: float = (2 / rows) ** 0.5
            return gaussian * std
        case "orthogonal":
            return orthonormal_columns(gaussian) * 2**0.5
        case "looks-linear":
            half = orthonormal_columns(gaussian[..., : rows // 2, :])
            return torch.cat([half, -half], dim=-2) * 2**0.5
    raise ValueError(f"unknown module_init {kind!r}")


ORTHONORMAL = ("orthogonal", "looks-linear")
"""The kinds of `seqnet_matrix` whose W has orthogonal columns."""


def seqnet_matrices(
    kind: str, d: int, k: int, out: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Both weights of a SeqNet module, W (kd, d) and M (out, kd), out >= d (Ghost app. B.2).

    Drawn from torch's global generator if no other one is given. The first d rows of M are W^T or,
    untied, drawn as W is. The paper does not say what the other rows are, which exist where a stage
    ends. Here they follow the same law as W or, for orthogonal and looks-linear, are orthogonal to
    all rows before and as long as they are, as in its author's code. Raises InputError where that
    is impossible because out > kd.
    """
    if kind in ORTHONORMAL and out > k * d:
        problem = f"{kind} cannot give {out} orthogonal outputs to a module of {k * d} channels"
        raise InputError(f"seqnet_init: {problem}; use position first or second")
    first = seqnet_matrix(kind, torch.randn(k * d, d, generator=generator))
    second = first.mT
    if kind == "untied":
        second = seqnet_matrix(kind, torch.randn(k * d, d, generator=generator)).mT
    if out == d:
        return first, second
    drawn = torch.randn(k * d, out - d, generator=generator)
    if kind not in ORTHONORMAL:
        return first, torch.cat([second, seqnet_matrix(kind, drawn).mT])
    # The columns of W are orthogonal and have one length, so QR keeps them (divided by it) and
    # turns the drawn columns behind them into an orthonormal complement.
    length = torch.linalg.vector_norm(first[:, 0])
    basis = _qr_with_positive_diagonal(torch.cat([first / length, drawn], 1))
    complement = basis[:, d:] * length
    return first, torch.cat([second, complement.mT])


def center_tap(weight: Tensor) -> Tensor:
    """The center tap (out, in) of a convolution's weight (out, in, h, w), h and w odd; a view."""
    return weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]


def set_center_tap(weight: Tensor, tap: Tensor) -> None:
    """Set a convolution's weight to `tap` (out, in) at its center and to 0 elsewhere (Ghost
    sec. 4.2)."""
    with torch.no_grad():
        weight.zero_()
        center_tap(weight).copy_(tap)


def initialize(model: nn.Module, kind: str, generator: torch.Generator, std: float = 0.01) -> None:
    """Draw the weights of all convolutions and linear layers, in the order of `modules()`.

    xavier_uniform: U(-a, a) with a = sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010).
    he_normal: N(0, 2/fan_out) (He et al. 2015; that of the convolutions in torchvision's ResNet).
    lecun_normal: N(0, 1/fan_in) (for SELU, Klambauer et al. 2017). normal: N(0, std^2).
    Biases become 0; BN keeps gamma 1 and beta 0.
    """
    for module in model.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        weight = module.weight
        match kind:
            case "xavier_uniform":
                nn.init.xavier_uniform_(weight, generator=generator)
            case "he_normal":
                nn.init.kaiming_normal_(
                    weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
            case "lecun_normal":
                # torch's gain of "linear" is 1, that of "selu" is not LeCun's.
                nn.init.kaiming_normal_(
                    weight, mode="fan_in", nonlinearity="linear", generator=generator
                )
            case "normal":
                nn.init.normal_(weight, std=std, generator=generator)
            case _:
                raise ValueError(f"unknown init {kind!r}")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
