"""COCO's format: what is read, what is refused, and average precision against a second
implementation."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torchvision.io import write_png

from ghostgrad.checks import InputError
from ghostgrad.data import coco, coco_format
from ghostgrad.data.coco import Split
from ghostgrad.data.coco_evaluation import METRICS, average_precision, detection_results
from ghostgrad.data.make import make
from ghostgrad.data.scene_sets import load_scenes
from tests.unit.detection import small_scenes

SIDE = 40


def square(x: int, y: int, side: int) -> dict:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    run = rle.encode(mask)
    return {"size": run["size"], "counts": run["counts"].decode()}


def random_set(rng: np.random.Generator) -> tuple[dict, list[dict]]:
    """Annotations with crowds, an image without any and categories with gaps, and detections around
    them."""
    annotations, detections = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(1, 6) if image != 5 else 0):
            x, y, side = rng.integers(0, 24), rng.integers(0, 24), rng.integers(4, 16)
            category = int(rng.choice([1, 4, 9]))
            one = {"image_id": image, "category_id": category}
            truth = {
                "id": len(annotations) + 1,
                "iscrowd": int(rng.random() < 0.15),
                "area": float(side**2),
            }
            annotations.append(one | truth | {"bbox": [float(x), float(y), *[float(side)] * 2]})
            annotations[-1]["segmentation"] = square(x, y, side)
            for _ in range(rng.integers(0, 3)):
                dx, dy, ds = rng.integers(-2, 3, 3)
                x2, y2, s2 = max(0, x + dx), max(0, y + dy), max(2, side + ds)
                category = category if rng.random() < 0.8 else 4
                found = {"image_id": image, "category_id": category, "score": float(rng.random())}
                found |= {
                    "bbox": [float(x2), float(y2), *[float(s2)] * 2],
                    "segmentation": square(x2, y2, s2),
                }
                detections.append(found)
    images = [
        {"id": image, "file_name": f"{image}.png", "height": SIDE, "width": SIDE}
        for image in range(1, 13)
    ]
    categories = [{"id": number, "name": f"thing {number}"} for number in (1, 4, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_a_second_implementations(seed):
    """faster-coco-eval's, to 1e-6."""
    from faster_coco_eval import COCO as TheirCOCO
    from faster_coco_eval import COCOeval_faster

    truth, detections = random_set(np.random.default_rng(seed))
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = json.loads(json.dumps(truth))
        index.createIndex()
        theirs = TheirCOCO(json.loads(json.dumps(truth)))
        loaded = theirs.loadRes(json.loads(json.dumps(detections)))
    ours = average_precision(Split(Path(), index, sorted(index.imgs)), detections)
    assert 0 < ours["box_ap"] < ours["box_ap50"]
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval_faster(theirs, loaded, name)
            evaluation.run()
        for place, key in enumerate(("ap", "ap50", "ap75")):
            assert ours[f"{kind}_{key}"] == pytest.approx(100 * evaluation.stats[place], abs=1e-4)


def truths(scenes: coco.Scenes, split: Split) -> list[dict]:
    """What a detector that finds all would find."""
    found = []
    for number in coco.with_objects(split).ids:
        y = coco.read_target(scenes, split, number)
        scores = torch.ones(len(y["labels"]))
        detected = {
            "boxes": y["boxes"],
            "labels": y["labels"],
            "scores": scores,
            "masks": y["masks"][:, None].float(),
        }
        found += detection_results(scenes, number, detected)
    return found


def test_perfect_detections_have_100_and_none_have_0(tmp_path):
    scenes = load_scenes("digit_scenes", small_scenes(tmp_path))
    assert average_precision(scenes.val, truths(scenes, scenes.val)) == pytest.approx(
        dict.fromkeys(METRICS, 100.0)
    )
    assert average_precision(scenes.val, []) == dict.fromkeys(METRICS, 0.0)


