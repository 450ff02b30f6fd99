"""Initializations against their definitions, numpy's QR and torch.nn.init."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from ghostgrad.models import init
from ghostgrad.rng import generator

# (rows, columns); QR is used below twice as many rows as columns, Cholesky from there on.
TALL = [
    (8, 8),
    (12, 8),
    (15, 8),
    (16, 8),
    (64, 8),
    (5, 1),
    (1, 1),
]
LAYERS = {"convolution": (6, 4, 3, 3), "1x1": (8, 6, 1, 1), "linear": (5, 8)}


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator(seed, "test"))


def model() -> nn.Sequential:
    """A model with every kind of layer that initialize() handles."""
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=True),
        nn.BatchNorm2d(6),
        nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def weights(net: nn.Module) -> list[Tensor]:
    return [
        m.weight.detach().clone() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    ]


def initialized(kind: str, seed: int = 0) -> nn.Sequential:
    net = model()
    init.initialize(net, kind, generator(seed, "init"))
    return net


# --- orthonormal columns ---


@pytest.mark.parametrize("shape", TALL)
def test_columns_are_orthonormal(shape):
    q = init.orthonormal_columns(gaussian(2, 3, *shape))
    unit = torch.eye(shape[1], dtype=torch.float64).expand(2, 3, -1, -1)
    torch.testing.assert_close(q.mT @ q, unit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", TALL)
def test_columns_are_numpys_sign_corrected_q(shape):
    """G = Q U with a positive diagonal of U is unique, so both ways of computing it give the same
    Q."""
    drawn = gaussian(4, *shape)
    for ours, matrix in zip(init.orthonormal_columns(drawn).numpy(), drawn.numpy(), strict=True):
        q, upper = np.linalg.qr(matrix)
        np.testing.assert_allclose(ours, q * np.sign(np.diag(upper)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("rows", [256, 512, 1024])
def test_columns_are_orthonormal_in_float32(rows):
    """At the paper's width, the columns are orthonormal to within 1e-5, whichever way they are
    computed."""
    q = init.orthonormal_columns(gaussian(rows, 256).float())
    assert q.dtype == torch.float32
    torch.testing.assert_close(q.mT @ q, torch.eye(256), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3), (6, 3)])
def test_columns_are_uniformly_distributed(shape):
    """The entries of a uniform R have mean 0 and variance 1/D. Those of Householder's Q without the
    sign correction do not, because its diagonal leans to one side. The tolerance is four standard
    errors over 20,000 matrices."""
    q, count = init.orthonormal_columns(gaussian(20_000, *shape)), 20_000
    assert q.mean(0).abs().max() < 4 * math.sqrt(1 / shape[0] / count)
    squares = q.square()
    assert ((squares.mean(0) - 1 / shape[0]).abs() < 4 * squares.std(0) / math.sqrt(count)).all()


# --- SeqNet modules ---


@pytest.mark.parametrize("k", [2, 4])
def test_looks_linear_module_is_linear(k):
    """L-Init with M = W^T gives y = 2x for every x (E-G14)."""
    first = init.seqnet_matrix("looks-linear", gaussian(3, 16 * k, 16))
    x = gaussian(3, 16, 50, seed=1)
    torch.testing.assert_close(first.mT @ torch.relu(first @ x), 2 * x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", ["random", "untied", "orthogonal"])
def test_other_modules_are_not_linear(kind, k):
    """2 M relu(Wx) is the sum of a linear part, M (relu(Wx) - relu(-Wx)) = M W x, and of an even
    part, M (relu(Wx) + relu(-Wx)), which does not vanish in these modules."""
    first = init.seqnet_matrix(kind, gaussian(16 * k, 16))
    x = gaussian(16, 50, seed=1)
    even = first.mT @ (torch.relu(first @ x) + torch.relu(first @ -x))
    assert even.norm() > 0.1 * x.norm()


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", ["random", "untied"])
def test_random_module_has_variance_two_over_kd(kind, k):
    """W_ij ~ N(0, 2/(kd)), where kd is the number of rows. There are 65,536 draws or more."""
    drawn = gaussian(4, 128 * k, 64)
    first = init.seqnet_matrix(kind, drawn)
    torch.testing.assert_close(first, drawn * math.sqrt(2 / (128 * k)))
    count = first.numel()
    assert first.var().item() == pytest.approx(2 / (128 * k), rel=4 * math.sqrt(2 / count))
    assert first.mean().abs() < 4 * math.sqrt(2 / (128 * k) / count)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_orthogonal_module_is_twice_an_isometry(k):
    """W^T W = 2I, so the half of the signal's square that relu lets through has the signal's
    scale."""
    first = init.seqnet_matrix("orthogonal", gaussian(8 * k, 8))
    torch.testing.assert_close(
        first.mT @ first, 2 * torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("k", [2, 4])
def test_looks_linear_module_mirrors_an_orthonormal_half(k):
    """W = sqrt2 [R; -R] with R^T R = I, where R is made from the first half of the drawn rows."""
    drawn = gaussian(8 * k, 8)
    top, bottom = init.seqnet_matrix("looks-linear", drawn).chunk(2)
    assert torch.equal(bottom, -top)
    torch.testing.assert_close(top, math.sqrt(2) * init.orthonormal_columns(drawn[: 4 * k]))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="xavier"):
        init.seqnet_matrix("xavier", gaussian(4, 2))
    with pytest.raises(ValueError, match="orthogonal"):
        initialized("orthogonal")


# --- whole models ---


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """The fan-in and the fan-out of a layer; a convolution's window counts in both."""
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def drawn(kind: str, seed: int = 0) -> list[Tensor]:
    """The weights by the formulas of Glorot and Bengio (2010) and He et al. (2015), drawn layer by
    layer."""
    stream, out = generator(seed, "init"), []
    for shape in LAYERS.values():
        fan_in, fan_out = fans(shape)
        if kind == "xavier_uniform":
            a = math.sqrt(6 / (fan_in + fan_out))
            out.append(torch.empty(shape).uniform_(-a, a, generator=stream))
        else:
            out.append(torch.empty(shape).normal_(0, math.sqrt(2 / fan_out), generator=stream))
    return out


