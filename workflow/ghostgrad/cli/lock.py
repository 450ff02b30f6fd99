"""Whether a Snakemake process works in this folder.

Snakemake's own lock files stay behind after a SIGKILL and hold no process id, so they do not tell a
running build from a dead one. The main process of a build therefore also holds a flock on
.snakemake/ghostgrad.lock, which the kernel releases when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import IO

FLOCK = Path(".snakemake/ghostgrad.lock")
LOCKS = Path(".snakemake/locks")
_held: IO[str] | None = None  # closing the file would release the flock


def hold() -> None:
    """Take the flock until this process ends.

    The main Snakemake process calls this while it reads the workflow. The flock is shared, because
    several may work in one folder, such as a build and a dry run.
    """
    global _held
    with contextlib.suppress(OSError):  # in a folder without write access one may still look
        FLOCK.parent.mkdir(exist_ok=True)
        _held = FLOCK.open("a")
        fcntl.flock(_held, fcntl.LOCK_SH)


def unlock() -> str | None:
    """Remove the lock files of a Snakemake process that is dead.

    Returns a sentence about what was done, or None if there are no lock files.
    """
    locks = sorted(LOCKS.glob("*.lock")) if LOCKS.is_dir() else []
    if not locks:
        return None
    if not FLOCK.exists():
        return (
            "the folder is locked by a Snakemake that may or may not be running; if it is not,"
            " run snakemake --unlock"
        )
    with FLOCK.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "the folder is locked by a Snakemake that is running"
        # A Snakemake that starts now waits in hold() until the lock files are gone.
        for lock in locks:
            lock.unlink(missing_ok=True)
    return "removed the lock of a Snakemake that was killed"
