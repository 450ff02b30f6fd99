"""Published weights are checked, and give sigma of every BN layer.

Sigma is the root of the layer's mean running variance.
"""

from __future__ import annotations

import csv
import io
import math

import pytest
import torch

from ghostgrad.checks import InputError
from ghostgrad.data.make import make
from ghostgrad.data.vgg19_bn import load_weights
from ghostgrad.tasks.weights import weights
from tests.unit.fabricate import one_line

LAYERS = 16


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """The manifest of a small state dict with VGG19-BN's 16 BN layers."""
    state = {}
    for layer in range(LAYERS):
        state[f"features.{3 * layer}.weight"] = torch.zeros(2)
        state[f"features.{3 * layer + 1}.running_var"] = torch.tensor([1.0, 3.0]) * (layer + 1)
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    monkeypatch.setenv("GHOSTGRAD_DATA_VGG19_BN", str(path))
    make("vgg19_bn", tmp_path / "vgg19_bn.json")
    return tmp_path / "vgg19_bn.json"


def test_sigma_of_every_layer(manifest):
    """Layers are listed from the input on.

    Variances are averaged before the root is taken (Ghost sec. 2.2).
    """
    record = weights({}, None, torch.device("cpu"), load_weights("vgg19_bn", manifest))
    rows = list(csv.DictReader(io.StringIO(record.series.text())))
    assert [int(row["layer"]) for row in rows] == list(range(1, LAYERS + 1))
    assert [float(row["sigma"]) for row in rows] == pytest.approx(
        [math.sqrt(2.0 * n) for n in range(1, LAYERS + 1)]
    )
    assert record.metrics["layers"] == LAYERS


def test_another_file_than_the_manifests_is_refused(manifest, tmp_path):
    state = torch.load(tmp_path / "vgg.pth")
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "vgg.pth")
    with pytest.raises(
        InputError, match=r"vgg\.pth is not the file that .*vgg19_bn\.json describes; delete"
    ):
        load_weights("vgg19_bn", manifest)


BROKEN = {
    "no state dict": (b"not a file of torch", "is not a state dict of torch"),
    "cut short": (None, "is not a state dict of torch"),
}


@pytest.mark.parametrize(("content", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_damaged_file_is_one_line(manifest, tmp_path, content, expected):
    path = tmp_path / "vgg.pth"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(InputError) as error:
        make("vgg19_bn", manifest)
    text = one_line(error)
    assert text.startswith(f"config.yaml: data.vgg19_bn: {path} {expected}; download vgg19_bn-")


def test_weights_of_another_net(manifest, tmp_path):
    torch.save({"bn.running_var": torch.ones(2)}, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match="has 1 BN layers, expected VGG19-BN's 16"):
        make("vgg19_bn", manifest)
