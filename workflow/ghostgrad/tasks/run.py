"""One run, from its spec to its published files. `ghostgrad run` and the Snakemake rules both end here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.spec import short_hash
from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.runs.provenance import environment
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import State, Stopped, StopRequest

if TYPE_CHECKING:
    import torch

    from ghostgrad.training.distributed import Follower, ProcessGroup

log = logging.getLogger("ghostgrad")


def state_folder(root: Path, out: Path, canonical: str, inputs: list[Path]) -> Path:
    """<root>/<scale>/<experiment>/<variant>-s<seed>@<hash8> for the run directory
    results/<scale>/runs/<experiment>/<variant>-s<seed>; the hash covers the spec and the content of the inputs. A run
    directory elsewhere has its state in <root>/free/<hash of its place>/."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    parts = out.absolute().parts
    place = (
        (parts[-4], parts[-2])
        if len(parts) > 4 and parts[-3] == "runs"
        else ("free", short_hash(*parts[:-1]))
    )
    return root.joinpath(*place, f"{parts[-1]}@{short_hash(canonical, *digests)}")


def choose_device(gpus: int):
    """CUDA for a run whose resources ask for a GPU, else the CPU; GHOSTGRAD_DEVICE=cpu or cuda overrules."""
    import torch

    name = os.environ.get("GHOSTGRAD_DEVICE") or ("cuda" if gpus else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(
            f"GHOSTGRAD_DEVICE: '{name}' is not allowed{nearest(name, ('cpu', 'cuda'))}"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "the run asks for a GPU and none is visible; to compute it without one: GHOSTGRAD_DEVICE=cpu"
        )
    if name == "cuda" and (found := torch.cuda.device_count()) < gpus:
        raise InputError(
            f"the run asks for {gpus} GPUs and {found} is visible; give it as many as it asks for"
        )
    return torch.device(name)


def keep_memory() -> None:
    """Have glibc keep freed memory. Torch frees and allocates the same megabytes at every step; giving them back to the
    system in between costs a page fault for every 4 KiB, up to a sixth of a simulation's time. Elsewhere a no-op."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of malloc.h
        for option, size in ((trim_threshold, 2**30), (top_pad, 2**26), (mmap_threshold, 2**25)):
            libc.mallopt(option, size)


def execute(
    spec: Spec,
    out: Path,
    inputs: list[Path],
    threads: int,
    gpus: int,
    weights: bool = False,
) -> None:
    """Compute the run, or take up where an earlier process left it, and publish it into `out`, with its `weights` where
    they are wanted.

    Raises Stopped when asked to stop (everything is saved), InputError for what a person can mend.
    """
    stop = StopRequest().listen()
    root = Path(os.environ.get("GHOSTGRAD_STATE_DIR", "state"))
    minutes = float(os.environ.get("GHOSTGRAD_CHECKPOINT_MINUTES", "5"))
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} is missing; build it with: snakemake {path}")
    folder = state_folder(root, out, spec.canonical(), inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _log_to(folder / "log.txt")
        state = State(folder, stop, minutes)
        state.mark_as_newest()
        with state:
            if state.finished:
                if weights and not (state.record / "weights.pt").exists():
                    told = "finished when its weights were not asked for, and they are gone"
                    raise InputError(f"{out}: {told}; delete {folder}, and it is trained again")
                log.info("finished before; publishing again")
                if not state.environments():
                    state.start(environment(spec.task, "none"))
            else:
                _compute(spec, state, inputs, threads, gpus, weights)
            state.publish(out)
    except Stopped as request:
        log.info("stopped by %s; saved in %s", request, folder)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or folder
            raise InputError(
                f"{where}: {error.strerror}; free some space and run it again, nothing is lost"
            ) from None
        raise
    log.info("published %s", out)


def _work(
    spec: Spec,
    inputs: list[Path],
    state: State | Follower,
    device: torch.device,
    group: ProcessGroup,
) -> Record:
    """The task's function on its inputs; only one that computes in several processes is told of them."""
    module = importlib.import_module(f"ghostgrad.tasks.{spec.task}")
    data, more = [], {"group": group} if group.size > 1 else {}
    if hasattr(spec, "data"):
        data.append(module.load_data(spec, inputs[0]))
    if isinstance(spec, DetectSpec) and spec.weights:
        more["weights"] = inputs[-1]
    with translate_torch_errors():
        return getattr(module, spec.task)(spec, state, device, *data, **more)


@contextlib.contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Of torch's errors, those that tell what the machine lacks become an InputError: memory, a compiler."""
    import torch

    try:
        yield
    except (
        RuntimeError,
        MemoryError,
    ) as error:  # torch reports a failed allocation on the CPU as a bare RuntimeError
        text = (str(error) or "the machine has no more").splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError):
            raise InputError(f"out of GPU memory: {text}") from None
        if isinstance(error, MemoryError) or "can't allocate memory" in text:
            raise InputError(f"out of memory: {text}") from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise InputError(f"compile: torch cannot compile the network: {text}") from None
        raise


def _compute(
    spec: Spec, state: State, inputs: list[Path], threads: int, gpus: int, weights: bool
) -> None:
    import torch

    from ghostgrad.training.distributed import processes

    keep_memory()
    device, count = choose_device(gpus), max(1, gpus)
    each = max(1, threads // count)
    torch.set_num_threads(each)
    name = f"{count} x " * (count > 1)
    name += (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {each} thread(s)"
    )
    state.start(environment(spec.task, name))
    work = partial(_work, spec, inputs)
    try:
        with processes(count, device, each, work) as (mine, group):
            record = work(state, mine, group)
    finally:
        peak = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None
        state.stopwatch(count * (device.type == "cuda"), gpu_peak_mb=peak)
    state.finish(record, spec.stored(), weights)
    log.info(
        "%s",
        ", ".join(f"{key} {value}" for key, value in record.metrics.items() if value is not None),
    )


def _log_to(path: Path) -> None:
    """Append to the log of record as well as to standard error."""
    logging.raiseExceptions = (
        False  # a line that a full disk does not take is no reason for a traceback
    )
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    logger = logging.getLogger("ghostgrad")
    logger.setLevel(logging.INFO)
    for handler in (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stderr)):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
