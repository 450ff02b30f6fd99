"""The theory against independent computations.

Quadrature is compared with closed forms, torch and Monte Carlo; the statistics of measured curves
with resampling; and the simulation with the theory.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from scipy import stats

from ghostgrad.analysis.statistics import (
    CURVE_STATISTICS,
    JACKKNIFE_GROUPS,
    fit_growth_rate,
    jackknife,
    line_r_squared,
)
from ghostgrad.theory import activations, propositions, quadrature
from tests.unit import costs
from tests.unit.loop import measured, paper_spec

PI = math.pi
PRINTED = {"SELU": 1.072, "Tanh": 1.178, "ReLU": 1.467}  # Ghost app. A
TORCH = {
    name: getattr(torch.nn, name)()
    for name in activations.ACTIVATIONS
    if name not in ("Linear", "PReLU")
}
TORCH |= {"Linear": torch.nn.Identity(), "PReLU": torch.nn.PReLU(dtype=torch.float64)}


# --- E[f(X)] ---


def double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


@pytest.mark.parametrize("power", range(13))
def test_moments(power):
    """E X^n = (n-1)!! for even n, else 0."""
    expected = double_factorial(power - 1) if power % 2 == 0 else 0
    assert quadrature.gaussian_mean(lambda x: x**power) == pytest.approx(
        expected, rel=1e-12, abs=1e-9
    )


@pytest.mark.parametrize("t", [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_exponential_moments(t):
    """E[exp(tX)] = exp(t^2/2), and over X < 0 alone this times Phi(-t)."""
    expected = math.exp(t * t / 2)
    assert quadrature.gaussian_mean(lambda x: math.exp(t * x)) == pytest.approx(
        expected, rel=0, abs=1e-9
    )
    lower = quadrature.gaussian_mean(lambda x: math.exp(t * x) if x < 0 else 0.0, (0.0,))
    assert lower == pytest.approx(expected * NormalDist().cdf(-t), abs=1e-9)


def test_functions_with_kinks():
    """Quadrature handles E|X|, a jump away from 0, and kinks that are given in reverse order."""
    assert quadrature.gaussian_mean(abs, (0.0,)) == pytest.approx(math.sqrt(2 / PI), abs=1e-9)
    tail = NormalDist().cdf(-0.7)
    assert quadrature.gaussian_mean(lambda x: float(x > 0.7), (0.7,)) == pytest.approx(
        tail, abs=1e-9
    )
    inside = 1 - 2 * NormalDist().cdf(-1)
    clipped = inside - 2 * NormalDist().pdf(1) + (1 - inside)  # E min(|X|, 1)^2, by parts
    measured_moment = quadrature.gaussian_mean(lambda x: min(max(x, -1), 1) ** 2, (1.0, -1.0))
    assert measured_moment == pytest.approx(clipped, abs=1e-9)


@pytest.mark.parametrize("f", [math.cos, lambda x: x * math.sin(x), lambda x: math.exp(-x * x)])
def test_smooth_functions_against_gauss_hermite(f):
    """100 nodes are exact for these to far below 1e-9."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    expected = sum(w * f(x) for x, w in zip(nodes, weights, strict=True)) / math.sqrt(2 * PI)
    assert quadrature.gaussian_mean(f) == pytest.approx(expected, abs=1e-9)


