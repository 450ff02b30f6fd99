"""One run, from its spec to its published files: what `ghostgrad run` does, which the Snakemake
rules call. runs/state.py says what happens when a run is asked to stop."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import importlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.spec import short_hash
from ghostgrad.registry.specs.base import Spec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.runs.provenance import environment
from ghostgrad.runs.record import Record
from ghostgrad.runs.state import CHECKPOINT_MINUTES, State, Stopped, StopRequest

if TYPE_CHECKING:
    import torch

    from ghostgrad.training.distributed import Follower, ProcessGroup

log = logging.getLogger("ghostgrad")


def state_folder(root: Path, out: Path, canonical: str, inputs: list[Path]) -> Path:
    """<root>/<scale>/<experiment>/<variant>-s<seed>@<hash8> for the run directory
    results/<scale>/runs/<experiment>/<variant>-s<seed>.

    The hash covers the spec and the content of the inputs, so that a changed run begins at step 0.
    A run directory elsewhere has its state in <root>/free/<hash of its path>/.
    """
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    parts = out.absolute().parts
    if len(parts) > 4 and parts[-3] == "runs":
        scale, experiment = parts[-4], parts[-2]
        parent = root / scale / experiment
    else:
        parent = root / "free" / short_hash(*parts[:-1])
    return parent / f"{parts[-1]}@{short_hash(canonical, *digests)}"


def choose_device(gpus: int) -> torch.device:
    """CUDA for a run whose resources ask for a GPU, else the CPU; GHOSTGRAD_DEVICE=cpu or cuda
    takes precedence.

    Raises InputError if there are fewer GPUs than the run asks for.
    """
    import torch

    name = os.environ.get("GHOSTGRAD_DEVICE") or ("cuda" if gpus else "cpu")
    if name not in ("cpu", "cuda"):
        hint = nearest(name, ("cpu", "cuda"))
        raise InputError(f"GHOSTGRAD_DEVICE: '{name}' is not allowed{hint}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "the run asks for a GPU and none is visible; to compute it without one, set"
            " GHOSTGRAD_DEVICE=cpu"
        )
    if name == "cuda" and (visible := torch.cuda.device_count()) < gpus:
        raise InputError(f"the run asks for {gpus} GPUs, but only {visible} can be seen")
    return torch.device(name)


def keep_memory() -> None:
    """Make glibc keep freed memory; does nothing with another C library.

    torch frees and allocates the same megabytes in every step. Giving them back to the system in
    between costs a page fault for every 4 KiB, up to a sixth of a simulation's time.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # options of malloc.h
        for option, size in ((trim_threshold, 2**30), (top_pad, 2**26), (mmap_threshold, 2**25)):
            libc.mallopt(option, size)


def _checkpoint_minutes() -> float:
    """Minutes between two checkpoints; InputError where the environment has no number."""
    text = os.environ.get("GHOSTGRAD_CHECKPOINT_MINUTES", str(CHECKPOINT_MINUTES))
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not minutes > 0:  # also where it is NaN
        raise InputError(f"GHOSTGRAD_CHECKPOINT_MINUTES: '{text}' is not a number of minutes")
    return minutes


def execute(
    spec: Spec,
    out: Path,
    inputs: list[Path],
    threads: int,
    gpus: int,
    weights: bool = False,
) -> None:
    """Compute the run, or go on where an earlier process stopped, and publish it in `out`, with its
    weights if they are asked for.

    Raises Stopped when asked to stop (everything is saved) and InputError for what a person can
    correct.
    """
    stop = StopRequest().listen()
    root = Path(os.environ.get("GHOSTGRAD_STATE_DIR", "state"))
    minutes = _checkpoint_minutes()
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} is missing; build it with: snakemake {path}")
    folder = state_folder(root, out, spec.canonical(), inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _log_to(folder / "log.txt")
        state = State(folder, stop, minutes)
        # Before the lock: a process that holds it, with this spec or an older one, learns of it
        # when it publishes.
        state.mark_as_newest()
        with state:
            if state.finished:
                if weights and not (state.record / "weights.pt").exists():
                    reason = "it finished when its weights were not asked for and were not kept"
                    raise InputError(f"{out}: {reason}; delete {folder} to train it again")
                log.info("finished before; publishing again")
                if not state.environments():
                    state.start(environment(spec.task, "none"))
            else:
                _compute(spec, state, inputs, threads, gpus, weights)
            state.publish(out)
    except Stopped as request:
        log.info("stopped by %s; state folder %s", request, folder)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or folder
            raise InputError(
                f"{where}: {error.strerror}; free some space and run it again, nothing is lost"
            ) from None
        raise
    log.info("published %s", out)


def _compute_task(
    spec: Spec,
    inputs: list[Path],
    state: State | Follower,
    device: torch.device,
    group: ProcessGroup,
) -> Record:
    """Load the data and call the task's function; the same in every process of a run."""
    module = importlib.import_module(f"ghostgrad.tasks.{spec.task}")
    task: Callable[..., Record] = getattr(module, spec.task)
    arguments: list[object] = []
    options: dict[str, object] = {}
    if hasattr(module, "load_data"):
        arguments.append(module.load_data(spec, inputs[0]))  # the manifest is the first input
    if group.size > 1:  # only tasks that can compute in several processes take a group
        options["group"] = group
    if isinstance(spec, DetectSpec) and spec.weights:
        options["weights"] = inputs[-1]
    with translate_torch_errors():
        return task(spec, state, device, *arguments, **options)


@contextlib.contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Turn torch's errors about what the machine lacks, memory or a compiler, into an
    InputError."""
    import torch

    try:
        yield
    # torch reports a failed allocation on the CPU as a bare RuntimeError.
    except (RuntimeError, MemoryError) as error:
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
    """Compute the run in one process for each GPU, and turn it into its record."""
    import torch

    from ghostgrad.training.distributed import start_processes

    keep_memory()
    device, process_count = choose_device(gpus), max(1, gpus)
    threads_each = max(1, threads // process_count)
    torch.set_num_threads(threads_each)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"cpu, {threads_each} thread(s)"
    if process_count > 1:
        name = f"{process_count} x {name}"
    state.start(environment(spec.task, name))
    work = partial(_compute_task, spec, inputs)
    try:
        with start_processes(process_count, device, threads_each, work) as (own_device, group):
            record = work(state, own_device, group)
    finally:  # a process that is stopped or fails has costs too
        peak = torch.cuda.max_memory_allocated(device) // 2**20 if on_gpu else None
        state.add_costs(process_count if on_gpu else 0, peak)
    state.finish(record, spec.stored(), weights)
    shown = (f"{key} {value}" for key, value in record.metrics.items() if value is not None)
    log.info("%s", ", ".join(shown))


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
