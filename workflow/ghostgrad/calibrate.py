"""`ghostgrad calibrate`: how many images a second the trainings of a scale process on this machine's device; and the
networks' parameters, layers and multiply-adds, for workflow/networks.csv."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ghostgrad import classify, models, optim
from ghostgrad.checks import InputError
from ghostgrad.data import Images
from ghostgrad.engine import Network, configure
from ghostgrad.estimates import CALIBRATION, CLASSES, CPU, SIDE, Counts, architecture, at_a_time, workload
from ghostgrad.models.counts import counts
from ghostgrad.parallel import ALONE
from ghostgrad.per_sample import SampleNorms
from ghostgrad.record import write
from ghostgrad.rng import generator
from ghostgrad.run import what_lacks
from ghostgrad.spec import RunSpec

log = logging.getLogger(__name__)
WARM_UP = 3  # steps


def workloads(runs: Iterable[RunSpec]) -> dict[str, Mapping[str, Any]]:
    """What is to be measured of these runs, each once: the spec of one process, with a micro-batch as its batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        if run.task == "classify" and run.data in CLASSES and run.spec["length"]:
            gpus = run.resources.get("gpu", 0)
            micro = at_a_time(run.spec, gpus)
            found.setdefault(workload(run.spec, gpus), {**run.spec, "batch": micro, "micro_batch": micro})
    return found


def images_per_s(spec: Mapping[str, Any], device: torch.device, steps: int) -> float:
    """Of `steps` steps, forward, backward and update, on random images that lie on the device."""
    configure(spec)
    classes, side = CLASSES[spec["data"]], spec["size"] or SIDE[spec["data"]]
    rng = generator(0, "calibrate")
    x = torch.randn(spec["batch"], 3, side, side, generator=rng)
    y = torch.randint(classes, (spec["batch"],), generator=rng)
    shape = torch.empty(0, 3, side, side, dtype=torch.uint8).numpy()
    model = classify.new_model(spec, Images(shape, y.numpy(), shape, y.numpy(), list(map(str, range(classes)))))
    network = Network(spec, model, device, ALONE)
    optimizer = optim.optimizer(spec, network.model.train())
    norms = SampleNorms(network.model) if spec["optimizer"] == "clars" else None
    x, y = x.to(device), y.to(device)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with norms.collect() if norms else nullcontext():
            network.backward(x, y, step)
        if norms:
            optimizer.sample_norms = norms.means(ALONE)
        optimizer.step()
    _wait(device)
    return steps * spec["batch"] / (time.perf_counter() - began)


def _forget(device: torch.device) -> None:
    """What the network before has left: compiled code, of which torch keeps no more than a few, and memory."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{CPU}, {torch.get_num_threads()} threads"


def calibrate(runs: Iterable[RunSpec], device: torch.device, steps: int, state_dir: Path) -> Path:
    """Measure every workload of these runs and put it into <state_dir>/calibration.csv, after what is known of others;
    what does not fit into memory is written without a rate."""
    path, name = state_dir / "calibration.csv", name_of(device)
    todo = workloads(runs)
    if not todo:
        raise InputError("calibrate: nothing to measure; only trainings of classifiers are, on data of a known size")
    for number, (key, spec) in enumerate(todo.items(), start=1):
        _forget(device)
        try:
            with what_lacks():
                rate = images_per_s(spec, device, steps)
            told = f"{rate:.1f} images/s"
        except InputError as error:
            rate, told = None, str(error)
        peak = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else ""
        _add(path, [key, name, f"{rate:.6g}" if rate else "", peak, torch.__version__])
        how = f"{spec['model']}, {spec['optimizer']}, {spec['precision']}, batch {spec['batch']}"
        log.info("%d of %d: %s: %s", number, len(todo), how, told)
    return path


def _add(path: Path, row: list[Any]) -> None:
    rows = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [found for found in list(csv.reader(stream))[1:] if found[:2] != row[:2]]
    write(path, _csv([list(CALIBRATION), *rows, row]))


def _csv(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def networks(runs: Iterable[RunSpec]) -> str:
    """workflow/networks.csv: a row for each network that these runs train."""
    rows: dict[str, tuple[int, int, int]] = {}
    for run in runs:
        if run.task == "classify" and run.data in CLASSES and (name := architecture(run.spec)) not in rows:
            side = run.spec["size"] or SIDE[run.data]
            with torch.device("meta"):
                net = models.build(run.spec, CLASSES[run.data], (3, side, side))
            rows[name] = counts(net, side)
    return _csv([["architecture", *Counts._fields], *([name, *rows[name]] for name in sorted(rows))])
