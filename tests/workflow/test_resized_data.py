"""A run on a resized copy of a folder of images, from the folder to the result."""

from __future__ import annotations

import csv
import json

from tests.conftest import Checkout
from tests.unit.image_folder import CLASSES, picture

EXPERIMENT = """experiments:
  pictures:
    task: classify
    section: none
    base: {model: preact_resnet, blocks: 1, filters: 4, input: files, batch: 4, length: 2, lr: 0.1}
    variants: {small: {data: images, resized: 12, size: 8}}
    resources: {threads: 2}
    expect: {seconds: 9}
"""
RUN = "results/paper/runs/pictures/small-s0"


def test_the_copy_is_made_once_and_read(checkout: Checkout, tmp_path):
    root = tmp_path / "insects"
    for index in range(12):
        picture(
            root / ("train" if index < 8 else "val") / CLASSES[index % 2] / f"{index}.jpg",
            index,
            40,
            30,
        )
    checkout.edit("workflow/experiments/ghost.yaml", "experiments:\n", EXPERIMENT)
    settings = ("--config", "scale=paper", f'data={{"images": "{root}"}}')
    assert checkout.planned_jobs(f"{RUN}/metrics.csv", *settings) == {
        "data": 1,
        "resized_data": 1,
        "classify": 1,
    }
    output = checkout.build(f"{RUN}/metrics.csv", *settings)
    assert "1 run to do, less than a minute on 2 cores" in output
    copy = checkout.path("results/data/images-12")
    assert json.loads(copy.with_suffix(".json").read_text())["title"] == "insects, short side 12"
    assert len(list(copy.rglob("*.jpg"))) == 12
    with checkout.path(f"{RUN}/metrics.csv").open() as stream:
        assert next(csv.DictReader(stream))["status"] == "done"
    assert checkout.planned_jobs(f"{RUN}/metrics.csv", *settings) == {}
