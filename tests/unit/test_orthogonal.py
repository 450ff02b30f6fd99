"""Orthogonal regularization, compared with a loop over its formula, and the weights that it applies
to."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.training import orthogonal
from tests.unit.networks import build, unbuilt

SHAPES = [(6, 3), (3, 6), (4, 4), (6, 3), (2, 8), (1, 5)]


def matrices(seed: int = 0) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=stream, dtype=torch.float64).requires_grad_()
        for shape in SHAPES
    ]


def by_loop(weights: list[Tensor], eta: float, traces: list[float] | None = None) -> float:
    """The paper's formula, element by element; `traces` replace the matrices' own traces."""
    total = 0.0
    for index, weight in enumerate(weights):
        w = weight.tolist()
        if len(w) < len(w[0]):
            w = [list(column) for column in zip(*w, strict=True)]
        n = len(w[0])
        sigma = [[sum(row[i] * row[j] for row in w) for j in range(n)] for i in range(n)]
        trace = traces[index] if traces else sum(sigma[i][i] for i in range(n))
        total += sum((n / trace * sigma[i][j] - (i == j)) ** 2 for i in range(n) for j in range(n))
    return eta * total


def test_penalty_is_the_formula():
    weights = matrices()
    penalty = orthogonal.penalty(weights, 0.3)
    assert penalty.item() == pytest.approx(by_loop(weights, 0.3), rel=1e-7)


def test_gradient_is_that_of_finite_differences():
    """The trace is a constant for the gradient, so it keeps its value in the differences."""
    weights, step = matrices(), 1e-6
    traces = [w.square().sum().item() for w in weights]
    orthogonal.penalty(weights, 0.3).backward()
    for index, weight in enumerate(weights):
        numeric = torch.zeros_like(weight)
        for position in range(weight.numel()):
            ends = []
            for sign in (1, -1):
                moved = [w.detach().clone() for w in weights]
                moved[index].view(-1)[position] += sign * step
                ends.append(by_loop(moved, 0.3, traces))
            numeric.view(-1)[position] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(weight.grad, numeric, rtol=1e-5, atol=1e-7)


def test_gradient_is_autograds():
    """Autograd, through the formula as it is written, needs one matrix product more but gets the
    same gradient."""
    ours, plain = matrices(), matrices()
    orthogonal.penalty(ours, 0.3).backward()
    for weight in plain:
        wide = weight.mT if weight.shape[0] > weight.shape[1] else weight
        gram, n = wide @ wide.mT, len(wide)
        trace = gram.trace().detach() + orthogonal.TRACE_EPS
        (0.3 * (n / trace * gram - torch.eye(n)).square().sum()).backward()
    for actual, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_with_the_trace_held_fixed_the_length_has_a_gradient():
    """The formula read literally has none along W, because it does not depend on the length of
    W."""
    (weight,) = weights = matrices()[:1]
    orthogonal.penalty(weights, 1.0).backward()
    assert abs((weight.grad * weight).sum().item()) > 1e-3


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5)])
def test_it_vanishes_where_the_smaller_side_is_orthogonal(shape):
    """It vanishes whatever the length of the weight, and does not where the smaller side is not
    orthogonal."""
    rng = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(max(shape), min(shape), dtype=torch.float64, generator=rng))
    weight = 7 * (q if shape[0] > shape[1] else q.mT)
    assert orthogonal.penalty([weight], 1.0).item() < 1e-12
    assert orthogonal.penalty([weight + 0.1], 1.0).item() > 1e-3


def test_it_is_computed_in_the_weights_own_precision():
    weights = [w.detach().float() for w in matrices()]
    with torch.autocast("cpu", torch.bfloat16):
        penalty = orthogonal.penalty(weights, 1.0)
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(by_loop(weights, 1.0), rel=1e-5)


# --- which weights ---


def taken(model: str, **keys) -> Counter:
    return Counter(tuple(w.shape) for w in orthogonal.regularized_weights(unbuilt(model, **keys)))


def bottle(conv2: bool, conv4: bool = True, rest: bool = False) -> Counter:
    """The shapes of SeqNet50's regularized weights. They are Conv3 of every block and, if asked
    for, Conv2, Conv4, or only the `rest` of Conv4: its rows for the channels by which a stage
    widens."""
    shapes = Counter()
    for d, blocks, out in zip(
        (64, 128, 256, 512), (3, 4, 6, 3), (128, 256, 512, 2048), strict=True
    ):
        shapes[(4 * d, d)] += blocks
        shapes[(d, 2 * d)] += blocks * conv2
        shapes[(d, 4 * d)] += (blocks - 1) * conv4
        shapes[(out, 4 * d)] += conv4
        shapes[(out - d, 4 * d)] += rest
    return +shapes  # without those that do not occur


def test_a_seqbottle_has_its_free_1x1_convolutions_regularized():
    assert taken("seqnet50") == bottle(conv2=False)
    assert taken("seqnet50", tie_conv2=False) == bottle(conv2=True)
    assert taken("seqnet50", tie_conv4=True) == bottle(conv2=False, conv4=False, rest=True)


def test_other_positions_of_the_3x3_leave_other_convolutions_free():
    """At `second`, Conv1 is a 1x1 convolution and is taken too; the center tap of Conv2 is tied to
    it. At `third`, Conv3 and Conv4 come first and keep the width, and the 1x1 Conv2 behind the 3x3
    is tied, so only its rows for the channels by which a stage widens are taken."""
    second = bottle(conv2=False)
    third = Counter()
    for d, blocks, out in zip(
        (64, 128, 256, 512), (3, 4, 6, 3), (128, 256, 512, 2048), strict=True
    ):
        second[(2 * d, d)] += blocks
        third[(4 * d, d)] += blocks
        third[(d, 4 * d)] += blocks
        third[(out - d, 2 * d)] += 1
    assert taken("seqnet50", position="second") == second
    assert taken("seqnet50", position="third") == third


def test_a_seqbasic_has_conv2_regularized_or_once_the_matrix_that_it_shares():
    free, shared = taken("seqnet34"), taken("seqnet34", tie_conv2=True)
    expected, tied = Counter(), Counter()
    for d, blocks, out in zip((64, 128, 256, 512), (3, 4, 6, 3), (128, 256, 512, 512), strict=True):
        expected[(d, 2 * d)] += blocks - 1
        expected[(out, 2 * d)] += 1
        tied[(2 * d, d)] += blocks
        tied[(out - d, 2 * d)] += out > d
    assert free == expected
    assert shared == +tied


def test_a_skip_seqnet_has_its_shortcuts_regularized_too():
    expected = bottle(conv2=False) + Counter(
        {(128, 64): 1, (256, 128): 1, (512, 256): 1, (2048, 512): 1}
    )
    assert taken("seqnet50", skip=True) == expected


def test_a_resnet_has_its_1x1_convolutions_regularized():
    weights = orthogonal.regularized_weights(unbuilt("resnet50"))
    assert len(weights) == 2 * 16 + 4


@pytest.mark.parametrize("model", ["diracnet18", "isonet18"])
def test_a_network_without_1x1_convolutions_is_refused(model):
    with pytest.raises(InputError, match="no 1x1 convolution"):
        orthogonal.regularized_weights(unbuilt(model))


def reached(net: nn.Module) -> set[str]:
    """The names of the parameters for which the penalty has a gradient."""
    orthogonal.penalty(orthogonal.regularized_weights(net), 1e-4).backward()
    return {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}


def test_its_gradient_reaches_what_it_takes_and_nothing_else():
    net = build("seqnet50", stem_filters=4)
    convolutions = {
        name
        for name, m in net.named_modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)
    }
    assert reached(net) == {f"{name}.weight" for name in convolutions}


def test_its_gradient_reaches_the_center_tap_of_a_shared_matrix():
    net = build("seqnet18", stem_filters=4, tie_conv2=True)
    names = {
        name for name, _ in net.named_parameters() if name.endswith(("first.weight", "rest.weight"))
    }
    assert reached(net) == names
    gradient = net.stages[0][0].branch[0].first.weight.grad
    assert torch.count_nonzero(gradient) == gradient[:, :, 1, 1].numel()


@pytest.mark.parametrize("kind", ["orthogonal", "looks-linear"])
def test_orthogonal_initializations_are_at_its_minimum(kind):
    """R-Init, the default, is not."""
    for model in ("seqnet18", "seqnet50"):
        net = build(model, stem_filters=8, seqnet_init=kind)
        assert orthogonal.penalty(orthogonal.regularized_weights(net), 1.0).item() < 1e-6
        assert (
            orthogonal.penalty(
                orthogonal.regularized_weights(build(model, stem_filters=8)), 1.0
            ).item()
            > 1
        )
