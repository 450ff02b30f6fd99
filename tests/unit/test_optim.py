"""Update rules, compared with references that take one tensor at a time, with timm's optimizers and
with updates worked out by hand."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from timm.optim import Lamb, Lars
from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.models.build import build_network
from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.classify import OptimizerName
from ghostgrad.training.optimizers.build import OPTIMIZERS, build_optimizer
from ghostgrad.training.per_sample import SampleNorms
from ghostgrad.training.schedules import StepSchedule

REQUIRED = {"model": "mlp", "data": "digits", "batch": 8, "length": 10, "lr": 0.2, "seed": 0}


def spec(**changes):
    return expand("classify", {**REQUIRED, "momentum": 0.9, "weight_decay": 0.01, **changes})


def parameters() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(1)
    return [
        nn.Parameter(torch.randn(shape, generator=rng, dtype=torch.float64))
        for shape in [(3, 2), (4,), (2, 2, 3)]
    ]


class Bag(nn.Module):
    """Parameters without a network."""

    def __init__(self, members: list[nn.Parameter]):
        super().__init__()
        self.members = nn.ParameterList(members)


def gradients(step: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(100 + step)
    return [
        (1 + step) * torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in parameters()
    ]


def trained(optimizer, members: list[nn.Parameter], steps: int = 4) -> list[torch.Tensor]:
    for step in range(steps):
        for parameter, gradient in zip(members, gradients(step), strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [p.detach().clone() for p in members]


def ours(**changes) -> list[torch.Tensor]:
    members = parameters()
    return trained(build_optimizer(spec(**changes), Bag(members)), members)


def reference(
    rule: str, nesterov=False, raw=False, outside=False, eta=0.01, lr=0.2, mu=0.9, beta=0.01
):
    """The weights after four updates by the papers' rules, computed value by value."""
    weights = []
    for k, start in enumerate(parameters()):
        w = start.detach().flatten().tolist()
        m = [0.0] * len(w)
        for step in range(4):
            g = gradients(step)[k].flatten().tolist()
            d = [a + beta * b for a, b in zip(g, w, strict=True)]
            ratio = eta * math.hypot(*w) / (math.hypot(*g) + beta * math.hypot(*w))
            if rule == "lars":
                inside, gamma = (ratio, lr) if outside else (lr * ratio, 1)
                m = [mu * a + inside * b for a, b in zip(m, d, strict=True)]
                w = [a - gamma * b for a, b in zip(w, m, strict=True)]
            elif rule == "larc":
                d = [min(ratio / lr, 1) * a for a in d]
                m = [mu * a + b for a, b in zip(m, d, strict=True)]
                h = [a + mu * b for a, b in zip(d, m, strict=True)] if nesterov else m
                w = [a - lr * b for a, b in zip(w, h, strict=True)]
            elif rule == "lalc":
                m = [mu * a + b for a, b in zip(m, d, strict=True)]
                h = [a + mu * b for a, b in zip(d, m, strict=True)] if nesterov else m
                bound = ratio if raw else eta * math.hypot(*w) / math.hypot(*h)
                w = [a - min(lr, bound) * b for a, b in zip(w, h, strict=True)]
        weights.append(torch.tensor(w, dtype=torch.float64).reshape(start.shape))
    return weights


