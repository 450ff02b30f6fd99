"""The cost of submitting trivial jobs to Slurm.

This executor with and without packing, without Slurm, the official Slurm plugin and a raw job array
are compared on one small Slurm that the benchmark starts.

    python benchmarks/fanout.py [--jobs 200] [--official 40] [--slots 10]

It needs root, Slurm's Debian packages and, for the official plugin, a network connection, since the
plugin is installed into a new environment. `--official N` gives it N jobs, and 0 leaves it out; the
comparison is per job.

submitted     seconds until the last sbatch has returned
whole         seconds until Snakemake, or the array, has ended
CPU           CPU seconds of all processes of the machine per job, less what it uses when idle
calls         calls of sbatch, sacct, squeue, scontrol and scancel per job
interpreters  Python processes started per job
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = False

from tests.slurm.conftest import Cluster, count_calls, missing, running_cluster  # noqa: E402

ARRAYS = "official, its arrays"  # may fail: see executor/README.md
CALLS = ("sbatch", "sacct", "squeue", "scontrol", "scancel")
OFFICIAL = "snakemake-executor-plugin-slurm==2.8.0"
SNAKEFILE = """
rule all:
    input: expand("out/{{i}}", i=range({n}))
rule one:
    output: "out/{{i}}"
    shell: "true > {{output}}"
