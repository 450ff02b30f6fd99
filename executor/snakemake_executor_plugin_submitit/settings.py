"""The settings: `--submitit-<name>`, `submitit-<name>:` in a profile, SNAKEMAKE_SUBMITIT_<NAME> in the environment."""

import contextlib
import importlib.util
from dataclasses import dataclass, field, fields
from typing import Any

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


def _setting(default: Any, help: str, **more: Any) -> Any:
    choices = f" One of {', '.join(more['choices'])}." if "choices" in more else ""
    said = f"{help}{choices} Default: {default if default != '' else 'none'}."
    return field(default=default, metadata={"help": said, "env_var": True, "required": False, **more})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    cluster: str = _setting(
        "auto",
        "Where jobs run: slurm; local, the same path without Slurm; auto, slurm where sbatch is on PATH, else local.",
        choices=["auto", "slurm", "local"],
    )
    folder: str = _setting(
        ".snakemake/submitit",
        "Folder for the ledger, the pickles and the logs, on a file system that all nodes share.",
    )
    logdir: str = _setting("", "Folder of the jobs' logs, <rule>/<wildcards>.log; the default is logs/ in folder.")
    keep_logs: str = _setting(
        "failed", "Which logs stay after the workflow: failed, or all.", choices=["failed", "all"]
    )
    array_parallelism: int = _setting(
        256, "How many tasks of one array may run at a time (the percent sign of sbatch --array)."
    )
    array_size: int = _setting(0, "Most tasks in one array; 0 asks Slurm for its MaxArraySize.")
    debounce: float = _setting(
        0.5, "Seconds without a new job after which what is ready is submitted; no job waits for more than 2."
    )
    pack: int = _setting(
        0,
        "Short CPU jobs run one after another in a task: 0 chooses how many from runtime and free slots, 1: never.",
    )
    pack_runtime: int = _setting(10, "Longest runtime in minutes of a job that is packed.")
    pack_minutes: int = _setting(30, "Longest time in minutes that one packed task may ask for.")
    slots: int = _setting(
        0,
        "How many tasks run at a time, as far as you know: packs are made so that all get work. 0: array-parallelism.",
    )
    preload: str = _setting(
        "",
        "Comma-separated modules, or module:function, to import (and call) once per task before it forks its jobs; "
        "they must start no threads.",
    )
    signal_delay: int = _setting(
        90, "Seconds before the time limit at which jobs are told to save themselves; less below 4 min."
    )
    stop_signal: str = _setting(
        "TERM",
        "The signal that a job's process group gets then; none leaves it to the stop-file.",
        choices=["TERM", "INT", "USR1", "none"],
    )
    max_requeues: int = _setting(3, "How often a task may be requeued at its time limit, for jobs that resume.")
    max_resubmits: int = _setting(
        10, "How often a job may be submitted again, without using a retry, that Slurm took away before it ended."
    )
    grace: int = _setting(
        60, "Seconds after which a job that Slurm no longer knows, or that ended without a result, has failed."
    )
    submit_attempts: int = _setting(8, "How often sbatch is tried, with growing pauses, while Slurm is busy or down.")
    on_interrupt: str = _setting(
        "cancel",
        "What Ctrl-C does to the jobs in the queue: cancel them, or detach from them.",
        choices=["cancel", "detach"],
    )
    on_terminate: str = _setting(
        "detach", "What SIGTERM and SIGHUP (a lost connection) do.", choices=["cancel", "detach"]
    )
    no_requeue: bool = _setting(False, "Do not let Slurm requeue tasks (sbatch --no-requeue).")
    account: str = _setting("", "Account of jobs that name none (resource slurm_account).")
    partition: str = _setting("", "Partition of jobs that name none (resource slurm_partition).")
    qos: str = _setting("", "QOS of jobs that name none (resource qos).")
    reservation: str = _setting("", "Reservation of jobs that name none (resource reservation).")
    jobname_prefix: str = _setting("", "Put before the rule's name in the Slurm job name.")
    status_command: str = _setting(
        "auto",
        "What is asked for the state of jobs: auto tries sacct, squeue and scontrol in turn.",
        choices=["auto", "sacct", "squeue"],
    )
    status_seconds: float = _setting(
        10.0, "Seconds between two questions to Slurm; results are looked for four times a second without asking it."
    )
    local_cpus: int = _setting(0, "local: CPU cores to share out; 0: all of this machine's.")
    local_gpus: int = _setting(
        -1, "local: GPUs to share out; -1: those that CUDA_VISIBLE_DEVICES names or nvidia-smi lists."
    )
    no_summary: bool = _setting(False, "Do not say at the end, per rule, what was used and what was asked for.")

    def __post_init__(self) -> None:
        self.logdir = self.logdir or f"{self.folder}/logs"

    def problem(self) -> str:
        """What is wrong with a value; nothing where all is well."""
        for one in fields(self):
            value, least = getattr(self, one.name), {"array_parallelism": 1, "pack_runtime": 1, "local_gpus": -1}
            if isinstance(value, (int, float)) and value < least.get(one.name, 0):
                return f"--submitit-{one.name.replace('_', '-')}: {value} is less than {least.get(one.name, 0)}"
        for word in filter(None, self.preload.split(",")):
            module = word.partition(":")[0]
            with contextlib.suppress(ImportError):
                if importlib.util.find_spec(module):
                    continue
            return f"--submitit-preload: there is no module '{module}' here"
        return ""
