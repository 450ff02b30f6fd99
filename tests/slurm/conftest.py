"""A real Slurm on this machine: it has four nodes with fake GPUs and starts in seconds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd", "mariadb")
NEEDED += ("cc", "pgrep", "pkill")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # Debian's daemons are outside a user's PATH
COUNTED = ("sbatch", "sacct", "squeue", "scontrol", "scancel", "sinfo", "srun")


def missing(*programs: str) -> str:
    """Return why no Slurm can be started here, or that one of `programs` is missing."""
    absent = [name for name in (*NEEDED, *programs) if shutil.which(name, path=PATH) is None]
    if absent:
        packages = "slurmctld slurmd slurmdbd slurm-client munge mariadb-server-core "
        packages += "mariadb-client-core gcc libc6-dev procps"
        return f"no {', '.join(absent)} here (Debian: {packages})"
    return "" if os.geteuid() == 0 else "only root can start a Slurm"


class Cluster:
    """The running Slurm; commands see it through `env`."""

    def __init__(self, folder: Path, nodes: list[str]):
        self.folder, self.nodes = folder, nodes
        self.env = {**os.environ, "SLURM_CONF": str(folder / "etc" / "slurm.conf"), "PATH": PATH}

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=True
        ).stdout

    def node(self, what: str, name: str) -> None:
        self.run(str(self.folder / "node"), what, name)

    def clear(self) -> None:
        """Cancel what a test left, and wait until nothing is in the queue."""
        subprocess.run(["scancel", "-u", "root"], env=self.env, check=False, capture_output=True)
        for _ in range(300):
            if not self.run("squeue", "-h").strip():
                return
            time.sleep(0.2)
        raise RuntimeError(self.run("squeue"))


def _free_ports(count: int = 20) -> int:
    """Return the first of `count` adjacent ports that are all free."""
    # By process, so that two clusters that start at the same time try different ports.
    start = 17800 + os.getpid() * count % 12000
    for first in range(start, start + 1000, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")


@contextlib.contextmanager
def running_cluster(folder: Path, **settings: str):
    """Start a Slurm in `folder`, and stop it at the end.

    The settings are those of slurm-up.sh, such as CPUS="8" for each node.
    """
    port = _free_ports()
    # The prefix of the nodes' names is also that of their cgroups. Two clusters must not share it.
    values = {"TICK": "1", "MEM": "16000", "PORT": str(port), "PREFIX": f"n{port}x", **settings}
    env = {
        **os.environ,
        **{f"SLURM_TEST_{name}": value for name, value in values.items()},
        "PATH": PATH,
    }
    # It stops the cluster when its standard input is closed: below, or by the system when this
    # process is killed.
    stop = f"cat >/dev/null; exec {HERE / 'slurm-down.sh'} {folder} --purge"
    stopper = subprocess.Popen(
        ["sh", "-c", stop], env=env, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        subprocess.run([HERE / "slurm-up.sh", folder], env=env, check=True)
        yield Cluster(folder, [f"n{port}x{i}" for i in range(1, 5)])
    finally:
        stopper.stdin.close()
        if stopper.wait():
            raise RuntimeError(f"the Slurm in {folder} did not stop")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def slurm(cluster):
    cluster.clear()
    yield cluster
    cluster.clear()


# The job steps of the official plugin drop SLURM_CONF, so it is set again.
COUNTER = """#!/bin/sh
echo "$(date +%s.%N) {name} $*" >> {log}
export SLURM_CONF={conf}
exec {real} "$@"
"""


def count_calls(folder: Path, slurm: Cluster) -> dict[str, str]:
    """Return an environment in which calls of Slurm's commands are logged in folder/.calls."""
    bin = folder / ".bin"
    bin.mkdir()
    for name in COUNTED:
        real = shutil.which(name, path=slurm.env["PATH"])
        text = COUNTER.format(
            name=name, log=folder / ".calls", real=real, conf=slurm.env["SLURM_CONF"]
        )
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    return {"SLURM_CONF": slurm.env["SLURM_CONF"], "PATH": f"{bin}:{slurm.env['PATH']}"}


