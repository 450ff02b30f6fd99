"""The batched simulation agrees with a plain loop over its repeats, which do not affect each other.

Most comparisons run in float64, where no rounding error flips the mask of a ReLU, and hold to 1e-9.
In float32 the accuracy depends on the net: a flipped mask changes a gradient by about 1e-4 of
itself, and in a plain ReLU net with BN a rounding error of the signals grows by a factor of 1.21
per layer. DIGITS states what holds at the paper's width and depth.
"""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ghostgrad.checks import InputError
from ghostgrad.models import init
from ghostgrad.rng import stream_seed
from ghostgrad.runs.state import State, Stopped, StopRequest
from ghostgrad.tasks import blocks, simulate
from tests.unit.loop import (
    ACTIVATIONS,
    CPU,
    NORMS,
    generators,
    looped,
    make_spec,
    measured,
    paper_spec,
)

SUMS = [(after, scale) for after in ("activation", "identity") for scale in ("1", "1/sqrt(L)")]
MODULES = [(kind, k) for kind in ("random", "orthogonal", "looks-linear", "untied") for k in (2, 4)]
# Bounds on the relative error of every number of a repeat in float32 at width 256 and depth 20. The
# errors measured against float64 in 4 repeats are 1e-6 for the first three nets and 3e-5, 4e-4 and
# 2e-3 for the others; batching and threads change no more than that.
DIGITS = {
    "residual": ({"net": "residual"}, 2e-5),
    "tanh": ({"net": "plain", "activation": "tanh"}, 2e-5),
    "relu without BN": ({"net": "plain", "norm": "none"}, 2e-5),
    "looks-linear": ({"net": "seqnet", "module_init": "looks-linear"}, 2e-4),
    "orthogonal": ({"net": "seqnet", "module_init": "orthogonal"}, 5e-3),
    "relu": ({"net": "plain"}, 5e-3),
}
KINDS = {
    "plain": {},
    "layer norm": {"norm": "layer"},
    "residual": {"net": "residual", "branch_scale": "1/sqrt(L)"},
    **{kind: {"net": "seqnet", "module_init": kind} for kind, k in MODULES if k == 2},
}


@pytest.fixture
def double():
    """Draw and compute in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(ours, theirs, rtol: float) -> None:
    np.testing.assert_allclose(
        np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=0, equal_nan=True
    )


# --- against the loop ---


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_plain_net_is_the_loop(double, activation, norm):
    spec = make_spec(activation=activation, norm=norm, depth=5)
    assert_same(measured(spec, 3), looped(spec, 5), rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("after", "scale"), SUMS)
def test_residual_net_is_the_loop(double, after, scale, activation, norm):
    """The block ratios agree as well.

    measure() reads them off the graph of the whole net; the loop runs each block and branch alone.
    """
    sums = {"residual_sum": after, "branch_scale": scale}
    spec = make_spec(net="residual", depth=6, activation=activation, norm=norm, **sums)
    assert_same(measured(spec, 3), looped(spec, 5), rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("scale", ["1", "1/sqrt(L)"])
def test_preact_net_is_the_loop(double, scale, activation, norm):
    """The shortcut of the first block has its own weight layer."""
    spec = make_spec(net="preact", depth=6, activation=activation, norm=norm, branch_scale=scale)
    assert_same(measured(spec, 3), looped(spec, 5), rtol=1e-9)


def test_dependence_is_numpys(double):
    """The correlations are those of np.corrcoef, taken feature by feature.

    R_f and R_b of each linear layer are relative to the formula of Prop. 3.4.
    """
    spec = make_spec(depth=3, width=6, batch=20, dependence=True)
    stream = generators(1)
    inputs, top, weights = (part for part in simulate.draw(spec, stream))
    ours = measured(spec, 1, repeats=1)[0].numpy()
    x = inputs[0].clone().requires_grad_()
    signals, linear = [x], []
    for weight in weights:
        linear.append(signals[-1] @ weight[0].T)
        linear[-1].retain_grad()
        z = linear[-1] - linear[-1].mean(0)
        signals.append(torch.relu(z / torch.sqrt((z * z).mean(0) + 1e-5)))
        signals[-1].retain_grad()
    signals[-1].backward(top[0])
    for k, weight in enumerate(weights, start=1):
        w, y, dy = weight[0].numpy(), signals[k].detach().numpy(), signals[k].grad.numpy()
        between = np.abs(np.corrcoef(y.T))
        pairs = (between.sum() - len(between)) / (len(between) * (len(between) - 1))
        own = np.mean([abs(np.corrcoef(y[:, i], dy[:, i])[0, 1]) for i in range(y.shape[1])])
        forward = (
            linear[k - 1].detach().var(0, correction=0).mean()
            / signals[k - 1].detach().var(0, correction=0).mean()
        )
        backward = (
            signals[k - 1].grad.var(0, correction=0).mean()
            / linear[k - 1].grad.var(0, correction=0).mean()
        )
        squares = (w**2).sum() / 6
        assert_same(ours[k, -4:], [forward / squares, backward / squares, pairs, own], rtol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("kind", "k"), MODULES)
def test_seqnet_is_the_loop(double, kind, k, norm):
    spec = make_spec(net="seqnet", depth=3, expansion=k, module_init=kind, norm=norm)
    assert_same(measured(spec, 3), looped(spec, 5), rtol=1e-9)


@pytest.mark.parametrize("name", DIGITS)
def test_float32_carries_the_stated_digits(name):
    """At the paper's size, measure() in float32 agrees with the loop in float64 within DIGITS."""
    keys, rtol = DIGITS[name]
    spec = paper_spec(**keys)
    ours, theirs = measured(spec, 2, repeats=2), looped(spec, 2, torch.float64)
    assert ours.dtype == torch.float32
    assert_same(ours, theirs, rtol)