@pytest.mark.parametrize(
    ("rule", "ours_too"),
    [
        ("lars", {}),
        ("larc", {}),
        ("larc", {"nesterov": "nesterov"}),
        ("lalc", {}),
        ("lalc", {"nesterov": "nesterov"}),
        ("lalc", {"raw": "raw_norm"}),
    ],
)
@pytest.mark.parametrize("eta", [0.001, 0.3, 30.0])
def test_a_rule_is_the_papers(rule, ours_too, eta):
    """With the three coefficients, LARC and LALC limit the update of every tensor, of some, and of
    none."""
    expected = reference(rule, eta=eta, **dict.fromkeys(ours_too, True))
    actual = ours(optimizer=rule, eta=eta, **dict.fromkeys(ours_too.values(), True))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_every_rule_that_a_spec_may_name_has_its_class():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_papers(nesterov):
    expected = reference("lalc", nesterov=nesterov, eta=1e9)  # the bound has no effect
    for a, b in zip(ours(optimizer="sgd", nesterov=nesterov), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_lars_larc_and_lamb_are_timms():
    options = {"lr": 0.2, "weight_decay": 0.01}
    cases = [
        (Lars, {"momentum": 0.9, "trust_coeff": 0.01, "eps": 0.0}, {"optimizer": "lars"}),
        (
            Lars,
            {"momentum": 0.9, "trust_coeff": 0.01, "eps": 0.0, "trust_clip": True},
            {"optimizer": "larc"},
        ),
        (Lamb, {"max_grad_norm": None, "eps": 1e-6, "betas": (0.9, 0.999)}, {"optimizer": "lamb"}),
    ]
    for theirs, extra_options, changes in cases:
        members = parameters()
        expected = trained(theirs(members, **options, **extra_options), members)
        for a, b in zip(ours(**changes), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_lalc_by_hand():
    """|w| = 5, h = g = (0, 30): eta |w| / |h| = 0.05/30 is below gamma, so the step has the length
    eta |w|."""
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = build_optimizer(spec(optimizer="lalc", weight_decay=0), Bag([w]))
    w.grad = torch.tensor([[0.0, 30.0]])
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[3.0, 3.95]]))
    assert optimizer.clipped_fraction == 1
    w.grad = torch.tensor([[0.01, -27.0]])  # m = 0.9 (0, 30) + g = (0.01, 0): gamma |m| = 0.002
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[3.0 - 0.2 * 0.01, 3.95]]))
    assert optimizer.clipped_fraction == 0


@pytest.mark.parametrize("rule", ["lars", "lalc"])
def test_a_tensor_of_norm_zero_moves(rule):
    """It moves by the learning rate alone, since lambda = eta |w| / … would keep every beta of BN
    at 0 (E-L6)."""
    w = nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer(spec(optimizer=rule), Bag([w]))
    w.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((3,), -0.2))


def test_exempt_vectors_follow_the_learning_rate_alone():
    actual = ours(optimizer="lalc", eta=1e-4, exempt="vectors")
    free, limited = ours(optimizer="sgd"), ours(optimizer="lalc", eta=1e-4)
    torch.testing.assert_close(actual[1], free[1])
    torch.testing.assert_close(actual[0], limited[0])
    torch.testing.assert_close(actual[2], limited[2])


def test_learning_rate_scales_by_name():
    model = build_network(spec(depth=3, width=4), 10, (3, 8, 8))
    names = [name for name, _ in model.named_parameters()]
    group = build_optimizer(spec(lr_scales={names[0]: 0.5}), model).param_groups
    assert sorted((part["scale"], len(part["params"])) for part in group) == [
        (0.5, 1),
        (1.0, len(names) - 1),
    ]
    with pytest.raises(InputError, match="no parameter begins with 'layer9'"):
        build_optimizer(spec(lr_scales={"layer9": 2}), model)


def small_net(norm: bool) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5) if norm else nn.Identity(),
        nn.ReLU(),
        # It has few positions and many weights, so its norms are computed by Gram matrices.
        nn.Conv2d(5, 40, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40 * 4, 7),
        nn.BatchNorm1d(7) if norm else nn.Identity(),
    ]
    return nn.Sequential(*layers).double().train()


def sample_norms(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, micro: int
) -> dict[torch.Tensor, float]:
    collected = SampleNorms(net)
    with collected.collect():
        for some, labels in zip(x.split(micro), y.split(micro), strict=True):
            (F.cross_entropy(net(some), labels) * len(labels) / len(y)).backward()
    return collected.means()


@pytest.mark.parametrize("micro", [6, 2])
def test_per_sample_norms_are_those_of_torch_func(micro):
    """In a net without BN, the mean of |grad f_i| over the samples is that of torch.func, whether
    the batch is computed as a whole or in micro-batches."""
    net, rng = small_net(norm=False), torch.Generator().manual_seed(3)
    x, y = torch.randn(6, 3, 4, 4, generator=rng, dtype=torch.float64), torch.arange(6)
    norms = sample_norms(net, x, y, micro)
    values = {name: p.detach() for name, p in net.named_parameters()}

    def loss(values, image, label):
        logits = torch.func.functional_call(net, values, (image[None],))
        return F.cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(values, x, y)
    for name, parameter in net.named_parameters():
        expected = torch.linalg.vector_norm(each[name].flatten(1), dim=1).mean().item()
        assert norms[parameter] == pytest.approx(expected, rel=1e-10), name


