"""The initializations of a SeqNet have the properties of the Ghost paper (sec. 4, app. B.2)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ghostgrad.checks import InputError
from ghostgrad.data.builtin import digits as read_digits
from ghostgrad.models import init
from ghostgrad.models.seqnet import ModuleShape, SeqModule
from ghostgrad.tasks import classify
from ghostgrad.theory import propositions
from tests.unit.networks import build, images, module, modules, spec, step


def before_norm(made: SeqModule, x: Tensor) -> Tensor:
    """Return the output of a module before its BN."""
    wide = made.relu(made.first(x))
    return made.second(wide, made.first.weight) if made.tied else made.second(wide)


KINDS = ["random", "orthogonal", "looks-linear"]


@pytest.mark.parametrize("kind", [*KINDS, "untied"])
@pytest.mark.parametrize("depth", [18, 50])
def test_only_the_middle_taps_start_away_from_zero(depth, kind):
    """Taps other than the middle one start at 0; M starts as W^T, or independent of it."""
    for m in modules(build(f"seqnet{depth}", stem_filters=8, seqnet_init=kind, tie_conv2=False)):
        weight, d = m.first.weight.detach(), m.first.in_channels
        assert torch.count_nonzero(weight) == weight[:, :, 0, 0].numel()
        first, second = init.center_tap(weight), init.center_tap(m.second.weight.detach())[:d]
        if kind == "untied":
            likeness = (first.mT * second).mean() / (first.std() * second.std())
            assert abs(likeness) < 5 / math.sqrt(first.numel())
        else:
            assert torch.equal(second, first.mT)


@pytest.mark.parametrize("keys", [{}, {"position": "second"}, {"position": "third"}], ids=str)
def test_zero_taps_are_trained(keys):
    """After one update, no tap of a 3x3 kernel is 0 any more."""
    net = build("seqnet50", stem_filters=4, **keys)
    assert step(net, spec("seqnet50")) == []
    wide = [m.first.weight for m in modules(net) if m.first.kernel_size == (3, 3)]
    wide += [m.second.ring.weight for m in modules(net) if m.tied and m.second.ring is not None]
    assert len(wide) == 16
    assert all((weight.flatten(2).abs().sum((0, 1)) > 0).all() for weight in wide)


@pytest.mark.parametrize("kind", ["orthogonal", "looks-linear"])
def test_more_orthogonal_rows_than_channels_are_refused_in_one_line(kind):
    """No 4d rows of 2d entries are orthogonal.

    With the 3x3 in third place, its module comes last and would need them in the last stage.
    """
    with pytest.raises(InputError, match=r"^seqnet_init: .*; use position first or second$"):
        build("seqnet50", stem_filters=4, position="third", seqnet_init=kind)


@pytest.mark.parametrize("kind", ["random", "untied"])
def test_random_rows_have_their_variance(kind):
    """The entries have variance 2/(kd), including those of the rows that widen the output."""
    torch.manual_seed(0)
    first, second = init.seqnet_matrices(kind, 64, 4, 256)
    for drawn in (first, second, second[64:]):
        assert drawn.var().item() == pytest.approx(2 / 256, rel=4 * math.sqrt(2 / drawn.numel()))


@pytest.mark.parametrize(("k", "out"), [(2, 8), (2, 16), (4, 8), (4, 16), (4, 32)])
@pytest.mark.parametrize(("kind", "square"), [("orthogonal", 2), ("looks-linear", 4)])
def test_orthogonal_rows(kind, square, k, out):
    """W^T W and M M^T are multiples of I, including the rows of M that widen the output."""
    torch.manual_seed(0)
    first, second = init.seqnet_matrices(kind, 8, k, out)
    torch.testing.assert_close(first.mT @ first, square * torch.eye(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(second @ second.mT, square * torch.eye(out), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("k", "out"), [(2, 16), (4, 32)])
@pytest.mark.parametrize(("kind", "square"), [("orthogonal", 2), ("looks-linear", 4)])
def test_rows_that_widen_a_tied_convolution_are_orthogonal_to_the_others(kind, square, k, out):
    made = module(8, k, (1, 1), out, kind, tied=True)
    second = torch.cat([init.center_tap(made.first.weight).mT, made.second.rest.weight[:, :, 0, 0]])
    unit = torch.eye(out, dtype=torch.float64)
    torch.testing.assert_close(second @ second.mT, square * unit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("k", "sizes"), [(2, (3, 1)), (2, (1, 3)), (4, (1, 1))])
def test_a_looks_linear_module_is_linear(k, sizes, tied):
    """The module is linear whatever R is; BN in evaluation mode is linear as well.

    M relu(W x) = 2x holds less exactly, because R is orthogonal only up to rounding in float32.
    """
    made, x, y = (
        module(8, k, sizes, kind="looks-linear", tied=tied),
        images(2, 8, 5, 5),
        images(2, 8, 5, 5, seed=2),
    )
    torch.testing.assert_close(before_norm(made, x), 2 * x, rtol=0, atol=1e-5)
    made.eval()
    torch.testing.assert_close(made(x - 3 * y), made(x) - 3 * made(y), rtol=0, atol=1e-12)


def test_what_is_not_linear_with_l_init():
    """L-Init is not linear in the rows that widen the output, nor behind a pool.

    These rows are orthogonal to W and depend on |Rx| only. A random module is not linear either.
    """
    x, y = images(2, 8, 6, 6), images(2, 8, 6, 6, seed=2)
    wide = before_norm(module(8, 4, (1, 1), 16, "looks-linear"), x)[:, 8:]
    turned = before_norm(module(8, 4, (1, 1), 16, "looks-linear"), -x)[:, 8:]
    torch.testing.assert_close(wide, turned, rtol=0, atol=1e-5)
    assert wide.std() > 0.1
    pooled = SeqModule(8, ModuleShape(2, 3, 1), 8, False, True, "none")
    pooled.draw("looks-linear")
    for made in (pooled.double().eval(), module().eval()):
        gap = made(x + y) - made(x) - made(y)
        assert gap.norm() > 0.05 * made(x).norm()


@pytest.mark.parametrize("kind", ["random", "untied"])
@pytest.mark.parametrize("k", [2, 4])
def test_ratios_at_initialization_are_those_of_proposition_4_1(kind, k):
    """R_f and R_b of the two convolutions with the ReLU agree with the closed forms.

    They are measured over 4096 positions of i.i.d. inputs and derivatives; the means over 16
    modules hold to four standard errors.
    """
    d, measured = 64, []
    for seed in range(16):
        torch.manual_seed(seed)
        made = SeqModule(d, ModuleShape(k, 3 if k == 2 else 1, 1), d, False, False, "none")
        made.draw(kind)
        x, top = torch.randn(64, d, 8, 8, requires_grad=True), torch.randn(64, d, 8, 8)
        y = before_norm(made, x)
        (gradient,) = torch.autograd.grad(y, x, top)
        var = [v.transpose(0, 1).flatten(1).var(1).mean() for v in (x, y, gradient, top)]
        measured.append(torch.stack([var[1] / var[0], var[2] / var[3]]))
    means, errors = torch.stack(measured).mean(0), torch.stack(measured).std(0) / 4
    expected = (
        propositions.untied_ratios(k) if kind == "untied" else propositions.tied_ratios(k, k * d)
    )
    for mean, error, ratio in zip(means.tolist(), errors.tolist(), expected, strict=True):
        assert abs(mean - ratio) < 4 * error
        assert error < 0.02 * ratio


@pytest.mark.parametrize("model", ["seqnet18", "seqnet50"])
def test_weights_follow_from_spec_and_seed(model):
    digits = read_digits()
    keys = spec(model, stem_filters=4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (classify.new_model(keys, digits).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    other = classify.new_model(replace(keys, seed=1), digits).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["stages.0.0.branch.0.first.weight"], other["stages.0.0.branch.0.first.weight"]
    )
