"""The options of the update rules change a training run as they say.

A run with any of them resumes exactly.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
import torch

from ghostgrad.checks import InputError
from ghostgrad.registry.spec import expand
from ghostgrad.runs.state import State, Stopped
from ghostgrad.tasks import classify
from ghostgrad.training import probes
from ghostgrad.training.distributed import ProcessGroup
from ghostgrad.training.engine import Network
from ghostgrad.training.optimizers.build import OPTIMIZERS

CPU = torch.device("cpu")
BASE = {
    "model": "preact_resnet",
    "data": "digits",
    "blocks": 1,
    "filters": 4,
    "batch": 32,
    "length": 6,
    "lr": 0.1,
}
BASE |= {"momentum": 0.9, "weight_decay": 1e-3, "eval_every": 1, "seed": 0}


class StopsAt(State):
    """A state that is asked to stop at a step."""

    step: int | None = None

    def checkpoint_if_due(self, payload, done, total):
        if done == self.step:
            self.stop.signal = "SIGTERM"
        super().checkpoint_if_due(payload, done, total)


def run(folder, digits, stop_at: int | None = None, **changes):
    with StopsAt(folder) as state:
        state.step = stop_at
        return classify.classify(expand("classify", {**BASE, **changes}), state, CPU, digits)


def column(record, name: str) -> list[float]:
    return [float(row[name]) for row in csv.DictReader(io.StringIO(record.series.text()))]


RULES = sorted(OPTIMIZERS)


@pytest.mark.parametrize("rule", RULES)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, digits, rule):
    """The checkpoint holds all that the updates depend on.

    That is the buffers, LAMB's count of updates, and the position in warm-up and schedule.
    """
    changes = {
        "optimizer": rule,
        "warmup": 2,
        "schedule": "cosine",
        "lr": 0.01 if rule == "lamb" else 0.1,
    }
    whole = run(tmp_path / "whole", digits, **changes)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", digits, stop_at=3, **changes)
    parts = run(tmp_path / "parts", digits, **changes)
    assert parts.series.text() == whole.series.text()
    assert parts.metrics == whole.metrics


def test_every_rule_is_another_run(tmp_path, digits):
    ends = [column(run(tmp_path / rule, digits, optimizer=rule), "test_loss")[-1] for rule in RULES]
    assert all(map(math.isfinite, ends))
    assert len(set(ends)) == len(RULES)


def test_micro_batches_add_up_to_the_batch_where_no_image_sees_another(tmp_path, digits):
    """With BN they do not add up, because every micro-batch has its own statistics."""
    for batch_norm in (False, True):
        changes = {"batch_norm": batch_norm, "lr": 0.01, "length": 3}
        whole = run(tmp_path / f"whole{batch_norm}", digits, **changes)
        parts = run(tmp_path / f"parts{batch_norm}", digits, micro_batch=8, **changes)
        close = column(parts, "train_loss") == pytest.approx(column(whole, "train_loss"), rel=1e-4)
        assert close == (not batch_norm)


def test_the_schedule_is_followed(tmp_path, digits):
    learning_rates = column(run(tmp_path, digits, warmup=2, schedule="cosine"), "lr")
    assert learning_rates == pytest.approx(
        [0.05, 0.1, 0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]
    )


def test_a_layer_may_have_its_own_learning_rate(tmp_path, digits):
    before = classify.new_model(expand("classify", BASE), digits).state_dict()
    with pytest.raises(Stopped):
        run(tmp_path, digits, stop_at=2, lr_scales={"stem": 1e-30})
    with State(tmp_path) as state:
        after = state.load()["model"]
    torch.testing.assert_close(after["stem.weight"], before["stem.weight"], rtol=0, atol=0)
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_initial_weights(digits):
    normal = classify.new_model(
        expand("classify", {**BASE, "filters": 32, "init": "normal", "init_std": 0.3}), digits
    )
    weight = normal.blocks[-1].conv2.weight
    assert weight.std().item() == pytest.approx(0.3, rel=0.02)
    spec = expand(
        "classify",
        {**BASE, "model": "resnet50", "cifar_stem": True, "small_stem": True, "init": "default"},
    )
    first, second = classify.new_model(spec, digits), classify.new_model(spec, digits)
    other = classify.new_model(replace(spec, seed=1), digits)
    assert first.net.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(first.net.fc.weight, second.net.fc.weight)
    assert not torch.equal(first.net.fc.weight, other.net.fc.weight)


DROPOUT = {"model": "mlp", "depth": 3, "width": 32, "activation": "dropout"}


def test_dropout_draws_from_the_seed_and_the_step_alone(tmp_path, digits):
    """A stopped run resumes with the same masks, whatever the state of torch's global generator.

    It leaves that generator alone.
    """
    whole = run(tmp_path / "whole", digits, **DROPOUT)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", digits, stop_at=1, **DROPOUT)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    parts = run(tmp_path / "parts", digits, **DROPOUT)
    assert torch.equal(torch.get_rng_state(), before)
    assert (parts.series.text(), parts.metrics) == (whole.series.text(), whole.metrics)


def test_probes_of_a_network_with_dropout_change_nothing(tmp_path, digits):
    """Probes do not affect the training, and see the same masks in a run that was stopped, whatever
    the state of torch's global generator."""
    changes = {"probes": ["gradients", "statistics"], "probe_at": [0, 2, 4], **DROPOUT}
    without, whole = (
        run(tmp_path / "without", digits, **DROPOUT),
        run(tmp_path / "whole", digits, **changes),
    )
    with pytest.raises(Stopped):
        run(tmp_path / "parts", digits, stop_at=3, **changes)
    torch.manual_seed(99)
    parts = run(tmp_path / "parts", digits, **changes)
    assert (whole.series.text(), whole.metrics) == (without.series.text(), without.metrics)
    assert {row["step"] for row in csv.DictReader(io.StringIO(whole.probes.text()))} == {
        "0",
        "2",
        "4",
    }
    assert parts.probes.text() == whole.probes.text()


