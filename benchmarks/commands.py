"""Measures how long status, plan, show and a dry run take at paper scale.

    python benchmarks/commands.py [--rounds 5]

The dry run is compared with that of an empty workflow. Each round starts every command once, in a
separate process; the medians over the rounds are printed. No run needs to exist.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
COMMANDS = {
    "status": [PYTHON, "-m", "ghostgrad", "status", "--scale", "paper"],
    "plan": [PYTHON, "-m", "ghostgrad", "plan", "--scale", "paper"],
    "show": [PYTHON, "-m", "ghostgrad", "show", "ghost.fig5", "--scale", "paper"],
    "dry run": [PYTHON, "-m", "snakemake", "-n", "--config", "scale=paper"],
    "dry run, empty": [PYTHON, "-m", "snakemake", "-n"],
}


def seconds(command: list[str], folder: Path) -> float:
    """Return the wall time of a command in seconds."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "Snakefile").write_text("rule all:\n")
        places = {name: Path(empty) if "empty" in name else ROOT for name in COMMANDS}
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(rounds + 1):  # the first round warms the caches
            for name, command in COMMANDS.items():
                times[name].append(seconds(command, places[name]))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:16} {value:5.2f} s")
    ratio = medians["dry run"] / medians["dry run, empty"]
    print(f"dry run / empty  {ratio:5.2f}   (goal: at most 2)")


if __name__ == "__main__":
    main()
