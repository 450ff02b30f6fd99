"""Process groups, signals and the kernel's out-of-memory counter, for a task on a node."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class SignalQueue:
    """Collects signals, so that a loop can handle them where it is safe to do so.

    A signal interrupts Python anywhere, and submitit would requeue the task right inside its
    handler for SIGUSR2, while the job still runs. While this context is active, the handlers do
    nothing and the numbers arrive in a pipe, which `wait` reads.
    """

    NUMBERS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGCONT)

    def __enter__(self) -> SignalQueue:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.previous = {number: signal.signal(number, _ignore) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup_fd)
        for number, handler in self.previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> set[int]:
        """Return the signals that have arrived, after at most so many seconds."""
        select.select([self._read], [], [], seconds)
        try:
            return set(os.read(self._read, 512))
        except BlockingIOError:
            return set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this still writes the number to the wakeup pipe."""


def fork_with_signals_blocked() -> int:
    """Fork; the child starts with all signals blocked.

    Until the child has reset its handlers, a signal to it would be written into the pipe that it
    shares with its parent, and would count as one of the parent's. The child unblocks them itself.
    """
    sys.stdout.flush()  # or the child would print the buffers once more
    sys.stderr.flush()
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    return pid


def reset_signals() -> None:
    """In a forked child: give up the parent's handlers, then let signals in.

    SIGUSR2 stays ignored, in what the child starts too: Slurm sends it to every process of the job
    where it tracks them without cgroups, and its default action would kill the job that should
    save itself.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    _die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, by kill -9 for example."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks; empty where there is none.

    Together with the pid it identifies a process: pids are reused, after a reboot for example.
    """
    # The command's name, in parentheses, may contain spaces and parentheses itself.
    values = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return values[19] if values else ""


def claim_of_group(group: int) -> str:
    """Return the text with which a task claims the job that this process group runs."""
    return f"task {socket.gethostname()} {group} {start_time(group)}"


def end_leftovers(claim: str) -> None:
    """Kill the processes of a job that have outlived its task, where they are on this machine.

    The claim names their group. Its leader must be the same process still, or have exited: a
    leader with another start time means that the number now belongs to somebody else.
    """
    words = claim.split()
    if len(words) != 4 or words[1] != socket.gethostname():
        return
    if start_time(int(words[2])) in (words[3], ""):
        kill_group(int(words[2]), signal.SIGKILL)


def count_oom_kills() -> int:
    """Return how many processes of this process's cgroup the kernel has killed for memory.

    A job whose subprocess is killed this way sees an exit code like any other; the counter is what
    tells that memory was the reason. It is read from cgroup v1 and v2; 0 where there is neither.
    """
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            counter = f"memory{path}/memory.oom_control"  # v1
        else:
            counter = f"{path.lstrip('/')}/memory.events"  # v2
        text = read_text(f"/sys/fs/cgroup/{counter}")
        if match := re.search(r"^oom_kill (\d+)", text, re.MULTILINE):
            return int(match[1])
    return 0


def read_text(path: str | Path) -> str:
    """Return the content of a file; empty where it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
