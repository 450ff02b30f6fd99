"""`ghostgrad calibrate`: what it measures, what it writes, and that `ghostgrad plan` uses it."""

from __future__ import annotations

import csv
import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

from ghostgrad.checks import InputError
from ghostgrad.cli import calibrate, estimates
from ghostgrad.registry.spec import RunSpec
from ghostgrad.training.engine import Network
from ghostgrad.training.optimizers.build import OPTIMIZERS
from tests.unit.commands import REGISTRY, error_of, output_of, workload

CPU = torch.device("cpu")
SMALL = REGISTRY.run("laptop", "resnet15_cifar/model1-s0")


def small(**changes) -> RunSpec:
    return replace(SMALL, spec=replace(SMALL.spec, blocks=1, batch=4, **changes))


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_what_is_measured_is_kept(tmp_path):
    """Measuring on a second device keeps the first device's row, and measuring again replaces the
    device's own row."""
    path = calibrate.calibrate([SMALL, SMALL], CPU, 2, tmp_path)
    (row,) = read(path)
    assert row["workload"] == workload(SMALL)
    assert float(row["images_per_s"]) > 0
    assert row["torch"] == torch.__version__
    path.write_text(path.read_text().replace(row["device"], "another"))
    calibrate.calibrate([SMALL], CPU, 2, tmp_path)
    calibrate.calibrate([SMALL], CPU, 2, tmp_path)
    assert [r["device"] for r in read(path)] == ["another", row["device"]]
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.csv"]


def test_plan_uses_the_last_gpu_or_the_device_that_is_named(tmp_path):
    rows = [("w", "H100", 30), ("w", "A100", 20), ("full", "A100", ""), ("w", "cpu, 2 threads", 1)]
    with (tmp_path / "calibration.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [estimates.CALIBRATION_COLUMNS, *((*row, "", "2.15") for row in rows)]
        )
    assert estimates.read_calibration(tmp_path, "") == ("A100", {"w": 20.0})
    assert estimates.read_calibration(tmp_path, "H100") == ("H100", {"w": 30.0})
    assert estimates.read_calibration(tmp_path, "cpu, 2 threads") == ("cpu, 2 threads", {"w": 1.0})
    with pytest.raises(InputError, match="--device: 'H10' is not measured; did you mean 'H100'"):
        estimates.read_calibration(tmp_path, "H10")


HEAD = "workload,device,images_per_s\n"
SPOILT = [HEAD + row for row in ("w,H100,abc", "w", "w,H100,nan", "w,H100,-5")]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "device,images_per_s\nH100,3\n", *SPOILT])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / "calibration.csv").write_text(text)
    with pytest.raises(
        InputError, match=r"calibration\.csv: damaged; delete it and run ghostgrad calibrate again"
    ):
        estimates.read_calibration(tmp_path, "")
    (tmp_path / "calibration.csv").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"calibration\.csv: damaged; delete it"):
        calibrate.calibrate([SMALL], CPU, 1, tmp_path)


def test_what_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "calibration.csv").mkdir()
    with pytest.raises(InputError, match=r"calibration\.csv: Is a directory; repair or delete it"):
        estimates.read_calibration(tmp_path, "")


def test_a_build_uses_what_was_measured(tmp_path):
    run, path = REGISTRY.run("paper", "resnet15_cifar/model1-s0"), tmp_path / "calibration.csv"
    assert estimates.expectation([], tmp_path, 2, False) == "no runs to do"
    rows = [
        estimates.CALIBRATION_COLUMNS,
        (workload(run), "H100", estimates.images_to_process(run.spec) / 7 / 3600, "", "2.15"),
    ]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    message = estimates.expectation([run], tmp_path, 2, False)
    assert message == "1 run to do, about 7.0 GPU-hours and 0.0 core-hours (ghostgrad plan)"
    path.write_bytes(b"\xff")
    assert re.match(
        r"1 run to do; .*calibration\.csv: damaged",
        estimates.expectation([run], tmp_path, 2, False),
    )


def test_a_cpu_says_nothing_of_a_gpu(tmp_path):
    calibrate.calibrate([SMALL], CPU, 1, tmp_path)
    assert estimates.read_calibration(tmp_path, "") == ("", {})


def test_plan_says_which_device_it_uses(ghostgrad):
    seqnet = REGISTRY.run("paper", "imagenet/seqnet50-s0")
    Path("state").mkdir()
    with Path("state/calibration.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [estimates.CALIBRATION_COLUMNS, [workload(seqnet), "An H200", "500", "", "2.15"]]
        )
    out = output_of(ghostgrad("plan", "--scale", "paper"))
    assert "measured: training steps on An H200, by ghostgrad calibrate" in out
    (line,) = (line.split() for line in out.splitlines() if line.startswith("ghost.fig7"))
    assert line[-2:] == ["multiply-adds,", "measured"]
    assert float(line[4]) == pytest.approx(100 * 5004 * 256 / 500 / 4 / 3600, abs=0.005)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of GPU memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_does_not_fit_is_said_and_the_next_is_measured(
    tmp_path, monkeypatch, caplog, error, message
):
    def full(spec, *_):
        if spec.model == "preact_resnet":
            raise error
        return 3.0

    second = REGISTRY.run("laptop", "cifar_sweep/sgd-128-s0")
    monkeypatch.setattr(calibrate, "images_per_s", full)
    caplog.set_level(logging.INFO)
    path = calibrate.calibrate([SMALL, second], CPU, 2, tmp_path)
    assert [row["images_per_s"] for row in read(path)] == ["", "3"]
    assert f"1 of 2: preact_resnet, sgd, fp32, batch 64: {message}" in caplog.text
    assert estimates.read_calibration(tmp_path, read(path)[0]["device"])[1] == {
        workload(second): 3.0
    }


