"""What all tests share: a copy of this checkout in which to run Snakemake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("Snakefile", "config.yaml", "workflow", "profiles", "slurm", "envs")


class Checkout:
    """A copy of the workflow whose registry, code and configuration a test may edit. Its own
    library comes first on the path, and results are written inside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        self.adopt(folder)

    def adopt(self, folder: Path) -> None:
        """Use a folder that already is a copy of the workflow."""
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(folder / "workflow"), "GHOSTGRAD_DEVICE": "cpu"}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def path(self, name: str) -> Path:
        return self.folder / name

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first occurrence of a text, which the file has to contain."""
        text = self.path(name).read_text()
        assert old in text, f"{old!r} not in {name}"
        self.path(name).write_text(text.replace(old, new, 1))

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess:
        """Run a command of the environment in the copy; stdout and stderr come back as one text."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )

    def snakemake(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        return self.run("snakemake", *arguments, **env)

    def ghostgrad(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        return self.run("ghostgrad", *arguments, **env)

    def build(self, *arguments: str, **env: str) -> str:
        """Run Snakemake, which has to succeed, and return its output."""
        done = self.snakemake("--cores", "2", *arguments, **env)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def planned_jobs(self, *arguments: str) -> dict[str, int]:
        """The number of jobs per rule that a dry run lists."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 0, done.stdout[-4000:]
        lines = done.stdout.splitlines()
        if "Job stats:" not in lines:
            return {}
        start = lines.index("Job stats:") + 3
        counts = {}
        for line in lines[start:]:
            if not line.strip():
                break
            rule, count = line.split()
            counts[rule] = int(count)
        counts.pop("total")
        return counts


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Start one worker more than there are cores, because the tests on Slurm and those of killed
    runs wait more than they compute."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long tests first, so that the short ones keep the other workers busy until the last
    long one ends."""

    def parts(item: pytest.Item) -> tuple[str, ...]:
        return item.path.relative_to(ROOT / "tests").parts

    order = ("test_ghostgrad.py", "workflow", "slurm", "executor", "unit")
    items.sort(
        key=lambda item: next(
            (n for n, name in enumerate(order) if name in parts(item)), len(order)
        )
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")
