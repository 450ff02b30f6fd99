"""What tests of the command line share: the registry of this checkout, and checks of what a command
printed."""

from __future__ import annotations

from pathlib import Path

from ghostgrad.cli import estimates
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.spec import RunSpec

REGISTRY = Registry()
RUN = "plainnet_init/relu-bn-s0"


def workload(run: RunSpec) -> str:
    """The workload of a training run, for which a calibration measures the speed."""
    return estimates.workload(run.spec, run.gpus)


def output_of(result) -> str:
    """The output of a command that must have succeeded without a message on stderr."""
    code, out, err = result
    assert (code, err) == (0, "")
    return out


def error_of(result) -> str:
    """The message of a command that must have failed with exactly one line on stderr."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("ghostgrad: ")
    assert err.count("\n") == 1
    return err.removeprefix("ghostgrad: ").rstrip("\n")


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
