"""Figures of training sweeps, from runs written by hand: the figures show what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from ghostgrad.analysis import statistics
from ghostgrad.analysis.results import Results
from ghostgrad.figures import ghost, lalc
from ghostgrad.figures.draw import draw_artifact
from ghostgrad.figures.style import apply_style
from ghostgrad.files import CsvTable
from ghostgrad.registry.registry import load_registry
from ghostgrad.report import tables
from tests.unit.fabricate import publish

REGISTRY = load_registry()
SERIES = ("step", "at", "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that publishes the runs of an artifact and returns what its figure function
    draws."""
    monkeypatch.chdir(tmp_path)

    def draw(artifact_id: str, function, scale: str = "laptop", **options):
        artifact = REGISTRY.artifact(artifact_id)
        for run in REGISTRY.artifact_runs(scale, artifact):
            accuracy = 50.0 + run.seed + (30.0 if run.variant.startswith("lalc") else 0.0)
            series = CsvTable(
                SERIES, [[s, s, s / 10, 0.1, 2.0 / s, accuracy, 1.0, accuracy] for s in (10, 20)]
            )
            probes = [
                [at, at, f"{place}_{name}", k, (1 + k) * (1 + run.seed)]
                for at in (0, 100, 1950)
                for place in ("conv", "norm", "act", "weight")
                for name in (*lalc.STATISTICS, "variance", "offset")
                for k in range(5)
            ]
            probes += [
                [at, at, "clipped_fraction", 0, 0.2 + run.seed / 10] for at in (0, 100, 1950)
            ]
            probes += [
                [at, at, "gradient_variance", k, 1 + k] for at in (0, 100, 1950) for k in range(5)
            ]
            probes += [
                [at, at, "weight_gradient", k, 1.0 + k + run.seed]
                for at in (0, 50)
                for k in range(5)
            ]
            publish(run, {"test_accuracy": accuracy}, series, probes=probes)
        apply_style(artifact_id)
        return function(Results(REGISTRY, artifact, scale), **options)

    return draw


def test_accuracy_by_batch(drawn):
    """Every method has a curve over the paper's batch sizes, with mean and range of the seeds."""
    figure, data = drawn("lalc.fig4a", lalc.accuracy_by_batch)
    rows = {(row.label, row.x): (row.mean, row.low, row.high, row.n) for row in data.itertuples()}
    assert rows["LALC", 0] == rows["LALC", 5] == (80.5, 80.0, 81.0, 2)
    assert rows["WarmUp", 5] == (50.5, 50.0, 51.0, 2)
    assert {label for label, _ in rows} == {"SGD", "WarmUp", "LARS", "CLARS", "LALC"}
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()][::5] == ["128", "4k"]


def test_training_curves(drawn):
    """Loss and accuracy of each method are drawn against the epoch."""
    _, data = drawn("lalc.fig4b", lalc.training_curves)
    curve = data[(data["label"] == "LALC") & (data["panel"] == "training loss")]
    assert curve["x"].tolist() == [1.0, 2.0]
    assert curve["mean"].tolist() == [0.2, 0.1]
    assert set(data["panel"]) == {"training loss", "test accuracy (%)"}


def test_layer_statistics_are_counted_from_the_output(drawn):
    """The paper has the layer near the output on the left."""
    figure, data = drawn("lalc.fig3", lalc.layer_statistics, at=[0, 100])
    curve = data[(data["panel"] == "act_activation_correlation") & (data["label"] == "step 0")]
    assert curve["x"].tolist() == [1, 2, 3, 4, 5]
    assert curve["mean"].tolist() == [7.5, 6.0, 4.5, 3.0, 1.5]
    assert len({*data["panel"]}) == 3 * len(lalc.STATISTICS) + 2
    assert len(figure.axes) == 24


def test_quantities_over_time(drawn):
    """A probe's value at each position is drawn, or the rate fitted to its curve over the layers.

    Here the first of five layers has the smallest variance, so the rate is below 1.
    """
    _, data = drawn("lalc.self_disable", lalc.over_time, quantity="clipped_fraction")
    clipped = data[data["label"] == "batch 128"]
    assert clipped["x"].tolist() == [0, 100, 1950]
    assert clipped["mean"].tolist() == [0.25] * 3
    _, data = drawn("lalc.decay", lalc.over_time, quantity="explosion_rate")
    rate = statistics.fit_growth_rate(np.sqrt(np.arange(1, 6)))
    assert data["mean"].tolist() == pytest.approx([rate] * 3)
    assert rate < 1


def test_weight_gradients_and_accuracies_of_the_ghost_papers_networks(drawn):
    """At paper scale there are five seeds; convolutions are counted from 1, and both accuracies are
    drawn against the epoch."""
    _, data = drawn("ghost.fig4_right", ghost.weight_gradients, scale="paper", at=50)
    curve = data[data["label"] == "SeqNet50"]
    assert curve["x"].tolist() == [1, 2, 3, 4, 5]
    assert (
        curve["mean"].iloc[0],
        curve["low"].iloc[0],
        curve["high"].iloc[0],
        curve["n"].iloc[0],
    ) == (
        3.0,
        1.0,
        5.0,
        5,
    )
    _, data = drawn("ghost.fig7", ghost.accuracy_curves, scale="paper")
    assert set(data["panel"]) == {"training accuracy (%)", "validation accuracy (%)"}
    assert set(data["label"]) == {"ResNet50", "SeqNet50"}


def test_a_model_that_diverged_before_its_probes_is_drawn_and_reported(tmp_path, monkeypatch):
    """Divergence is a result: panels say that the run ended earlier, the table that it diverged."""
    monkeypatch.chdir(tmp_path)
    artifact = REGISTRY.artifact("bnres.fig13")
    publish(
        REGISTRY.run("smoke", "resnet15_cifar/model1-s0"), {"status": "diverged", "diverged_at": 2}
    )
    draw_artifact(REGISTRY, artifact, "smoke", None, tmp_path / "fig13")
    assert (tmp_path / "fig13.csv").read_text().count("\n") == 1, "the header alone"
    table = tables.build(REGISTRY, artifact, "smoke", None)
    assert table["n_diverged"].tolist() == [1, 1, 1]
    assert set(table["verdict"]) == {"shown only (scaled)"}