# --- draws ---


@pytest.mark.parametrize("variance", ["1/d", "2/d"])
def test_draws_follow_the_stated_laws(variance):
    """Kolmogorov-Smirnov tests accept x ~ N(0, 1), dl/dx^(L) ~ N(0, 1/d) and W ~ N(0, c/d)."""
    spec = make_spec(width=64, batch=50, weight_variance=variance)
    inputs, top, weights = simulate.draw(spec, generators(5))
    stds = [1.0, 64**-0.5] + [math.sqrt(int(variance[0]) / 64)] * spec.depth
    for values, std in zip([inputs, top, *weights], stds, strict=True):
        assert kstest(values.flatten().numpy(), "norm", (0, std)).pvalue > 1e-3


@pytest.mark.parametrize(("kind", "k"), MODULES)
def test_second_weight_is_the_transpose_unless_untied(kind, k):
    """M is W^T at initialization, or if untied an independent N(0, 2/(kd)) (Ghost app. B.2)."""
    spec = make_spec(net="seqnet", width=32, expansion=k, module_init=kind)
    _, _, weights = simulate.draw(spec, generators(5))
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        assert first.shape == (5, 32 * k, 32)
        assert torch.equal(second, first.transpose(1, 2)) == (kind != "untied")
        if kind in ("random", "untied"):
            assert (
                kstest(second.flatten().numpy(), "norm", (0, math.sqrt(2 / (32 * k)))).pvalue > 1e-3
            )


def test_seqnet_weights_come_from_init():
    """draw() passes standard Gaussians to init.seqnet_matrix.

    They are drawn after the inputs and the derivative at the top.
    """
    spec = make_spec(net="seqnet", module_init="orthogonal", width=8, batch=6, depth=1)
    _, _, weights = simulate.draw(spec, generators(1))
    (stream,) = generators(1)
    for _ in range(2):
        torch.empty(6, 8).normal_(generator=stream)
    gaussian = torch.empty(16, 8).normal_(generator=stream)
    torch.testing.assert_close(weights[0][0], init.seqnet_matrix("orthogonal", gaussian))


def test_every_draw_of_a_repeat_is_its_own():
    """No two layers or repeats share numbers."""
    inputs, top, weights = simulate.draw(make_spec(width=12, batch=12), generators(3))
    scaled = torch.cat([t.flatten(1) / t.std() for t in (inputs, top, *weights)])
    correlation = torch.corrcoef(scaled) - torch.eye(18)
    assert correlation.abs().max() < 0.4  # 144 numbers each: 4.8 standard errors


# --- batching, threads, blocks ---


@pytest.mark.parametrize("kind", KINDS)
def test_batching_changes_nothing(double, kind):
    """Repeats have the same values whether 1, 3 or all 7 are computed at a time."""
    spec = make_spec(**KINDS[kind], width=32, depth=10, repeats=7)
    expected = measured(spec, 1)
    for chunk in (3, 7):
        assert_same(measured(spec, chunk), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "residual", "orthogonal"])
