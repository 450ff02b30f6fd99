"""Evidence for claims that is computed in the test process.

It consists of the registry's runs, with fewer repeats and, if a test asks for them, with changed
spec keys.
"""

from __future__ import annotations

import fcntl
import importlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ghostgrad.claims.evidence import Evidence
from ghostgrad.data.builtin import digits as read_digits
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.spec import parse_spec, short_hash

REPEATS = {"simulate": 48, "sample": 192}
WIDE_REPEATS = {4: 24}  # by expansion, for operators that take long
# Repeats by experiment. The claims about these networks stay open with fewer repeats.
NETWORK_REPEATS = {"resnet15_init": 8}
SEEDS = {"classify": 3}  # by task; a single training run has no standard error
DIGITS = read_digits()


class FreshState:
    """The state of a run that has no checkpoint and is never asked to stop."""

    def load(self) -> None:
        return None

    def checkpoint_if_due(self, *_: Any) -> None:
        pass


# At most one folder, in which parallel test processes share what they have computed.
FOLDER: list[Path] = []


@cache
def series_and_probes(spec: str) -> dict[str, str]:
    """The CSV texts of a run, given its canonical spec, computed once for all test processes."""
    if not FOLDER:
        return compute(spec)
    path = FOLDER[0] / f"{short_hash(spec)}.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps(compute(spec)))
        return json.loads(path.read_text())


def compute(text: str) -> dict[str, str]:
    """The CSV texts of a run, given its canonical spec."""
    spec = parse_spec(text)
    images = [DIGITS] if hasattr(spec, "data") else []
    module = importlib.import_module(f"ghostgrad.tasks.{spec.task}")
    run_task = getattr(module, spec.task)
    torch.set_num_threads(1)
    return run_task(spec, FreshState(), torch.device("cpu"), *images).files(spec.stored())


class Computed(Evidence):
    """Evidence from runs that are computed when a claim asks for them.

    `changes` maps experiment/variant to the spec keys that are changed to take a mechanism away.
    """

    def __init__(self, changes: Mapping[str, Mapping[str, Any]] | None = None):
        super().__init__(load_registry(), "test", [])
        object.__setattr__(self, "changes", dict(changes or {}))

    def _frames(self, variant: str, file: str, rows: str) -> Iterator[tuple[Path, pd.DataFrame]]:
        name, _, point = variant.partition("/")
        experiment = self.registry.experiments[name]
        scale = "paper" if experiment.task in REPEATS else "laptop"
        spec = experiment.runs(scale, point)[0].spec
        if experiment.task in REPEATS:
            enough = WIDE_REPEATS.get(getattr(spec, "expansion", 0), REPEATS[experiment.task])
            spec = replace(spec, repeats=min(spec.repeats, enough))
        if name in NETWORK_REPEATS:
            spec = replace(spec, repeats=NETWORK_REPEATS[name])
        spec = spec.expand({**spec.values(), **self.changes.get(variant, {})})
        for seed in range(SEEDS.get(experiment.task, 1)):
            path = f"results/test/runs/{variant}-s{seed}/{file}"
            self.used.append((path, rows))
            text = series_and_probes(replace(spec, seed=seed).canonical())[file]
            yield Path(path), pd.read_csv(io.StringIO(text))
