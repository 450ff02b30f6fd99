"""`ghostgrad plan`: the hours, GPUs and disk space that a scale takes. For some runs the estimates
are compared with ones by hand."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ghostgrad.cli import calibrate, estimates
from ghostgrad.cli.estimates import GMACS_PER_S, Estimate, estimate
from ghostgrad.cli.plan import wall_time
from ghostgrad.registry.spec import SCALES
from tests.unit.commands import REGISTRY, error_of, output_of, workload
from tests.unit.fabricate import publish


def run(name: str, scale: str = "paper"):
    return REGISTRY.run(scale, name)


def rows(ghostgrad, *arguments: str) -> dict[str, dict[str, str]]:
    text = output_of(ghostgrad("plan", "--csv", *arguments))
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.mark.slow
def test_the_networks_are_as_counted():
    """The file has the counts of every network that the paper scale trains. If this test fails,
    `ghostgrad count-networks` rewrites it."""
    assert calibrate.networks_csv(REGISTRY.runs("paper")) == estimates.NETWORKS.read_text()


def test_hours_by_hand():
    """SeqNet101 takes 100 epochs of 5,004 batches of 256 images, with 14.4e9 multiply-adds per
    image, on four GPUs."""
    seqnet = run("imagenet/seqnet101-s0")
    multiply_adds = estimates.network_counts(seqnet).multiply_adds
    assert multiply_adds == pytest.approx(14.4e9, rel=0.01)
    seconds = 100 * 5004 * 256 * multiply_adds / (GMACS_PER_S * 1e9) / 4
    assert estimate(seqnet, {}, GMACS_PER_S) == Estimate(
        pytest.approx(seconds / 3600), "multiply-adds"
    )
    assert estimate(seqnet, {}, GMACS_PER_S / 2).hours == pytest.approx(2 * seconds / 3600)
    cifar = run("cifar_sweep/lalc-128-s0")
    assert estimates.images_to_process(cifar.spec) == 200 * 390 * 128
    steps = run("resnet15_cifar/model1-s0")
    assert estimates.images_to_process(steps.spec) == steps.spec.length * steps.spec.batch


def test_tf32_has_half_the_speed_of_bf16_float32_a_quarter_and_clars_takes_twice_the_time():
    counts, gmacs_per_s = estimates.Counts(0, 10**9, 1), 1000.0
    spec = replace(run("resnet15_cifar/model1-s0").spec, precision="bf16", optimizer="sgd")
    plain = estimates.seconds_per_step(spec, counts, 100, gmacs_per_s)
    assert plain == pytest.approx(0.1)
    assert estimates.seconds_per_step(
        replace(spec, precision="tf32"), counts, 100, gmacs_per_s
    ) == pytest.approx(2 * plain)
    assert estimates.seconds_per_step(
        replace(spec, precision="fp32"), counts, 100, gmacs_per_s
    ) == pytest.approx(4 * plain)
    assert estimates.seconds_per_step(
        replace(spec, optimizer="clars"), counts, 100, gmacs_per_s
    ) == pytest.approx(2 * plain)


def test_a_small_network_takes_its_layers_time():
    """Resnet-15 has 35 convolutions and matrix products. Their least time decides how long its
    80,000 steps take, even on a faster GPU."""
    small = run("resnet15_cifar/model1-s0")
    assert estimates.network_counts(small).layers == 35
    for gmacs_per_s in (GMACS_PER_S, 100 * GMACS_PER_S):
        assert estimate(small, {}, gmacs_per_s).hours == pytest.approx(80_000 * 35 * 0.25e-3 / 3600)


def test_accumulated_steps_are_as_many_as_their_micro_batches():
    """A batch of 16,384 images is computed as 16 micro-batches of 1,024. Per image it takes as long
    as a batch of 1,024, even where the layers' least time decides."""
    large, small = run("cifar_sweep/sgd-16k-s0"), run("cifar_sweep/sgd-1k-s0")
    per_image = [
        estimate(r, {}, 1e9).hours / estimates.images_to_process(r.spec) for r in (large, small)
    ]
    assert per_image[0] == pytest.approx(per_image[1])


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_has_an_estimate(scale):
    for training in REGISTRY.runs(scale):
        assert estimate(training, {}, GMACS_PER_S).hours > 0, training.id


def test_a_detector_by_hand():
    """Mask R-CNN on a SeqNet50 takes 180,000 steps of 16 images of 1,088 x 1,088, in TF32, on four
    GPUs."""
    detector = run("coco/seqnet50-2x-s0")
    counts = estimates.network_counts(detector)
    backbone = (1088 / 224) ** 2 * estimates.network_counts(detector.upstream).multiply_adds
    sides = [272, 136, 68, 34, 17]
    pixels = sum(side**2 for side in sides)
    pyramid = sum(side**2 * 256 * c for side, c in zip(sides, (128, 256, 512, 2048), strict=False))
    pyramid += (pixels - 17**2) * 9 * 256**2
    proposals = pixels * (9 * 256**2 + 256 * 15)
    boxes = 512 * (49 * 4 * 9 * 256**2 + 12544 * 1024 + 1024 * 81 * 5)
    masks = 128 * (196 * (4 * 9 * 256**2 + 4 * 256**2) + 784 * 256 * 81)
    assert counts.multiply_adds == pytest.approx(
        backbone + pyramid + proposals + boxes + masks, rel=0.01
    )
    hours = 180_000 * 16 * counts.multiply_adds / (GMACS_PER_S * 1e9 / 2) / 4 / 3600
    assert estimate(detector, {}, GMACS_PER_S) == Estimate(pytest.approx(hours), "multiply-adds")


