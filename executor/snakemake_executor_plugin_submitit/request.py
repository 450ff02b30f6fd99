"""From the resources of a job to the options of sbatch, checked before anything is submitted.

The names are those of the official Slurm plugin: slurm_account, slurm_partition, runtime, mem_mb,
mem_mb_per_cpu, cpus_per_task, gpu, gpu_model, gres, cpus_per_gpu, tasks_per_gpu, constraint, qos,
reservation, nodes, tasks, tasks_per_node, mpi, clusters, exclude, slurm_extra. A number that is 0
counts as not given.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_RUNTIME = 60  # minutes, for a job without `runtime`
INTERPRETER_MB = 300  # with less, Python and Snakemake themselves do not run
# Slurm may send its warning up to a minute early.
WARNING_JITTER_SECONDS = 60

PLAIN = re.compile(r"[A-Za-z0-9_.,:=@%+/\[\]-]+")
FEATURES = re.compile(r"[A-Za-z0-9_.,:=@%+/\[\]()&|*-]+")  # such as gpu&(a100|h100)
GENERIC_RESOURCE = r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_.-]+)?(:\d+[TGM]?)?"  # name[:model][:count]
GRES = re.compile(f"{GENERIC_RESOURCE}(,{GENERIC_RESOURCE})*")
# The GPUs in a gres. The model needs a letter, or else it could be the count.
GPUS_IN_GRES = re.compile(r"(?:^|,)gpu(?::[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*)?(?::(\d+))?")

# Resource -> option of sbatch, and the form of its value.
TEXT_RESOURCES = {
    "slurm_account": ("account", PLAIN),
    "slurm_partition": ("partition", PLAIN),
    "qos": ("qos", PLAIN),
    "reservation": ("reservation", PLAIN),
    "constraint": ("constraint", FEATURES),
    "exclude": ("exclude", PLAIN),
    "clusters": ("clusters", PLAIN),
    "cluster": ("clusters", PLAIN),
    "slurm_cluster": ("clusters", PLAIN),
    "gres": ("gres", GRES),
}
NUMBER_RESOURCES = (
    "runtime",
    "mem_mb",
    "mem_mb_per_cpu",
    "cpus_per_task",
    "gpu",
    "cpus_per_gpu",
    "tasks_per_gpu",
    "nodes",
    "tasks",
    "tasks_per_node",
)
SHORT_OPTIONS = {
    "A": "account",
    "C": "constraint",
    "D": "chdir",
    "G": "gpus",
    "H": "hold",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "N": "nodes",
    "b": "begin",
    "c": "cpus-per-task",
    "d": "dependency",
    "e": "error",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
# Options that the plugin has to know the value of -> the resource that sets them.
RESOURCE_OPTIONS = {
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
# Options that the plugin sets itself.
MANAGED_OPTIONS = (
    "array",
    "job-name",
    "output",
    "error",
    "open-mode",
    "signal",
    "time",
    "comment",
    "parsable",
    "wrap",
    "export",
    "wait",
    "input",
    "test-only",
    "uid",
    "gid",
    "chdir",
)


class RequestError(Exception):
    """A resource that cannot be requested; the message is one line."""


@dataclass(frozen=True)
class Request:
    """What one task asks for. Tasks with equal requests can share an array."""

    options: tuple[tuple[str, str], ...]  # of sbatch, sorted by name
    minutes: int
    cpus: int
    mem_mb: int = 0  # 0 for the partition's default
    gpus: int = 0
    nodes: int = 1
    tasks: int = 1  # in all; more than one where the job itself starts steps with srun or mpirun

    def warning_seconds(self, delay: int) -> int:
        """Return how many seconds before the limit the task is warned, `delay` at most.

        A short limit has a shorter warning: as Slurm may be a minute early, the job would otherwise
        be asked to stop when it has only just started. A limit of one minute has none.
        """
        return min(delay, max(0, 60 * self.minutes - WARNING_JITTER_SECONDS) // 2)

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)

    def __str__(self) -> str:
        words = (f"--{name}={value}" if value else f"--{name}" for name, value in self.options)
        return " ".join(words)


def build_request(
    resources: Mapping[str, object],
    threads: int,
    defaults: Mapping[str, str | None] | None = None,
    is_mpi: bool = False,
) -> Request:
    """Return the request of a job.

    `defaults` are options for jobs that do not set the resource. Raise RequestError with the
    resource, its value and what is wrong.
    """
    numbers = {
        name: _number(name, resources[name])
        for name in NUMBER_RESOURCES
        if resources.get(name) not in (None, "")
    }
    for name, number in numbers.items():
        if number < 0 and not name.startswith("cpus_per_"):  # where it means: no option at all
            raise RequestError(f"{name}: {number} is less than 0")
    options = _text_options(resources, defaults or {})
    nodes = numbers.get("nodes") or 1
    options["nodes"] = str(nodes)
    mem_mb = _memory(options, numbers, max(1, numbers.get("cpus_per_task") or threads))
    gpus = _gpus(options, numbers, resources.get("gpu_model"), nodes)
    has_gpu = bool(gpus)
    tasks = _mpi_tasks(options, numbers, nodes) if is_mpi else _tasks(options, numbers, gpus)
    cpus = _cpus(options, numbers, threads, has_gpu)
    for word in _extra_options(resources.get("slurm_extra")):
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    return Request(
        options=tuple(sorted(options.items())),
        minutes=numbers.get("runtime") or DEFAULT_RUNTIME,
        cpus=cpus,
        mem_mb=mem_mb,
        gpus=gpus,
        nodes=nodes,
        tasks=tasks,
    )


def _text_options(
    resources: Mapping[str, object], defaults: Mapping[str, str | None]
) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, (option, form) in TEXT_RESOURCES.items():
        if (value := resources.get(name)) not in (None, ""):
            options.setdefault(option, _text(name, value, form))
    for option, default in defaults.items():
        if default:
            options.setdefault(option, _text(f"--submitit-{option}", default, PLAIN))
    return options


def _mpi_tasks(options: dict[str, str], numbers: Mapping[str, int], nodes: int) -> int:
    """Set the option for the tasks of an MPI job; return their number on all nodes."""
    tasks, per_node = numbers.get("tasks") or 0, numbers.get("tasks_per_node") or 0
    if bool(tasks) == bool(per_node):
        given = f"they are {tasks} and {per_node}"
        raise RequestError(f"mpi: give either tasks or tasks_per_node ({given})")
    for name, number in (("tasks", tasks), ("tasks_per_node", per_node)):
        if number == 1:
            raise RequestError(f"{name}: 1 is too few for mpi")
    if per_node:
        options["ntasks-per-node"] = str(per_node)
        return per_node * nodes
    options["ntasks"] = str(tasks)
    return tasks


def _tasks(options: dict[str, str], numbers: Mapping[str, int], gpus: int) -> int:
    """Set the option for the tasks of a job without MPI; return their number on all nodes."""
    tasks = numbers.get("tasks") or 0
    if gpus:
        per_gpu = numbers.get("tasks_per_gpu") or tasks
        if per_gpu:
            options["ntasks-per-gpu"] = str(per_gpu)
        return per_gpu * gpus if per_gpu else 1
    options["ntasks"] = str(tasks or 1)
    return tasks or 1


def _cpus(options: dict[str, str], numbers: Mapping[str, int], threads: int, has_gpu: bool) -> int:
    """Set the option for CPUs, per task or per GPU; return how many the task's own step gets."""
    per_task, per_gpu = numbers.get("cpus_per_task") or 0, numbers.get("cpus_per_gpu") or 0
    if not per_task and has_gpu and "cpus_per_gpu" in numbers:
        if per_gpu > 0:
            options["cpus-per-gpu"] = str(per_gpu)
    elif per_task >= 0:
        options["cpus-per-task"] = str(per_task or threads)
    return max(1, per_task) if per_task else threads