# --- activations ---


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_values_and_derivatives_are_torchs(name):
    """Values and derivatives are those of torch in float64, beside every kink and far out.

    The derivatives agree less closely because torch holds some constants in float32.
    """
    activation = activations.ACTIVATIONS[name]
    x = torch.cat(
        [torch.linspace(-8, 8, 400, dtype=torch.float64), torch.tensor([-30.0, 30.0]).double()]
    )
    x.requires_grad_()
    y = TORCH[name](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert [activation.value(v) for v in x.tolist()] == pytest.approx(
        y.tolist(), rel=1e-12, abs=1e-15
    )
    assert [activation.derivative(v) for v in x.tolist()] == pytest.approx(
        slope.tolist(), rel=1e-7, abs=1e-15
    )


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_derivatives_are_differences_of_values(name):
    """Central differences away from the kinks; every jump of the derivative is listed as a kink."""
    activation, h = activations.ACTIVATIONS[name], 1e-5
    for x in np.arange(-6, 6, 0.037) + 1e-3:
        numeric = (activation.value(x + h) - activation.value(x - h)) / (2 * h)
        assert activation.derivative(x) == pytest.approx(numeric, abs=1e-8)
    grid = np.arange(-60, 61) / 10
    jumps = [
        x
        for x in grid
        if abs(activation.derivative(x + 1e-9) - activation.derivative(x - 1e-9)) > 1e-6
    ]
    assert set(jumps) <= set(activation.kinks)


def test_tanh_has_a_derivative_far_out():
    """1/cosh^2 would overflow there; 1 - tanh^2 does not."""
    for x in (299.0, 301.0, 1e4):
        assert (
            activations.ACTIVATIONS["Tanh"].derivative(x)
            == activations.ACTIVATIONS["Tanh"].derivative(-x)
            < 1e-250
        )


@pytest.mark.parametrize("name", PRINTED)
def test_rates_are_the_printed_ones(name):
    """The growth rates E[s'^2]/Var[s] agree with all digits printed in Ghost app. A.

    Equation 1 of the paper has E[s']^2 instead (E-G1).
    """
    assert round(activations.ACTIVATIONS[name].growth_rate, 3) == PRINTED[name]


def test_relu_in_closed_form():
    """The moments are (1/2)(1 - 1/pi) and 1/2, their quotient pi/(pi-1) (Ghost sec. 3.1)."""
    relu = activations.ACTIVATIONS["ReLU"]
    assert relu.variance == pytest.approx((1 - 1 / PI) / 2, abs=1e-9)
    assert relu.mean_squared_derivative == pytest.approx(0.5, abs=1e-9)
    assert relu.mean_derivative == pytest.approx(0.5, abs=1e-9)
    assert relu.growth_rate == pytest.approx(PI / (PI - 1), abs=1e-9)


def test_selu_in_closed_form():
    """The moments of SELU follow from E[exp(tX); X < 0] = exp(t^2/2) Phi(-t).

    SELU's constants make its variance 1.
    """
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    e1, e2 = (math.exp(t * t / 2) * NormalDist().cdf(-t) for t in (1, 2))
    mean = scale * (1 / math.sqrt(2 * PI) + alpha * (e1 - 0.5))
    second = scale**2 * (0.5 + alpha**2 * (e2 - 2 * e1 + 0.5))
    selu = activations.ACTIVATIONS["SELU"]
    assert selu.variance == pytest.approx(second - mean**2, abs=1e-9)
    assert selu.variance == pytest.approx(1, abs=1e-6)
    assert selu.mean_squared_derivative == pytest.approx(scale**2 * (0.5 + alpha**2 * e2), abs=1e-9)
    assert selu.mean_derivative == pytest.approx(scale * (0.5 + alpha * e1), abs=1e-9)


def test_relu_of_a_shifted_input_in_closed_form():
    """The kink lies away from 0, and the derivative jumps there (Ghost app. C.4)."""
    c, normal = 0.7, NormalDist()
    below, density = normal.cdf(-c), normal.pdf(c)
    shifted = activations.Activation(lambda x: max(x - c, 0.0), lambda x: float(x > c), (c,))
    variance = (1 + c * c) * below - c * density - (density - c * below) ** 2
    assert shifted.variance == pytest.approx(variance, abs=1e-12)
    assert shifted.mean_squared_derivative == pytest.approx(below, abs=1e-12)
    assert shifted.mean_derivative == pytest.approx(below, abs=1e-12)


def test_tanh_by_the_trapezoidal_rule():
    """The trapezoidal rule is practically exact at h = 0.05.

    Its error is exp(-pi^2/h) for a function with poles at i pi/2.
    """
    x = np.arange(-15, 15, 0.05)
    weight = 0.05 * np.exp(-x * x / 2) / np.sqrt(2 * PI)
    slope = 1 - np.tanh(x) ** 2
    tanh = activations.ACTIVATIONS["Tanh"]
    assert tanh.variance == pytest.approx((weight * np.tanh(x) ** 2).sum(), abs=1e-9)
    assert tanh.mean_squared_derivative == pytest.approx((weight * slope**2).sum(), abs=1e-9)
    assert tanh.mean_derivative == pytest.approx((weight * slope).sum(), abs=1e-9)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_ratios_by_monte_carlo(name):
    """R_f and R_b agree with 2,000,000 samples through torch, to four standard errors."""
    x = torch.empty(2_000_000, dtype=torch.float64).normal_(
        generator=torch.Generator().manual_seed(1)
    )
    x.requires_grad_()
    y = TORCH[name](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    y, activation = y.detach(), activations.ACTIVATIONS[name]
    for values, expected in (
        ((y - y.mean()) ** 2, activation.variance),
        (slope**2, activation.mean_squared_derivative),
    ):
        error = values.std().item() / math.sqrt(len(values))
        assert values.mean().item() == pytest.approx(expected, abs=4 * error)


# --- max-pooling ---


def test_maximum_of_few_gaussians_in_closed_form():
    """R_f is the variance of the maximum of n Gaussians, for n from 1 to 4.

    R_b is the probability 1/n to be the maximum.
    """
    mean4 = 6 / PI**1.5 * math.atan(math.sqrt(2))
    exact = {
        1: 1.0,
        2: 1 - 1 / PI,
        3: 1 + math.sqrt(3) / (2 * PI) - 9 / (4 * PI),
        4: 1 + math.sqrt(3) / PI - mean4**2,
    }
    for n, variance in exact.items():
        assert activations.maxpool_forward_ratio(n) == pytest.approx(variance, abs=1e-9)
        assert activations.maxpool_backward_ratio(n) == pytest.approx(1 / n, abs=1e-9)


def test_maxpool_is_the_papers_and_torchs():
    """Ghost app. C.1 prints 0.492 and 1/4; torch's max_pool2d agrees to four standard errors."""
    forward, backward = activations.maxpool_forward_ratio(), activations.maxpool_backward_ratio()
    assert round(forward, 3) == 0.492
    stream = torch.Generator().manual_seed(2)
    x = (
        torch.empty(1, 1, 2000, 2000, dtype=torch.float64)
        .normal_(generator=stream)
        .requires_grad_()
    )
    y = F.max_pool2d(x, 2)
    top = torch.empty_like(y).normal_(generator=stream)
    (dx,) = torch.autograd.grad(y, x, top)
    y, n = y.detach(), y.numel()
    squares = (y - y.mean()) ** 2
    error = squares.std().item() / n**0.5
    assert squares.mean().item() == pytest.approx(forward, abs=4 * error)
    ratio = (dx.var() / top.var()).item()
    assert ratio == pytest.approx(backward, abs=4 * 0.25 * (2 / n) ** 0.5)


# --- statistics of measured curves ---


def noisy_curves(seed: int, n: int = 128, layers: int = 12) -> np.ndarray:
    """Return curves (n, layers) that grow by 1.2 per index toward the input, with noise.

    One part of the noise is common to all layers of a repeat, as in a simulation.
    """
    rng = np.random.default_rng(seed)
    shared = 0.3 * rng.standard_normal((n, 1)) * np.linspace(0, 1, layers)
    own = 0.2 * rng.standard_normal((n, layers))
    return 1.2 ** np.arange(layers - 1, -1, -1) * np.exp(shared + own)


@pytest.mark.parametrize("n", [2, 7, JACKKNIFE_GROUPS])
def test_jackknife_of_a_mean_is_the_textbook_one(n):
    """Leaving out one value at a time gives exactly s/sqrt(n)."""
    values = np.random.default_rng(n).standard_normal(n)
    mean, error, degrees = jackknife(values, float)
    assert degrees == n - 1
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(n), rel=1e-9)


@pytest.mark.parametrize("batch", [8, 16, 128])
def test_the_moments_of_z_are_those_of_a_beta_variable(batch):
    """z is B times the squared correlation of a Gaussian vector with an independent vector.

    That squared correlation has the distribution Beta(1/2, (B - 2)/2).
    """
    squared_correlation = stats.beta(0.5, (batch - 2) / 2)
    assert propositions.bn_z_mean(batch) == pytest.approx(batch * squared_correlation.mean())
    variance = batch**2 * squared_correlation.var()
    assert propositions.bn_z_variance(batch) == pytest.approx(variance)


def test_grouped_jackknife_of_a_mean_is_the_groups():
    """With groups of equal size the error is that of the mean of the groups' means."""
    values = np.random.default_rng(0).standard_normal(10 * JACKKNIFE_GROUPS)
    groups = values.reshape(JACKKNIFE_GROUPS, 10).mean(1)
    assert jackknife(values, float)[1] == pytest.approx(
        groups.std(ddof=1) / math.sqrt(JACKKNIFE_GROUPS), rel=1e-9
    )


def test_unequal_groups_leave_the_jackknife_unbiased():
    """100 values make 36 pairs and 28 single values.

    The mean squared error over 400 samples is the true 1/n; it is accurate to 1.3 %.
    """
    rng = np.random.default_rng(1)
    squares = [jackknife(rng.standard_normal(100), float)[1] ** 2 for _ in range(400)]
    assert np.mean(squares) * 100 == pytest.approx(1, abs=0.05)


def test_jackknife_of_a_fitted_rate_is_its_spread_over_fresh_samples():
    """The spread of the rates over 600 independent samples of 128 repeats is accurate to 3 %.

    The jackknife's mean error over 40 of these samples is accurate to 2 %.
    """
    samples = [noisy_curves(seed) for seed in range(600)]
    rates = [fit_growth_rate(sample.mean(0)) for sample in samples]
    errors = [jackknife(sample, fit_growth_rate)[1] for sample in samples[:40]]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(rates, ddof=1), rel=0.12)
    assert jackknife(samples[0], fit_growth_rate)[0] == rates[0]


