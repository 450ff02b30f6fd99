"""Data-parallel training on one machine.

Process 0 is the run itself: it holds the state folder, writes checkpoints and the record, measures
the probes, and answers the signals. It starts the others, which follow it and end with it.

    start     Process 0 starts size - 1 followers by spawn, with the stop signals blocked, so that
              none dies of one while it imports torch. All meet through a file in a temporary folder
              (nccl on GPUs, gloo on CPUs) and enter the same task function.
    resume    Process 0 loads the checkpoint and broadcasts it; followers have no state (Follower).
    step      Each process computes its share of the batch. Gradients, losses and counts are
              reduced over all of them, so each makes the same update. BN normalizes over the spec's
              `micro_batch`, whatever the number of processes; its running statistics are those
              of process 0, which are broadcast before an evaluation.
    SIGTERM   (SIGINT and SIGUSR2 likewise; Slurm sends them to every process.) Followers ignore
              it. Process 0 saves a checkpoint between two steps, leaves the context below and kills
              the followers, which wait for it in the next reduction.
    end       A follower that has returned from the task waits for process 0, which still measures
              the last probes and writes the record; then it is killed too.
    lost      If process 0 dies, a thread in each follower sees its pipe close and exits.
              If a follower dies, a reduction fails in process 0, which raises InputError with the
              exit code. Where none fails, because nccl waits for ever, a thread ends process 0
              GRACE seconds later.
    mistakes  An InputError is met by all processes alike, such as a checkpoint of another spec, or
              by one alone, such as a damaged image. A follower that meets one waits GRACE seconds,
              so that process 0 can report it first and only once, before it logs it and exits.

torchrun is not used: it would turn the exit code 75 of a run that has saved itself into 1, and it
installs handlers for signals that the run handles itself. DistributedDataParallel is not used: it
sums gradients in other buckets in its first step than in later ones, so that a resumed run of more
than two processes would round differently from an undisturbed one.
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
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ghostgrad.checks import InputError
from ghostgrad.runs.state import STOP_SIGNALS

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds in which another process, which knows the cause of an error, can report it first.
GRACE = 5


@dataclass(frozen=True)
class ProcessGroup:
    """A process's place among the processes of a run, and what they exchange.

    With size 1 every method returns its argument and torch.distributed is not used.
    """

    rank: int = 0
    size: int = 1

    def share(self, batch: int) -> slice:
        """This process's part of a batch of `batch` images, which the size must divide."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each of them; `values` is changed in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, gradients: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes.

        All tensors are summed as one flat tensor: one reduction, and the same order of additions in
        every step, on which exact resuming depends.
        """
        if self.size > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.size
            pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
            means = [
                piece.view(gradient.shape)
                for piece, gradient in zip(pieces, gradients, strict=True)
            ]
            torch._foreach_copy_(list(gradients), means)

    def broadcast_object(self, value: T) -> T:
        """The value of process 0, in every process; what the others pass is ignored."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, in process 0; an empty list in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, values)
        return values or []

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process the buffers of process 0, BN's running statistics among them."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


SINGLE_PROCESS = ProcessGroup()


class Follower:
    """Takes the place of the run's state in the processes other than process 0.

    It saves nothing and never stops: the process is ended by process 0.
    """

    folder = Path("(of process 0)")

    def load(self) -> None:
        return None

    def checkpoint_if_due(
        self, payload: Callable[[], Mapping[str, Any]], done: int, total: int
    ) -> None:
        return None


Work: TypeAlias = Callable[[Follower, torch.device, ProcessGroup], object]
"""What every process computes; process 0 calls it itself, with the run's state."""


def _join_group(group: ProcessGroup, device: torch.device, meeting: str) -> torch.device:
    """Wait for the other processes at the file `meeting`; returns the device of this one."""
    if device.type == "cuda":
        device = torch.device("cuda", group.rank)
        torch.cuda.set_device(device)
    else:
        # All processes are on this machine, whose name need not resolve to an address.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{meeting}", rank=group.rank, world_size=group.size
    )
    return device