def interruptible() -> None:
    """Restore the default handling of SIGINT and SIGHUP in a new process.

    The tests may have been started by a process that ignores them.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Workflow:
    """A folder whose Snakefile runs through the plugin; calls of Slurm's commands are counted."""

    def __init__(self, folder: Path, slurm: Cluster, snakefile: str):
        self.folder, self.slurm = folder, slurm
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Snakefile").write_text(snakefile)
        self.calls, self.env = folder / ".calls", {**os.environ, **count_calls(folder, slurm)}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def command(self, *arguments: str) -> list[str]:
        options = "--executor submitit --submitit-cluster slurm --submitit-status-seconds 2 "
        options += "--jobs 1000 --max-jobs-per-timespan 10000/1s --latency-wait 10 "
        options += "--default-resources runtime=2 mem_mb=600"
        return [sys.executable, "-m", "snakemake", *options.split(), *arguments]

    def start(self, *arguments: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=interruptible,
        )

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        process = self.start(*arguments, **env)
        output = process.communicate(timeout=600)[0]
        return process.returncode, output

    def counts(self) -> Counter:
        """Return how often the controller and its jobs called each Slurm command."""
        text = self.calls.read_text() if self.calls.exists() else ""
        return Counter(line.split()[1] for line in text.splitlines())

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def workflow(tmp_path, slurm):
    def make(snakefile: str) -> Workflow:
        return Workflow(tmp_path / "workflow", slurm, snakefile)

    return make


TRAINING = """
rule all:
    input: expand("out/{{i}}.txt", i=range({jobs}))
rule train:
    output: "out/{{i}}.txt"
    params: lr={lr}
    resources: runtime={runtime}, {resources}
    shell: "{python} {script} {{output}} {steps} {seconds} {events} {megabytes}"
"""


class Training(Workflow):
    """Jobs that train from checkpoints and log what happens to them, each in a separate file."""

    def __init__(
        self,
        folder: Path,
        slurm: Cluster,
        jobs: int,
        steps: int = 20,
        seconds: float = 0.2,
        **values,
    ):
        self.jobs, self.steps, self.events = jobs, steps, folder.parent / "events"
        self.events.mkdir(exist_ok=True)
        names = {
            "python": sys.executable,
            "script": HERE / "train.py",
            "events": self.events,
            "seconds": seconds,
        }
        names |= {"lr": 1, "runtime": 10, "resources": "mem_mb=400", "megabytes": "", **values}
        self.text = TRAINING.format(jobs=jobs, steps=steps, **names)
        super().__init__(folder, slurm, self.text)

    def events_of(self, name: str | int) -> list[str]:
        """Return the events of a job: begin, resume:5, saved:7, end, …"""
        path = self.events / f"{name}.log"
        return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []

    def wait_until(self, happened, seconds: float = 120) -> None:
        """Wait until `happened()` is true; raise TimeoutError after `seconds`."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(self.slurm.run("squeue"))
            time.sleep(0.1)

    def started(self) -> int:
        """Return how many jobs have started."""
        return sum(bool(self.events_of(i)) for i in range(self.jobs))

    def queue(self) -> list[str]:
        """Return the ids in Slurm's queue."""
        return self.slurm.run("squeue", "-h", "-r", "-o", "%i").split()

    def repeated_ends(self) -> int:
        """Return how many starts ended although their job had ended before."""
        return sum(max(0, self.events_of(i).count("end") - 1) for i in range(self.jobs))

    def problems(self, taken: int = 0) -> list[str]:
        """Return what is wrong with the results.

        Every result must exist with the bytes of an undisturbed run; its job must have ended once
        and never have run twice at the same time. At most `taken` further ends are allowed,
        since a start may be taken away between the end of its job and the record of that end.
        """
        problems = []
        for i in range(self.jobs):
            value = str(i)
            for step in range(self.steps):
                value = hashlib.sha256(f"{value} {step}".encode()).hexdigest()
            path, events = self.path(f"out/{i}.txt"), self.events_of(i)
            if not path.exists() or path.read_text() != f"{value}\n":
                problems.append(f"{i}: no result, or a wrong one")
            ends = events.count("end")
            is_repeated = ends > 1 and self.repeated_ends() > taken
            if not ends or is_repeated or "two_alive" in events:
                problems.append(f"{i}: {' '.join(events)}")
        return problems


@pytest.fixture
def training(tmp_path, slurm):
    def make(**values) -> Training:
        return Training(tmp_path / "workflow", slurm, **values)

    return make
