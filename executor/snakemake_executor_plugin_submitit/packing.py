"""The jobs that wait to be submitted: which of them share a task, and which tasks an array.

Jobs with equal requests share an array, whatever their rules are. Short CPU jobs are packed: one task runs several, one
after another, so that its interpreter starts once; how many follows from their time limits and from the slots that are
free, so that every slot gets work.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from snakemake_executor_plugin_submitit.ledger import Batch, Entry, Ledger, job_key, params_hash
from snakemake_executor_plugin_submitit.request import Request, request
from snakemake_executor_plugin_submitit.task import Task, Work

MOST = 50  # jobs in a task
BUCKET = 1000  # MB: packed jobs of a bucket share a task
OVERHEAD = 100  # MB of the interpreter that they share


@dataclass
class Waiting:
    """A job that is to be submitted."""

    job: Any
    key: str
    params: str
    name: str
    rule: str
    log: str
    command: str
    request: Request
    packable: bool
    attempt: int = 1
    resubmits: int = 0
    requeues: int = 0  # at its time limit
    info: Any = None  # of a job that was submitted before


def waiting(job: Any, command: str, settings: Any, code: bool = False) -> Waiting:
    """What is asked for a job of Snakemake's whose inner call is `command`; RequestError where that cannot be. With
    `code` a change of the rule's command makes it another job."""
    defaults = {key: getattr(settings, key) for key in ("account", "partition", "qos", "reservation")}
    rule, wildcards = _rule(job)
    key = job_key(str(Path.cwd()), rule, [path for one in jobs_of(job) for path in one.output])
    return Waiting(
        job=job,
        key=key,
        params=params_hash([_params(one, code) for one in jobs_of(job)], job.input),
        name=title(job),
        rule=rule,
        log=str(log_path(settings.logdir, rule, wildcards, key[:8]).absolute()),
        command=command,
        request=request(job.resources, job.threads, defaults, bool(job.resources.get("mpi"))),
        packable=not job.is_group() and Work(0, "", command, "").arguments is not None,
        attempt=job.attempt,
    )


def jobs_of(job: Any) -> list[Any]:
    """The jobs of a group, in an order that is the same in every run; of another job, itself."""
    return sorted(job.jobs, key=lambda one: (one.rule.name, *map(str, one.output))) if job.is_group() else [job]


def _params(job: Any, code: bool) -> list[Any]:
    """What a job computes with: all params, the unnamed too, and its command."""
    named = [list(job.params), dict(job.params.items())]
    return [*named, job.rule.shellcmd, str(job.rule.script or "")] if code else named


def _rule(job: Any) -> tuple[str, list[tuple[str, str]]]:
    """The rule, or those of a group (whose id is another one in every run), and the wildcards."""
    members = jobs_of(job)
    rules = dict.fromkeys(one.rule.name for one in members)
    wildcards = dict.fromkeys(pair for one in members for pair in one.wildcards.items())
    return "+".join(rules), list(wildcards)


def title(job: Any) -> str:
    """rule (wildcard=value, …)"""
    rule, wildcards = _rule(job)
    values = ", ".join(f"{key}={value}" for key, value in wildcards)
    return f"{rule} ({shorten(values, 200, placeholder=' …')})" if values else rule


def log_path(logdir: str, rule: str, wildcards: Sequence[tuple[str, str]], key: str) -> Path:
    """<logdir>/<rule>/<wildcard values>.log, readable and safe as a file name; with `key` where another job could have
    the same."""
    name = "-".join(str(value) for _, value in wildcards) or "job"
    safe = "".join(c if c.isalnum() or c in "._-+=@" else "_" for c in name)
    if len(wildcards) > 1 or safe != name or len(safe) > 150 or "+" in rule:
        safe = f"{safe[:150]}-{key}"
    return Path(logdir, rule[:150], f"{safe}.log")


@dataclass(frozen=True)
class Array:
    """Tasks with one request; each task runs its jobs one after another."""

    request: Request
    tasks: tuple[tuple[Waiting, ...], ...] = field(default_factory=tuple)