def test_masks_differ_by_seed_step_and_process(digits):
    spec = expand("classify", {**BASE, **DROPOUT})
    model, x = classify.new_model(spec, digits), torch.ones(4, 3, 8, 8)
    outputs = []
    for seed, rank, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        network = Network(replace(spec, seed=seed), model, CPU, ProcessGroup(rank, 2))
        with network.dropout_rng(step):
            outputs.append(network(x))
    assert torch.equal(outputs[0], outputs[-1])
    assert all(not torch.equal(outputs[0], other) for other in outputs[1:-1])


def test_a_probe_by_itself_leaves_torchs_generator_alone(digits):
    model = classify.new_model(expand("classify", {**BASE, **DROPOUT}), digits)
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    before = torch.get_rng_state()
    list(probes.measure(["gradients", "statistics"], model, x, y))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("other", [{"weight_decay": 0.0}, {"seed": 1}, {"optimizer": "lalc"}])
def test_a_checkpoint_of_another_spec_is_one_line(tmp_path, digits, other):
    with pytest.raises(Stopped):
        run(tmp_path, digits, stop_at=2)
    with pytest.raises(
        InputError, match="the checkpoint has another spec; delete it to start over"
    ) as error:
        run(tmp_path, digits, **other)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("rule", "option"), [("lalc", "raw_norm"), ("lamb", "beta2")])
def test_a_checkpoint_from_before_an_option_was_added_goes_on(tmp_path, digits, rule, option):
    """Options that its groups lack or have with another value are taken from the spec."""
    changes = {"optimizer": rule, "lr": 0.01}
    whole = run(tmp_path / "whole", digits, **changes)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", digits, stop_at=3, **changes)
    with State(tmp_path / "parts") as state:
        saved = state.load()
        for group in saved["optimizer"]["param_groups"]:
            del group[option]
            group["momentum"] = 0.1
        state.save(saved)
    parts = run(tmp_path / "parts", digits, **changes)
    assert (parts.series.text(), parts.metrics) == (whole.series.text(), whole.metrics)
