"""The training loop, compared with torch's own components: schedule, data order, augmentation,
probes, divergence."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghostgrad.checks import InputError
from ghostgrad.data.transforms import standardize
from ghostgrad.models.build import build_network
from ghostgrad.models.init import initialize
from ghostgrad.registry.spec import expand
from ghostgrad.rng import generator
from ghostgrad.runs.state import State
from ghostgrad.tasks import classify
from ghostgrad.training import probes
from ghostgrad.training.loader import InMemoryLoader, random_crop
from ghostgrad.training.optimizers.build import build_optimizer
from ghostgrad.training.schedules import StepSchedule

CPU = torch.device("cpu")
BASE = {
    "model": "preact_resnet",
    "data": "digits",
    "blocks": 1,
    "filters": 4,
    "init": "xavier_uniform",
    "batch": 32,
    "length": 6,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "weight_decay_on": "weights",
    "eval_every": 3,
    "seed": 0,
}


def spec(**changes):
    return expand("classify", {**BASE, **changes})


def run(folder, digits, **changes):
    with State(folder) as state:
        return classify.classify(spec(**changes), state, CPU, digits)


def rows(table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.text())))


def test_a_few_steps_equal_a_loop_written_from_torch_alone(tmp_path, digits):
    """The same batches through a hand-written update rule and schedule give the same losses and
    accuracy."""
    settings = spec(lr_boundaries=[2, 4], weight_decay=1e-2)
    record = run(tmp_path, digits, lr_boundaries=[2, 4], weight_decay=1e-2)

    batches = InMemoryLoader(settings, digits, CPU)
    model = build_network(settings, 10, (3, 8, 8))
    initialize(model, "xavier_uniform", generator(0, "init"))
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1]
    buffers = {p: torch.zeros_like(p) for p in model.parameters()}
    losses = []
    for step, learning_rate in enumerate([0.1, 0.1, 0.01, 0.01, 0.001, 0.001]):
        x, y = batches(step)
        loss = F.cross_entropy(model.train()(x), y)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                g = g + 1e-2 * p if any(p is q for q in decayed) else g
                buffers[p] = 0.9 * buffers[p] + g
                p -= learning_rate * buffers[p]
    series = rows(record.series)
    assert [float(row["train_loss"]) for row in series] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:])], rel=1e-5
    )
    assert [float(row["lr"]) for row in series] == pytest.approx([0.01, 0.001])
    images = torch.from_numpy(digits.test_x).float() / 255
    accuracy = 100 * (model.eval()(images).argmax(1).numpy() == digits.test_y).mean()
    assert float(series[-1]["test_accuracy"]) == pytest.approx(accuracy)


def test_decay_acts_on_weights_only_or_on_everything():
    model = build_network(spec(), 10, (3, 8, 8))
    groups = build_optimizer(spec(weight_decay_on="weights"), model).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-3, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert len(build_optimizer(spec(weight_decay_on="all"), model).param_groups) == 1


def test_an_epoch_visits_every_image_at_most_once_in_an_order_of_its_own(digits):
    batches = InMemoryLoader(spec(), digits, CPU)
    epochs = []
    for epoch in range(2):
        order = batches.sampler.epoch_order(epoch)
        assert sorted(order.tolist()) == list(range(len(digits.train_y)))
        epochs.append(order)
    assert not torch.equal(*epochs)
    again = InMemoryLoader(spec(), digits, CPU)
    late = batches.steps_per_epoch + 3
    assert all(torch.equal(a, b) for a, b in zip(batches(late), again(late), strict=True))


def test_random_crop_cuts_windows_of_the_padded_image():
    x = torch.rand(40, 3, 8, 8)
    out = random_crop(x, 2, torch.randint(5, (2, 40), generator=torch.Generator().manual_seed(0)))
    padded = F.pad(x, (2, 2, 2, 2))
    offsets = set()
    for image, window in zip(padded, out, strict=True):
        matches = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(image[:, i : i + 8, j : j + 8], window)
        ]
        assert matches, "no window of the padded image"
        offsets.add(matches[0])
    assert len(offsets) > 12, "the offsets vary from image to image"


def test_flip_turns_about_half_of_the_images(digits):
    plain, flipped = (
        InMemoryLoader(spec(batch=512, augment=a), digits, CPU)(0)[0] for a in ([], ["flip"])
    )
    same = (plain == flipped).flatten(1).all(1)
    turned = (plain.flip(-1) == flipped).flatten(1).all(1)
    assert (same | turned).all()
    assert 0.4 < turned.float().mean() < 0.6


def test_per_image_standardization():
    x = torch.cat([torch.rand(3, 3, 8, 8), torch.full((1, 3, 8, 8), 0.3)])
    out = standardize(x, "per_image")
    assert torch.allclose(out[:3].flatten(1).mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out[:3].flatten(1).std(1, correction=0), torch.ones(3), atol=1e-5)
    assert torch.allclose(out[3], torch.zeros(3, 8, 8), atol=1e-4), "a flat image is not blown up"


@pytest.mark.parametrize(
    ("unit", "per_epoch", "expected"),
    [("step", 10, (400, 200, 0, 1)), ("epoch", 10, (4000, 2000, 0, 1))],
)
def test_lengths_are_converted_then_shrunk(unit, per_epoch, expected):
    plan = StepSchedule(spec(unit=unit, shrink=200, length=80000), per_epoch)
    assert (plan.length, plan.to_steps(40000), plan.to_steps(0), plan.to_steps(0.1)) == expected
    assert plan.position(plan.to_steps(40000)) == 40000


def test_probes_that_shrink_to_one_step_keep_the_first_position():
    plan = StepSchedule(
        spec(shrink=200, length=80000, probes=["gradients"], probe_at=[0, 1, 100, 25000]), 10
    )
    assert plan.probe_positions == {0: 0, 1: 1, 125: 25000}


def test_probes_change_no_metric_and_no_series(tmp_path, digits):
    every = [
        "gradients",
        "activations",
        "bn_offset",
        "weight_norm",
        "weight_gradient",
        "bn_variance",
    ]
    every += ["updates", "statistics"]
    with_probes = run(tmp_path / "a", digits, probes=every, probe_at=[0, 2, 3, 6])
    without = run(tmp_path / "b", digits)
    assert with_probes.series.text() == without.series.text()
    assert with_probes.metrics == without.metrics
    assert {int(row["step"]) for row in rows(with_probes.probes)} == {0, 2, 3, 6}
    assert rows(without.probes) == []


def test_a_probe_sees_the_weights_after_t_updates(tmp_path, digits):
    """The probe at t of a run equals a measurement of the network that a run of t steps ends
    with."""
    record = run(tmp_path / "a", digits, probes=["weight_norm"], probe_at=[2])
    folder = tmp_path / "b"
    with State(folder) as state:
        settings = spec(length=2)
        state.period = 0
        classify.classify(settings, state, CPU, digits)
        saved = state.load()
    norms = [value.norm().item() for name, value in saved["model"].items() if value.ndim == 4]
    assert [float(row["value"]) for row in rows(record.probes)] == pytest.approx(norms, rel=1e-6)


def test_gradient_probe_equals_hooks_on_the_blocks(digits):
    """Hooks on dl/dy_k give the same variance over the batch, averaged over features, and the same
    Frobenius norm. The probe changes no buffer and no parameter's `grad`."""
    settings = spec(blocks=2)
    model = build_network(settings, 10, (3, 8, 8)).train()
    x, y = InMemoryLoader(settings, digits, CPU)(0)
    seen = {}

    def keep(k):
        def hook(_module, _inputs, out):
            out.register_hook(lambda gradient: seen.__setitem__(k, gradient))

        return hook

    for k, block in enumerate([model.stem, *model.blocks]):
        block.register_forward_hook(keep(k))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    F.cross_entropy(model(x), y).backward()
    model.load_state_dict(before)
    model.zero_grad()
    probed = {(name, k): value for name, k, value in probes.measure(["gradients"], model, x, y)}
    for k, gradient in seen.items():
        mean = gradient.mean(0)
        assert probed["gradient_variance", k] == pytest.approx(
            ((gradient - mean) ** 2).mean().item(), rel=1e-4
        )
        assert probed["gradient_norm", k] == pytest.approx(
            (gradient**2).sum().sqrt().item(), rel=1e-4
        )
    assert len(seen) == 7
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_bn_offset_probe_is_the_ratio_of_beta_and_gamma():
    model = build_network(spec(), 10, (3, 8, 8))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[1].weight.fill_(2)
        norms[1].bias.copy_(torch.tensor([-1.0, 0, 1, 4]))
    probed = {
        (name, k): value for name, k, value in probes.measure(["bn_offset"], model, None, None)
    }
    assert probed["bn_offset_mean", 1] == pytest.approx(0.75)
    assert probed["bn_offset_median", 1] == pytest.approx(0.5)
    assert probed["bn_offset_mean", 0] == 0


