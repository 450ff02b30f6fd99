"""The settings of the executor.

Each is `--submitit-<name>` on the command line, `submitit-<name>:` in a profile, and
SNAKEMAKE_SUBMITIT_<NAME> in the environment.
"""

import contextlib
import importlib.util
from dataclasses import dataclass, field, fields
from typing import Any

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

LEAST_VALUES = {"array_parallelism": 1, "pack_runtime": 1, "local_gpus": -1}  # 0 for the others


def _setting(default: Any, description: str, choices: list[str] | None = None) -> Any:
    """Return a dataclass field whose help names the choices and the default."""
    metadata: dict[str, Any] = {"env_var": True, "required": False}
    if choices:
        metadata["choices"] = choices
        description += f" One of {', '.join(choices)}."
    metadata["help"] = f"{description} Default: {default if default != '' else 'none'}."
    return field(default=default, metadata=metadata)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """See `snakemake --help`."""

    cluster: str = _setting(
        "auto",
        "Where jobs run: slurm; local, on this machine and otherwise in the same way; auto, slurm "
        "if sbatch is on PATH and local if not.",
        choices=["auto", "slurm", "local"],
    )
    folder: str = _setting(
        ".snakemake/submitit",
        "Folder of the ledger, the pickles and the logs, on a file system that all nodes share.",
    )
    logdir: str = _setting(
        "",
        "Folder of the jobs' logs, named <rule>/<wildcards>.log, or <wildcards>-<key>.log if there "
        "are several wildcards. If empty, the subfolder logs of the folder setting.",
    )
    keep_logs: str = _setting(
        "failed",
        "Which jobs' logs are kept after the workflow.",
        choices=["failed", "all"],
    )
    array_parallelism: int = _setting(
        256,
        "How many tasks of one array may run at the same time (the number after the percent sign "
        "of sbatch --array).",
    )
    array_size: int = _setting(
        0, "Maximum number of tasks in one array; 0 asks Slurm for its MaxArraySize."
    )
    debounce: float = _setting(
        0.5,
        "Seconds without a new job after which the ready jobs are submitted. No job waits for "
        "longer than 2 seconds.",
    )
    pack: int = _setting(
        0,
        "How many short CPU jobs run one after another in one task; 0 chooses the number from "
        "their runtimes and the free slots, 1 never packs.",
    )
    pack_runtime: int = _setting(10, "Longest runtime in minutes of a job that is packed.")
    pack_minutes: int = _setting(
        30, "Longest time limit in minutes that is requested for a packed task."
    )
    slots: int = _setting(
        0,
        "How many tasks run at the same time, if you know it; packs are sized so that every slot "
        "gets work. 0 estimates it from the idle CPUs.",
    )
    preload: str = _setting(
        "",
        "Comma-separated modules to import, or module:function to call, once per task before its "
        "jobs are forked. They must not start threads.",
    )
    signal_delay: int = _setting(
        90,
        "Seconds before the time limit at which jobs are asked to save themselves; fewer for "
        "limits below twice this delay plus a minute.",
    )
    stop_signal: str = _setting(
        "TERM",
        "The signal that asks a job's process group to save itself; none sends no signal, so that "
        "only the stop file asks.",
        choices=["TERM", "INT", "USR1", "none"],
    )
    max_requeues: int = _setting(
        3, "How often a job that resumes may be requeued at its time limit."
    )
    max_resubmits: int = _setting(
        10,
        "How often a job that Slurm has taken away may be submitted again without using a retry.",
    )
    grace: int = _setting(
        60,
        "Seconds after which a job that Slurm does not know any more, or that ended without a "
        "result, counts as failed.",
    )
    submit_attempts: int = _setting(
        8, "How often sbatch is tried, with growing pauses, while Slurm is busy or down."
    )
    on_interrupt: str = _setting(
        "cancel",
        "What Ctrl-C does to the jobs in the queue: cancel them, or detach from them.",
        choices=["cancel", "detach"],
    )
    on_terminate: str = _setting(
        "detach",
        "What SIGTERM and SIGHUP (a lost connection) do to the jobs in the queue.",
        choices=["cancel", "detach"],
    )
    no_requeue: bool = _setting(False, "Do not let Slurm requeue tasks (sbatch --no-requeue).")
    account: str = _setting("", "Account of jobs without the resource slurm_account.")
    partition: str = _setting("", "Partition of jobs without the resource slurm_partition.")
    qos: str = _setting("", "QOS of jobs without the resource qos.")
    reservation: str = _setting("", "Reservation of jobs without the resource reservation.")
    jobname_prefix: str = _setting("", "Prefix of the Slurm job name, before the rule's name.")
    status_command: str = _setting(
        "auto",
        "Which command tells the state of jobs: auto tries sacct, squeue and scontrol in turn.",
        choices=["auto", "sacct", "squeue"],
    )
    status_seconds: float = _setting(
        10.0,
        "Seconds between two queries of Slurm. Results are noticed four times a second without "
        "a query.",
    )
    local_cpus: int = _setting(
        0, "Number of CPU cores that the local cluster shares out; 0 for all of this machine's."
    )
    local_gpus: int = _setting(
        -1,
        "Number of GPUs that the local cluster shares out; -1 for those that CUDA_VISIBLE_DEVICES "
        "names or nvidia-smi lists.",
    )
    no_summary: bool = _setting(
        False, "Do not print a table of used and requested resources at the end."
    )

    def __post_init__(self) -> None:
        self.logdir = self.logdir or f"{self.folder}/logs"

    def find_problem(self) -> str:
        """Return what is wrong with a value, in one line; empty where all are valid."""
        for item in fields(self):
            value, least = getattr(self, item.name), LEAST_VALUES.get(item.name, 0)
            if isinstance(value, (int, float)) and value < least:
                option = f"--submitit-{item.name.replace('_', '-')}"
                return f"{option}: {value} is less than {least}"
        for name in filter(None, self.preload.split(",")):
            module = name.partition(":")[0]
            with contextlib.suppress(ImportError):
                if importlib.util.find_spec(module):
                    continue
            return f"--submitit-preload: no module named '{module}'"
        return ""
