"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from ghostgrad.cli import commands as cli
from ghostgrad.data.builtin import digits as read_digits
from tests.unit.detection import write_coco_folder
from tests.unit.fabricate import CLASSIFY, experiment, registry
from tests.unit.image_folder import CLASSES, picture

CONFIG = "scale: smoke\nstate_dir: state\ncheckpoint_minutes: 5\ndata: {cifar10: }\n"
ROWS = {"A": "nets/a", "B": "nets/b", "C": {"left": "nets/c", "right": "nets/d"}}
VARIANTS = {name: {"batch": 2**index} for index, name in enumerate("abcd", 5)}


@pytest.fixture(autouse=True)
def reproducible_torch():
    """Compute in one thread, so that sums do not depend on the number of cores, and fix the seed of
    draws from torch's global generator."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits():
    return read_digits()


@pytest.fixture
def ghostgrad(tmp_path, monkeypatch, capsys):
    """A function that runs a command in a fresh folder with a config.yaml and returns its exit
    code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("config.yaml").write_text(CONFIG)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ghostgrad", *arguments])
        # A command may set variables in its process, as `show` and `run` do.
        variables = dict(os.environ)
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            os.environ.clear()
            os.environ.update(variables)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A registry of four variants and an artifact that shows their accuracies. Scale `laptop`
    changes only the number of seeds, so its results can be compared with the paper's; those of
    `smoke`, which trains for fewer steps, cannot. Variant d is not part of `laptop`."""
    monkeypatch.chdir(tmp_path)
    scales = {"laptop": {"seeds": 3, "only": ["a", "b", "c"]}, "smoke": {"length": 1, "seeds": 1}}
    body = experiment(
        task="classify", base=dict(CLASSIFY), variants=VARIANTS, seeds=5, scales=scales
    )
    options = {"table": {"metrics": ["test_accuracy"], "unit": "%"}}
    table = {
        "title": "Accuracies",
        "section": "tab. 1",
        "rows": ROWS,
        "table": "final_metrics",
        "options": options,
    }
    return registry(tmp_path, {"nets": body}, {"ghost.x": table})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of 20 training and 6 validation images in two classes, to which
    GHOSTGRAD_DATA_IMAGES points."""
    folder = tmp_path / "insects"
    for index in range(26):
        split = "train" if index < 20 else "val"
        picture(folder / split / CLASSES[index % 2] / f"{index:02}.png", index)
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(folder))
    return folder


@pytest.fixture
def coco_folder(tmp_path, monkeypatch) -> Path:
    """A small data set in COCO's layout, configured as data.scenes."""
    root = tmp_path / "toys"
    write_coco_folder(root)
    monkeypatch.setenv("GHOSTGRAD_DATA_SCENES", str(root))
    return root