def test_a_non_finite_loss_is_a_result(tmp_path, digits):
    """With lr 1e6 the loss diverges: the run stops there, reports it, and evaluates the network as
    it is then."""
    record = run(tmp_path, digits, lr=1e6, batch_norm=False, length=200, eval_every=0)
    assert record.metrics["status"] == "diverged"
    assert 1 < record.metrics["diverged_at"] < 200
    assert record.metrics["steps"] == record.metrics["diverged_at"]
    # A diverged network predicts one class for all images, so its accuracy is the share of that
    # class among the test images.
    shares = 100 * np.bincount(digits.test_y) / len(digits.test_y)
    assert np.isclose(shares, record.metrics["test_accuracy"]).any()


def test_a_network_that_its_last_update_breaks_has_diverged(tmp_path, digits):
    """No further training loss is computed that could show it, so the loss on the test images
    decides."""
    record = run(tmp_path, digits, lr=1e38, length=1, eval_every=0)
    assert np.isfinite(float(rows(record.series)[-1]["train_loss"]))
    assert (record.metrics["status"], record.metrics["diverged_at"]) == ("diverged", 1)


def test_a_probe_takes_the_mean_over_its_batches(tmp_path, digits):
    """These are the batch of the probe's step and the ones after it, here across the end of an
    epoch."""
    changes = {"batch": 700, "length": 1, "lr": 1e-9, "probes": ["gradients"], "probe_at": [1]}
    record = run(tmp_path, digits, **changes, probe_batches=3)
    settings = spec(**changes)
    batches, model = (
        InMemoryLoader(settings, digits, CPU),
        classify.new_model(settings, digits).train(),
    )
    single = [
        [value for *_, value in probes.measure(["gradients"], model, *batches(step))]
        for step in (1, 2, 3)
    ]
    assert not np.allclose(single[0], single[1], rtol=1e-3)
    means = [float(row["value"]) for row in rows(record.probes)]
    np.testing.assert_allclose(means, np.mean(single, axis=0), rtol=1e-4)