def _memory(options: dict[str, str], numbers: Mapping[str, int], cpus: int) -> int:
    """Set the option for memory; return the megabytes of the task, 0 for the default."""
    if per_cpu := numbers.get("mem_mb_per_cpu"):
        options["mem-per-cpu"] = f"{per_cpu}M"
        return per_cpu * cpus
    if not numbers.get("mem_mb"):
        return 0
    # A rule that asks for 5 MB means its own tool; the task is Python and Snakemake besides.
    mem_mb = max(numbers["mem_mb"], INTERPRETER_MB)
    options["mem"] = f"{mem_mb}M"
    return mem_mb


def _gpus(options: dict[str, str], numbers: Mapping[str, int], model: object, nodes: int) -> int:
    """Set the option for GPUs; return their number.

    A model without a number means one GPU, unless the number is given as 0.
    """
    count = numbers.get("gpu", 1 if model else 0)
    if count:
        options["gpus"] = f"{_text('gpu_model', model, PLAIN)}:{count}" if model else str(count)
    for match in GPUS_IN_GRES.finditer(options.get("gres", "")):
        count = max(count, int(match[1] or 1) * nodes)  # a gres is per node
    return count


def _number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise RequestError(f"{name}: {value!r} is not a number")
    try:
        number = float(value)
    except ValueError:
        hint = " of minutes (nor a time such as 2h or 1d)" if name == "runtime" else ""
        raise RequestError(f"{name}: {value!r} is not a number{hint}") from None
    if not math.isfinite(number) or number != int(number):
        raise RequestError(f"{name}: {value} is not a whole number")
    return int(number)