@pytest.mark.parametrize(
    ("changes", "side"),
    [({}, 1088), ({"min_size": 992}, 1344), ({"min_size": 480, "max_size": 640}, 640)],
)
def test_a_detectors_images_are_padded_to_the_longest_side(changes, side):
    """As in torchvision's transform, the short side becomes min_size, or less if the long side
    would exceed max_size otherwise. The sides are then rounded up to multiples of 32."""
    spec = replace(run("coco/seqnet50-2x-s0").spec, **changes)
    assert estimates.image_side(spec) == side
    transform = GeneralizedRCNNTransform(spec.min_size, spec.max_size, [0.0] * 3, [1.0] * 3)
    images, _ = transform([torch.zeros(3, 480, 640), torch.zeros(3, 640, 480)])
    assert images.tensors.shape[-2:] == (side, side)


def test_unknown_hours_are_reported_as_unknown(ghostgrad, monkeypatch):
    """The hours of a run are unknown if its network is not counted and the registry gives no
    duration."""
    seqnet = run("imagenet/seqnet50-s0")
    other = replace(seqnet, spec=replace(seqnet.spec, size=128))
    assert estimate(other, {}, GMACS_PER_S) == Estimate(0.0, "unknown")
    monkeypatch.setattr(estimates, "counted_networks", dict)
    out = output_of(ghostgrad("plan", "--scale", "paper"))
    assert re.search(r"^ghost.tab1 .* unknown$", out, re.MULTILINE)
    assert (
        "unknown: no expected duration and no counted network; such runs take 0 hours here" in out
    )


def test_what_is_measured_comes_first():
    seqnet = run("imagenet/seqnet101-s0")
    measured = {workload(seqnet): 500.0}
    assert estimate(seqnet, measured, GMACS_PER_S) == Estimate(
        pytest.approx(100 * 5004 * 256 / 500 / 4 / 3600), "measured"
    )
    simulation = run("plainnet_init/relu-bn-s0")
    assert estimate(simulation, measured, GMACS_PER_S) == Estimate(
        simulation.expect["seconds"] / 3600, "expected"
    )
    detector = run("coco/seqnet50-2x-s0")
    hours = 180_000 * 16 / 20 / 4 / 3600
    assert estimate(detector, {workload(detector): 20.0}, GMACS_PER_S) == Estimate(
        pytest.approx(hours), "measured"
    )


def test_a_run_that_artifacts_share_counts_once(ghostgrad):
    planned = rows(ghostgrad, "--scale", "paper", "--gpus", "16")
    apart = sum(float(planned[f"ghost.{name}"]["gpu_hours"]) for name in ("tab3a", "tab3c"))
    seqnet50 = 5 * 4 * estimate(run("imagenet/seqnet50-s0"), {}, GMACS_PER_S).hours
    wanted = [
        r
        for n in ("tab3a", "tab3c")
        for r in REGISTRY.artifact_runs("paper", REGISTRY.artifact(f"ghost.{n}"))
    ]
    together = sum(
        estimate(r, {}, GMACS_PER_S).hours * r.resources["gpu"] for r in dict.fromkeys(wanted)
    )
    assert apart == pytest.approx(together + seqnet50)
    whole = sum(
        estimate(r, {}, GMACS_PER_S).hours * r.resources["gpu"]
        for r in REGISTRY.runs("paper")
        if not r.optional
    )
    assert float(planned["all"]["gpu_hours"]) == pytest.approx(whole)
    assert int(planned["ghost.tab2"]["runs"]) == 3, "with the classifier that both start from"
    assert int(planned["optional"]["runs"]) == sum(r.optional for r in REGISTRY.runs("paper"))


def by_hours(*hours: float) -> dict:
    """Run -> hours, for runs that ask for four GPUs each."""
    runs = [r for r in REGISTRY.runs("paper") if r.experiment == "imagenet"]
    return dict(zip(runs, hours, strict=False))


def test_wall_time_lets_runs_that_fit_run_side_by_side():
    four = by_hours(3.0, 2.0, 1.0)
    singles = [r for r in REGISTRY.runs("paper") if r.experiment == "cifar_sweep"][:2]
    alone = [r for r in REGISTRY.runs("paper") if r.experiment == "plainnet_init"][:3]
    assert wall_time(four, four, 8, 1) == 3, "2 and 1 after each other, beside the longest"
    assert wall_time(four, four, 1000, 1) == 3, "never less than the longest"
    assert wall_time(four, four, 6, 1) == 6, "two GPUs have nothing to do"
    assert wall_time(four, four, 2, 1) == 12, "each on half of what it asks for"
    both = four | dict.fromkeys(singles, 6.0)
    assert wall_time(both, both, 6, 1) == 6, "what asks for one GPU has the other two"
    cores = dict.fromkeys(alone, 1.0)
    assert (wall_time(cores, cores, 1, 2), wall_time(cores, cores, 1, 3)) == (2, 1)
    assert wall_time([], {}, 1, 1) == 0


