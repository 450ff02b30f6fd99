"""What the executor needs from a cluster, whether that is Slurm or this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from snakemake_executor_plugin_submitit.ledger import Batch
    from snakemake_executor_plugin_submitit.request import Request
    from snakemake_executor_plugin_submitit.task import Task

# Slurm's words for the state of a task, by what they mean for its jobs.
WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD".split()
ALIVE = "RUNNING COMPLETING SUSPENDED STOPPED SIGNALING RESIZING STAGE_OUT EXPEDITING".split()
# Slurm took the task away. It may put it back into the queue by itself; if it does not, the job is
# not to blame.
TAKEN_AWAY = "PREEMPTED NODE_FAIL BOOT_FAIL REVOKED".split()
ENDED = "COMPLETED FAILED TIMEOUT CANCELLED OUT_OF_MEMORY DEADLINE".split()

UNLIMITED = 10**9  # minutes
# The requeues that submitit allows. It counts some preemptions as reached time limits, so the task
# counts those itself.
NO_LIMIT = 10**6


class ClusterError(Exception):
    """The cluster did not answer, or refused what it was asked for; the message says why."""


@dataclass(frozen=True)
class State:
    """The state of one task: the cluster's word for it, and what explains it."""

    word: str
    exit_code: str = ""
    node: str = ""
    reason: str = ""

    @property
    def is_alive(self) -> bool:
        return self.word in WAITING or self.word in ALIVE


class Capacity(NamedTuple):
    """How many tasks of a request start at once, and the most minutes that each may ask for."""

    slots: int
    minutes: int


class Cluster(Protocol):
    """A place where tasks run.

    A batch has one id, and each of its tasks has one: `12` and `12_3` for an array on Slurm. Every
    method that asks the cluster raises ClusterError where it does not answer.
    """

    @property
    def name(self) -> str: ...

    @property
    def array_size(self) -> int:
        """The largest number of tasks in one array."""

    def capacity(self, request: Request) -> Capacity: ...

    def fits(self, request: Request) -> bool:
        """Return False while a task of this request has to wait outside of the cluster's queue."""

    def submit(self, batch: Batch, tasks: Sequence[Task], request: Request, name: str) -> str:
        """Submit the tasks as one array and return its id."""

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """Return the states of the tasks that are known."""

    def queued(self, ids: Sequence[str]) -> set[str]:
        """Return those tasks that wait or run."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel the arrays that these ids, or these tasks, belong to."""

    def cancel_tasks(self, ids: Sequence[str]) -> None:
        """Cancel these tasks and leave the rest of their arrays alone."""

    def reattach(self, batch: Batch) -> None:
        """Take over a batch of an earlier controller; complete its id if that was not written."""

    def find(self, batch: Batch) -> str | None:
        """Return the id of a batch that the cluster has accepted without our knowledge, or None."""