def _exit_when_any_ends(
    sentinels: list[int],
    message: str,
    grace: float = 0,
    shutting_down: threading.Event | None = None,
) -> None:
    """Start a thread that ends this process once one of the processes of `sentinels` has ended.

    It waits `grace` seconds first, and does nothing if `shutting_down` is set by then. The main
    thread may be blocked inside nccl, where no exception reaches it; hence `os._exit`.
    """
    event = shutting_down or threading.Event()

    def watch() -> None:
        connection.wait(sentinels)
        if not event.wait(grace):
            log.error("%s", message)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _follow(
    rank: int, size: int, device: torch.device, meeting: str, threads: int, work: Work
) -> None:
    """The main function of process `rank` >= 1."""
    # Ignore the signals before they are unblocked; one that is pending is dropped by that.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    process_0 = mp.parent_process()
    assert process_0 is not None  # this function runs in a child
    _exit_when_any_ends([process_0.sentinel], f"process {rank} ends: process 0 is gone")
    torch.set_num_threads(threads)
    group = ProcessGroup(rank, size)
    try:
        work(Follower(), _join_group(group, device, meeting), group)
    except InputError as error:
        # Process 0 usually meets the same error, reports it and kills this process meanwhile.
        time.sleep(GRACE)
        log.error("process %d: %s", rank, error)
        sys.exit(1)
    # Process 0 still saves or measures; that this process ended would look like a loss to it.
    connection.wait([process_0.sentinel])


@contextmanager
def _blocked_stop_signals() -> Iterator[None]:
    """Processes that are started inside begin with the stop signals blocked.

    A signal mask is inherited. A child would otherwise die of a signal that arrives before it has
    imported torch and installed its own handlers.
    """
    # multiprocessing's resource tracker unblocks signals when it starts, so it must run already.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def start_processes(
    size: int, device: torch.device, threads: int, work: Work
) -> Iterator[tuple[torch.device, ProcessGroup]]:
    """Run `work(Follower(), device, group)` in size - 1 further processes while the context lasts.

    Yields the device and the group of process 0, which calls the same function inside. The other
    processes end with the context. `threads` are those of each process. Raises InputError if one
    of them is lost.
    """
    if size == 1:
        yield device, SINGLE_PROCESS
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder, "meeting"))
        followers = _start_followers(size, device, meeting, threads, work)
        sentinels = [process.sentinel for process in followers]
        shutting_down = threading.Event()
        _exit_when_any_ends(
            sentinels, "a data-parallel process ended; see above", GRACE, shutting_down
        )
        try:
            group = ProcessGroup(0, size)
            yield _join_group(group, device, meeting), group
        except RuntimeError as error:
            # Either torch's error for a broken connection or one of this process's own: only in
            # the first case has a follower ended.
            if ended := connection.wait(sentinels, 1):
                lost = [process for process in followers if process.sentinel in ended]
                raise InputError(_describe_lost(lost)) from error
            raise
        finally:
            # Set before anything is killed, or the watching thread would report a loss.
            shutting_down.set()
            for process in followers:
                process.kill()
            for process in followers:
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def _start_followers(
    size: int, device: torch.device, meeting: str, threads: int, work: Work
) -> list[SpawnProcess]:
    """Start the processes 1 to size - 1."""
    context = mp.get_context("spawn")  # a forked process could not use CUDA
    followers = [
        # Not daemonic: a daemonic process may not start workers that read images.
        context.Process(target=_follow, args=(rank, size, device, meeting, threads, work))
        for rank in range(1, size)
    ]
    with _blocked_stop_signals():
        for process in followers:
            process.start()
    return followers


def _describe_lost(processes: list[SpawnProcess]) -> str:
    for process in processes:
        process.join(1)  # the sentinel is ready a moment before the exit code is known
    codes = ", ".join(str(process.exitcode) for process in processes)
    return f"a data-parallel process ended (exit code {codes}); see above"