def test_a_test_loss_that_recovers_is_no_divergence(tmp_path, digits, monkeypatch):
    """BN's running statistics may be far off early in training, so only the test loss of the final
    network counts."""
    losses = iter([float("inf"), 1.0])
    monkeypatch.setattr(classify, "evaluate", lambda *_: (next(losses), 10.0))
    record = run(tmp_path, digits, length=4, eval_every=2)
    assert (record.metrics["status"], record.metrics["steps"]) == ("done", 4)


def test_length_0_evaluates_and_probes_the_initialized_network(tmp_path, digits):
    record = run(tmp_path, digits, length=0, probes=["gradients"], probe_at=[0])
    assert record.metrics["steps"] == 0
    assert {row["step"] for row in rows(record.probes)} == {"0"}
    assert len(rows(record.series)) == 1


def test_a_batch_larger_than_the_data_is_one_clear_line(tmp_path, digits):
    with pytest.raises(
        InputError, match="digits: 1497 training images do not fill one batch of 2000"
    ):
        run(tmp_path, digits, batch=2000)


def correlations(x: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """What the probe `statistics` reports for a signal x (B, C, …) and its gradient g, computed for
    one channel and one pair of channels at a time."""
    channels = [
        part.swapaxes(0, 1).reshape(part.shape[1], -1).astype(np.float64) for part in (x, g)
    ]
    alive = [
        k for k in range(len(channels[0])) if channels[0][k].var() > 0 and channels[1][k].var() > 0
    ]
    x, g = (part[alive] for part in channels)
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    return {
        "activation_variance": np.mean([row.var() for row in x]),
        "gradient_variance": np.mean([row.var() for row in g]),
        "activation_offset": np.mean([abs(row.mean()) / row.std() for row in x]),
        "gradient_offset": np.mean([abs(row.mean()) / row.std() for row in g]),
        "activation_gradient_correlation": np.mean(
            [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(x, g, strict=True)],
        ),
        "activation_correlation": np.mean([abs(np.corrcoef(x[i], x[j])[0, 1]) for i, j in pairs]),
    }


@pytest.mark.parametrize("model", ["preact_resnet", "mlp"])
def test_statistics_equal_a_slow_loop(digits, model):
    """Hooks and numpy.corrcoef give the same values. One channel is dead and must not count."""
    settings = spec(model=model, depth=3, width=12)
    net = build_network(settings, 10, (3, 8, 8)).train()
    x, y = InMemoryLoader(settings, digits, CPU)(0)
    norms = [m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    with torch.no_grad():
        norms[0].weight[1] = norms[0].bias[1] = 0
    seen = []
    kinds = {
        nn.Conv2d: "conv",
        nn.Linear: "conv",
        nn.BatchNorm1d: "norm",
        nn.BatchNorm2d: "norm",
        nn.ReLU: "act",
    }
    for module in net.modules():
        if type(module) in kinds:
            module.register_forward_hook(
                lambda m, _i, out: (out.retain_grad(), seen.append((kinds[type(m)], out)))[1]
            )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    F.cross_entropy(net(x), y).backward()
    net.load_state_dict(before)
    net.zero_grad()
    signals = list(seen)
    probed = {(name, k): value for name, k, value in probes.measure(["statistics"], net, x, y)}
    expected = {}
    for place in ("conv", "norm", "act"):
        of_place = [out for kind, out in signals if kind == place]
        # The last output is the logits, which do not count.
        for k, out in enumerate(of_place[:-1] if place == "conv" else of_place):
            of_layer = correlations(out.detach().numpy(), out.grad.numpy())
            expected |= {(f"{place}_{name}", k): value for name, value in of_layer.items()}
    weights = [m.weight.detach().double() for m in net.modules() if isinstance(m, nn.Conv2d)]
    weights = weights or [
        m.weight.detach().double() for m in net.modules() if isinstance(m, nn.Linear)
    ]
    for k, weight in enumerate(weights):
        expected["weight_variance", k] = ((weight - weight.mean()) ** 2).mean().item()
        expected["weight_offset", k] = (
            abs(weight.mean().item()) / expected["weight_variance", k] ** 0.5
        )
    assert set(probed) == set(expected)
    for key, value in expected.items():
        assert probed[key] == pytest.approx(value, rel=1e-4, abs=1e-7), key
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_statistics_of_a_wide_layer_are_of_channels_at_even_distances():
    rng = torch.Generator().manual_seed(0)
    x, g = (torch.randn(6, 300, 2, generator=rng) for _ in range(2))
    chosen = np.linspace(0, 299, 128).round().astype(int)
    expected = correlations(x.numpy()[:, chosen], g.numpy()[:, chosen])
    assert probes._channel_statistics(x, g) == pytest.approx(expected, rel=1e-5)


class Kept(State):
    """A state that keeps a copy of the convolutions' weights before every step."""

    def checkpoint_if_due(self, payload, done, total):
        weights = {
            name: value.clone() for name, value in payload()["model"].items() if value.ndim == 4
        }
        self.__dict__.setdefault("weights", {})[done] = list(weights.values())
        super().checkpoint_if_due(payload, done, total)


@pytest.mark.parametrize("rule", ["sgd", "lalc"])
def test_update_ratios_are_those_of_two_snapshots(tmp_path, digits, rule):
    """The probe at t measures update t + 1. A layer-wise rule also reports the fraction of tensors
    whose learning rate it clips, which plain SGD does not have."""
    options = {
        "optimizer": rule,
        "trust_coefficient": 0.3,
        "probes": ["updates"],
        "probe_at": [0, 4, 6],
    }
    with Kept(tmp_path) as state:
        record = classify.classify(spec(**options), state, CPU, digits)
    probed = rows(record.probes)
    for step in (0, 4):
        ratios = [
            float(row["value"])
            for row in probed
            if row["probe"] == "update_ratio" and row["step"] == str(step)
        ]
        old, new = state.weights[step], state.weights[step + 1]
        hand = [
            ((b - a).double().norm() / a.double().norm()).item()
            for a, b in zip(old, new, strict=True)
        ]
        assert ratios == pytest.approx(hand, rel=1e-4)
    assert {row["step"] for row in probed} == {"0", "4"}, "behind the last update there is none"
    fractions = [float(row["value"]) for row in probed if row["probe"] == "clipped_fraction"]
    assert len(fractions) == (2 if rule == "lalc" else 0)


def test_the_clipped_fraction_is_of_all_tensors():
    """The rule clips the first of three tensors, for which eta |w| / |h| = 0.01 * 5 / 30 is below
    the learning rate 0.2; for the others it is 0.01 * 5 / 0.1 and 0.01 * 1 / 0.01."""
    members = nn.ParameterList(
        [torch.tensor([3.0, 4.0]), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])]
    )
    for parameter, size in zip(members, (30.0, 0.1, 0.01), strict=True):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = size
    optimizer = build_optimizer(
        spec(optimizer="lalc", momentum=0.0, weight_decay=0.0, lr=0.2), members
    )
    before = probes.copy_weights(nn.Conv2d(1, 1, 1))
    optimizer.step()
    quantities = list(probes.measure_update(before, nn.Conv2d(1, 1, 1), optimizer))
    assert quantities[-1] == ("clipped_fraction", 0, pytest.approx(1 / 3))
