"""Worker processes that read batches from files ahead of the training.

A worker lives as long as the iterator that it reads for. It ignores the signals that ask a run to
stop: the run needs images until it has saved itself, and ends its workers then.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ghostgrad.checks import InputError
from ghostgrad.runs.state import STOP_SIGNALS

Batch = TypeVar("Batch")

_open_iterators: WeakSet[Generator[Any, None, None]] = WeakSet()


def loader_worker_count() -> int:
    """Number of worker processes; with 0 the run's own process decodes the images.

    GHOSTGRAD_LOADER_WORKERS, otherwise one fewer than the run's threads. Raises InputError for a
    value that is not a number.
    """
    text = os.environ.get("GHOSTGRAD_LOADER_WORKERS") or str(torch.get_num_threads() - 1)
    if not text.isdecimal():
        problem = f"'{text}' is not a number of processes; give 0 or more, or unset it"
        raise InputError(f"GHOSTGRAD_LOADER_WORKERS: {problem}")
    return int(text)


def stream_batches(
    batches: Dataset[Batch | InputError],
    positions: Iterable[int],
    device: torch.device,
    workers: int,
) -> Iterator[Batch]:
    """Yield the batch of each position, with its tensors on the device.

    A batch that is an InputError is raised here: what a worker raises itself would arrive as a
    RuntimeError with a traceback as its text. The workers end when the iterator is dropped, or with
    this process.
    """
    loader: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,  # an item is a whole batch already
        sampler=positions,
        num_workers=workers,
        worker_init_fn=_ignore_stop_signals,
        pin_memory=device.type == "cuda",
        # A forked worker shares the list of files with this process; a spawned one would copy it.
        multiprocessing_context="fork" if workers else None,
        # Without its own generator the loader would draw its base seed from torch's global one.
        generator=torch.Generator(),
    )
    iterator = _batches_on_device(iter(loader), device)
    _open_iterators.add(iterator)
    # Functions registered last run first. torch registers one at the first worker that waits five
    # seconds for each worker, so this one is registered after it.
    atexit.unregister(_close_iterators)
    atexit.register(_close_iterators)
    return iterator


def _batches_on_device(batches: Iterator[Any], device: torch.device) -> Generator[Any, None, None]:
    """Move each batch to the device, and turn the loss of a worker into an InputError."""
    problem = ""
    try:
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            yield _to_device(batch, device)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = f"a process that reads images has ended ({str(error).splitlines()[0]})"
    finally:
        # Ends the workers now: a raised error keeps this frame, and with it `batches`, alive.
        del batches
    if problem:
        remedy = "give the run more memory, or set GHOSTGRAD_LOADER_WORKERS to fewer"
        raise InputError(f"{problem}; {remedy}")


def _to_device(value: Any, device: torch.device) -> Any:
    """The tensors in tuples, lists and dicts on the device; other values stay as they are."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to_device(part, device) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_to_device(part, device) for part in value)
    return value


def _close_iterators() -> None:
    for iterator in list(_open_iterators):
        iterator.close()


def _ignore_stop_signals(_worker: int) -> None:
    """Ignore stop signals except those that the run itself sends to end its workers.

    Slurm sends a signal to all processes of a job, but the run still needs images until it has
    saved itself. So the signals are blocked, and a thread that waits for them looks who sent them.
    """
    run = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def end_with_run() -> None:
        while signal.sigwaitinfo(STOP_SIGNALS).si_pid != run:
            pass
        os._exit(0)

    threading.Thread(target=end_with_run, daemon=True).start()