def _text(name: str, value: object, form: re.Pattern[str]) -> str:
    """Return the text; raise RequestError where it contains what a shell would interpret."""
    text = str(value)
    if form.fullmatch(text):
        return text
    bad_character = next((character for character in text if not form.fullmatch(character)), None)
    if form is GRES or bad_character is None:
        raise RequestError(f"{name}: {text!r} is not of the form name[:model][:count]")
    raise RequestError(f"{name}: {text!r} contains {bad_character!r}")


def _extra_options(value: object) -> list[str]:
    """Return the options of slurm_extra as --option or --option=value.

    Raise RequestError for one that the plugin sets itself.
    """
    if value in (None, ""):
        return []
    try:
        words = shlex.split(str(value))
    except ValueError as error:
        raise RequestError(f"slurm_extra: {value!r}: {error}") from None
    options: list[str] = []
    for word in words:
        if options and not word.startswith("-") and "=" not in options[-1]:
            options[-1] += f"={word}"  # --option value
        else:
            options.append(_long_option(word))
    for option in options:
        _check_extra_option(option)
    return options


def _long_option(word: str) -> str:
    """Return the long form of -C x, -Cx and -C=x; other words are left as they are."""
    if not re.fullmatch(r"-[A-Za-z].*", word):
        return word
    if word[1] not in SHORT_OPTIONS:
        raise RequestError(f"slurm_extra: {word!r}: use the long form of the option")
    value = word[2:].removeprefix("=")
    return f"--{SHORT_OPTIONS[word[1]]}" + (f"={value}" if word[2:] else "")


def _check_extra_option(option: str) -> None:
    name, _, value = option.removeprefix("--").partition("=")
    if not option.startswith("--") or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise RequestError(f"slurm_extra: {option!r} is not of the form --option or --option=value")
    # sbatch accepts every unambiguous beginning of an option's name for the option.
    for full_name, resource in RESOURCE_OPTIONS.items():
        if full_name.startswith(name):
            raise RequestError(f"slurm_extra: --{name}: use the resource {resource} instead")
    for full_name in MANAGED_OPTIONS:
        if full_name.startswith(name):
            hint = "; use the resource runtime instead" if full_name == "time" else ""
            raise RequestError(f"slurm_extra: --{name} is set by the plugin{hint}")
    if value and not FEATURES.fullmatch(value):
        raise RequestError(
            f"slurm_extra: the value of --{name} contains characters that a shell would interpret"
        )
