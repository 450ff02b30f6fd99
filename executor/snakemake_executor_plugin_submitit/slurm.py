"""Submits batches to Slurm as job arrays, through submitit."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

from snakemake_executor_plugin_submitit import slurm_commands
from snakemake_executor_plugin_submitit.cluster import (
    NO_LIMIT,
    UNLIMITED,
    Capacity,
    ClusterError,
    State,
)
from snakemake_executor_plugin_submitit.ledger import Batch
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.task import Task

LONGEST_COMPLAINT = 500  # characters
# A site's defaults for sbatch: environment variable -> option.
SITE_DEFAULTS = {
    f"SBATCH_{name.upper()}": name
    for name in ("account", "partition", "qos", "reservation", "constraint")
}


class SlurmCluster:
    """Slurm as a Cluster."""

    name = "slurm"

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._states = slurm_commands.SlurmStates(settings.status_command)
        self._array_size = settings.array_size

    @property
    def array_size(self) -> int:
        if not self._array_size:
            self._array_size = slurm_commands.max_array_size()
        return self._array_size

    def capacity(self, request: Request) -> Capacity:
        """Estimate from the partition's idle CPUs how many tasks start at once.

        In a partition without an idle CPU, a quarter of its CPUs is assumed to become free. The
        minutes are the partition's time limit.
        """
        slots, most = self._settings.slots, self._settings.array_parallelism
        partition = request.option("partition")
        options = ["-p", partition] if partition else []
        try:
            # Rows such as 12/20/0/32|2-00:00:00: allocated/idle/other/total CPUs, time limit.
            output = slurm_commands.run_command("sinfo", "-h", "-o", "%C|%l", *options)
            rows = [row.split("|") for row in output.split()]
            cpus = [[int(count) for count in counts.split("/")] for counts, _ in rows]
            limits = [slurm_commands.parse_minutes(limit) for _, limit in rows]
        except (ClusterError, ValueError):
            return Capacity(slots or most, UNLIMITED)
        minutes = min(limits, default=UNLIMITED)
        if slots:
            return Capacity(slots, minutes)
        idle = max((counts[1] for counts in cpus), default=0)
        total = max((counts[3] for counts in cpus), default=0)
        return Capacity(max(1, min(most, (idle or total // 4) // request.cpus)), minutes)

    def fits(self, request: Request) -> bool:
        return True  # Slurm's queue takes everything

    def submit(self, batch: Batch, tasks: Sequence[Task], request: Request, name: str) -> str:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        if request.option("clusters") is not None:
            self._states.ask_all_clusters()
        # Where the job itself calls srun or mpirun, its steps share the allocation with the step
        # in which the task runs, and need the counts that the task's own step has overwritten.
        starts_steps = request.tasks > 1 or request.nodes > 1
        step = ["--ntasks=1", "--nodes=1", *(["--overlap"] if starts_steps else [])]
        if starts_steps:
            for task in tasks:
                task.environment = {
                    "SLURM_NTASKS": str(request.tasks),
                    "SLURM_NPROCS": str(request.tasks),
                    "SLURM_NNODES": str(request.nodes),
                }
        try:
            with hidden_job_environment(request):
                executor = AutoExecutor(
                    folder=batch.folder, cluster="slurm", slurm_max_num_timeout=NO_LIMIT
                )
                executor.update_parameters(
                    name=name,
                    timeout_min=request.minutes,
                    nodes=request.nodes,
                    stderr_to_stdout=True,
                    slurm_comment=batch.comment,
                    slurm_signal_delay_s=request.warning_seconds(self._settings.signal_delay),
                    slurm_array_parallelism=self._settings.array_parallelism,
                    slurm_wckey="",
                    # In Slurm 22.05 to 23.02, srun does not inherit --cpus-per-task from sbatch.
                    slurm_srun_args=[f"--cpus-per-task={request.cpus}", *step],
                    slurm_additional_parameters=self._sbatch_options(request),
                )
                with executor.batch():
                    jobs = [executor.submit(task) for task in tasks]
                return jobs[0].job_id.partition("_")[0]
        except (
            FailedJobError,  # what submitit raises where sbatch fails
            FailedSubmissionError,
            OSError,
            RuntimeError,
            subprocess.SubprocessError,
        ) as error:
            raise ClusterError(_sbatch_complaint(str(error))) from None

    def _sbatch_options(self, request: Request) -> dict[str, str | bool]:
        """Return the options of the request in submitit's form: True for one without a value."""
        options: dict[str, str | bool] = {
            name: value if value != "" else True for name, value in request.options
        }
        del options["nodes"]  # submitit has its own parameter for them
        if not {"requeue", "no-requeue"} & options.keys():
            options["no-requeue" if self._settings.no_requeue else "requeue"] = True
        return options

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        return self._states.states(ids)

    def queued(self, ids: Sequence[str]) -> set[str]:
        tasks = slurm_commands.squeue(ids, self._states.options)
        return {task for task, _ in tasks} & set(ids)

    def cancel(self, ids: Sequence[str]) -> None:
        slurm_commands.cancel(slurm_commands.array_ids(ids), self._states.options)

    def cancel_tasks(self, ids: Sequence[str]) -> None:
        slurm_commands.cancel(ids, self._states.options)

    def reattach(self, batch: Batch) -> None:
        if batch.request.clusters:
            self._states.ask_all_clusters()
        if batch.slurm_id is None and (slurm_id := self.find(batch)):
            batch.set_slurm_id(slurm_id)

    def find(self, batch: Batch) -> str | None:
        return slurm_commands.live_jobs(batch.comment, self._states.options).get(batch.comment)


@contextlib.contextmanager
def hidden_job_environment(request: Request) -> Iterator[None]:
    """Hide the variables of the Slurm job in which the controller itself may run.

    sbatch would take them for options, and they would win over the options in its script. A site's
    SBATCH_ defaults stay where the request does not say otherwise.
    """
    defaults = {name for name, option in SITE_DEFAULTS.items() if request.option(option) is None}
    kept = {"SLURM_CONF", *defaults}
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SBATCH_")) and name not in kept
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _sbatch_complaint(text: str) -> str:
    """Return sbatch's own words from the text of submitit's exception."""
    lines = [line.strip() for line in text.splitlines()]
    complaints = [line for line in lines if "sbatch: " in line or "error:" in line.lower()]
    if not complaints:
        return text.strip()[:LONGEST_COMPLAINT]
    return "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in complaints)