def test_wall_time_waits_for_the_weights_that_a_run_starts_from():
    detector = run("coco/seqnet50-2x-s0")
    hours = {detector: 5.0, detector.upstream: 2.0}
    assert wall_time(hours, hours, 8, 1) == 7
    assert wall_time([detector], hours, 8, 1) == 5, "it is there already"


def test_wall_time_is_at_least_the_gpus_time(ghostgrad):
    for gpus in (2, 4, 8):
        planned = rows(ghostgrad, "--scale", "paper", "--gpus", str(gpus))["ghost.fig8"]
        assert float(planned["wall"]) >= float(planned["gpu_hours"]) / gpus - 1e-9


def test_experiments_make_up_the_whole(ghostgrad):
    planned = rows(ghostgrad, "--scale", "paper", "--by", "experiment")
    whole = planned.pop("all")
    del planned["optional"]
    assert sum(int(row["runs"]) for row in planned.values()) == int(whole["runs"])
    assert sum(float(row["gpu_hours"]) for row in planned.values()) == pytest.approx(
        float(whole["gpu_hours"])
    )


def test_a_run_beyond_its_time_limit_resumes(ghostgrad):
    """SeqNet101 has a time limit of 48 hours; at a 24th of the assumed speed it takes 250."""
    slow = ("--scale", "paper", "--by", "experiment", "--gmacs-per-s", str(GMACS_PER_S / 24))
    assert rows(ghostgrad, *slow)["imagenet"]["resumes"] == "5"
    assert re.search(
        r"^imagenet .* multiply-adds, 5 resumes$", output_of(ghostgrad("plan", *slow)), re.MULTILINE
    )


def test_disk_space_holds_files_weights_and_the_checkpoints_of_runs_at_the_same_time():
    detector, seqnet = run("coco/seqnet50-2x-s0"), run("imagenet/seqnet101-s0")
    gigabytes, files = 4 * 67250088 / 1e9, 2 * estimates.RESULTS_MB / 1e3
    assert estimates.disk_gb([], 8) == 0
    assert estimates.disk_gb([seqnet], 8) == pytest.approx(files + (2 + 4) * gigabytes)
    others = [run(f"imagenet/seqnet101-s{seed}") for seed in (1, 2)]
    assert estimates.disk_gb([seqnet, *others], 8) == pytest.approx(
        3 * files + (3 * 2 + 2 * 4) * gigabytes
    )
    assert estimates.disk_gb([seqnet], 1) == estimates.disk_gb([seqnet], 8), (
        "a run that has all there are"
    )
    weights = 4 * estimates.network_counts(detector).parameters / 1e9
    assert estimates.disk_gb([detector], 8) == pytest.approx(files + 4 * weights)


def test_finished_runs_take_no_more_time(ghostgrad):
    before = rows(ghostgrad, "--scale", "laptop", "--by", "experiment")["plainnet_init"]
    runs = [r for r in REGISTRY.runs("laptop") if r.experiment == "plainnet_init"]
    assert (int(before["runs"]), int(before["left"])) == (len(runs), len(runs))
    assert float(before["core_hours"]) == pytest.approx(
        sum(r.expect["seconds"] for r in runs) / 3600
    )
    for finished in runs[1:]:
        publish(finished)
    after = rows(ghostgrad, "--scale", "laptop", "--by", "experiment")["plainnet_init"]
    assert (int(after["runs"]), int(after["left"])) == (len(runs), 1)
    assert float(after["core_hours"]) == pytest.approx(runs[0].expect["seconds"] / 3600)


def test_the_text_states_its_assumptions(ghostgrad):
    out = output_of(ghostgrad("plan", "--scale", "paper"))
    assert "assuming 12,270 GMAC/s per GPU, forward, in bfloat16, about an H200's" in out
    assert "half of that in TF32, a quarter in float32; at least 0.25 ms per layer and step" in out
    assert "about an H200's" not in output_of(
        ghostgrad("plan", "--scale", "paper", "--gmacs-per-s", "4000")
    )
    assert "measured: nothing yet (ghostgrad calibrate)" in out
    assert re.search(r"^ghost.tab1 +40 +40 +4 .* multiply-adds$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "table"), "--by: 'table' is not allowed"),
        (("--scale", "papr"), "--scale: 'papr' is not allowed; did you mean 'paper'?"),
        (("--device", "x"), "--device: nothing is measured yet; run ghostgrad calibrate on 'x'"),
    ],
)
def test_errors_are_one_line(ghostgrad, arguments, message):
    assert message in error_of(ghostgrad("plan", *arguments))
