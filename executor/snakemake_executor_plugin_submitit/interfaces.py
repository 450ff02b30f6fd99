"""The parts of Snakemake's objects that the executor uses, as types.

Snakemake's plugin interface declares only some of them, and Snakemake itself is not typed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol


class Logger(Protocol):
    """Snakemake's logger."""

    def info(self, msg: str) -> None: ...

    def warning(self, msg: str) -> None: ...

    def error(self, msg: str) -> None: ...


class Rule(Protocol):
    """A rule; `shellcmd` and `script` are None where it has another kind of action."""

    name: str
    shellcmd: str | None
    script: object


class Params(Protocol):
    """The params of a job; iteration yields the unnamed ones too."""

    def __iter__(self) -> Any: ...

    def items(self) -> Iterable[tuple[str, Any]]: ...


class Job(Protocol):
    """A job as the scheduler hands it over: a single job or a group of them."""

    attempt: int
    restart_times: int

    @property
    def threads(self) -> int: ...

    @property
    def resources(self) -> Mapping[str, Any]: ...

    @property
    def input(self) -> Iterable[str]: ...

    @property
    def output(self) -> Collection[str]: ...

    def is_group(self) -> bool: ...


class SingleJob(Job, Protocol):
    """One execution of one rule."""

    rule: Rule
    params: Params

    @property
    def wildcards(self) -> Any: ...


class GroupJob(Job, Protocol):
    """Several jobs that Snakemake wants to run together."""

    @property
    def jobs(self) -> Iterable[SingleJob]: ...


class Trigger(Protocol):
    """A member of Snakemake's RerunTrigger."""

    name: str


class DagSettings(Protocol):
    """The command line's options that decide which jobs run."""

    rerun_triggers: Iterable[Trigger]
    forcerun: Iterable[object]
    targets: Iterable[object]
    forcetargets: bool
    forceall: bool
    force_incomplete: bool


class ExecutionSettings(Protocol):
    """The command line's options about the execution of jobs."""

    latency_wait: float


class Persistence(Protocol):
    """Snakemake's records in .snakemake."""

    async def incomplete(self, job: SingleJob) -> Collection[str]:
        """Return the outputs of the job that are marked incomplete."""

    def unlock(self) -> None: ...


class Workflow(Protocol):
    """Snakemake's workflow."""

    dag_settings: DagSettings
    execution_settings: ExecutionSettings
    persistence: Persistence