def test_digit_scenes_are_in_cocos_format(tmp_path):
    """Read by torchvision's CocoDetection; every mask fills its box, on ink; the same bytes at
    every time."""
    from torchvision.datasets import CocoDetection

    manifest = small_scenes(tmp_path)
    root = tmp_path / "digit_scenes"
    with contextlib.redirect_stdout(io.StringIO()):
        found = CocoDetection(
            str(root / "train2017"), str(root / "annotations" / "instances_train2017.json")
        )
    assert len(found) == 10
    for scene, objects in found:
        pixels = np.asarray(scene)[..., 0]
        assert len(objects) >= 1
        for one in objects:
            mask = found.coco.annToMask(one)
            x, y, width, height = map(int, one["bbox"])
            assert mask.sum() == one["area"] == mask[y : y + height, x : x + width].sum()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert [x, y, x + width, y + height] == [
                columns[0],
                rows[0],
                columns[-1] + 1,
                rows[-1] + 1,
            ]
            assert pixels[mask > 0].min() >= 48
    (tmp_path / "again").mkdir()
    assert small_scenes(tmp_path / "again").read_text() == manifest.read_text()


@pytest.mark.parametrize("first", [0, 2**62])
def test_annotations_may_have_any_ids(first, tmp_path):
    """COCOeval alone would count what is found of the object 0 as wrong. What lies deep beside does
    no harm."""
    small_scenes(tmp_path)
    path = tmp_path / "digit_scenes" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for number, one in enumerate(content["annotations"], first):
        one["id"] = number
    content["info"] = content["categories"][0]["more"] = json.loads("[" * 500 + "]" * 500)
    path.write_text(json.dumps(content))
    scenes, _ = coco.read("scenes", str(tmp_path / "digit_scenes"))
    assert average_precision(scenes.val, truths(scenes, scenes.val)) == pytest.approx(
        dict.fromkeys(METRICS, 100.0)
    )


def test_compressed_runs_are_read_as_pycocotools_does():
    rng = np.random.default_rng(0)
    for density in (0.001, 0.02, 0.3, 0.9):
        mask = np.asfortranarray(rng.random((37, 53)) < density, dtype=np.uint8)
        flat = mask.flatten("F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        wanted = np.diff([0, *edges, flat.size]).tolist()
        assert (
            coco_format.decode_runs(rle.encode(mask)["counts"].decode())
            == [0] * int(flat[0]) + wanted
        )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A data set of our own in COCO's layout, two images a split, as data.scenes."""
    root = tmp_path / "mine"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split / "more").mkdir(parents=True)
        names = {7: "1.png", 14: "2.png", 21: "more/3.png"}
        images = [
            {"id": n, "file_name": name, "height": SIDE, "width": SIDE} for n, name in names.items()
        ]
        for one in images:
            write_png(
                torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), str(root / split / one["file_name"])
            )
        base = {
            "bbox": [4.0, 4.0, 8.0, 8.0],
            "area": 64.0,
            "segmentation": square(4, 4, 8),
            "iscrowd": 0,
        }
        annotations = [
            {"id": 1, "image_id": 7, "category_id": 3, **base},
            {"id": 2, "image_id": 7, "category_id": 90, **base, "iscrowd": 1},
            {"id": 3, "image_id": 14, "category_id": 90, **base, "iscrowd": 1},
            {"id": 4, "image_id": 14, "category_id": 90, **base, "bbox": [4.0, 4.0, 0.0, 8.0]},
        ]
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    monkeypatch.setenv("GHOSTGRAD_DATA_SCENES", str(root))
    return root


def test_gaps_crowds_empty_boxes_and_empty_images(folder, tmp_path, caplog):
    """Categories become 1, 2, … in the order of their ids; only an image with an object of an area
    is trained on, every one is tested."""
    make("scenes", tmp_path / "scenes.json")
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    assert scenes.labels == {3: 1, 90: 2}
    assert scenes.classes == ["car", "brush"]
    with caplog.at_level("INFO"):
        assert coco.with_objects(scenes.train).ids == [7]
    assert "skipping 2 of 3 training images without a usable object" in caplog.text
    assert scenes.val.ids == [7, 14, 21]
    target = coco.read_target(scenes, scenes.train, 7)
    assert target["boxes"].tolist() == [[4, 4, 12, 12]]
    assert target["labels"].tolist() == [1]
    assert target["masks"].sum() == 64
    said = json.loads((tmp_path / "scenes.json").read_text())
    assert (said["title"], said["train"], said["test"], said["classes"]) == (
        "mine",
        3,
        3,
        ["car", "brush"],
    )
    assert str(folder) not in (tmp_path / "scenes.json").read_text()