def test_jackknife_of_a_fitted_rate_is_the_bootstraps():
    """The bootstrap draws the repeats of one sample with replacement, 1,000 times."""
    sample, rng = noisy_curves(3, n=256), np.random.default_rng(4)
    rates = [fit_growth_rate(sample[rng.integers(0, 256, 256)].mean(0)) for _ in range(1000)]
    assert jackknife(sample, fit_growth_rate)[1] == pytest.approx(
        np.std(rates), rel=0.3
    )  # 64 groups estimate it to 9 %


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.0001, 1.2112, 3.0])
def test_fitted_rate_of_an_exact_exponential(rate):
    """The rate is above 1 if the curve grows toward the input, index 0, whatever its scale."""
    curve = 7e-5 * rate ** np.arange(19, -1, -1)
    assert fit_growth_rate(curve) == pytest.approx(rate, rel=1e-12)
    assert CURVE_STATISTICS["rate"](curve) == fit_growth_rate(curve)
    assert CURVE_STATISTICS["growth"](curve) == pytest.approx(rate**19, rel=1e-12)


def test_r_squared_is_one_on_exact_lines():
    line, exponential = np.linspace(9, 2, 20), 1.3 ** np.arange(19, -1, -1)
    assert line_r_squared(line, logarithmic=False) == pytest.approx(1, abs=1e-12)
    assert line_r_squared(exponential, logarithmic=True) == pytest.approx(1, abs=1e-12)
    assert line_r_squared(line, logarithmic=True) < 0.99
    assert line_r_squared(exponential, logarithmic=False) < 0.9