def test_threads_change_nothing(double, kind):
    """Two threads give the same values as one, at a width at which torch uses both."""
    spec = make_spec(**KINDS[kind], width=256, batch=64, depth=6, repeats=3)
    expected = measured(spec, 3)
    torch.set_num_threads(2)
    assert_same(measured(spec, 3), expected, rtol=1e-9)


@pytest.mark.parametrize("name", DIGITS)
def test_float32_repeats_depend_on_batching_by_rounding_only(name):
    """At the paper's size in float32, batching changes no more than DIGITS.

    This is 2e-5 where no mask flips, and otherwise leaves 2 or 3 significant digits. Where the BLAS
    rounds alike for all batch sizes, the values are bitwise equal.
    """
    keys, rtol = DIGITS[name]
    spec = paper_spec(**keys)
    expected = measured(spec, 1, repeats=4)
    for chunk in (3, 4):
        assert_same(measured(spec, chunk, repeats=4), expected, rtol)


@pytest.mark.parametrize("name", ["residual", "relu", "orthogonal"])
def test_float32_repeats_depend_on_threads_by_rounding_only(name):
    """At the paper's size in float32, a second thread changes no more than DIGITS.

    Two threads factorize O-Init's matrices in another order, which flips masks and was seen to
    change 2e-4; the values of the other two nets were bitwise equal.
    """
    keys, rtol = DIGITS[name]
    spec = paper_spec(**keys)
    expected = measured(spec, 2, repeats=2)
    torch.set_num_threads(2)
    assert_same(measured(spec, 2, repeats=2), expected, rtol)


def test_a_repeat_depends_on_its_number_alone(double):
    """Repeat i computed alone equals row i of the block, and no two rows are equal."""
    spec = make_spec(repeats=6)
    block = measured(spec, 6)
    for i in range(6):
        alone = simulate.measure(spec, generators(1, first=i))[0]
        assert_same(alone, block[i], rtol=1e-9)
    assert len(set(block[:, 1, 0].tolist())) == 6


def test_blocks_never_share_a_repeat():
    """The 4,096 repeats of four full blocks, as at the paper's scale, have different streams.

    torch's CPU generator reads only the low 32 bits of a seed, so these must differ. The schema
    refuses a block that would reach into the next one.
    """
    seeds = [stream_seed(0, "repeat", i) for i in range(4 * blocks.BLOCK)]
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)
    with pytest.raises(InputError):
        make_spec(repeats=blocks.BLOCK + 1)


class Undisturbed:
    """A state without a checkpoint that records what simulate() would have saved."""

    saved = None

    def __init__(self):
        self.seen: list[tuple[int, dict]] = []

    def load(self) -> dict | None:
        return self.saved

    def checkpoint_if_due(self, payload, done: int, total: int) -> None:
        saved = payload()
        self.seen.append((done, {**saved, "parts": list(saved["parts"])}))


class Resumed(Undisturbed):
    """A state that starts from a checkpoint."""

    def __init__(self, saved: dict):
        super().__init__()
        self.saved = saved


def rows(text: str) -> np.ndarray:
    """Return series.csv as numbers, with NaN for empty cells."""
    return np.array(
        [[float(cell or "nan") for cell in row] for row in list(csv.reader(io.StringIO(text)))[1:]]
    )


def test_pooled_blocks_are_one_larger_computation(double):
    """Block 1 starts at repeat 1,024.

    Blocks 0 and 1 together are therefore repeats 0 to 1,029 of one experiment.
    """
    tiny = {"depth": 2, "width": 3, "batch": 4}
    first = simulate.simulate(make_spec(**tiny, repeats=1024), Undisturbed(), CPU)
    second = simulate.simulate(make_spec(**tiny, repeats=6, seed=1), Undisturbed(), CPU)
    pooled = np.concatenate([rows(record.series.text()) for record in (first, second)])
    whole = simulate.measure(make_spec(**tiny), generators(1030))
    assert pooled[:, 0].tolist() == [i for i in range(1030) for _ in range(3)]
    assert pooled[:, 1].tolist() == [0, 1, 2] * 1030
    assert_same(pooled[:, 2:].reshape(1030, 3, 3), whole, rtol=1e-8)  # nine digits in the CSV


def test_a_block_is_all_its_repeats_whatever_fits_at_once(double, monkeypatch):
    """A block computed in parts that fit memory equals the block computed at once."""
    monkeypatch.setitem(blocks.MEMORY, "cpu", 250_000)  # three of these repeats at a time
    spec = make_spec(width=32, batch=16, repeats=8)
    state = Undisturbed()
    series = rows(simulate.simulate(spec, state, CPU).series.text())
    assert len(state.seen) > 2
    assert_same(series[:, 2:].reshape(8, 5, 3), measured(spec, 8), rtol=1e-8)


