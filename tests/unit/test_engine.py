"""Precision, memory format, compilation and torch's switches change how a network is computed, and
its results only by rounding."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ghostgrad.checks import InputError
from ghostgrad.registry.spec import expand
from ghostgrad.runs.state import State
from ghostgrad.tasks import classify
from ghostgrad.tasks.run import translate_torch_errors
from ghostgrad.training import orthogonal
from ghostgrad.training.distributed import SINGLE_PROCESS
from ghostgrad.training.engine import Network, configure
from ghostgrad.training.loader import InMemoryLoader

CPU = torch.device("cpu")
BASE = {
    "model": "preact_resnet",
    "data": "digits",
    "blocks": 1,
    "filters": 8,
    "batch": 32,
    "length": 5,
    "lr": 0.05,
}
BASE |= {"momentum": 0.9, "weight_decay": 1e-3, "eval_every": 1, "seed": 0}
MLP = {"model": "mlp", "depth": 3, "width": 32}


class Last(State):
    """A state that keeps what a checkpoint after the last step would hold."""

    def checkpoint_if_due(self, payload, done, total):
        if done == total:
            self.last = payload()
        super().checkpoint_if_due(payload, done, total)


def run(folder, digits, **changes) -> dict:
    with Last(folder) as state:
        classify.classify(expand("classify", {**BASE, **changes}), state, CPU, digits)
        return state.last


def losses(saved: dict) -> list[float]:
    return [row[k] for row in saved["series"] for k in (4, 6)]


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    # A fixture of a module is set up before `reproducible_torch`, which does this for every test.
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("plain"), digits)


def test_fp32_is_a_plain_loop_bit_by_bit(plain, digits):
    spec = expand("classify", BASE)
    batches, model = InMemoryLoader(spec, digits, CPU), classify.new_model(spec, digits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for step in range(5):
        x, y = batches(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        assert plain["series"][step][4] == loss.item()
    for name, value in model.state_dict().items():
        assert torch.equal(plain["model"][name], value), name


def test_bfloat16_keeps_weights_in_float32(plain, tmp_path, digits):
    saved = run(tmp_path, digits, precision="bf16")
    kept = [
        *saved["model"].values(),
        *(state["momentum_buffer"] for state in saved["optimizer"]["state"].values()),
    ]
    # int64 is BN's count of batches.
    assert {value.dtype for value in kept} == {torch.float32, torch.int64}
    assert losses(saved) == pytest.approx(losses(plain), rel=0.05)
    assert losses(saved) != pytest.approx(losses(plain), rel=1e-5)


def test_bfloat16_gives_logits_in_float32(digits):
    spec = expand("classify", {**BASE, "precision": "bf16"})
    network = Network(spec, classify.new_model(spec, digits), CPU, SINGLE_PROCESS)
    seen = []
    network.model.classifier.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    assert network(torch.rand(4, 3, 8, 8)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_bfloat16_evaluates_in_float32_bit_by_bit(digits):
    """The precision of training has an effect on the weights, but none on how they are judged."""
    spec = expand("classify", {**BASE, "precision": "bf16"})
    network = Network(spec, classify.new_model(spec, digits), CPU, SINGLE_PROCESS)
    x = torch.rand(16, 3, 8, 8)
    with torch.no_grad():
        network(x)  # BN's running statistics are no longer 0 and 1
        expected = network.model.eval()(x)
        assert torch.equal(network(x), expected)
        network.model.train()
        in_train_mode = network.model(x)
        assert not torch.equal(network(x), in_train_mode)
    loader = InMemoryLoader(spec, digits, CPU)
    seen = []
    network.model.classifier.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    loss, accuracy = classify.evaluate(network, loader)
    assert set(seen) == {torch.float32}
    network.model.eval()
    with torch.no_grad():
        pairs = [(network.model(x), y) for x, y in loader.test_batches()]
    logits, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    assert loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == y).float().mean().item())


def test_channels_last_changes_rounding_only(plain, tmp_path, digits):
    saved = run(tmp_path, digits, channels_last=True)
    assert losses(saved) == pytest.approx(losses(plain), rel=1e-3)
    weight = saved["model"]["blocks.0.conv2.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain["model"]["blocks.0.conv2.weight"].is_contiguous(
        memory_format=torch.channels_last
    )
    assert list(saved["model"]) == list(plain["model"])


def test_channels_last_of_a_narrow_network_is_one_line_on_a_cpu(digits):
    """torch itself would end the process."""
    spec = expand("classify", {**BASE, "channels_last": True, "filters": 4})
    with pytest.raises(
        InputError,
        match=r"channels_last: .* a convolution of 4 channels, fewer than 8; leave it out",
    ):
        Network(spec, classify.new_model(spec, digits), CPU, SINGLE_PROCESS)
    Network(
        replace(spec, channels_last=False), classify.new_model(spec, digits), CPU, SINGLE_PROCESS
    )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_changes_rounding_only(tmp_path, digits, monkeypatch):
    """A checkpoint has the parameter names of the plain model, so a run can resume with or without
    compilation."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    compiled, count = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda model: count.append(model) or compiled(model))
    saved = [run(tmp_path / str(on), digits, compile=on, **MLP) for on in (False, True)]
    assert len(count) == 1
    assert losses(saved[1]) == pytest.approx(losses(saved[0]), rel=1e-4)
    assert list(saved[1]["model"]) == list(saved[0]["model"])


