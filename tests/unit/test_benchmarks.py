"""What train.py, imagenet_input.py and simulate.py of benchmarks/ measure runs on the CPU.

No test checks the numbers that they measure. commands.py and fanout.py start Snakemake and Slurm,
and are not run here.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch

from ghostgrad.tasks import run
from tests.conftest import ROOT
from tests.unit.image_folder import DECODERS

pytestmark = pytest.mark.filterwarnings(DECODERS)
CPU = torch.device("cpu")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_training_step_of_the_engine_and_of_the_reference():
    train = load("train")
    engine = train.Engine(train.random_images(32), CPU, model="preact_resnet", blocks=1, batch=8)
    engine.steps()
    x, y = engine.input()
    before = [p.clone() for p in engine.model.parameters()]
    train.reference_step(engine.model, x, y)()
    assert any(
        not torch.equal(p, q) for p, q in zip(engine.model.parameters(), before, strict=True)
    )


@pytest.mark.parametrize("method", ["plain", "ours", "minimum"])
def test_a_repeat_of_a_simulation_is_computed_in_every_way(method, monkeypatch):
    monkeypatch.setattr(run, "keep_memory", lambda: None)  # it would change this process for good
    simulate = load("simulate")
    assert method in simulate.METHODS
    simulate.METHODS[method](1, CPU)


def test_both_inputs_make_the_same_number_of_images(tmp_path):
    module = load("imagenet_input")
    size = module.write(tmp_path, 34)
    assert 80_000 < size < 140_000, "about ImageNet's"
    assert module.ours(tmp_path)() == module.reference(tmp_path)() == 32