@pytest.mark.parametrize("kind", ["xavier_uniform", "he_normal"])
def test_models_are_drawn_by_the_formulas(kind):
    for actual, expected in zip(weights(initialized(kind)), drawn(kind), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["xavier_uniform", "he_normal"])
def test_models_are_drawn_as_torch_does(kind):
    """The weights equal those of nn.init, which is called for one layer after the other with the
    same stream."""
    stream = generator(0, "init")
    for actual, shape in zip(weights(initialized(kind)), LAYERS.values(), strict=True):
        expected = torch.empty(shape)
        if kind == "xavier_uniform":
            nn.init.xavier_uniform_(expected, generator=stream)
        else:
            nn.init.kaiming_normal_(expected, mode="fan_out", nonlinearity="relu", generator=stream)
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(32, 48, 3), nn.Linear(300, 200)], ids=["convolution", "linear"]
)
def test_weights_follow_the_stated_laws(layer):
    """The weights follow U(-a, a) and N(0, 2/fan_out) according to a Kolmogorov-Smirnov test."""
    fan_in, fan_out = fans(layer.weight.shape)
    a = math.sqrt(6 / (fan_in + fan_out))
    for kind, law in (
        ("xavier_uniform", ("uniform", (-a, 2 * a))),
        ("he_normal", ("norm", (0, math.sqrt(2 / fan_out)))),
    ):
        init.initialize(layer, kind, generator(0, "init"))
        assert kstest(layer.weight.detach().flatten().numpy(), *law).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["xavier_uniform", "he_normal"])
def test_a_model_depends_on_its_generator_alone(kind):
    """The weights depend neither on their earlier values nor on torch's global generator, whose
    state does not change."""
    torch.manual_seed(1)
    first = weights(initialized(kind))
    torch.manual_seed(2)
    net = model()
    state = torch.get_rng_state()
    init.initialize(net, kind, generator(0, "init"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(net), strict=True))
    other = weights(initialized(kind, seed=1))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", ["xavier_uniform", "he_normal"])
def test_biases_are_zero_and_batch_norm_is_left_alone(kind):
    """BN keeps whatever gamma, beta and running statistics it had, here 1.5, 2.5 and so on."""
    net = model()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert (len(norms), sum(layer.bias is not None for layer in layers)) == (2, 2)
    for norm in norms:
        for number, tensor in enumerate(norm.state_dict().values(), 1):
            tensor.fill_(number + 0.5)  # of the norm itself: a state dict shares its memory
    before = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms]
    init.initialize(net, kind, generator(0, "init"))
    for layer in layers:
        assert layer.bias is None or not layer.bias.any()
    for norm, kept in zip(norms, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in norm.state_dict().items())