def test_a_missing_compiler_is_one_line():
    from torch._inductor.exc import InvalidCxxCompiler

    with (
        pytest.raises(
            InputError,
            match=r"compile: torch cannot compile the network: No working C\+\+ compiler",
        ) as error,
        translate_torch_errors(),
    ):
        raise InvalidCxxCompiler
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("on", [True, False])
def test_deterministic_sets_torchs_switches(on, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        configure(expand("classify", {**BASE, "deterministic": on}))
        assert torch.are_deterministic_algorithms_enabled() == on
        assert torch.backends.cudnn.benchmark == (not on)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == on
    finally:
        configure(expand("classify", BASE))


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_used_only_where_it_is_asked_for(precision, on):
    """TF32 is allowed for convolutions only; matrix products never use it."""
    try:
        configure(expand("classify", {**BASE, "precision": precision}))
        assert torch.backends.cudnn.allow_tf32 == on
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        configure(expand("classify", BASE))


def test_orthogonal_regularization_adds_its_gradient_once(digits):
    """The gradient of the penalty is added once per step, not once per micro-batch, and the
    returned loss is the cross-entropy without the penalty."""
    net = {
        "model": "seqnet50",
        "cifar_stem": True,
        "small_stem": True,
        "stem_filters": 4,
        "init": "default",
    }
    options = {**BASE, **net, "micro_batch": 8}
    spec, without = (expand("classify", {**options, "orthogonal": eta}) for eta in (0.5, 0))
    x, y = InMemoryLoader(spec, digits, CPU)(0)
    results = []
    for variant in (spec, without):
        network = Network(variant, classify.new_model(variant, digits).train(), CPU, SINGLE_PROCESS)
        loss, _ = network.forward_backward(x, y, 0)
        results.append((loss, network.model, [p.grad.clone() for p in network.model.parameters()]))
    (loss, model, grads), (other_loss, _, plain_grads) = results
    assert loss == other_loss
    penalty = orthogonal.penalty(orthogonal.regularized_weights(model), 0.5)
    own = torch.autograd.grad(penalty, list(model.parameters()), allow_unused=True)
    assert sum(g is not None for g in own) == 32
    for total, of_loss, of_penalty in zip(grads, plain_grads, own, strict=True):
        expected = of_loss if of_penalty is None else of_loss + of_penalty
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
