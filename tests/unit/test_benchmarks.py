"""The parts of the benchmarks run; no test checks the numbers that they measure."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch

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


def test_both_inputs_make_the_same_number_of_images(tmp_path):
    module = load("imagenet_input")
    size = module.write(tmp_path, 34)
    assert 80_000 < size < 140_000, "about ImageNet's"
    assert module.ours(tmp_path)() == module.reference(tmp_path)() == 32
