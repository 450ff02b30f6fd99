"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ghostgrad.cli import commands as cli
from tests.unit.detection import write_coco_folder
from tests.unit.fabricate import CLASSIFY, experiment, registry
from tests.unit.image_folder import CLASSES, picture

CONFIG = "scale: smoke\nstate_dir: state\ncheckpoint_minutes: 5\ndata: {cifar10: }\n"
ROWS = {"A": "nets/a", "B": "nets/b", "C": {"left": "nets/c", "right": "nets/d"}}
VARIANTS = {name: {"batch": 2**index} for index, name in enumerate("abcd", 5)}

QUICK_CPU_SECONDS = 10.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """`make check` stays quick: a test in it that computes for long has to be marked `slow`.

    Time of the processor is counted, which a busy machine does not lengthen much.
    """
    started = sum(os.times()[:4])  # of this process and of its children that have ended
    yield
    seconds = sum(os.times()[:4]) - started
    if "not slow" in item.config.option.markexpr and seconds > QUICK_CPU_SECONDS:
        pytest.fail(f"computed for {seconds:.0f} s; mark it with @pytest.mark.slow")


@pytest.fixture(autouse=True)
def reproducible_torch():
    """One thread, so that sums do not depend on the number of cores, and a fixed seed for draws
    without a generator."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ghostgrad(tmp_path, monkeypatch, capsys):
    """Runs a command in a fresh folder with a config.yaml; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("config.yaml").write_text(CONFIG)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ghostgrad", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A registry of four variants and an artifact of their accuracies. `laptop` changes seeds
    only and is comparable, `smoke` is shorter and is not; variant d is not at `laptop`."""
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
    """20 training images and 6 of `val`, of two classes, and GHOSTGRAD_DATA_IMAGES set to them."""
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