def test_another_error_is_not_taken_for_want_of_memory(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(calibrate, "images_per_s", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        calibrate.calibrate([SMALL], CPU, 1, tmp_path)


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_every_update_rule_is_measured(rule):
    """Each update rule can do a step; CLARS also needs the norms of the per-sample gradients."""
    steps = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: steps.append(optimizer))
    try:
        assert calibrate.images_per_s(small(optimizer=rule).spec, CPU, 2) > 0
    finally:
        hook.remove()
    assert len(steps) == calibrate.WARM_UP_STEPS + 2
    assert {type(optimizer).__name__.lower() for optimizer in steps} == {rule}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (torch.float32, False, False)),
        ({"precision": "bf16"}, (torch.bfloat16, False, False)),
        ({"channels_last": True}, (torch.float32, True, False)),
        ({"deterministic": True}, (torch.float32, False, True)),
    ],
    ids=["default", "bf16", "channels_last", "deterministic"],
)
def test_what_a_spec_computes_with_is_measured(changes, expected):
    """The options reach the measured step: the type and the memory format of the convolutions'
    outputs, and whether torch uses deterministic algorithms, are those of the spec."""
    seen = set()

    def look(module: nn.Module, _inputs, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            is_channels_last = output.is_contiguous(memory_format=torch.channels_last)
            is_deterministic = torch.are_deterministic_algorithms_enabled()
            seen.add((output.dtype, is_channels_last, is_deterministic))

    changed = small(filters=8, **changes)
    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        assert calibrate.images_per_s(changed.spec, CPU, 1) > 0
    finally:
        hook.remove()
        torch.use_deterministic_algorithms(False)
    assert seen == {expected}
    assert (workload(changed) != workload(small(filters=8))) == bool(changes)


@pytest.mark.parametrize(
    ("gpus", "changes", "images"),
    [(0, {}, 8), (2, {}, 4), (2, {"micro_batch": 2}, 2)],
    ids=["the batch", "the share of a GPU", "a micro-batch"],
)
def test_the_images_that_a_process_computes_at_a_time_are_measured(
    tmp_path, monkeypatch, gpus, changes, images
):
    """A process with micro-batches has only one of them in memory, so its step has that many
    images."""
    run = small(**changes)
    run = replace(run, spec=replace(run.spec, batch=8), resources={**run.resources, "gpu": gpus})
    seen, forward = [], Network.__call__
    monkeypatch.setattr(
        Network, "__call__", lambda self, x: seen.append(len(x)) or forward(self, x)
    )
    calibrate.calibrate([run], CPU, 1, tmp_path)
    assert set(seen) == {images}
    assert len(seen) == calibrate.WARM_UP_STEPS + 1


def test_a_detector_is_measured(tmp_path):
    """The measured step has the batch of one process and, for every image, as many masks as the
    detector samples at most."""
    detector = REGISTRY.run("laptop", "coco/seqnet50-2x-s0")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MaskRCNNHeads,
            "forward",
            lambda self, x: seen.append(x) or nn.Sequential.forward(self, x),
        )
        path = calibrate.calibrate([detector], CPU, 1, tmp_path)
    (row,) = read(path)
    assert row["workload"] == workload(detector)
    assert float(row["images_per_s"]) > 0
    assert {len(x) for x in seen} == {int(0.25 * detector.spec.rois) * detector.spec.batch}


def test_every_training_workload_of_the_paper_is_measured():
    trainings = [
        r for r in REGISTRY.runs("paper") if r.task in ("classify", "detect") and r.spec.length
    ]
    specs = calibrate.workloads(REGISTRY.runs("paper"))
    assert specs.keys() == {workload(r) for r in trainings}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagnet",), "calibrate: no experiment 'imagnet'; did you mean 'imagenet'?"),
        (
            ("imagenet/seqnet5", "--scale", "paper"),
            "has no variant 'seqnet5' at scale paper; did you mean",
        ),
        (
            ("operators", "--cpu"),
            "calibrate: nothing to measure; only training runs on data of a known size"
            " are measured",
        ),
    ],
)
def test_errors_are_one_line(ghostgrad, arguments, message):
    assert message in error_of(ghostgrad("calibrate", *arguments))
    assert not Path("state/calibration.csv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_names_the_way_out(ghostgrad):
    assert "calibrate: no GPU is visible; give --cpu to measure the CPU" in error_of(
        ghostgrad("calibrate", "imagenet")
    )
