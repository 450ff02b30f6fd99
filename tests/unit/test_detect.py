"""Training of Mask R-CNN: resumed, in several processes, and from another run's weights."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ghostgrad.checks import InputError
from ghostgrad.data import coco, coco_evaluation
from ghostgrad.data.image_sets import load_images
from ghostgrad.data.make import make
from ghostgrad.data.scene_sets import load_scenes
from ghostgrad.registry.spec import expand, parse_spec
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State, Stopped
from ghostgrad.tasks.classify import classify
from ghostgrad.tasks.detect import AspectRatioSampler, detect, evaluate, flipped
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup
from ghostgrad.training.loader import EpochSampler
from ghostgrad.training.schedules import StepSchedule
from tests.unit.detection import SPEC, small_scenes
from tests.unit.killing import KILLED, PUBLISHED_FILES, Runner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return small_scenes(tmp_path_factory.mktemp("scenes"))


class StopAt:
    """A request to stop that is true after it has been asked n times."""

    def __init__(self, n: int):
        self.left, self.reason = n, "a test"

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run(
    folder: Path, manifest: Path, stop_at: int | None = None, weights: Path | None = None, **changes
) -> Record:
    torch.set_num_threads(1)  # with more threads, sums are rounded differently
    spec = parse_spec(json.dumps({**SPEC, **changes}))
    stop = {} if stop_at is None else {"stop": StopAt(stop_at)}
    with State(folder, **stop) as state:
        return detect(spec, state, CPU, load_scenes("digit_scenes", manifest), weights=weights)


def texts(record: Record) -> tuple:
    return (
        record.metrics,
        record.series.text(),
        [value.tolist() for value in record.weights.values()],
    )


@pytest.fixture(scope="module")
def whole(manifest, tmp_path_factory) -> Record:
    return run(tmp_path_factory.mktemp("whole"), manifest)


def test_it_trains(whole):
    """The run evaluates at its interval and at the end, and its loss is the sum of its five
    parts."""
    assert whole.metrics["status"] == "done"
    assert [row[0] for row in whole.series.rows] == [4, 6]
    assert whole.metrics["box_ap"] is not None
    rows = [dict(zip(whole.series.columns, row, strict=True)) for row in whole.series.rows]
    parts = [name for name in whole.series.columns if name.startswith("loss_")]
    assert len(parts) == 5
    assert all(row["loss"] == pytest.approx(sum(row[name] for name in parts)) for row in rows)
    assert rows[1]["lr"] == pytest.approx(0.002)


# A stop at 4 comes before the first evaluation, one at 7 within it.
@pytest.mark.parametrize("stop_at", [1, 3, 4, 7, 10, 15])
def test_stopped_and_resumed_equals_undisturbed(stop_at, whole, manifest, tmp_path):
    """The order and flips of the images and the samples of anchors and regions depend only on the
    step."""
    with pytest.raises(Stopped):
        run(tmp_path, manifest, stop_at=stop_at)
    assert texts(run(tmp_path, manifest)) == texts(whole)


def test_bn_that_is_trained_is_resumed_too(whole, manifest, tmp_path):
    undisturbed = run(tmp_path / "whole", manifest, backbone_norm="sync", eval_every=0)
    means = [name for name in undisturbed.weights if name.endswith("running_mean")]
    moved = {
        name.split(".body.")[1][:8]
        for name in means
        if not torch.equal(*(r.weights[name] for r in (undisturbed, whole)))
    }
    assert moved == {"stages.1", "stages.2", "stages.3"}
    with pytest.raises(Stopped):
        run(tmp_path / "parts", manifest, stop_at=3, backbone_norm="sync", eval_every=0)
    assert texts(run(tmp_path / "parts", manifest, backbone_norm="sync", eval_every=0)) == texts(
        undisturbed
    )


@pytest.mark.slow
def test_killed_and_resumed_publishes_the_same_bytes(manifest, tmp_path):
    """The run is a separate process, which is killed with SIGKILL after a checkpoint and later
    stopped with SIGTERM."""
    spec = {**SPEC, "eval_every": 0}
    files = []
    for name, plans in (
        ("whole", []),
        ("parts", [({"save_at": [2], "kill_at_step": 3}, KILLED), ({}, 75)]),
    ):
        (folder := tmp_path / name).mkdir()
        runner = Runner(folder, "detect", manifest, spec)
        for plan, code in plans:
            plan = plan or {"signal_at_step": 4, "signal": int(signal.SIGTERM)}
            assert runner.start(**plan) == code
        assert runner.start() == 0
        files.append(runner.files)
        assert runner.starts == ([0, 2, 4] if plans else [0])
    assert files[0] == files[1]


@pytest.mark.slow
def test_two_processes_share_the_test_images(manifest, tmp_path):
    """Without training, two processes report the same metrics as one. With training, they
    finish."""
    metrics = []
    for processes in (1, 2):
        (folder := tmp_path / str(processes)).mkdir()
        runner = Runner(
            folder, "detect", manifest, {**SPEC, "length": 0, "eval_every": 0}, processes
        )
        assert runner.start() == 0
        metrics.append(runner.files["metrics.csv"])
    assert metrics[0] == metrics[1]
    runner = Runner(tmp_path, "detect", manifest, {**SPEC, "length": 2, "eval_every": 0}, 2)
    assert runner.start() == 0
    assert b"done" in runner.files["metrics.csv"]


@pytest.mark.slow
def test_two_processes_stopped_within_an_evaluation(manifest, tmp_path):
    outcomes = []
    for name, plan in (
        ("whole", None),
        ("parts", {"signal_at_pause": 7, "signal": int(signal.SIGTERM)}),
    ):
        (folder := tmp_path / name).mkdir()
        runner = Runner(folder, "detect", manifest, SPEC, 2)
        assert not plan or runner.start(**plan) == 75
        assert runner.start() == 0
        outcomes.append((runner.files, runner.starts))
    assert outcomes[0][0] == outcomes[1][0]
    assert [starts for _, starts in outcomes] == [[0], [0, 4]]


def test_a_loss_that_is_not_finite_is_a_result(manifest, tmp_path):
    record = run(tmp_path, manifest, lr=1e9, warmup=0, lr_boundaries=[])
    assert record.metrics["status"] == "diverged"
    assert record.metrics["diverged_at"] is not None
    assert record.metrics["box_ap"] is None


class Truth(torch.nn.Module):
    """A detector that returns exactly the annotated objects, one image at a time."""

    def __init__(self, scenes, numbers):
        super().__init__()
        self.scenes, self.numbers = scenes, iter(numbers)

    def forward(self, images):
        target = coco.read_target(self.scenes, self.scenes.val, next(self.numbers))
        masks = target["masks"][:, None].float()
        return [{**target, "scores": torch.ones(len(masks)), "masks": masks}]


def test_every_processes_detections_are_judged(manifest, monkeypatch):
    scenes, kept = load_scenes("digit_scenes", manifest), {}
    monkeypatch.setattr(
        ProcessGroup,
        "gather",
        lambda self, results: kept.update({self.rank: results}) or list(kept.values()),
    )
    monkeypatch.setattr(ProcessGroup, "broadcast_object", lambda self, value: value)
    for rank in (1, 0):
        precisions = evaluate(
            Truth(scenes, scenes.val.ids[rank::2]), scenes, CPU, ProcessGroup(rank, 2), lambda: None
        )
    assert len(kept[0]) > 0 < len(kept[1])
    assert precisions == dict.fromkeys(coco_evaluation.METRICS, pytest.approx(100))


def test_a_flip_moves_boxes_with_masks(manifest):
    scenes = load_scenes("digit_scenes", manifest)
    number = scenes.train.ids[0]
    x, y = coco.read_image(scenes.train, number), coco.read_target(scenes, scenes.train, number)
    mirrored, target = flipped(x, y)
    assert torch.equal(mirrored, x.flip(2))
    for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    again = flipped(mirrored, target)
    assert torch.equal(again[0], x)
    assert torch.equal(again[1]["boxes"], y["boxes"])


def split_of(sizes: list[tuple[int, int]]) -> coco.Split:
    """Images without files, of these widths and heights; the ids are 10, 20, …"""
    images = {
        10 * number: {"width": width, "height": height}
        for number, (width, height) in enumerate(sizes, start=1)
    }
    return coco.Split(Path(), SimpleNamespace(imgs=images), list(images))


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize(("wide", "upright"), [(73, 27), (97, 3), (70, 26), (50, 46), (9, 7)])
def test_images_of_a_process_have_one_orientation(wide, upright, processes):
    """All images of a process in a step are at least as wide as high, or all are higher than wide.
    An epoch has as many steps as without groups, and no image twice; only the last share of the
    last step may hold both kinds."""
    rng = torch.Generator().manual_seed(wide)
    sizes = [(640, 480), (480, 480)] * wide + [(480, 481)] * upright
    sizes = [sizes[n] for n in torch.randperm(len(sizes), generator=rng) if n >= wide]
    assert sum(width >= height for width, height in sizes) == wide
    spec = parse_spec(json.dumps({**SPEC, "batch": 8}))
    split = split_of(sizes)
    samplers = [
        AspectRatioSampler(spec, split, ProcessGroup(rank, processes)) for rank in range(processes)
    ]
    steps = len(sizes) // 8
    assert {sampler.steps_per_epoch for sampler in samplers} == {steps}
    for epoch in range(3):
        shares = [
            sampler(step)[0].tolist()
            for step in range(epoch * steps, (epoch + 1) * steps)
            for sampler in samplers
        ]
        assert {len(share) for share in shares} == {8 // processes}
        seen = [index for share in shares for index in share]
        assert len(set(seen)) == len(seen) == 8 * steps
        kinds = [{sizes[index][0] >= sizes[index][1] for index in share} for share in shares]
        assert {len(kind) for kind in kinds[:-1]} <= {1}
        # The shares of both kinds are mixed over the epoch, in the proportion of the images.
        assert sum(kind == {True} for kind in kinds) >= wide // (8 // processes) - processes


def test_grouping_is_drawn_from_the_epoch_alone():
    """A resumed run sees the same images in the same order, other epochs have other groups, and a
    group stands where its first image was drawn."""
    sizes = [(640, 480) if n % 3 else (480, 640) for n in range(30)]
    spec = parse_spec(json.dumps({**SPEC, "batch": 4}))
    split = split_of(sizes)
    first, second = (AspectRatioSampler(spec, split, SINGLE_PROCESS) for _ in range(2))
    for step in (20, 3, 11):
        assert torch.equal(first(step)[0], second(step)[0])
    assert not torch.equal(first.epoch_order(0), first.epoch_order(1))
    drawn = EpochSampler(spec, 30, SINGLE_PROCESS).epoch_order(0).tolist()
    order = first.epoch_order(0).tolist()
    assert sorted(order) == sorted(drawn)
    groups = [order[n : n + 4] for n in range(0, 28, 4)]  # 20 wide and 10 upright images
    starts = [drawn.index(group[0]) for group in groups]
    assert starts == sorted(starts)
    assert order[28:] == [index for index in drawn if index % 3 == 0][8:]


def test_training_takes_its_images_in_groups(manifest, tmp_path, monkeypatch):
    """Where scenes with odd ids count as upright, a step has odd ids or even ones."""
    seen = []
    plain = coco.read_target

    def read_target(scenes, split, image_id):
        seen.append(image_id)
        return plain(scenes, split, image_id)

    scenes = load_scenes("digit_scenes", manifest)
    for image_id, entry in scenes.train.index.imgs.items():
        entry["width"] = entry["height"] - image_id % 2
    monkeypatch.setattr(coco, "read_target", read_target)
    monkeypatch.setattr(coco, "read_image", lambda *_: torch.zeros(3, 64, 64, dtype=torch.uint8))
    torch.set_num_threads(1)
    spec = parse_spec(json.dumps({**SPEC, "length": 5, "eval_every": 0, "augment": []}))
    with State(tmp_path) as state:
        detect(spec, state, CPU, scenes)
    steps = [{image_id % 2 for image_id in seen[n : n + 2]} for n in range(0, 10, 2)]
    assert len(set(seen)) == len(seen) == 10  # one epoch of ten scenes
    assert [len(step) for step in steps[:-1]] == [1] * 4


def test_images_of_one_orientation_are_drawn_as_without_groups(manifest):
    spec = parse_spec(json.dumps(SPEC))
    split = coco.with_objects(load_scenes("digit_scenes", manifest).train)
    grouped = AspectRatioSampler(spec, split, SINGLE_PROCESS)
    plain = EpochSampler(spec, len(split.ids), SINGLE_PROCESS)
    for step in range(12):
        assert torch.equal(grouped(step)[0], plain(step)[0])


def test_the_schedule_is_detectrons():
    """The 2X schedule warms up from a third of the learning rate over 500 updates and divides it by
    ten at 120k and 160k updates."""
    long = {"length": 180_000, "warmup": 500, "lr_boundaries": [120_000, 160_000]}
    schedule = StepSchedule(parse_spec(json.dumps({**SPEC, "lr": 0.02, **long})), 1)
    learning_rates = {
        0: 0.02 / 3,
        250: 0.02 * 2 / 3,
        500: 0.02,
        119_999: 0.02,
        120_000: 0.002,
        159_999: 0.002,
        160_000: 0.0002,
    }
    for step, learning_rate in learning_rates.items():
        assert schedule.learning_rate(step) == pytest.approx(learning_rate)


UPSTREAM = {
    "model": "seqnet18",
    "init": "default",
    "data": "digits",
    "cifar_stem": True,
    "small_stem": True,
    "stem_filters": 4,
    "standardize": "per_channel",
    "batch": 32,
    "length": 2,
    "lr": 0.05,
    "seed": 0,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, dict]:
    """The weights.pt that the run of a classifier publishes, and its state dict."""
    folder = tmp_path_factory.mktemp("upstream")
    make("digits", folder / "digits.json")
    spec = expand("classify", UPSTREAM)
    with State(folder / "state") as state:
        record = classify(spec, state, CPU, load_images("digits", folder / "digits.json"))
        state.finish(record, spec.stored(), weights=True)
    return folder / "state" / "record" / "weights.pt", record.weights


def test_it_starts_from_another_runs_weights(published, manifest, tmp_path):
    path, state = published
    record = run(tmp_path, manifest, weights=path, length=0)
    ours = {
        name.removeprefix("backbone.body.").replace("stem.0.", "stem.", 1): value
        for name, value in record.weights.items()
        if name.startswith("backbone.body.")
    }
    theirs = {
        k: v
        for k, v in state.items()
        if not k.startswith("head.") and not k.endswith("num_batches_tracked")
    }
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_killed_and_resumed_from_another_runs_weights(published, manifest, tmp_path):
    """A resumed process first puts the other run's weights into the network, and the checkpoint
    then replaces them."""
    spec, files = {**SPEC, "eval_every": 0, "weights": "nets/a-s0"}, []
    for name, plan in (("whole", None), ("parts", {"save_at": [2], "kill_at_step": 3})):
        (folder := tmp_path / name).mkdir()
        runner = Runner(folder, "detect", manifest, spec, more=(published[0],))
        assert not plan or runner.start(**plan) == KILLED
        assert runner.start() == 0
        files.append(runner.files)
    assert files[0] == files[1]
    assert runner.starts == [0, 2]


def test_weights_that_do_not_fit(published, manifest, tmp_path):
    path, _ = published
    with pytest.raises(
        InputError, match=r"weights\.pt: the weights of seqnet18, not of the spec's seqnet34"
    ):
        run(tmp_path / "other", manifest, weights=path, model="seqnet34")
    content = torch.load(path, weights_only=True)
    (tmp_path / "form").mkdir()
    torch.save(
        {**content, "state": {"more": torch.zeros(1), **content["state"]}},
        tmp_path / "form/weights.pt",
    )
    with pytest.raises(
        InputError, match=r"the weights of another form of seqnet18, not of the spec's seqnet18"
    ):
        run(tmp_path / "third", manifest, weights=tmp_path / "form/weights.pt")
    short = tmp_path / "weights.pt"
    short.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"weights\.pt: not the weights of a run \(") as error:
        run(tmp_path / "short", manifest, weights=short)
    assert "\n" not in str(error.value)


def test_weights_of_a_run_that_diverged(published, manifest, tmp_path):
    path, _ = published
    content = {**torch.load(path, weights_only=True), "status": "diverged"}
    torch.save(content, tmp_path / "weights.pt")
    record = run(tmp_path / "run", manifest, weights=tmp_path / "weights.pt")
    assert (record.metrics["status"], record.metrics["reason"], record.metrics["steps"]) == (
        "diverged",
        "upstream",
        0,
    )
    assert set(record.files({})) == set(PUBLISHED_FILES)