def arrays(
    waiting: Iterable[Waiting], room: Any, size: int, pack: int = 0, pack_runtime: int = 10, pack_minutes: int = 30
) -> list[Array]:
    """All of `waiting` in as few arrays as there are kinds of requests, none longer than `size`; `room(request)` says
    how many tasks of a request run at a time, and for how many minutes they may."""
    groups: dict[Any, list[Waiting]] = {}
    for one in waiting:
        short = pack != 1 and one.packable and one.resubmits == 0 and one.attempt == 1
        short = short and not one.request.gpus and one.request.nodes == one.request.tasks == 1
        short = short and one.request.minutes <= pack_runtime
        groups.setdefault(_shared(one.request) if short else one.request, []).append(one)
    found = []
    for kind, members in groups.items():
        if isinstance(kind, Request):
            tasks, request = [(one,) for one in members], kind
        else:
            tasks, request = _packs(members, room, pack, pack_minutes)
        for first in range(0, len(tasks), size):
            found.append(Array(request, tuple(tasks[first : first + size])))
    return found


def _shared(request: Request) -> tuple:
    """What packed jobs must have in common: all but memory within a bucket and time."""
    options = tuple((name, value) for name, value in request.options if name != "mem")
    return options, request.cpus, -(-request.mem_mb // BUCKET)


def _packs(members: Sequence[Waiting], room: Any, pack: int, pack_minutes: int) -> tuple[list[tuple], Request]:
    longest = max(one.request.minutes for one in members)
    biggest = max(members, key=lambda one: one.request.mem_mb).request
    slots, limit = room(biggest)
    wanted = pack or math.ceil(len(members) / max(1, slots))
    k = max(1, min(wanted, min(pack_minutes, limit) // longest, MOST))
    count = math.ceil(len(members) / k)
    tasks = [tuple(members[start::count]) for start in range(count)]  # dealt round, in the scheduler's order
    minutes = max(sum(one.request.minutes for one in task) for task in tasks)
    memory = biggest.mem_mb + OVERHEAD if biggest.mem_mb and k > 1 else biggest.mem_mb
    options = tuple((n, f"{memory}M" if n == "mem" else v) for n, v in biggest.options)
    return tasks, replace(biggest, options=options, minutes=minutes, mem_mb=memory)


def prepare(array: Array, ledger: Ledger, settings: Any, cluster: str) -> tuple[Batch, list[Task], str]:
    """An array's batch in the ledger, the tasks that are to be pickled, and its name in the queue."""
    entries: list[Entry] = []
    works: list[list[Work]] = []
    for index, members in enumerate(array.tasks):
        works.append([])
        for one in members:
            n, limit = len(entries), one.request.minutes if len(members) > 1 else 0
            entries.append(Entry(n, index, one.key, one.params, one.name, one.log, one.resubmits, one.requeues))
            works[-1].append(Work(n, one.name, one.command, one.log, limit))
    request = array.request
    asked = {name: getattr(request, name) for name in ("gpus", "mem_mb", "minutes")}
    asked["clusters"] = request.option("clusters")
    batch = ledger.new(entries, len(works) == 1, asked, cluster)
    rules = Counter(one.rule for members in array.tasks for one in members).most_common()
    name = f"{settings.jobname_prefix}{rules[0][0]}{f'+{len(rules) - 1}' if len(rules) > 1 else ''}"
    common = {
        "folder": str(batch.folder),
        "cwd": str(Path.cwd()),
        "minutes": request.minutes,
        "signal_delay": request.warning(settings.signal_delay) or settings.signal_delay,
        "stop_signal": settings.stop_signal,
        "max_requeues": settings.max_requeues,
        "preload": [word for word in settings.preload.split(",") if word],
    }
    requeues = [max(one.requeues for one in members) for members in array.tasks]
    tasks = [Task(index=index, jobs=jobs, requeues=requeues[index], **common) for index, jobs in enumerate(works)]
    return batch, tasks, name
