"""COCO's format: what is read, what is refused, and average precision compared with a second
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
from pycocotools.coco import COCO
from torchvision.io import write_png

from ghostgrad.checks import InputError
from ghostgrad.data import coco
from ghostgrad.data.coco import Split
from ghostgrad.data.coco_evaluation import METRICS, average_precision, detection_results
from ghostgrad.data.make import make
from ghostgrad.data.scene_sets import load_scenes
from tests.unit.detection import SIDE, TRAIN, change, small_scenes, square


def random_set(rng: np.random.Generator) -> tuple[dict, list[dict]]:
    """Random annotations, with crowds, an image without objects and gaps in the category ids, and
    random detections near them."""
    annotations, detections = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(1, 6) if image != 5 else 0):
            x, y, side = rng.integers(0, 24), rng.integers(0, 24), rng.integers(4, 16)
            category = int(rng.choice([1, 4, 9]))
            ids = {"image_id": image, "category_id": category}
            truth = {
                "id": len(annotations) + 1,
                "iscrowd": int(rng.random() < 0.15),
                "area": float(side**2),
            }
            annotations.append(ids | truth | {"bbox": [float(x), float(y), *[float(side)] * 2]})
            annotations[-1]["segmentation"] = square(x, y, side)
            for _ in range(rng.integers(0, 3)):
                dx, dy, ds = rng.integers(-2, 3, 3)
                x2, y2, s2 = max(0, x + dx), max(0, y + dy), max(2, side + ds)
                category = category if rng.random() < 0.8 else 4
                detection = {
                    "image_id": image,
                    "category_id": category,
                    "score": float(rng.random()),
                }
                detection |= {
                    "bbox": [float(x2), float(y2), *[float(s2)] * 2],
                    "segmentation": square(x2, y2, s2),
                }
                detections.append(detection)
    images = [
        {"id": image, "file_name": f"{image}.png", "height": SIDE, "width": SIDE}
        for image in range(1, 13)
    ]
    categories = [{"id": number, "name": f"thing {number}"} for number in (1, 4, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_agrees_with_a_second_implementation(seed):
    """It agrees with faster-coco-eval to 1e-6 on the scale from 0 to 1."""
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
    """The results of a detector that finds every usable object exactly."""
    results = []
    for number in coco.with_objects(split).ids:
        y = coco.read_target(scenes, split, number)
        scores = torch.ones(len(y["labels"]))
        detected = {
            "boxes": y["boxes"],
            "labels": y["labels"],
            "scores": scores,
            "masks": y["masks"][:, None].float(),
        }
        results += detection_results(scenes, number, detected)
    return results


def test_perfect_detections_have_100_and_none_have_0(tmp_path):
    scenes = load_scenes("digit_scenes", small_scenes(tmp_path))
    assert average_precision(scenes.val, truths(scenes, scenes.val)) == pytest.approx(
        dict.fromkeys(METRICS, 100.0)
    )
    assert average_precision(scenes.val, []) == dict.fromkeys(METRICS, 0.0)


def test_digit_scenes_are_in_cocos_format(tmp_path):
    """torchvision's CocoDetection reads them; every mask fills its box and covers only ink; the
    scenes are the same every time."""
    from torchvision.datasets import CocoDetection

    manifest = small_scenes(tmp_path)
    root = tmp_path / "digit_scenes"
    with contextlib.redirect_stdout(io.StringIO()):
        data_set = CocoDetection(
            str(root / "train2017"), str(root / "annotations" / "instances_train2017.json")
        )
    assert len(data_set) == 10
    for scene, objects in data_set:
        pixels = np.asarray(scene)[..., 0]
        assert len(objects) >= 1
        for entry in objects:
            mask = data_set.coco.annToMask(entry)
            x, y, width, height = map(int, entry["bbox"])
            assert mask.sum() == entry["area"] == mask[y : y + height, x : x + width].sum()
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
    """Without renumbering, COCOeval counts a detection of the object with id 0 as wrong. Deep
    nesting in keys that are not used does no harm."""
    small_scenes(tmp_path)
    path = tmp_path / "digit_scenes" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for number, entry in enumerate(content["annotations"], first):
        entry["id"] = number
    content["info"] = content["categories"][0]["extra"] = json.loads("[" * 500 + "]" * 500)
    path.write_text(json.dumps(content))
    scenes, _ = coco.read("scenes", str(tmp_path / "digit_scenes"))
    assert average_precision(scenes.val, truths(scenes, scenes.val)) == pytest.approx(
        dict.fromkeys(METRICS, 100.0)
    )


def test_gaps_crowds_empty_boxes_and_empty_images(coco_folder, tmp_path, caplog):
    """Categories become 1, 2, … in the order of their ids. Training uses only the images with an
    object whose box has an area; evaluation uses all images."""
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
    content = json.loads((tmp_path / "scenes.json").read_text())
    assert (content["title"], content["train"], content["test"], content["classes"]) == (
        "toys",
        3,
        3,
        ["car", "brush"],
    )
    assert str(coco_folder) not in (tmp_path / "scenes.json").read_text()


def test_a_later_polygon_of_two_points_does_no_harm(coco_folder, tmp_path):
    square_and_line = [[4, 4, 12, 4, 12, 12, 4, 12], [1, 1, 30, 30]]
    change(coco_folder / TRAIN, "annotations", 0, segmentation=square_and_line)
    make("scenes", tmp_path / "scenes.json")
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    assert coco.read_target(scenes, scenes.train, 7)["masks"].sum() == 64
    assert average_precision(scenes.train, truths(scenes, scenes.train))["mask_ap"] > 0


def test_damaged_images_are_refused_or_skipped_and_counted(coco_folder, tmp_path, monkeypatch):
    for name in ("train2017/2.png", "val2017/deep/3.png"):
        (coco_folder / name).write_bytes((coco_folder / name).read_bytes()[:40])
    with pytest.raises(
        InputError, match=r"2 of 6 images are damaged \(first: train2017/2\.png\); replace them or"
    ):
        make("scenes", tmp_path / "scenes.json")
    monkeypatch.setenv("GHOSTGRAD_DAMAGED_IMAGES", "skip")
    make("scenes", tmp_path / "scenes.json")
    content = json.loads((tmp_path / "scenes.json").read_text())
    assert content["skipped"] == ["train2017/2.png", "val2017/deep/3.png"]
    assert (content["title"], content["train"], content["test"]) == (
        "toys, without 2 damaged images",
        2,
        2,
    )
    monkeypatch.delenv("GHOSTGRAD_DAMAGED_IMAGES")  # a run skips what the manifest names
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    assert [split.ids for split in (scenes.train, scenes.val)] == [[7, 21], [7, 14]]
    kept = scenes.train.path(scenes.train.ids[0])
    kept.write_bytes(kept.read_bytes()[:40])
    with pytest.raises(InputError, match="scenes has changed since the data rule checked it"):
        load_scenes("scenes", tmp_path / "scenes.json")


def test_skipped_images_may_have_any_name_and_must_leave_objects(
    coco_folder, tmp_path, monkeypatch
):
    """An annotation file may name an image by any path that leads to it. Data are refused if no
    image with an object would be left."""
    monkeypatch.setenv("GHOSTGRAD_DAMAGED_IMAGES", "skip")
    change(coco_folder / TRAIN, "images", 1, file_name="./deep/../2.png")
    (coco_folder / "train2017/2.png").write_bytes(
        (coco_folder / "train2017/2.png").read_bytes()[:40]
    )
    make("scenes", tmp_path / "scenes.json")
    assert load_scenes("scenes", tmp_path / "scenes.json").train.ids == [7, 21]
    (coco_folder / "val2017/1.png").write_bytes((coco_folder / "val2017/1.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"val2017\.json: contains only crowds and empty boxes"):
        make("scenes", tmp_path / "scenes.json")


def test_images_that_do_not_fit_their_annotations_are_refused(coco_folder, tmp_path):
    """Also refused are data that have changed since they were checked, and a data set configured as
    data.coco that is not the genuine COCO."""
    make("scenes", tmp_path / "scenes.json")
    scenes = load_scenes("scenes", tmp_path / "scenes.json")
    write_png(torch.zeros(3, 8, 9, dtype=torch.uint8), str(coco_folder / "train2017" / "1.png"))
    with pytest.raises(
        InputError, match=re.escape("1.png: 9 x 8 pixels, but the annotations say 40 x 40")
    ):
        coco.read_image(scenes.train, 7)
    change(coco_folder / TRAIN, "annotations", 0, area=1.0)
    with pytest.raises(InputError, match="scenes has changed since the data rule checked it"):
        load_scenes("scenes", tmp_path / "scenes.json")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="3 train images, expected 118287"),
    ):
        patch.setenv("GHOSTGRAD_DATA_COCO", str(coco_folder))
        make("coco", tmp_path / "coco.json")