def test_per_sample_norms_with_bn_are_the_shares_of_the_samples_activations():
    """Every sample gets its own copy of the weights here. The gradient with respect to a sample's
    copy is the sample's share (E-L8)."""
    net, rng = small_net(norm=True), torch.Generator().manual_seed(4)
    x, y = torch.randn(6, 3, 4, 4, generator=rng, dtype=torch.float64), torch.arange(6)
    norms = sample_norms(net, x, y, 6)
    own = {p: p.detach().expand(6, *p.shape).clone().requires_grad_() for p in net.parameters()}
    conv1, bn1, _, conv2, _, _, linear, bn2 = net

    def normalized(bn, signal, shape):
        z = F.batch_norm(signal, None, None, training=True, eps=bn.eps)
        return own[bn.weight].reshape(shape) * z + own[bn.bias].reshape(shape)

    a = torch.cat(
        [
            F.conv2d(x[i : i + 1], own[conv1.weight][i], own[conv1.bias][i], padding=1)
            for i in range(6)
        ]
    )
    a = normalized(bn1, a, (6, 5, 1, 1)).relu()
    a = torch.cat(
        [F.conv2d(a[i : i + 1], own[conv2.weight][i], stride=2, padding=1) for i in range(6)]
    ).relu()
    a = torch.einsum("bi,boi->bo", a.flatten(1), own[linear.weight]) + own[linear.bias]
    shares = torch.autograd.grad(F.cross_entropy(normalized(bn2, a, (6, 7)), y), list(own.values()))
    for parameter, share in zip(own, shares, strict=True):
        # The gradient of a sample's own loss is B times its share, so the mean of the gradients'
        # norms over the B samples is the sum of the shares' norms.
        expected = torch.linalg.vector_norm(share.flatten(1), dim=1).sum().item()
        assert norms[parameter] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_clars_is_lars_with_the_mean_norm_of_the_samples():
    net, rng = small_net(norm=False), torch.Generator().manual_seed(5)
    x, y = torch.randn(6, 3, 4, 4, generator=rng, dtype=torch.float64), torch.arange(6)
    optimizer = build_optimizer(spec(optimizer="clars", momentum=0, weight_decay=0), net)
    optimizer.sample_norms = sample_norms(net, x, y, 6)
    before = {p: p.detach().clone() for p in net.parameters()}
    optimizer.step()
    for p, w in before.items():
        ratio = 0.01 * w.norm().item() / optimizer.sample_norms[p]
        torch.testing.assert_close(p.detach(), w - 0.2 * ratio * p.grad)
        assert optimizer.sample_norms[p] >= p.grad.norm().item()


def test_a_parameter_without_per_sample_norms_is_refused():
    with pytest.raises(
        InputError, match=r"clars has no per-sample norms for the parameter '0\.weight'"
    ):
        SampleNorms(nn.Sequential(nn.LayerNorm(3)))


def rates(length: int, warmup: int = 0, boundaries=(), **changes) -> list[float]:
    settings = spec(lr=1.0, length=length, warmup=warmup, lr_boundaries=list(boundaries), **changes)
    return [StepSchedule(settings, 1).learning_rate(step) for step in range(length)]


def test_warm_up_rises_to_the_rate_and_cosine_falls_over_the_rest():
    ours = rates(8, warmup=4, schedule="cosine")
    assert ours[:4] == [0.25, 0.5, 0.75, 1.0]
    assert ours[4:] == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0), 8
    )
    theirs = []
    for _ in range(8):
        theirs.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    assert rates(8, schedule="cosine") == pytest.approx(theirs)


def test_steps_and_piecewise_constants():
    assert rates(6, boundaries=[2, 4]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates(6, warmup=3, boundaries=[2, 4]) == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.1, 0.01, 0.01]
    )
