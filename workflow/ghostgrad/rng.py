"""Random streams.

Every draw of a run comes from a generator that is made from a seed (the spec's, or 0 for the stream
`repeat`), the name of a stream and a position in it. No draw depends on what was drawn before, so a
resumed run needs no generator state in its checkpoint, and changing what one stream draws leaves
all other streams as they were.

The streams of runs:

    init             a network's weights                                  (tasks classify, detect)
    shuffle          the order of the training images, by epoch           (classify, detect)
    augment          crops and flips of a batch, by step                  (classify, detect)
    dropout/<rank>   Dropout's masks in a process of the run, by step     (classify)
    regions/<rank>   the regions that a detector samples, by step         (detect)
    repeat           everything in a repeat, by the repeat's number in the experiment, with seed 0
                     (simulate, sample, initialize)

Outside of runs, claims and digit scenes draw from numpy generators with fixed seeds, and
`ghostgrad calibrate` from the stream `calibrate` of seed 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, stream: str, position: int = 0) -> int:
    """A 63-bit seed for `position` of the named stream.

    The hash mixes all of its bits. torch's CPU generator reads only the low 32, which must
    therefore differ between streams and positions by themselves.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes seeds up to 2**63 - 1


def generator(
    seed: int, stream: str, position: int = 0, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A new generator for `position` (a repeat, an epoch, a step) of the named stream.

    Generators of the CPU and of CUDA draw different numbers from the same seed.
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream, position))


@contextmanager
def fork_global_rng(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore torch's global generators of the CPU and of `device` on exit.

    With a `seed`, both start from it inside the context. For modules that take no generator of
    their own, such as Dropout and torchvision's samplers.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)  # seeds the CPU and every CUDA device
        yield
