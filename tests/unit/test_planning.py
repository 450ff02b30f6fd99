"""`ghostgrad plan` and `calibrate`: what a scale takes, by hand for some runs, and from what was measured."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
import torch

from ghostgrad import calibrate, planning
from ghostgrad.checks import InputError
from ghostgrad.planning import GMACS_PER_S, Estimate, estimate, workload
from tests.unit.commands import REGISTRY, refused, told
from tests.unit.fabricate import publish

CPU = torch.device("cpu")


def run(name: str, scale: str = "paper"):
    return REGISTRY.run(scale, name)


def rows(ghostgrad, *arguments: str) -> dict[str, dict[str, str]]:
    text = told(ghostgrad("plan", "--csv", *arguments))
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_networks_are_as_counted():
    """For every network that the paper scale trains; `ghostgrad count-networks` writes the file anew."""
    assert calibrate.networks(REGISTRY.runs("paper")) == planning.NETWORKS.read_text()


def test_hours_by_hand():
    """SeqNet101: 100 epochs of 5,004 batches of 256 images, 14.4e9 multiply-adds each, on four GPUs."""
    seqnet = run("imagenet/seqnet101-s0")
    _, multiply_adds = planning.networks()[planning.architecture(seqnet.spec)]
    assert multiply_adds == pytest.approx(14.4e9, rel=0.01)
    seconds = 100 * 5004 * 256 * multiply_adds / (GMACS_PER_S * 1e9) / 4
    assert estimate(seqnet, {}, GMACS_PER_S) == Estimate(pytest.approx(seconds / 3600), "multiply-adds")
    assert estimate(seqnet, {}, GMACS_PER_S / 2).hours == pytest.approx(2 * seconds / 3600)
    cifar = run("cifar_sweep/lalc-128-s0")
    assert planning.images(cifar.spec) == 200 * 390 * 128
    steps = run("resnet15_cifar/model1-s0")
    assert planning.images(steps.spec) == steps.spec["length"] * steps.spec["batch"]


def test_what_is_measured_comes_first():
    seqnet = run("imagenet/seqnet101-s0")
    measured = {workload(seqnet.spec, 4): 500.0}
    assert estimate(seqnet, measured, GMACS_PER_S) == Estimate(
        pytest.approx(100 * 5004 * 256 / 500 / 4 / 3600), "measured"
    )
    simulation = run("plainnet_init/relu-bn-s0")
    assert estimate(simulation, measured, GMACS_PER_S) == Estimate(simulation.expect["seconds"] / 3600, "expected")
    assert estimate(run("coco/seqnet50-2x-s0"), measured, GMACS_PER_S).basis == "expected"


def test_a_run_that_artifacts_share_counts_once(ghostgrad):
    found = rows(ghostgrad, "--scale", "paper", "--gpus", "16")
    apart = sum(float(found[f"ghost.{name}"]["gpu_hours"]) for name in ("tab3a", "tab3c"))
    seqnet50 = 5 * 4 * estimate(run("imagenet/seqnet50-s0"), {}, GMACS_PER_S).hours
    wanted = [r for n in ("tab3a", "tab3c") for r in REGISTRY.artifact_runs("paper", REGISTRY.artifact(f"ghost.{n}"))]
    together = sum(estimate(r, {}, GMACS_PER_S).hours * r.resources["gpu"] for r in dict.fromkeys(wanted))
    assert apart == pytest.approx(together + seqnet50)
    whole = sum(
        estimate(r, {}, GMACS_PER_S).hours * r.resources["gpu"] for r in REGISTRY.runs("paper") if not r.optional
    )
    assert float(found["all"]["gpu_hours"]) == pytest.approx(whole)
    assert int(found["ghost.tab2"]["runs"]) == 3, "with the classifier that both start from"
    assert int(found["optional"]["runs"]) == sum(r.optional for r in REGISTRY.runs("paper"))


def test_wall_time_on_fewer_and_more_gpus(ghostgrad):
    """Never less than the longest run; a run that asks for more GPUs than there are takes longer."""
    hours = estimate(run("imagenet/seqnet101-s0"), {}, GMACS_PER_S).hours
    by_gpus = {n: rows(ghostgrad, "--scale", "paper", "--gpus", str(n))["ghost.fig8"] for n in (2, 8, 1000)}
    total = float(by_gpus[8]["gpu_hours"])
    assert float(by_gpus[2]["wall"]) == pytest.approx(total / 2)
    assert float(by_gpus[8]["wall"]) == pytest.approx(total / 8)
    assert float(by_gpus[1000]["wall"]) == pytest.approx(hours)


def test_finished_runs_take_no_more_time(ghostgrad):
    before = rows(ghostgrad, "--scale", "laptop", "--by", "experiment")["plainnet_init"]
    mine = [r for r in REGISTRY.runs("laptop") if r.experiment == "plainnet_init"]
    assert (int(before["runs"]), int(before["left"])) == (len(mine), len(mine))
    assert float(before["core_hours"]) == pytest.approx(sum(r.expect["seconds"] for r in mine) / 3600)
    for one in mine[1:]:
        publish(one)
    after = rows(ghostgrad, "--scale", "laptop", "--by", "experiment")["plainnet_init"]
    assert (int(after["runs"]), int(after["left"])) == (len(mine), 1)
    assert float(after["core_hours"]) == pytest.approx(mine[0].expect["seconds"] / 3600)


def test_the_text_states_its_assumptions(ghostgrad):
    out = told(ghostgrad("plan", "--scale", "paper"))
    assert "multiply-adds: assuming 12,270 x 10^9 forward ones a second and GPU, about an H200's in bfloat16" in out
    assert "measured: nothing yet (ghostgrad calibrate)" in out
    assert re.search(r"^ghost.tab1 +40 +40 +4 .* multiply-adds$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110


def test_calibration_is_measured_kept_and_used(tmp_path):
    """On the CPU with a small network; a second device leaves the first one's rows, a second time replaces its own."""
    small = run("resnet15_cifar/model1-s0", "laptop")
    path = calibrate.calibrate([small, small], CPU, 2, tmp_path)
    first = path.read_text().splitlines()
    assert len(first) == 2
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    assert float(row["images_per_s"]) > 0
    path.write_text(path.read_text().replace(row["device"], "another"))
    calibrate.calibrate([small], CPU, 2, tmp_path)
    calibrate.calibrate([small], CPU, 2, tmp_path)
    assert [r["device"] for r in csv.DictReader(io.StringIO(path.read_text()))] == ["another", row["device"]]
    device, measured = planning.calibration(tmp_path, "")
    assert device == row["device"]
    assert list(measured) == [workload(small.spec, 0)]
    assert planning.calibration(tmp_path, "another")[0] == "another"
    with pytest.raises(InputError, match="--device: 'anothr' is not measured; did you mean 'another'"):
        planning.calibration(tmp_path, "anothr")