def test_r_squared_is_the_squared_correlation():
    """R^2 of a least-squares line is the square of Pearson's r, for any curve."""
    curve = noisy_curves(5, n=1)[0]
    for logarithmic, name in ((True, "R2_exponential"), (False, "R2_linear")):
        y = np.log(curve) if logarithmic else curve
        expected = np.corrcoef(np.arange(len(y)), y)[0, 1] ** 2
        assert line_r_squared(curve, logarithmic) == pytest.approx(expected, rel=1e-10)
        assert CURVE_STATISTICS[name](curve) == pytest.approx(expected, rel=1e-10)


# --- the simulation against the theory ---

SHRINK, ABSOLUTE = 1 - 1 / PI, 1 - 2 / PI  # Var[relu(X)] / E[relu(X)^2] and Var[|X|]
RATIOS = {
    "linear, 1/d": ({"activation": "linear", "weight_variance": "1/d"}, 1, 1),
    "ReLU, 2/d": ({}, SHRINK, 1),
    **{
        f"R-Init, k={k}": ({"module_init": "random", "expansion": k}, 1 + 2 / k * SHRINK, 1 + 2 / k)
        for k in (2, 4)
    },
    **{
        f"untied, k={k}": ({"module_init": "untied", "expansion": k}, 2 / k * SHRINK, 2 / k)
        for k in (2, 4)
    },
    **{
        f"O-Init, k={k}": (
            {"module_init": "orthogonal", "expansion": k},
            1 + ABSOLUTE / k,
            1 + 1 / k,
        )
        for k in (2, 4)
    },
    **{f"L-Init, k={k}": ({"module_init": "looks-linear", "expansion": k}, 4, 4) for k in (2, 4)},
}


