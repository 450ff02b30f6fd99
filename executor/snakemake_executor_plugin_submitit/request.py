"""From a job's resources to what is asked of Slurm, checked before anything is submitted.

The names are those of the official Slurm plugin: slurm_account, slurm_partition, runtime, mem_mb, mem_mb_per_cpu,
cpus_per_task, gpu, gpu_model, gres, cpus_per_gpu, tasks_per_gpu, constraint, qos, reservation, nodes, tasks,
tasks_per_node, mpi, clusters, exclude, slurm_extra.
"""

from __future__ import annotations

import difflib
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
GRES = re.compile(r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_.-]+)?(:\d+)?(,[a-zA-Z0-9_]+(:[a-zA-Z0-9_.-]+)?(:\d+)?)*")
TEXT = {
    "slurm_account": ("account", PLAIN),
    "slurm_partition": ("partition", PLAIN),
    "qos": ("qos", PLAIN),
    "reservation": ("reservation", PLAIN),
    "constraint": ("constraint", EXPRESSION),
    "exclude": ("exclude", PLAIN),
    "clusters": ("clusters", PLAIN),
    "gres": ("gres", GRES),
}
NUMBERS = (
    "runtime mem_mb mem_mb_per_cpu cpus_per_task gpu cpus_per_gpu tasks_per_gpu nodes tasks tasks_per_node".split()
)
SHORT = {"C": "constraint", "w": "nodelist", "x": "exclude", "L": "licenses", "d": "dependency", "b": "begin"}
COUNTED = {  # options whose numbers the plugin reckons with: option of slurm_extra -> resource
    "nodes": "nodes",
    "ntasks": "tasks",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_mb",
    "mem-per-cpu": "mem_mb_per_cpu",
    "gpus": "gpu",
    "gres": "gres",
    "cpus-per-gpu": "cpus_per_gpu",
    "ntasks-per-gpu": "tasks_per_gpu",
    "clusters": "clusters",
}
MANAGED = (  # options that the plugin sets itself
    "array job-name output error open-mode signal requeue no-requeue time comment parsable wrap export wait input"
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
        """Seconds before the limit at which the task is told; 0, not at all, where the limit is so short that Slurm,
        which may be a minute early, would tell it near its beginning."""
        return delay if 60 * self.minutes >= 2 * (delay + 60) else 0

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)


def request(
    resources: Mapping[str, Any], threads: int, defaults: Mapping[str, str | None] | None = None, mpi: bool = False
) -> Request:
    """The request of a job; RequestError names the resource, its value and what is wrong."""
    numbers = {name: _number(name, resources[name]) for name in NUMBERS if resources.get(name) not in (None, "")}
    options: dict[str, str] = {}
    for name, (option, form) in TEXT.items():
        value = resources.get(name)
        if value in (None, ""):
            value = (defaults or {}).get(option)
        if value not in (None, ""):
            options[option] = _text(name, value, form)
    minutes = numbers.get("runtime", DEFAULT_RUNTIME)
    if minutes < 1:
        raise RequestError(f"runtime: {minutes} minutes is no time limit")
    nodes, tasks = numbers.get("nodes", 1), numbers.get("tasks", 0)
    for name in ("nodes", "cpus_per_task", "mem_mb", "mem_mb_per_cpu", "tasks", "tasks_per_node"):
        if numbers.get(name, 1) < 1:
            raise RequestError(f"{name}: {numbers[name]} is less than 1")
    cpus = numbers.get("cpus_per_task", threads)
    options["nodes"] = str(nodes)
    if "tasks_per_node" in numbers:
        options["ntasks-per-node"] = str(numbers["tasks_per_node"])
    elif tasks or not (numbers.get("gpu") or "gres" in options):
        options["ntasks"] = str(tasks or 1)
    options["cpus-per-task"] = str(cpus)
    memory = _memory(options, numbers, cpus)
    gpus = _gpus(options, numbers, resources.get("gpu_model") or resources.get("gpu_manufacturer"))
    for word in _extra(resources.get("slurm_extra")):
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    width = tasks or numbers.get("tasks_per_node", 1) * nodes
    return Request(tuple(sorted(options.items())), minutes, cpus, memory, gpus, nodes, 2 if mpi else max(1, width))


def _memory(options: dict[str, str], numbers: Mapping[str, int], cpus: int) -> int:
    if "mem_mb_per_cpu" in numbers:
        options["mem-per-cpu"] = f"{numbers['mem_mb_per_cpu']}M"
        return numbers["mem_mb_per_cpu"] * cpus
    if "mem_mb" not in numbers:
        return 0
    memory = max(numbers["mem_mb"], INTERPRETER)
    options["mem"] = f"{memory}M"
    return memory


def _gpus(options: dict[str, str], numbers: Mapping[str, int], model: Any) -> int:
    count = numbers.get("gpu", 0)
    if count < 0:
        raise RequestError(f"gpu: {count} is less than 0")
    if count and "gres" in options:
        raise RequestError(f"gpu and gres: both are given ({count} and {options['gres']}); give one of them")
    if count:
        options["gpus"] = f"{_text('gpu_model', model, PLAIN)}:{count}" if model else str(count)
    elif "gpu" in options.get("gres", ""):
        last = re.search(r"gpu(?::[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*)?(?::(\d+))?", options["gres"])
        count = int(last[1] or 1)
    elif model and numbers.get("gpu") != 0:  # a default for all jobs may name one, also for those that take none
        raise RequestError(f"gpu_model: '{model}' without a number of GPUs; give gpu: 1")
    for name, option in (("cpus_per_gpu", "cpus-per-gpu"), ("tasks_per_gpu", "ntasks-per-gpu")):
        if numbers.get(name, 0) > 0 and count:
            options[option] = str(numbers[name])
            if name == "cpus_per_gpu":
                options.pop("cpus-per-task", None)
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
        if name in MANAGED:
            near = difflib.get_close_matches(name, TEXT, n=1)
            raise RequestError(f"slurm_extra: --{name} is set by the plugin" + (f"; use {near[0]}" if near else ""))
        if name in COUNTED:
            raise RequestError(f"slurm_extra: --{name}: give it as the resource {COUNTED[name]}")
        if argument and not EXPRESSION.fullmatch(argument):
            raise RequestError(f"slurm_extra: the value of --{name} holds characters that a shell would read")
    return joined
