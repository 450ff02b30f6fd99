"""SeqNets agree with counts by hand and a second implementation, share tied weights, and train."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostgrad.models import init
from ghostgrad.models.counts import count_network
from ghostgrad.models.seqnet import SeqNet, Tied
from ghostgrad.training.optimizers.groups import parameter_groups
from tests.unit import costs
from tests.unit.networks import BLOCKS, build, images, module, modules, spec, step, unbuilt

TIES = list(itertools.product([True, False], repeat=2))


# --- the architecture ---


@pytest.mark.parametrize(("depth", "layers"), [(18, 18), (34, 34), (50, 66), (101, 134)])
def test_weight_layers(depth, layers):
    """The weight layers include the stem and the classifier (E-G21)."""
    free = unbuilt(f"seqnet{depth}", tie_conv2=False)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in free.modules()) == layers
    assert 2 * len(modules(unbuilt(f"seqnet{depth}"))) + 2 == layers


def by_hand(
    depth: int,
    tie2: bool,
    tie4: bool,
    norm: str = "none",
    skip: bool = False,
    position: str = "first",
) -> int:
    """Return the number of parameters at 64 filters and 1000 classes."""
    bottle, widths = depth >= 50, [64, 128, 256, 512, 2048 if depth >= 50 else 512]
    total = 64 * 3 * 49 + 2 * 64 + 2 * widths[-1] + widths[-1] * 1000 + 1000
    for stage, d in enumerate(widths[:4]):
        for block in range(BLOCKS[depth][stage]):
            out = widths[stage + 1] if block == BLOCKS[depth][stage] - 1 else d
            outs = {2: d, 4: out} if bottle else {2: out}
            if position == "third":
                outs = {4: d, 2: out}
            for k, end in outs.items():
                taps = (9 if k == 2 else 1) * d * k * d
                total += taps + k * d * end + 2 * end  # both convolutions and the BN
                total -= k * d * d if (tie2 if k == 2 else tie4) else 0
                total += {"none": 0, "bias": k * d, "batch": 2 * k * d}[norm]
            total += d * out + 2 * out if skip and out > d else 0
    return total


COUNTED = [
    *({"depth": depth} for depth in BLOCKS),
    *({"depth": 50, "tie2": two, "tie4": four} for two, four in TIES),
    {"depth": 34, "tie2": True},
    {"depth": 50, "norm": "bias"},
    {"depth": 101, "norm": "batch"},
    {"depth": 50, "skip": True},
    {"depth": 50, "position": "third"},
    {"depth": 50, "position": "third", "tie2": False},
]


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_parameters_are_those_counted_by_hand(case):
    given = {
        "tie2": case["depth"] >= 50,
        "tie4": False,
        "norm": "none",
        "skip": False,
        "position": "first",
        **case,
    }
    renamed = {"tie2": "tie_conv2", "tie4": "tie_conv4", "norm": "branch_norm"}
    keys = {renamed.get(key, key): value for key, value in case.items() if key != "depth"}
    count = sum(p.numel() for p in unbuilt(f"seqnet{case['depth']}", **keys).parameters())
    assert count == by_hand(**given)


def test_multiply_adds_are_the_closed_forms():
    """Tying does not change the cost: a tied weight is applied at every position as well."""
    _, expected = costs.seqnet50_cost()
    networks = [unbuilt("seqnet50", tie_conv2=two, tie_conv4=four) for two, four in TIES]
    assert {count_network(net, 224).multiply_adds for net in networks} == {expected}


@pytest.mark.parametrize(
    "stem", [{}, {"cifar_stem": True}, {"cifar_stem": True, "small_stem": True}], ids=str
)
@pytest.mark.parametrize(("depth", "end"), [(34, 32), (50, 128)])
def test_outputs_are_the_stem_and_every_block(depth, end, stem):
    """The last block of a stage has the next stage's width.

    The first block of every stage but the first one halves the side.
    """
    net = build(f"seqnet{depth}", stem_filters=4, **stem)
    _, ys = net.outputs(torch.randn(2, 3, 64, 64))
    side, expected = 64 if stem else 16, [(4, 64 if stem else 16)]
    for stage, (blocks, d, out) in enumerate(
        zip(BLOCKS[depth], (4, 8, 16, 32), (8, 16, 32, end), strict=True)
    ):
        side = side // 2 if stage else side
        expected += [(d, side)] * (blocks - 1) + [(out, side)]
    assert [(y.shape[1], y.shape[2]) for y in ys] == expected
    assert net.stem[0].kernel_size == ((3, 3) if "small_stem" in stem else (7, 7))


def reference(net: SeqNet, x: Tensor, sizes: str, skip: bool) -> Tensor:
    """Return the logits, computed from the parameters by name.

    `sizes` are the kernel sizes of a block's convolutions. A second convolution without a weight is
    tied: its middle tap is the transpose of the first one's, extended by its own ring and rows.
    """
    p = dict(net.named_parameters())

    def norm(name: str, y: Tensor) -> Tensor:
        return F.batch_norm(y, None, None, p[f"{name}.weight"], p[f"{name}.bias"], training=True)

    def second(name: str, first: Tensor, size: int) -> Tensor:
        if f"{name}.weight" in p:
            return p[f"{name}.weight"]
        middle, half = first[:, :, first.shape[2] // 2, first.shape[2] // 2].T, size // 2
        weight = F.pad(middle[:, :, None, None], [half] * 4)
        if f"{name}.ring.weight" in p:
            other = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]
            for tap, (i, j) in enumerate(other):
                spot = torch.zeros(3, 3)
                spot[i, j] = 1
                weight = weight + p[f"{name}.ring.weight"][:, :, tap, None, None] * spot
        if f"{name}.rest.weight" in p:
            weight = torch.cat([weight, F.pad(p[f"{name}.rest.weight"], [half] * 4)])
        return weight

    y = F.max_pool2d(norm("stem.1", F.conv2d(x, p["stem.0.weight"], stride=2, padding=3)), 3, 2, 1)
    for stage, blocks in enumerate(net.stages):
        for index in range(len(blocks)):
            block, pools = f"stages.{stage}.{index}", stage > 0 and index == 0
            before = F.max_pool2d(y, 3, 2, 1) if pools else y
            if f"{block}.shortcut.0.weight" in p:
                before = norm(
                    f"{block}.shortcut.1", F.conv2d(before, p[f"{block}.shortcut.0.weight"])
                )
            for pair in range(len(sizes) // 2):
                name, (first_size, second_size) = (
                    f"{block}.branch.{pair}",
                    map(int, sizes[2 * pair : 2 * pair + 2]),
                )
                first = p[f"{name}.first.weight"]
                y = F.conv2d(y, first, p.get(f"{name}.first.bias"), padding=first_size // 2)
                y = norm(f"{name}.branch_norm", y) if f"{name}.branch_norm.weight" in p else y
                y = F.relu(F.max_pool2d(y, 3, 2, 1) if pools and not pair else y)
                y = norm(
                    f"{name}.norm",
                    F.conv2d(
                        y,
                        second(f"{name}.second", first, second_size),
                        padding=second_size // 2,
                    ),
                )
            y = before + y if skip else y
    y = F.relu(norm("head.2", y.mean((2, 3))))
    return y @ p["head.4.weight"].T + p["head.4.bias"]


VARIANTS = {
    "seqnet18": ("18", "31", {}),
    "seqnet18, tied": ("18", "31", {"tie_conv2": True}),
    "seqnet50": ("50", "3111", {}),
    "all tied": ("50", "3111", {"tie_conv4": True}),
    "none tied": ("50", "3111", {"tie_conv2": False}),
    "bias": ("50", "3111", {"branch_norm": "bias"}),
    "batch": ("50", "3111", {"branch_norm": "batch"}),
    "second": ("50", "1311", {"position": "second"}),
    "second, none tied": ("50", "1311", {"position": "second", "tie_conv2": False}),
    "third": ("50", "1131", {"position": "third"}),
    "third, all tied": ("50", "1131", {"position": "third", "tie_conv4": True}),
    "skip": ("50", "3111", {"skip": True}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_networks_equal_their_equations(variant):
    """Every parameter is moved from its initial value, since zeros and ones would hide mistakes."""
    depth, sizes, keys = VARIANTS[variant]
    net = build(f"seqnet{depth}", stem_filters=4, **keys).double().train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = images(8, 3, 64, 64)
    torch.testing.assert_close(
        net(x), reference(net, x, sizes, "skip" in keys), rtol=1e-8, atol=1e-8
    )


# --- tying ---


# No SeqBottle ends with a module of sizes (1, 3), so that it has no more outputs than inputs.
@pytest.mark.parametrize(
    ("sizes", "out"), [((3, 1), 8), ((3, 1), 16), ((1, 3), 8), ((1, 1), 8), ((1, 1), 16)]
)
def test_a_tied_matrix_gathers_the_gradients_of_both_uses(sizes, out):
    """The gradient is the sum of both gradients of an untied module with the same weights.

    Taps and rows that are not tied keep their own gradient.
    """
    tied, free = module(8, 4, sizes, out, tied=True), module(8, 4, sizes, out)
    free.first.load_state_dict(tied.first.state_dict())
    with torch.no_grad():
        init.center_tap(free.second.weight)[:8] = init.center_tap(tied.first.weight).mT
        if tied.second.rest is not None:
            free.second.weight[8:] = tied.second.rest.weight
    x, top = images(3, 8, 5, 5), images(3, out, 5, 5, seed=2)
    y_tied, y_free = tied(x), free(x)
    torch.testing.assert_close(y_tied, y_free)
    y_tied.backward(top)
    y_free.backward(top)
    expected, second = free.first.weight.grad.clone(), free.second.weight.grad
    init.center_tap(expected).add_(init.center_tap(second)[:8].mT)
    torch.testing.assert_close(tied.first.weight.grad, expected)
    assert init.center_tap(second)[:8].norm() > 0
    if tied.second.rest is not None:
        torch.testing.assert_close(tied.second.rest.weight.grad, second[8:])
    if tied.second.ring is not None:
        taps = second.flatten(2)[..., [0, 1, 2, 3, 5, 6, 7, 8]]
        torch.testing.assert_close(tied.second.ring.weight.grad, taps)


@pytest.mark.parametrize(("two", "four"), TIES)
def test_tied_tensors_appear_once(two, four):
    """The second convolution of a tied pair owns only the rows that widen the output.

    The optimizer has every parameter exactly once, and weight decay applies to these weights.
    """
    net = build("seqnet50", stem_filters=4, tie_conv2=two, tie_conv4=four)
    own = {name for name, _ in net.named_parameters() if ".second" in name}
    widening = {f"stages.{stage}.{last}.branch.1" for stage, last in enumerate((2, 3, 5, 2))}
    blocks = [
        f"stages.{stage}.{index}" for stage, many in enumerate(BLOCKS[50]) for index in range(many)
    ]
    expected = set() if two else {f"{block}.branch.0.second.weight" for block in blocks}
    expected |= {f"{name}.second.rest.weight" for name in widening} if four else set()
    expected |= set() if four else {f"{block}.branch.1.second.weight" for block in blocks}
    assert own == expected
    for decay in ("all", "weights"):
        groups = parameter_groups(net, 1e-4, decay, {})
        members = [p for group in groups for p in group["params"]]
        assert len({id(p) for p in members}) == len(members) == len(list(net.parameters()))
        decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        assert all(
            id(p) in decayed
            for name, p in net.named_parameters()
            if ".first.weight" in name or name in own
        )


def test_a_tied_matrix_stays_one_in_training():
    """After an update the second convolution still reads the storage of the first one's weight."""
    net = build("seqnet50", stem_filters=4, tie_conv4=True)
    step(net, spec("seqnet50"))
    used = []
    made = next(m for m in modules(net) if m.second.ring is None and m.second.rest is None)
    conv2d = F.conv2d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            F,
            "conv2d",
            lambda x, weight, *rest, **more: used.append(weight) or conv2d(x, weight, *rest),
        )
        made.second(torch.randn(1, 8, 3, 3), made.first.weight)
    assert used[0].untyped_storage().data_ptr() == made.first.weight.untyped_storage().data_ptr()
    assert torch.equal(used[0][:, :, 0, 0], init.center_tap(made.first.weight).mT)


