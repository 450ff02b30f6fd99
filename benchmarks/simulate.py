"""Time per repeat of PlainNet20 (width 256, batch 128, ReLU, BN), computed in three ways.

    python benchmarks/simulate.py [--repeats 96] [--rounds 5]

plain     what a reader of the paper would write: nn.Linear, nn.BatchNorm1d, nn.ReLU and autograd,
          one repeat at a time, one process, torch's default number of threads
ours      ghostgrad.tasks.simulate as the workflow runs it: a process per core, one thread each
minimum   the same matrix products and random weights and nothing else, in the better of two
          arrangements: one process with all threads, or a process per core with one thread each

Every round measures all of them in turn; the ratios are those of the medians. On a machine with a
GPU, plain and ours are measured on it as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

DEPTH, WIDTH, BATCH = 20, 256, 128
SPEC = {"net": "plain", "depth": DEPTH, "width": WIDTH, "batch": BATCH, "seed": 0}


def plain(repeats: int, device) -> None:
    import torch
    from torch import nn

    for _ in range(repeats):
        layers = []
        for _ in range(DEPTH):
            linear = nn.Linear(WIDTH, WIDTH, bias=False)
            nn.init.normal_(linear.weight, 0, (2 / WIDTH) ** 0.5)
            layers += [linear, nn.BatchNorm1d(WIDTH), nn.ReLU()]
        net = nn.Sequential(*layers).to(device)
        y = net(torch.randn(BATCH, WIDTH, device=device))
        y.backward(torch.randn(BATCH, WIDTH, device=device) / WIDTH**0.5)
        torch.stack(
            [layer.weight.grad.norm() for layer in net if isinstance(layer, nn.Linear)]
        ).cpu()


def ours(total: int, device) -> None:
    from ghostgrad.registry.spec import expand
    from ghostgrad.rng import generator
    from ghostgrad.tasks import simulate
    from ghostgrad.tasks.blocks import repeats_at_once
    from ghostgrad.tasks.run import keep_memory

    spec = expand("simulate", {**SPEC, "repeats": total})
    chunk = repeats_at_once(total, simulate.floats_per_repeat(spec), device)
    keep_memory()
    for first in range(0, total, chunk):
        rngs = [generator(0, "repeat", i, device) for i in range(first, min(total, first + chunk))]
        simulate.measure(spec, rngs).cpu()


def minimum(repeats: int, device) -> None:
    import torch

    weights = torch.empty(DEPTH, WIDTH, WIDTH)
    signals = torch.empty(DEPTH + 1, BATCH, WIDTH)
    gradient, spare, product = (
        torch.empty(BATCH, WIDTH),
        torch.empty(BATCH, WIDTH),
        torch.empty(WIDTH, WIDTH),
    )
    for _ in range(repeats):
        weights.normal_(0, 0.05)
        signals[0].normal_()
        gradient.normal_()
        for k in range(DEPTH):
            torch.mm(signals[k], weights[k].T, out=signals[k + 1])
        for k in reversed(range(DEPTH)):
            torch.mm(gradient.T, signals[k], out=product)
            torch.mm(gradient, weights[k], out=spare)
            gradient, spare = spare, gradient


METHODS: dict[str, Callable] = {"plain": plain, "ours": ours, "minimum": minimum}


def worker(
    method: str, repeats: int, threads: int | None, device_name: str, barrier, queue
) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)
    device = torch.device(device_name)
    METHODS[method](max(4, repeats // 8), device)
    barrier.wait()
    started = time.perf_counter()
    METHODS[method](repeats, device)
    queue.put(time.perf_counter() - started)


def per_repeat(
    method: str, repeats: int, processes: int = 1, threads: int | None = None, device: str = "cpu"
) -> float:
    """Return the wall time per repeat, in ms, of `processes` processes that run side by side."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    arguments = (method, repeats, threads, device, barrier, queue)
    workers = [context.Process(target=worker, args=arguments) for _ in range(processes)]
    for process in workers:
        process.start()
    seconds = max(queue.get() for _ in workers)
    for process in workers:
        process.join()
    return 1e3 * seconds / (repeats * processes)


def compare(
    name: str, arrangements: dict[str, Callable[[], float]], rounds: int
) -> dict[str, float]:
    """Print and return the medians over rounds in which every arrangement takes its turn."""
    times: dict[str, list[float]] = {key: [] for key in arrangements}
    for _ in range(rounds):
        for key, measure in arrangements.items():
            times[key].append(measure())
    print(f"\n{name}")
    for key, values in times.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"  {key:32} {statistics.median(values):8.2f} ms a repeat ({spread})")
    return {key: statistics.median(values) for key, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores, n = os.cpu_count() or 1, options.repeats

    arrangements = {
        "plain, default threads": lambda: per_repeat("plain", n),
        f"ours, {cores} x 1 thread": lambda: per_repeat("ours", n, cores, 1),
        f"minimum, {cores} x 1 thread": lambda: per_repeat("minimum", n, cores, 1),
        f"minimum, 1 x {cores} threads": lambda: per_repeat("minimum", n, 1, cores),
    }
    plain_ms, ours_ms, *minimum_ms = compare(
        f"CPU, {cores} cores", arrangements, options.rounds
    ).values()
    print(f"  plain / ours    {plain_ms / ours_ms:5.2f}   (goal: at least 1.8)")
    print(f"  ours / minimum  {ours_ms / min(minimum_ms):5.2f}   (goal: at most 1.5)")

    import torch

    if torch.cuda.is_available():
        arrangements = {
            "plain": lambda: per_repeat("plain", n, device="cuda"),
            "ours": lambda: per_repeat("ours", 16 * n, device="cuda"),
        }
        plain_ms, ours_ms = compare(
            torch.cuda.get_device_name(), arrangements, options.rounds
        ).values()
        print(f"  plain / ours    {plain_ms / ours_ms:5.1f}   (goal: at least 50)")
    else:
        print("\nno GPU here: not run")


if __name__ == "__main__":
    main()
