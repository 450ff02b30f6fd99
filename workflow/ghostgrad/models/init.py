"""Every initialization of the four papers. Weights are (…, out, in); leading dimensions are independent networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def orthonormal_columns(gaussian: Tensor) -> Tensor:
    """R with R^T R = I, uniformly distributed, from a Gaussian G (…, D, d), D >= d: the Q of G = Q U with U's diagonal
    positive (with other signs Q is not uniform).

    A tall Gaussian is well conditioned, so U comes from the Cholesky factor of G^T G, several times faster on a GPU
    than Householder reflections and as exact; a square one is not.
    """
    rows, columns = gaussian.shape[-2:]
    if rows >= 2 * columns:
        upper = torch.linalg.cholesky(gaussian.mT @ gaussian, upper=True)
        return torch.linalg.solve_triangular(upper, gaussian, upper=True, left=False)
    q, upper = torch.linalg.qr(gaussian)
    return q * torch.sign(torch.diagonal(upper, dim1=-2, dim2=-1)).unsqueeze(-2)


def seqnet_module(kind: str, gaussian: Tensor) -> Tensor:
    """The first weight W (…, kd, d) of a SeqNet module from a standard Gaussian of that shape (Ghost app. B.2).

    random and untied: W_ij ~ N(0, 2/(kd)). orthogonal: W = sqrt2 R, R^T R = I. looks-linear: W = sqrt2 [R; -R] with
    R in R^{(kd/2) x d}. The second weight is W^T, but for untied, where it is drawn independently.
    """
    rows = gaussian.shape[-2]
    match kind:
        case "random" | "untied":
            return gaussian * (2 / rows) ** 0.5
        case "orthogonal":
            return orthonormal_columns(gaussian) * 2**0.5
        case "looks-linear":
            half = orthonormal_columns(gaussian[..., : rows // 2, :])
            return torch.cat([half, -half], dim=-2) * 2**0.5
    raise ValueError(f"unknown module_init {kind!r}")


ORTHONORMAL = ("orthogonal", "looks-linear")  # the kinds of seqnet_module whose W has orthogonal columns


def seqnet_pair(kind: str, d: int, k: int, out: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Both weights of a SeqNet module, W (kd, d) and M (out, kd), out >= d (Ghost app. B.2); from torch's global
    generator if no other is given.

    The first d rows of M are W^T or, untied, drawn as W is. The paper does not say what the others are where a stage
    ends; here, of W's law, or orthogonal to all rows before and as long as they are, as in its author's code.
    """
    first = seqnet_module(kind, torch.randn(k * d, d, generator=generator))
    second = first.mT
    if kind == "untied":
        second = seqnet_module(kind, torch.randn(k * d, d, generator=generator)).mT
    if out == d:
        return first, second
    drawn = torch.randn(k * d, out - d, generator=generator)
    if kind not in ORTHONORMAL:
        return first, torch.cat([second, seqnet_module(kind, drawn).mT])
    length = torch.linalg.vector_norm(first[:, 0])
    q, upper = torch.linalg.qr(torch.cat([first / length, drawn], 1))
    more = (q * torch.sign(torch.diagonal(upper)))[:, d:] * length
    return first, torch.cat([second, more.mT])


def centre(weight: Tensor) -> Tensor:
    """The middle tap (out, in) of a convolution's weight (out, in, h, w), h and w odd; a view."""
    return weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]


def centre_only(weight: Tensor, middle: Tensor) -> None:
    """Set the weight of a convolution to `middle` (out, in) at its middle tap and to 0 elsewhere (Ghost sec. 4.2)."""
    with torch.no_grad():
        weight.zero_()
        centre(weight).copy_(middle)


def initialize(model: nn.Module, kind: str, generator: torch.Generator, std: float = 0.01) -> None:
    """Draw the weights of every convolution and linear layer of `model`, in the order of `modules()`; biases become 0.

    xavier_uniform: U(-a, a), a = sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010). he_normal: N(0, 2/fan_out)
    (He et al. 2015; torchvision's ResNet, for its convolutions). lecun_normal: N(0, 1/fan_in) (SELU's, Klambauer et al.
    2017). normal: N(0, std^2). BN keeps gamma 1 and beta 0.
    """
    for module in model.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        if kind == "xavier_uniform":
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif kind == "he_normal":
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif kind == "lecun_normal":
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear", generator=generator)
        elif kind == "normal":
            nn.init.normal_(module.weight, std=std, generator=generator)
        else:
            raise ValueError(f"unknown init {kind!r}")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
