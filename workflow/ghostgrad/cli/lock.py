"""Which Snakemake works in this folder. Snakemake's own lock stays after a SIGKILL and carries no process id; so the
main process also holds a flock on .snakemake/ghostgrad.lock, which the kernel drops with the process."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

FLOCK = Path(".snakemake/ghostgrad.lock")
LOCKS = Path(".snakemake/locks")
_held = None


def hold() -> None:
    """Called by the main Snakemake process while it reads the workflow; several may (a dry run, a build)."""
    global _held
    with contextlib.suppress(OSError):  # a folder that may not be written to can still be looked at
        FLOCK.parent.mkdir(exist_ok=True)
        _held = FLOCK.open("a")
        fcntl.flock(_held, fcntl.LOCK_SH)


def unlock() -> str | None:
    """Remove a dead Snakemake's lock files; says what was done, or None where nothing is locked."""
    locks = sorted(LOCKS.glob("*.lock")) if LOCKS.is_dir() else []
    if not locks:
        return None
    if not FLOCK.exists():
        return "locked, and nothing tells whether that Snakemake lives; if it does not: snakemake --unlock"
    with FLOCK.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "locked by a Snakemake that is running in this folder"
        for lock in locks:  # a Snakemake that starts now waits in hold() until these are gone
            lock.unlink(missing_ok=True)
    return "removed the lock of a Snakemake that was killed"