@pytest.mark.parametrize("net", ["plain", "residual", "seqnet"])
def test_resumed_simulation_has_the_same_bytes(net, monkeypatch):
    """A run resumed from any checkpoint writes the same files and computes no repeat twice."""
    monkeypatch.setitem(blocks.MEMORY, "cpu", 250_000)  # three or two of these repeats at a time
    spec = make_spec(net=net, depth=4 if net != "seqnet" else 1, width=32, batch=16, repeats=9)
    whole = Undisturbed()
    files = simulate.simulate(spec, whole, CPU).files(spec.stored())
    assert len(whole.seen) > 2
    for done, saved in whole.seen:
        state = Resumed(saved)
        assert simulate.simulate(spec, state, CPU).files(spec.stored()) == files
        assert [later for later, _ in state.seen] == [
            later for later, _ in whole.seen if later >= done
        ]


def test_a_block_begun_on_another_kind_of_device_starts_over():
    """CPU and CUDA generators draw different numbers, so a block never mixes them."""
    spec = make_spec(repeats=4)
    files = simulate.simulate(spec, Undisturbed(), CPU).files(spec.stored())
    begun = {"parts": [torch.zeros(2, spec.depth + 1, 3)], "device": "cuda"}
    assert simulate.simulate(spec, Resumed(begun), CPU).files(spec.stored()) == files


class StopAfter(StopRequest):
    """A request to stop that is not there yet in the first `pauses` checks for it."""

    def __init__(self, pauses: int):
        super().__init__()
        self.left = pauses

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_stopped_simulation_goes_on_from_its_state_folder(tmp_path):
    """A simulation that was stopped resumes from the checkpoint in its state folder.

    Four of the six repeats fit the memory budget, so the stop comes between two parts.
    """
    spec = paper_spec(repeats=6)
    files = simulate.simulate(spec, Undisturbed(), CPU).files(spec.stored())
    with State(tmp_path) as state, pytest.raises(Stopped):
        state.stop = StopAfter(1)
        simulate.simulate(spec, state, CPU)
    with State(tmp_path) as state:
        assert 0 < sum(len(part) for part in state.load()["parts"]) < 6
        assert simulate.simulate(spec, state, CPU).files(spec.stored()) == files


def test_metrics_are_means_over_the_series(double):
    """metrics.csv has the means over the repeats in series.csv.

    These are the gradient norms of the first and the last weight, and R_f and R_b of the whole net,
    which are means of ratios.
    """
    spec = make_spec(net="residual", repeats=7)
    record = simulate.simulate(spec, Undisturbed(), CPU)
    series = rows(record.series.text()).reshape(7, spec.depth + 1, -1)
    norm, forward, backward = (series[:, :, column] for column in (2, 3, 4))
    expected = {
        "first_gradient_norm": norm[:, 1].mean(),
        "last_gradient_norm": norm[:, -1].mean(),
        "R_f": (forward[:, -1] / forward[:, 0]).mean(),
        "R_b": (backward[:, 0] / backward[:, -1]).mean(),
    }
    assert record.metrics["repeats"] == 7
    assert {key: record.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-8)


def test_summary_of_a_block_is_over_its_repeats():
    """probes.csv has numpy's mean, standard error and quantiles over the repeats in series.csv.

    It has them for every quantity at every layer.
    """
    spec = make_spec(net="residual", repeats=7)
    record = simulate.simulate(spec, Undisturbed(), CPU)
    series = rows(record.series.text()).reshape(7, spec.depth + 1, -1)[:, :, 2:]
    columns = record.series.columns[2:]
    summary = {(row[2], row[3]): row[4] for row in record.probes.rows}
    expected = {
        "mean": series.mean(0),
        "se": series.std(0, ddof=1) / 7**0.5,
        "q05": np.quantile(series, 0.05, axis=0),
        "q50": np.median(series, axis=0),
        "q95": np.quantile(series, 0.95, axis=0),
    }
    filled = 0
    for name, table in expected.items():
        for layer in range(spec.depth + 1):
            for index, column in enumerate(columns):
                if np.isnan(table[layer, index]):
                    assert (f"{column}_{name}", layer) not in summary
                else:
                    filled += 1
                    assert summary[f"{column}_{name}", layer] == pytest.approx(
                        table[layer, index], rel=1e-6
                    )
    assert filled == len(summary)
