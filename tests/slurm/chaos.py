"""Random faults for a workflow of jobs that train from checkpoints.

A campaign is seeded, and lasts until it has injected its faults and every job has ended.

As a program, with its own cluster: python -m tests.slurm.chaos SEED FAULTS [JOBS [SECONDS]]
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.slurm.conftest import Training, interruptible, running_cluster

KILLING = (
    "interrupt",
    "cancel_one",
    "requeue_one",
    "kill_task",
    "kill_job",
    "fail_node",
    "preempt",
    "near_limit",
)


class Campaign:
    """Injects random faults into a Training workflow; `injected` counts them by kind."""

    def __init__(self, flow, seed: int, faults: int):
        self.flow, self.slurm, self.rng, self.faults = flow, flow.slurm, random.Random(seed), faults
        self.injected: Counter[str] = Counter()
        self.process: subprocess.Popen | None = None
        self.outputs: list[str] = []
        self.kinds = {
            self.kill_controller: 3,
            self.hang_up: 1,
            self.terminate: 1,
            self.interrupt: 1,
            self.truncate_ledger: 1,
            self.cancel_one: 3,
            self.requeue_one: 3,
            self.kill_task: 3,
            self.kill_job: 2,
            self.fail_node: 2,
            self.preempt: 2,
            self.near_limit: 2,
            self.no_sacct: 1,
            self.stop_slurmctld: 1,
        }

    def run(self, patience: float = 3600) -> Counter[str]:
        """Run until all jobs have ended; raise RuntimeError after `patience` seconds."""
        end = time.monotonic() + patience
        while True:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{dict(self.injected)}\n{self.slurm.run('squeue')}\n{self.outputs[-1][-2000:]}"
                )
            if self.process is None:
                self.start()
            if self.process.poll() is not None:
                code = self.reap()
                if code == 0:
                    return self.injected
                continue
            if self.injected.total() < self.faults:
                time.sleep(self.rng.uniform(0.2, 1.5))
                fault = self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]
                with contextlib.suppress(
                    subprocess.CalledProcessError, IndexError, OSError
                ):  # there was nothing to hit
                    fault()
                    self.injected[fault.__name__] += 1
            else:
                time.sleep(0.5)

    def start(self) -> None:
        subprocess.run(
            self.flow.command("--unlock"),
            cwd=self.flow.folder,
            env=self.flow.env,
            capture_output=True,
        )
        self.log = (self.flow.folder / f"controller.{len(self.outputs)}").open("w")
        options = "--retries 1000 --keep-going --rerun-incomplete --submitit-grace 10".split()
        self.process = subprocess.Popen(
            self.flow.command(*options),
            cwd=self.flow.folder,
            env=self.flow.env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=interruptible,
        )

    def reap(self) -> int:
        """Wait for the controller, keep its output and return its exit code."""
        code = self.process.wait(timeout=200)
        self.log.close()
        self.outputs.append(Path(self.log.name).read_text())
        self.process = None
        return code

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid, number)
        self.reap()

    def kill_controller(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.reap()

    def hang_up(self) -> None:
        self._signal(signal.SIGHUP)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def truncate_ledger(self) -> None:
        self.kill_controller()
        path = self.rng.choice(
            sorted(self.flow.folder.glob(".snakemake/submitit/batches/*/*.json"))
        )
        path.write_bytes(path.read_bytes()[: self.rng.randrange(40)])

    def _task(self) -> str:
        return self.rng.choice(
            self.slurm.run("squeue", "-h", "-r", "-t", "R", "-p", "low", "-o", "%i").split()
        )

    def cancel_one(self) -> None:
        self.slurm.run("scancel", self._task())

    def requeue_one(self) -> None:
        self.slurm.run("scontrol", "requeue", self._task())

    def near_limit(self) -> None:
        task = self._task()
        self.slurm.run("scontrol", "update", f"JobId={task}", "EndTime=now+45")
        time.sleep(1)
        with contextlib.suppress(subprocess.CalledProcessError):
            self.slurm.run("scontrol", "update", f"JobId={task}", "TimeLimit=10")

    def _kill(self, pattern: str) -> None:
        pids = subprocess.run(
            ["pgrep", "-f", pattern], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(self.rng.choice(pids)), signal.SIGKILL)

    def kill_task(self) -> None:
        """Kill the process that forks the jobs of a task."""
        self._kill(f"submitit.core._submit {self.flow.folder}")

    def kill_job(self) -> None:
        """Kill the process of a job itself."""
        self._kill(f"train.py out/.* {self.flow.events}")

    def fail_node(self) -> None:
        node = self.rng.choice(self.slurm.nodes)
        self.slurm.node("fail", node)
        time.sleep(self.rng.uniform(0.5, 3))
        for _ in range(5):  # the daemon of a dead node may not have ended yet
            with contextlib.suppress(subprocess.CalledProcessError):
                self.slurm.node("start", node)
                return
            time.sleep(1)
        raise RuntimeError(f"{node} does not start again")

    def preempt(self) -> None:
        grace = self.rng.choice([0, 10])
        self.slurm.run("scontrol", "update", "PartitionName=low", f"GraceTime={grace}")
        nodes = self.rng.choice(["-N1", "-N2"])
        self.slurm.run(
            "sbatch", "-p", "high", nodes, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2"
        )

    def no_sacct(self) -> None:
        path = self.flow.folder / ".bin" / "sacct"
        text = path.read_text()
        path.write_text("#!/bin/sh\nexit 1\n")
        time.sleep(self.rng.uniform(1, 5))
        path.write_text(text)

    def stop_slurmctld(self) -> None:
        pid = int((self.slurm.folder / "run" / "slurmctld.pid").read_text().split()[0])
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1, 8))
        os.kill(pid, signal.SIGCONT)


def main() -> None:
    seed, faults, jobs, seconds = [*map(float, sys.argv[1:]), *(60, 0.8)[len(sys.argv) - 3 :]]
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder, "slurm")) as slurm:
        flow = Training(Path(folder, "workflow"), slurm, jobs=int(jobs), seconds=seconds)
        campaign = Campaign(flow, int(seed), int(faults))
        try:
            campaign.run(patience=600 + 12 * faults)
        finally:
            injected = campaign.injected
            counts = f"{injected.total()} faults, {len(campaign.outputs)} controllers"
            print(f"{counts}: {dict(injected)}")
            problems = flow.problems(campaign.injected.total())
            print(
                "\n".join(problems)
                or "every job has ended with the right bytes, and never ran twice at the same time"
            )
            print(f"{flow.repeated_ends()} starts ended although their job had ended before")


if __name__ == "__main__":
    main()
