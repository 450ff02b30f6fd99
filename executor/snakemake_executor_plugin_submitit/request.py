"""From a job's resources to what is asked of Slurm, checked before anything is submitted.

The names are those of the official Slurm plugin: slurm_account, slurm_partition, runtime, mem_mb, mem_mb_per_cpu,
cpus_per_task, gpu, gpu_model, gres, cpus_per_gpu, tasks_per_gpu, constraint, qos, reservation, nodes, tasks,
tasks_per_node, mpi, clusters, exclude, slurm_extra. Numbers that are 0 are not given.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_RUNTIME = 60  # minutes, of a job that says nothing
INTERPRETER = 300  # MB: less than that Python and Snakemake themselves do not run in
PLAIN = re.compile(r"[A-Za-z0-9_.,:=@%+/\[\]-]+")
EXPRESSION = re.compile(r"[A-Za-z0-9_.,:=@%+/\[\]()&|*-]+")  # of features: gpu&(a100|h100)
ONE = r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_.-]+)?(:\d+[TGM]?)?"
GRES = re.compile(f"{ONE}(,{ONE})*")
GPU = re.compile(r"(?:^|,)gpu(?::[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*)?(?::(\d+))?")
TEXT = {
    "slurm_account": ("account", PLAIN),
    "slurm_partition": ("partition", PLAIN),
    "qos": ("qos", PLAIN),
    "reservation": ("reservation", PLAIN),
    "constraint": ("constraint", EXPRESSION),
    "exclude": ("exclude", PLAIN),
    "clusters": ("clusters", PLAIN),
    "cluster": ("clusters", PLAIN),
    "slurm_cluster": ("clusters", PLAIN),
    "gres": ("gres", GRES),
}
NUMBERS = (
    "runtime mem_mb mem_mb_per_cpu cpus_per_task gpu cpus_per_gpu tasks_per_gpu nodes tasks tasks_per_node".split()
)
SHORT = {"C": "constraint", "w": "nodelist", "x": "exclude", "L": "licenses", "d": "dependency", "b": "begin"}
SHORT |= {"p": "partition", "A": "account", "q": "qos", "H": "hold", "M": "clusters", "N": "nodes", "n": "ntasks"}
SHORT |= {"c": "cpus-per-task", "G": "gpus", "t": "time", "J": "job-name", "o": "output", "e": "error", "D": "chdir"}
COUNTED = {  # options whose numbers the plugin reckons with: option of slurm_extra -> resource
    "nodes": "nodes",
    "ntasks": "tasks",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_mb",
    "mem-per-cpu": "mem_mb_per_cpu",
    "gpus": "gpu",
    "gpus-per-node": "gpu",
    "gpus-per-task": "gpu",
    "gpus-per-socket": "gpu",
    "mem-per-gpu": "mem_mb",
    "gres": "gres",
    "cpus-per-gpu": "cpus_per_gpu",
    "ntasks-per-gpu": "tasks_per_gpu",
    "clusters": "clusters",
}
MANAGED = (  # options that the plugin sets itself
    "array job-name output error open-mode signal time comment parsable wrap export wait input test-only uid gid chdir"
).split()


class RequestError(Exception):
    """A resource that cannot be asked for; one line."""


@dataclass(frozen=True)
class Request:
    """One kind of task: jobs with equal requests can share an array. Memory in MB, time in minutes."""

    options: tuple[tuple[str, str], ...]
    minutes: int
    cpus: int
    mem_mb: int = 0
    gpus: int = 0
    nodes: int = 1
    tasks: int = 1

    def warning(self, delay: int) -> int:
        """Seconds before the limit at which the task is told. Less for a short limit, because Slurm, which may be a
        minute early, would else tell it near its beginning; 0, not at all, for one of a minute."""
        return min(delay, max(0, 60 * self.minutes - 60) // 2)

    def __str__(self) -> str:
        return " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in self.options)

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)


def request(
    resources: Mapping[str, Any], threads: int, defaults: Mapping[str, str | None] | None = None, mpi: bool = False
) -> Request:
    """The request of a job; RequestError names the resource, its value and what is wrong."""
    numbers = {name: _number(name, resources[name]) for name in NUMBERS if resources.get(name) not in (None, "")}
    options: dict[str, str] = {}
    for name, (option, form) in TEXT.items():
        if (value := resources.get(name)) not in (None, ""):
            options.setdefault(option, _text(name, value, form))
    for option, value in (defaults or {}).items():
        if value:
            options.setdefault(option, _text(f"--submitit-{option}", value, PLAIN))
    minutes = numbers.get("runtime") or DEFAULT_RUNTIME
    for name, number in numbers.items():
        if number < 0 and not name.startswith("cpus_per_"):  # those say: no option at all
            raise RequestError(f"{name}: {number} is less than 0")
    options["nodes"] = str(numbers.get("nodes") or 1)
    memory = _memory(options, numbers, max(1, numbers.get("cpus_per_task") or threads))
    gpus = _gpus(options, numbers, resources.get("gpu_model"))
    tasks = _tasks(options, numbers, bool(gpus), mpi)
    cpus = _cpus(options, numbers, threads, bool(gpus))
    for word in _extra(resources.get("slurm_extra")):
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    return Request(tuple(sorted(options.items())), minutes, cpus, memory, gpus, int(options["nodes"]), tasks)


def _tasks(options: dict[str, str], numbers: Mapping[str, int], gpu: bool, mpi: bool) -> int:
    """How many tasks a job has in Slurm, 2 standing for several; the job itself is run once."""
    tasks, per_node = numbers.get("tasks") or 0, numbers.get("tasks_per_node") or 0
    if mpi:
        given = {"tasks": tasks, "tasks_per_node": per_node}
        if bool(tasks) == bool(per_node):
            raise RequestError(f"mpi: give either tasks or tasks_per_node (they are {tasks} and {per_node})")
        for name, number in given.items():
            if number == 1:
                raise RequestError(f"{name}: 1 is too few for mpi")
        options |= {"ntasks-per-node": str(per_node)} if per_node else {"ntasks": str(tasks)}
        return 2
    if gpu:
        if per_gpu := numbers.get("tasks_per_gpu") or tasks:
            options["ntasks-per-gpu"] = str(per_gpu)
        return max(1, per_gpu)
    options["ntasks"] = str(tasks or 1)
    return tasks or 1


def _cpus(options: dict[str, str], numbers: Mapping[str, int], threads: int, gpu: bool) -> int:
    per_task, per_gpu = numbers.get("cpus_per_task") or 0, numbers.get("cpus_per_gpu") or 0
    if not per_task and gpu and "cpus_per_gpu" in numbers:
        if per_gpu > 0:
            options["cpus-per-gpu"] = str(per_gpu)
    elif per_task >= 0:
        options["cpus-per-task"] = str(per_task or threads)
    return max(1, per_task) if per_task else threads


def _memory(options: dict[str, str], numbers: Mapping[str, int], cpus: int) -> int:
    if per_cpu := numbers.get("mem_mb_per_cpu"):
        options["mem-per-cpu"] = f"{per_cpu}M"
        return per_cpu * cpus
    if not numbers.get("mem_mb"):
        return 0
    memory = max(numbers["mem_mb"], INTERPRETER)
    options["mem"] = f"{memory}M"
    return memory


def _gpus(options: dict[str, str], numbers: Mapping[str, int], model: Any) -> int:
    """GPUs of a job; a model without a number is one, unless the number is 0."""
    count = numbers.get("gpu", 1 if model else 0)
    if count:
        options["gpus"] = f"{_text('gpu_model', model, PLAIN)}:{count}" if model else str(count)
    for found in re.finditer(
        r"(?:^|,)gpu(?::[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*)?(?::(\d+))?", options.get("gres", "")
    ):
        count = max(count, int(found[1] or 1) * int(options["nodes"]))
    return count


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise RequestError(f"{name}: {value!r} is no number")
    try:
        number = float(value)
    except ValueError:
        hint = " of minutes (or such as 2h, 1d)" if name == "runtime" else ""
        raise RequestError(f"{name}: '{value}' is no number{hint}") from None
    if not math.isfinite(number) or number != int(number):
        raise RequestError(f"{name}: {value} is no whole number")
    return int(number)


def _text(name: str, value: Any, form: re.Pattern[str]) -> str:
    text = str(value)
    if not form.fullmatch(text):
        strange = next((c for c in text if not form.fullmatch(c)), None)
        why = (
            f"holds {strange!r}"
            if strange is not None and form is not GRES
            else "is not of the form name[:model][:count]"
        )
        raise RequestError(f"{name}: '{text}' {why}")
    return text


def _extra(value: Any) -> list[str]:
    """The words of slurm_extra: --option or --option=value, none that the plugin sets itself."""
    if value in (None, ""):
        return []
    try:
        words = shlex.split(str(value))
    except ValueError as error:
        raise RequestError(f"slurm_extra: {value!r}: {error}") from None
    joined: list[str] = []
    for word in words:
        if re.fullmatch(r"-[A-Za-z].*", word):  # -C x, -Cx
            if word[1] not in SHORT:
                raise RequestError(f"slurm_extra: '{word}': give the long form of the option")
            word = f"--{SHORT[word[1]]}" + (f"={word[2:].removeprefix('=')}" if word[2:] else "")
        if joined and not word.startswith("-") and "=" not in joined[-1]:
            joined[-1] += f"={word}"  # --option value
        else:
            joined.append(word)
    for word in joined:
        name, _, argument = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise RequestError(f"slurm_extra: '{word}' is not of the form --option or --option=value")
        for full in (*COUNTED, *MANAGED):  # sbatch takes an unmistakable beginning of an option for it
            if full.startswith(name):
                if full in COUNTED:
                    raise RequestError(f"slurm_extra: --{name}: give it as the resource {COUNTED[full]}")
                hint = "; use the resource runtime" if full == "time" else ""
                raise RequestError(f"slurm_extra: --{name} is set by the plugin{hint}")
        if argument and not EXPRESSION.fullmatch(argument):
            raise RequestError(f"slurm_extra: the value of --{name} holds characters that a shell would read")
    return joined