def test_a_later_polygon_of_two_points_does_no_harm(folder, tmp_path):
    square_and_line = [[4, 4, 12, 4, 12, 12, 4, 12], [1, 1, 30, 30]]
    change(folder / TRAIN, "annotations", 0, segmentation=square_and_line)
    make("scenes", tmp_path / "scenes.json")
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    assert coco.read_target(scenes, scenes.train, 7)["masks"].sum() == 64
    assert average_precision(scenes.train, truths(scenes, scenes.train))["mask_ap"] > 0


def change(path: Path, key: str, place: int, **values) -> None:
    content = json.loads(path.read_text())
    content[key][place] |= values
    path.write_text(json.dumps(content))


def drop(path: Path, key: str, name: str) -> None:
    content = json.loads(path.read_text())
    del content[key][0][name]
    path.write_text(json.dumps(content))


counts = square(4, 4, 8)["counts"]
TRAIN = "annotations/instances_train2017.json"
BAD = {
    "no annotations": (
        lambda root: (root / TRAIN).unlink(),
        "No such file or directory; put COCO's annotation",
    ),
    "cut short": (
        lambda root: (root / TRAIN).write_text('{"images": ['),
        "damaged or not in COCO's format",
    ),
    "no number": (
        lambda root: change(root / TRAIN, "annotations", 0, area=float("nan")),
        "damaged or not in COCO's format",
    ),
    "deep": (
        lambda root: (root / TRAIN).write_text('{"images": ' + "[" * 100_000),
        "damaged or not in COCO's format",
    ),
    "another format": (
        lambda root: (root / TRAIN).write_text('{"images": 3}'),
        "damaged or not in COCO's format",
    ),
    "no images": (
        lambda root: (root / TRAIN).write_text('{"images": [], "categories": []}'),
        "lists no images",
    ),
    "an image is missing": (
        lambda root: (root / "train2017" / "2.png").unlink(),
        r"2\.png not found in .*train2017; unpack the images there",
    ),
    "a folder for an image": (
        lambda root: change(root / TRAIN, "images", 1, file_name="more"),
        r"more not found in .*train2017; unpack the images there",
    ),
    "an empty file name": (
        lambda root: change(root / TRAIN, "images", 0, file_name=""),
        "image 7 has no valid file name, height or width",
    ),
    "text for an id": (
        lambda root: change(root / TRAIN, "annotations", 0, id="1"),
        "'1' is not a valid id in 'annotations'; ids are 64-bit integers",
    ),
    "an id too large": (
        lambda root: change(root / TRAIN, "images", 0, id=2**63),
        "9223372036854775808 is not a valid id in 'images'; ids are 64-bit integers",
    ),
    "an unknown category of two lines": (
        lambda root: change(root / TRAIN, "annotations", 0, category_id="a\nb"),
        r"refers to category 'a\\nb', which is not in the file",
    ),
    "a file name of two lines": (
        lambda root: change(root / TRAIN, "images", 0, file_name="a\nb"),
        "image 7 has no valid file name, height or width",
    ),
    "a side too large": (
        lambda root: change(root / TRAIN, "images", 0, height=65_536),
        "image 7 has no valid file name, height or width",
    ),
    "true for a side": (
        lambda root: change(root / TRAIN, "images", 0, height=True),
        "image 7 has no valid file name, height or width",
    ),
    "a number for a name": (
        lambda root: change(root / TRAIN, "categories", 0, name=5),
        "category 90 has no valid name",
    ),
    "an id twice": (
        lambda root: change(root / TRAIN, "annotations", 0, id=2),
        "two entries of 'annotations' have the same id; ids must be unique",
    ),
    "an image twice": (
        lambda root: change(root / TRAIN, "images", 0, id=14),
        "two entries of 'images' have the same id; ids must be unique",
    ),
    "an area without end": (
        lambda root: change(root / TRAIN, "annotations", 0, area=10**400),
        "annotation 1: iscrowd must be 0 or 1, area a number",
    ),
    "an unknown category": (
        lambda root: change(root / TRAIN, "annotations", 0, category_id=5),
        "annotation 1 refers to category 5, which is not in the file",
    ),
    "an unknown image": (
        lambda root: change(root / TRAIN, "annotations", 0, image_id=5),
        "annotation 1 refers to image 5, which is not in the file",
    ),
    "no mask": (
        lambda root: change(root / TRAIN, "annotations", 0, segmentation=[]),
        "annotation 1 has no valid box or no valid mask",
    ),
    "other categories": (
        lambda root: change(root / TRAIN, "categories", 0, name="x"),
        "train and val have different categories",
    ),
    "no iscrowd": (
        lambda root: drop(root / TRAIN, "annotations", "iscrowd"),
        "an entry of 'annotations' has no key 'iscrowd'",
    ),
    "no area": (
        lambda root: drop(root / TRAIN, "annotations", "area"),
        "an entry of 'annotations' has no key 'area'",
    ),
    "no height": (
        lambda root: drop(root / TRAIN, "images", "height"),
        "an entry of 'images' has no key 'height'",
    ),
    "no name": (
        lambda root: drop(root / TRAIN, "categories", "name"),
        "an entry of 'categories' has no key 'name'",
    ),
    "no file name": (
        lambda root: change(root / TRAIN, "images", 0, file_name=None),
        "image 7 has no valid file name, height or width",
    ),
    "a file elsewhere": (
        lambda root: change(root / TRAIN, "images", 0, file_name=str(root / "train2017" / "1.png")),
        r"1\.png not found in .*train2017; unpack the images there",
    ),
    "text for iscrowd": (
        lambda root: change(root / TRAIN, "annotations", 0, iscrowd="0"),
        "iscrowd must be 0 or 1, area a number",
    ),
    "no number for an area": (
        lambda root: change(root / TRAIN, "annotations", 0, area=None),
        "annotation 1: iscrowd must be 0 or 1, area a number",
    ),
    **{
        f"{name} for a mask": (
            lambda root, mask=mask: change(root / TRAIN, "annotations", 0, segmentation=mask),
            "annotation 1 has no valid box or no valid mask",
        )
        for name, mask in {
            "another size": {"size": [5, 5], "counts": [25]},
            "too few pixels": {"size": [SIDE, SIDE], "counts": [5, 5]},
            "a number of runs": {"size": [SIDE, SIDE], "counts": 7},
            "nothing": [[None] * 6],
            "text in a polygon": [["1"] * 6],
            "a point a billion pixels away": [[0, 0, 9, 0, 1e9, 9]],
            "runs that end early": {"size": [SIDE, SIDE], "counts": counts[:-3]},
            "a last run without its end": {"size": [SIDE, SIDE], "counts": counts + "P"},
            "a character of no run": {
                "size": [SIDE, SIDE],
                "counts": counts[:-1] + chr(ord(counts[-1]) + 64),
            },
            "a run of seven digits": {"size": [SIDE, SIDE], "counts": "0" + "PPPPPP0" + "Pb1"},
            "a negative run": {"size": [SIDE, SIDE], "counts": [1700, -100]},
        }.items()
    },
    "a box far outside": (
        lambda root: change(root / TRAIN, "annotations", 0, bbox=[4.0, 4.0, 2 * SIDE + 1.0, 8.0]),
        "annotation 1 has no valid box or no valid mask",
    ),
    "no box": (
        lambda root: change(root / TRAIN, "annotations", 0, bbox=None),
        "annotation 1 has no valid box or no valid mask",
    ),
    "text for a box": (
        lambda root: change(root / TRAIN, "annotations", 0, bbox=["1"] * 4),
        "annotation 1 has no valid box or no valid mask",
    ),
    "two points": (
        lambda root: change(root / TRAIN, "annotations", 0, segmentation=[[1, 1, 2, 2]]),
        "annotation 1 has no valid box or no valid mask",
    ),
    "text for a mask": (
        lambda root: change(root / TRAIN, "annotations", 0, segmentation="x"),
        "annotation 1 has no valid box or no valid mask",
    ),
    "crowds alone": (
        lambda root: change(root / TRAIN, "annotations", 0, iscrowd=1),
        "contains only crowds and empty boxes",
    ),
    "a box too small": (
        lambda root: change(root / TRAIN, "annotations", 0, bbox=[4.0, 4.0, 1e-7, 8.0]),
        "contains only crowds and empty boxes",
    ),
    "no folder": (lambda root: (root / "val2017").rename(root / "val"), "no folder val2017 in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, folder, tmp_path):
    spoil, said = BAD[case]
    spoil(folder)
    with pytest.raises(InputError, match=said) as error:
        make("scenes", tmp_path / "scenes.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "scenes.json").exists()


def test_damaged_images_are_refused_or_skipped_and_counted(folder, tmp_path, monkeypatch):
    for name in ("train2017/2.png", "val2017/more/3.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(
        InputError, match=r"2 of 6 images are damaged \(first: train2017/2\.png\); replace them or"
    ):
        make("scenes", tmp_path / "scenes.json")
    monkeypatch.setenv("GHOSTGRAD_DAMAGED_IMAGES", "skip")
    make("scenes", tmp_path / "scenes.json")
    said = json.loads((tmp_path / "scenes.json").read_text())
    assert said["skipped"] == ["train2017/2.png", "val2017/more/3.png"]
    assert (said["title"], said["train"], said["test"]) == ("mine, without 2 damaged images", 2, 2)
    monkeypatch.delenv("GHOSTGRAD_DAMAGED_IMAGES")  # what is left out is the manifest's matter
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    assert [split.ids for split in (scenes.train, scenes.val)] == [[7, 21], [7, 14]]
    kept = scenes.train.path(scenes.train.ids[0])
    kept.write_bytes(kept.read_bytes()[:40])
    with pytest.raises(InputError, match="scenes has changed since the data rule checked it"):
        load_scenes("scenes", tmp_path / "scenes.json")


def test_what_is_skipped_may_have_any_name_and_leaves_objects(folder, tmp_path, monkeypatch):
    """A name that is not the shortest one of its file; where the last object would go, none is
    skipped."""
    monkeypatch.setenv("GHOSTGRAD_DAMAGED_IMAGES", "skip")
    change(folder / TRAIN, "images", 1, file_name="./more/../2.png")
    (folder / "train2017/2.png").write_bytes((folder / "train2017/2.png").read_bytes()[:40])
    make("scenes", tmp_path / "scenes.json")
    assert load_scenes("scenes", tmp_path / "scenes.json").train.ids == [7, 21]
    (folder / "val2017/1.png").write_bytes((folder / "val2017/1.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"val2017\.json: contains only crowds and empty boxes"):
        make("scenes", tmp_path / "scenes.json")


def test_what_a_run_meets(folder, tmp_path):
    """An image of another size than its annotations say, data that have changed, a set that is not
    COCO."""
    make("scenes", tmp_path / "scenes.json")
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    write_png(torch.zeros(3, 8, 9, dtype=torch.uint8), str(folder / "train2017" / "1.png"))
    with pytest.raises(
        InputError, match=re.escape("1.png: 9 x 8 pixels, but the annotations say 40 x 40")
    ):
        coco.read_image(scenes.train, 7)
    change(folder / TRAIN, "annotations", 0, area=1.0)
    with pytest.raises(InputError, match="scenes has changed since the data rule checked it"):
        load_scenes("scenes", tmp_path / "scenes.json")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="3 train images, expected 118287"),
    ):
        patch.setenv("GHOSTGRAD_DATA_COCO", str(folder))
        make("coco", tmp_path / "coco.json")