def test_what_does_not_fit_is_written_without_a_rate(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    small = run("resnet15_cifar/model1-s0", "laptop")
    monkeypatch.setattr(calibrate, "images_per_s", full)
    path = calibrate.calibrate([small], CPU, 2, tmp_path)
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    assert row["images_per_s"] == ""
    assert planning.calibration(tmp_path, "")[1] == {}


def test_each_workload_of_the_paper_is_measured_once():
    found = calibrate.workloads(REGISTRY.runs("paper"))
    keys = {
        workload(r.spec, r.resources["gpu"])
        for r in REGISTRY.runs("paper")
        if r.task == "classify" and r.spec["length"] and r.data in planning.CLASSES
    }
    assert found.keys() == keys
    assert all(spec["batch"] == spec["micro_batch"] for spec in found.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "--by", "table"), "--by: 'table' is not allowed"),
        (("plan", "--device", "x"), "--device: nothing is measured yet; run ghostgrad calibrate on 'x'"),
        (("calibrate", "imagnet"), "calibrate: no experiment 'imagnet'; did you mean 'imagenet'?"),
        (
            ("calibrate", "imagenet/seqnet5", "--scale", "paper"),
            "has no variant 'seqnet5' at scale paper; did you mean",
        ),
    ],
)
def test_errors_are_one_line(ghostgrad, arguments, said):
    assert said in refused(ghostgrad(*arguments))
    assert not Path("state/calibration.csv").exists()