def test_the_baseline_ties_the_module_of_the_3x3_in_a_seqbottle():
    assert not any(m.tied for m in modules(unbuilt("seqnet34")))
    for position in ("first", "second", "third"):
        for m in modules(unbuilt("seqnet50", position=position)):
            with_3x3 = any(
                isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3) for part in m.modules()
            )
            assert m.tied == isinstance(m.second, Tied) == with_3x3


# --- training ---


TRAINED = {
    **{model: (model, {}) for model in ("seqnet18", "seqnet34", "seqnet50", "seqnet101")},
    "tied 18": ("seqnet18", {"tie_conv2": True}),
    "tied 50": ("seqnet50", {"tie_conv4": True}),
    "bias": ("seqnet50", {"branch_norm": "bias"}),
    "batch": ("seqnet50", {"branch_norm": "batch"}),
    "skip": ("seqnet50", {"skip": True}),
    "small": ("seqnet50", {"cifar_stem": True, "small_stem": True}),
}


@pytest.mark.parametrize("name", TRAINED)
def test_one_update_moves_every_parameter(name):
    model, keys = TRAINED[name]
    assert step(build(model, stem_filters=8, **keys), spec(model, weight_decay=1e-4)) == []


def test_images_of_eight_pixels():
    net = build("seqnet50", stem_filters=4, cifar_stem=True, small_stem=True)
    step(net, spec("seqnet50"), size=8)
    assert net.outputs(torch.randn(2, 3, 8, 8))[1][-1].shape == (2, 128, 1, 1)