"""
# Every Python process runs this sitecustomize.py at its start, which leaves an empty file.
COUNTER = """
import os
path = os.environ["STARTS"] + "/" + str(os.getpid()) + os.urandom(4).hex()
os.close(os.open(path, os.O_CREAT))
"""
COMMON = [
    *("--max-jobs-per-timespan", "10000/1s", "--latency-wait", "20"),
    *("--default-resources", "runtime=1", "mem_mb=400"),
]


def cpu_seconds() -> float:
    """Return the CPU seconds of all processes since the machine started."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """The measurements of one way to run the jobs."""

    name: str
    jobs: int
    submitted: float
    whole: float
    cpu: float
    calls: int
    starts: int

    def line(self) -> str:
        cpu, calls, starts = (n / self.jobs for n in (self.cpu, self.calls, self.starts))
        times = f"{self.submitted:9.1f} {self.whole:8.1f}"
        return f"{self.name:22} {self.jobs:5} {times} {cpu:7.2f} {calls:7.3f} {starts:7.2f}"


def measure(
    name: str, folder: Path, slurm: Cluster, jobs: int, command: list[str], **env: str
) -> Measured | str:
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE.format(n=jobs))
    starts, site = folder / "starts", folder / "site"
    starts.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(COUNTER)
    path = os.pathsep.join([str(site), *filter(None, [env.pop("PYTHONPATH", "")])])
    given = {
        **os.environ,
        **count_calls(folder, slurm),
        "STARTS": str(starts),
        "PYTHONPATH": path,
        **env,
    }
    given.pop("PYTHONDONTWRITEBYTECODE", None)
    time.sleep(2)
    idle = cpu_seconds()
    time.sleep(3)
    idle = (cpu_seconds() - idle) / 3
    cpu, started, wall = cpu_seconds(), time.time(), time.monotonic()
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            command, cwd=folder, env=given, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    while slurm.run("squeue", "-h").strip():
        time.sleep(0.05)
    whole = time.monotonic() - wall
    cpu = cpu_seconds() - cpu - idle * whole
    outputs = len(list(folder.glob("out/*")))
    if done.returncode or outputs != (0 if name == "raw array" else jobs):
        if name == ARRAYS:
            outcome = f"exit code {done.returncode} after {whole:.0f} s"
            return f"{name:22} {jobs:5} {outcome}, {outputs} of {jobs} outputs"
        tail = (folder / "log").read_text()[-2000:]
        raise SystemExit(
            f"{name}: exit code {done.returncode}, {outputs} of {jobs} outputs\n{tail}"
        )
    calls = (
        [line.split()[:2] for line in (folder / ".calls").read_text().splitlines()]
        if (folder / ".calls").exists()
        else []
    )
    last = max((float(when) for when, what in calls if what == "sbatch"), default=started)
    wanted = sum(what in CALLS for _, what in calls)
    return Measured(name, jobs, last - started, whole, cpu, wanted, len(list(starts.iterdir())))


IMPORT = """
import time
import snakemake_interface_common.exceptions
import snakemake_interface_executor_plugins.executors.remote
started = time.perf_counter()
import snakemake_executor_plugin_submitit
print(time.perf_counter() - started)
"""


def import_ms() -> float:
    """Return the milliseconds that importing the plugin takes, the median of nine.

    Snakemake's interface packages have been imported before.
    """
    command = [sys.executable, "-c", IMPORT]
    took = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(9)
    ]
    return 1000 * statistics.median(took)


def official_environment(folder: Path) -> str:
    """Install the same Snakemake and the official plugin into a new environment.

    Return its interpreter."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    packages = [OFFICIAL, f"snakemake=={version('snakemake')}"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    subprocess.run(
        [python, "-m", "snakemake", "--version"], check=True, stdout=subprocess.DEVNULL
    )  # compiles its modules
    return python


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--official", type=int, default=40, metavar="JOBS")
    parser.add_argument("--slots", type=int, default=10)
    given = parser.parse_args()
    if reason := missing():
        print(f"not run: {reason}")
        return
    n, slots = given.jobs, str(given.slots)
    snakemake = [sys.executable, "-m", "snakemake", *COMMON]
    ours = [*snakemake, "--executor", "submitit", "--jobs", "1000"]
    limits = ["--submitit-array-parallelism", slots, "--submitit-slots", slots]
    rows: list[Measured] = []
    print(f"import: {import_ms():.1f} ms beyond the interface package (goal: under 20)")
    with tempfile.TemporaryDirectory() as text, running_cluster(Path(text, "slurm")) as slurm:
        here = Path(text)
        raw = [
            "sbatch",
            "--wait",
            f"--array=0-{n - 1}%{slots}",
            "-o",
            "/dev/null",
            "--mem=50",
            "--wrap",
            "true",
        ]
        ways = {
            "raw array": raw,
            "submitit": [*ours, "--submitit-cluster", "slurm", *limits],
            "submitit, unpacked": [
                *ours,
                "--submitit-cluster",
                "slurm",
                "--submitit-pack",
                "1",
                *limits,
            ],
            "submitit, local": [
                *ours,
                "--submitit-cluster",
                "local",
                "--submitit-local-cpus",
                slots,
            ],
        }
        print(
            f"{'':22} {'jobs':>5} {'submitted':>9} {'whole':>8} {'CPU':>7} {'calls':>7}"
            f" {'interpr.':>7}",
            flush=True,
        )
        for name, command in ways.items():
            rows.append(
                measure(name, here / name.replace(", ", "-").replace(" ", "-"), slurm, n, command)
            )
            print(rows[-1].line(), flush=True)
        if given.official:
            python = official_environment(here / "official")
            command = [
                python,
                "-m",
                "snakemake",
                *COMMON,
                "--executor",
                "slurm",
                "-j",
                slots,
                "--slurm-no-account",
            ]
            rows.append(measure("official plugin", here / "plain", slurm, given.official, command))
            print(rows[-1].line(), flush=True)
            command += [
                "-j",
                str(given.official),
                "--slurm-array-jobs",
                "all",
                "--slurm-array-limit",
                slots,
            ]
            row = measure(ARRAYS, here / "arrays", slurm, given.official, command)
            print(row if isinstance(row, str) else row.line(), flush=True)
    by_name = {row.name: row for row in rows}
    packed, array, unpacked = (
        by_name[name] for name in ("submitit", "raw array", "submitit, unpacked")
    )
    print(f"\nwhole: {packed.whole / array.whole:.1f} times the raw array's (goal: at most 5)")
    if official := by_name.get("official plugin"):

        def ratio(quantity: str, row: Measured = packed) -> float:
            theirs = getattr(official, quantity) / official.jobs
            return theirs / (getattr(row, quantity) / row.jobs)

        print("times faster, or fewer, than the official plugin, per job:")
        print(f"  submission {ratio('submitted'):.0f} (goal: 20), whole {ratio('whole'):.0f} (20),")
        print(f"  CPU {ratio('cpu'):.0f} (20), calls {ratio('calls'):.0f} (50),")
        print(f"  whole without packing {ratio('whole', unpacked):.1f} (2)")


if __name__ == "__main__":
    main()