@pytest.mark.parametrize("name", RATIOS)
def test_ratios_of_one_layer_are_the_papers(name):
    """Ghost Prop. 3.4, sec. 3.1 and Prop. 4.1 with W ~ N(0, 2/(kd)) (E-G11).

    They hold to four standard errors of 16 repeats and a term of 1/d. By the same argument O-Init
    has 1 + (1 - 2/pi)/k and 1 + 1/k; L-Init is y = 2x and has 4 and 4.
    """
    keys, forward, backward = RATIOS[name]
    net = "seqnet" if "module_init" in keys else "plain"
    values = measured(paper_spec(net=net, norm="none", depth=1, **keys), 4, repeats=16).double()
    signal, derivative = values[:, -1, 1] / values[:, 0, 1], values[:, 0, 2] / values[:, -1, 2]
    for ratios, expected in ((signal, forward), (derivative, backward)):
        error = ratios.std().item() / 4
        assert error < 0.01
        assert ratios.mean().item() == pytest.approx(expected, abs=4 * error + 1 / 256)


def test_stacked_modules_grow_as_predicted():
    """Growth of the derivative's variance per module, over 4 repeats of 10 modules.

    L-Init only grows by the finite batch of BN, R-Init by about 1.19 of Prop. 4.1 (1.20 at this
    size), O-Init faster (E-G17), and untied modules like any plain net.
    """
    rates = {}
    for kind in ("looks-linear", "random", "orthogonal", "untied"):
        values = measured(
            paper_spec(net="seqnet", depth=10, module_init=kind), 2, repeats=4
        ).double()
        rates[kind] = fit_growth_rate(values[:, ::2, 2].mean(0).numpy())
    assert rates["looks-linear"] == pytest.approx(1, abs=0.005)
    assert rates["random"] == pytest.approx(2 / (1 + SHRINK), abs=0.025)
    assert rates["orthogonal"] == pytest.approx(1.5 / (1 + ABSOLUTE / 2), abs=0.025)
    assert rates["untied"] == pytest.approx(PI / (PI - 1), abs=0.025)
    assert all(a < b for a, b in pairwise(rates.values()))


def test_plain_net_explodes_by_the_papers_rate():
    """In PlainNet20 with BN the mean gradient norm grows by sqrt(pi/(pi-1)) per layer.

    This holds within four standard errors of 0.0006 at 24 repeats. 256 repeats give 1.2128: the
    finite width and batch change the rate by 0.0017.
    """
    values = measured(paper_spec(), 4, repeats=24).double().numpy()
    rate, error, _ = jackknife(values[:, 1:, 0], fit_growth_rate)
    assert error < 0.001
    assert rate == pytest.approx(math.sqrt(PI / (PI - 1)), abs=4 * error)


def test_costs_are_those_of_the_networks():
    """ResNet50 costs what torchvision's modules sum up to; SeqNet50 about twice as much."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    net = torchvision.models.resnet50(weights=None).eval()
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, 224, 224))
    assert costs.resnet50_cost() == (50, total)
    seqnet = costs.seqnet50_cost()
    assert seqnet.layers == 2 + 4 * 16
    assert 2 < seqnet.multiply_adds / total < 2.05
