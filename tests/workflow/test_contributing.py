"""The worked examples of CONTRIBUTING.md, added to a copy of the workflow as they are printed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Checkout

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LIBRARY = "workflow/ghostgrad"


def blocks(heading: str, language: str) -> list[str]:
    """Return the code blocks in one language below the heading of an example."""
    section = TEXT.partition(f"\n### {heading}\n")[2]
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def insert_before(checkout: Checkout, file: str, anchor: str, text: str) -> None:
    checkout.edit(f"{LIBRARY}/{file}", anchor, text + anchor)


def merge(into: dict, block: dict) -> None:
    """Add `block` to nested mappings; a list of the same key is extended."""
    for key, value in block.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif isinstance(value, list) and key in into:
            into[key] = into[key] + value
        else:
            into[key] = value


def extend_experiments(checkout: Checkout, paper: str, *texts: str) -> None:
    path = checkout.path(f"workflow/experiments/{paper}.yaml")
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    for text in texts:
        merge(body, yaml.safe_load(text))
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")


def add_optimizer(checkout: Checkout) -> None:
    (module,), (variant,) = blocks("An optimizer", "python"), blocks("An optimizer", "yaml")
    checkout.path(f"{LIBRARY}/training/optimizers/signum.py").write_text(module)
    table, package = "training/optimizers/build.py", "ghostgrad.training.optimizers"
    insert_before(checkout, table, f"from {package}.sgd", f"from {package}.signum import Signum\n")
    insert_before(checkout, table, '    "sgd": SGD,\n', '    "signum": Signum,\n')
    insert_before(checkout, "registry/specs/classify.py", '"lamb"]', '"signum", ')
    extend_experiments(
        checkout,
        "lalc",
        f"experiments:\n  cifar_sweep:\n{variant}",
        "experiments: {cifar_sweep: {scales: {laptop: {only: [signum-128]}}}}",
    )


def add_data_set(checkout: Checkout) -> None:
    reader, row = blocks("A data set", "python")
    checkout.path(f"{LIBRARY}/data/stripes.py").write_text(reader)
    first = '        DataSet(\n            name="digits"'
    row = textwrap.indent(row.rstrip(), " " * 8) + ",\n"
    insert_before(checkout, "registry/datasets.py", first, row)
    readers = "data/image_sets.py"
    insert_before(checkout, readers, '    "digits":', '    "stripes": stripes,\n')
    text = "from ghostgrad.data.stripes import stripes\n"
    insert_before(checkout, readers, "from ghostgrad.files", text)


def add_figure(checkout: Checkout) -> None:
    (function,), (artifact,) = blocks("A figure", "python"), blocks("A figure", "yaml")
    insert_before(checkout, "figures/ghost.py", "    curve_start,\n", "    curve_end,\n")
    append(checkout.path(f"{LIBRARY}/figures/ghost.py"), f"\n\n{function}")
    extend_experiments(checkout, "ghost", artifact)


def add_probe(checkout: Checkout) -> None:
    (branch,), (variant,) = blocks("A probe", "python"), blocks("A probe", "yaml")
    insert_before(checkout, "training/probes.py", '    if "weight_norm" in probes:\n', branch)
    insert_before(
        checkout, "registry/specs/classify.py", '    "weight_norm",\n', '    "weight_mean",\n'
    )
    extend_experiments(checkout, "ghost", f"experiments:\n  conceal:\n    variants:\n{variant}")


def add_task(checkout: Checkout) -> None:
    (parameters, function), (experiment,) = blocks("A task", "python"), blocks("A task", "yaml")
    checkout.path(f"{LIBRARY}/registry/specs/spectrum.py").write_text(parameters)
    checkout.path(f"{LIBRARY}/tasks/spectrum.py").write_text(function)
    (row,) = re.findall(r"`(Task\(spec=SpectrumSpec.*?\))`", TEXT, re.DOTALL)
    table = "registry/tasks.py"
    insert_before(checkout, table, "        Task(spec=SampleSpec", f"        {row},\n")
    text = "from ghostgrad.registry.specs.spectrum import SpectrumSpec\n"
    insert_before(checkout, table, "from ghostgrad.registry.specs.weights", text)
    extend_experiments(checkout, "ghost", experiment)


def add_claim(checkout: Checkout) -> None:
    (function,), (statement,) = blocks("A claim", "python"), blocks("A claim", "yaml")
    append(checkout.path(f"{LIBRARY}/claims/ghost.py"), f"\n\n{function}")
    append(checkout.path("workflow/claims/ghost.yaml"), statement)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """A copy of the workflow with every example."""
    checkout = Checkout(tmp_path_factory.mktemp("examples") / "checkout")
    for add in (add_optimizer, add_data_set, add_figure, add_probe, add_task, add_claim):
        add(checkout)
    return checkout


def test_optimizer_data_set_probe_and_task_compute(checkout):
    """The new data set can be read, and runs use the new optimizer, probe and task."""
    runs = ("cifar_sweep/signum-128-s0", "conceal/mean-s0", "spectrum_init/d64-s0")
    directories = [f"results/laptop/runs/{run}" for run in runs]
    targets = [f"{directory}/metrics.csv" for directory in directories]
    checkout.build("results/data/stripes.json", *targets)
    signum, mean, spectrum = (checkout.path(directory) for directory in directories)
    assert '"optimizer": "signum"' in (signum / "spec.json").read_text()
    assert (signum / "metrics.csv").read_text().splitlines()[1].startswith("done,")
    assert ",weight_mean,0," in (mean / "probes.csv").read_text()
    largest = float((spectrum / "metrics.csv").read_text().splitlines()[1].split(",")[-1])
    assert largest == pytest.approx(2, rel=0.05), "the limit for large matrices"


def test_figure_and_claim_are_made_of_their_runs(checkout):
    figure = "results/smoke/figures/ghost.forward"
    table = "results/smoke/tables/ghost.last_layers.csv"
    checkout.build(f"{figure}.svg", table, "--config", "scale=smoke")
    assert "ReLU + BN" in checkout.path(f"{figure}.csv").read_text()
    assert "last layer, plain over residual" in checkout.path(table).read_text()
