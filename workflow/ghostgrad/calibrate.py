"""`ghostgrad calibrate`: how many images a second the trainings of a scale process on this machine's device; and the
networks' parameters and multiply-adds, for workflow/networks.csv."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ghostgrad import classify, models, optim
from ghostgrad.data import Images
from ghostgrad.engine import Network, configure
from ghostgrad.models.counts import counts
from ghostgrad.parallel import ALONE
from ghostgrad.planning import CALIBRATION, CLASSES, COLUMNS, SIDE, architecture, workload
from ghostgrad.record import write
from ghostgrad.rng import generator
from ghostgrad.spec import RunSpec

log = logging.getLogger(__name__)
WARM_UP = 3  # steps


def workloads(runs: Iterable[RunSpec]) -> dict[str, Mapping[str, Any]]:
    """What is to be measured of these runs, each once: the spec of one process, with a micro-batch as its batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        if run.task == "classify" and run.data in CLASSES and run.spec["length"]:
            gpus = run.resources.get("gpu", 0)
            micro = run.spec["micro_batch"] or run.spec["batch"] // max(1, gpus)
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
    x, y = x.to(device), y.to(device)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        network.backward(x, y, step)
        optimizer.step()
    _wait(device)
    return steps * spec["batch"] / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def calibrate(runs: Iterable[RunSpec], device: torch.device, steps: int, state_dir: Path) -> Path:
    """Measure every workload of these runs and put it into <state_dir>/calibration.csv, after what is known of others;
    what does not fit into memory is written without a rate."""
    path, name = state_dir / "calibration.csv", name_of(device)
    todo = workloads(runs)
    for number, (key, spec) in enumerate(todo.items(), start=1):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            rate = f"{images_per_s(spec, device, steps):.6g}"
        except (torch.OutOfMemoryError, MemoryError):
            rate = ""
        peak = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else ""
        _add(path, [key, name, rate, peak, torch.__version__])
        told = f"{float(rate):.1f} images/s" if rate else "does not fit into memory"
        log.info("%d of %d: %s, batch %d: %s", number, len(todo), spec["model"], spec["batch"], told)
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
    rows: dict[str, tuple[int, int]] = {}
    for run in runs:
        if run.task == "classify" and run.data in CLASSES and (name := architecture(run.spec)) not in rows:
            side = run.spec["size"] or SIDE[run.data]
            with torch.device("meta"):
                net = models.build(run.spec, CLASSES[run.data], (3, side, side))
            rows[name] = counts(net, side)
    return _csv([list(COLUMNS), *([name, *rows[name]] for name in sorted(rows))])
