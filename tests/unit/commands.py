"""What tests of the command line share: the registry of this checkout, and what a command said."""

from __future__ import annotations

from pathlib import Path

from ghostgrad.cli import estimates
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec

REGISTRY = Registry()
RUN = "plainnet_init/relu-bn-s0"


def workload(run: RunSpec) -> str:
    """What a calibration measures of a training run."""
    return estimates.workload(run.spec, run.gpus)


def output_of(result) -> str:
    """The output of a command that succeeded."""
    code, out, err = result
    assert (code, err) == (0, "")
    return out


def error_of(result) -> str:
    """The one line of a command that failed."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("ghostgrad: ")
    assert err.count("\n") == 1
    return err.removeprefix("ghostgrad: ").rstrip("\n")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
