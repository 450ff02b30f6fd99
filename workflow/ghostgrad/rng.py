"""Random streams. Every draw comes from a generator made from the spec's seed, a stream's name and a position in it,
so that nothing hangs on what was drawn before: a resumed run needs no generator state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, stream: str, position: int = 0) -> int:
    """A 63-bit seed for `position` of the named stream; its low 32 bits, all that torch's CPU generator reads, are
    mixed as well as the rest."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, position: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for `position` (a repeat, an epoch, a step) of the named stream."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream, position))


@contextmanager
def global_kept(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """torch's global generators, the CPU's and the device's, are afterwards what they were; within they start at `seed`
    where that is given. Modules such as Dropout draw from nothing else."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
