"""Data-parallel training on one machine: process 0 is the run itself, holds its state and starts the others, which
follow it and end with it.

Of every step's batch each process takes an equal share; what BN sees at a time is the spec's `micro_batch`, never a
matter of how many processes there are. Gradients are averaged; BN's running statistics are those of process 0.

torchrun would turn the exit code 75 of a run that saved itself into 1, and answers for signals that are the run's own.
DistributedDataParallel sums in other pieces in its first step than later, so that a resumed run of more than two
processes would round otherwise than an undisturbed one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.runs.state import STOP_SIGNALS

log = logging.getLogger(__name__)

GRACE = 5  # seconds in which the process that knows best may speak first


@dataclass(frozen=True)
class ProcessGroup:
    """A process's place among those of a run."""

    rank: int = 0
    size: int = 1

    def share(self, batch: int) -> slice:
        """This process's part of a batch."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in every one of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, gradients: Sequence[Tensor]) -> None:
        """Every process's mean in the place of its own, in one sum."""
        if self.size > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.size
            pieces = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(list(gradients), [p.view(g.shape) for p, g in zip(pieces, gradients, strict=True)])

    def broadcast_object(self, value: Any) -> Any:
        """Process 0's value, in every one of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in process 0; nothing in the others."""
        if self.size == 1:
            return [value]
        found = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, found)
        return found or []

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process the BN statistics of process 0."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


SINGLE_PROCESS = ProcessGroup()


class Follower:
    """What a run's state is to a process that holds none of it: nothing is saved there, and it stops with process 0."""

    folder = Path("(of process 0)")

    def load(self) -> None:
        return None

    def checkpoint_if_due(self, payload: Callable[[], Mapping[str, Any]], done: int, total: int) -> None:
        return None


def _join(group: ProcessGroup, device: torch.device, meeting: str) -> torch.device:
    """Meet the other processes; the device of this one."""
    if device.type == "cuda":
        device = torch.device("cuda", group.rank)
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=group.rank, world_size=group.size)
    return device


def _exit_with(others: list[int], why: str, grace: float = 0, ending: threading.Event | None = None) -> None:
    """Leave as soon as one of the processes has, unless this one is `ending` them itself."""
    ending = ending or threading.Event()

    def watch() -> None:
        connection.wait(others)
        if not ending.wait(grace):
            log.error("%s", why)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _follow(rank: int, size: int, device: torch.device, meeting: str, threads: int, work: Callable) -> None:
    for number in STOP_SIGNALS:  # a whole process group is told; process 0 decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    first = mp.parent_process().sentinel
    _exit_with([first], f"process {rank} ends: process 0 is gone")
    torch.set_num_threads(threads)
    group = ProcessGroup(rank, size)
    try:
        work(Follower(), _join(group, device, meeting), group)
    except InputError as error:  # where process 0 meets the same it says so and ends this one
        time.sleep(GRACE)
        log.error("process %d: %s", rank, error)
        sys.exit(1)
    connection.wait([first])  # that it still saves or measures is no reason to miss this one


@contextmanager
def _signals_later() -> Iterator[None]:
    """What is started inside begins with the stop signals blocked: it must not die of one while it imports torch."""
    resource_tracker.ensure_running()  # its own start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def processes(
    size: int, device: torch.device, threads: int, work: Callable
) -> Iterator[tuple[torch.device, ProcessGroup]]:
    """Start `work(state, device, group)` in size - 1 further processes and be process 0 among them inside. InputError
    where one of them is lost."""
    if size == 1:
        yield device, SINGLE_PROCESS
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting, context = str(Path(folder, "meeting")), mp.get_context("spawn")
        others = [
            # no daemon: those may not start the processes that read images
            context.Process(target=_follow, args=(rank, size, device, meeting, threads, work))
            for rank in range(1, size)
        ]
        with _signals_later():
            for process in others:
                process.start()
        ending, sentinels = threading.Event(), [process.sentinel for process in others]
        _exit_with(sentinels, "a data-parallel process ended; see above", GRACE, ending)
        try:
            group = ProcessGroup(0, size)
            yield _join(group, device, meeting), group
        except RuntimeError as error:  # torch's of a broken connection, or one of this process's own
            if gone := connection.wait(sentinels, 1):
                lost = [process for process in others if process.sentinel in gone]
                for process in lost:
                    process.join(1)  # its pipe closes a moment before there is an exit code
                codes = ", ".join(str(process.exitcode) for process in lost)
                raise InputError(f"a data-parallel process ended (exit code {codes}); see above") from error
            raise
        finally:
            ending.set()
            for process in others:
                process.kill()
            for process in others:
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()
