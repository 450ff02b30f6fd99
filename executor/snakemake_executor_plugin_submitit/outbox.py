"""What is to be submitted: jobs that wait for others to share their array, and arrays that sbatch has not taken yet."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

LONGEST = 2.0  # seconds that a job waits for others


@dataclass
class Retry:
    """An array that sbatch would not take for now."""

    array: Any
    attempt: int
    at: float
    batch: Any = None  # that Slurm may have taken all the same


class Outbox:
    """Filled from the scheduler's thread, which never waits here for what the wait thread asks of Slurm; emptied by the
    wait thread."""

    def __init__(self, executor: Any):
        self.executor = executor
        self._refused: list[tuple[Any, str]] = []  # jobs of Snakemake's, and why
        self.retries: list[Retry] = []
        self._waiting: list[Any] = []
        self._first = self._last = 0.0
        self._lock = threading.Lock()

    def add(self, jobs: list[Any], pause: float = 0.0) -> None:
        """Jobs to submit, not before `pause` seconds are over."""
        with self._lock:
            self._last = time.monotonic() + pause
            self._first = self._first if self._waiting and not pause else self._last
            self._waiting += jobs

    def refuse(self, job: Any, why: str) -> None:
        """A job of Snakemake's is not submitted."""
        with self._lock:
            self._refused.append((job, why))

    @property
    def has_refused(self) -> bool:
        return bool(self._refused)

    def refused(self) -> list[tuple[Any, str]]:
        """Those since the last call."""
        with self._lock:
            found, self._refused = self._refused, []
            return found

    def _take(self) -> list[Any]:
        """All that wait, where none has come for a moment, or the first some time ago; else nothing."""
        now, pause = time.monotonic(), self.executor.settings.debounce
        with self._lock:
            if not self._waiting or (now - self._last < pause and now - self._first < min(4 * pause, LONGEST)):
                return []
            taken, self._waiting = self._waiting, []
            return taken

    def close(self) -> list[Any]:
        """Submit nothing more; the batches that Slurm may have taken without saying so."""
        with self._lock:
            self._waiting = []
        unsure = [retry.batch for retry in self.retries if retry.batch is not None]
        self.retries = []
        return unsure

    def flush(self) -> None:
        """Submit what has waited long enough, what sbatch would not take before, and what had to end before."""
        from snakemake_executor_plugin_submitit import packing
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        now = time.monotonic()
        for retry in [retry for retry in self.retries if retry.at <= now]:
            self.retries.remove(retry)
            self._once_more(retry)
        earlier, settings, here = self.executor.earlier, self.executor.settings, self.executor.cluster
        taken, ready = self._take(), []
        try:
            if taken:
                earlier.read()
            ready = earlier.ended() + [one for one in taken if self._is_new(one)]
            earlier.sweep()
            limits = (settings.pack, settings.pack_runtime, settings.pack_minutes)
            arrays = packing.arrays(ready, here.room, here.array_size, *limits) if ready else []
        except ClusterError:  # asked again after a pause
            self.add(ready or taken, pause=2)
            return
        except Exception as error:
            for one in ready or taken:
                self._give_up(one, f"{type(error).__name__}: {error}")
            return
        for array in arrays:
            self._submit(array)

    def _is_new(self, one: Any) -> bool:
        """False of a job that an earlier controller has submitted, or that must wait."""
        try:
            return not self.executor.earlier.takes(one)
        except Exception as error:
            self._give_up(one, str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}")
        return False

    def _give_up(self, one: Any, why: str) -> None:
        """It is not submitted, or not submitted again."""
        if one.info is None:
            self.refuse(one.job, why)
        else:
            one.info.aux["live"].outcome = f"{one.name}: not submitted again: {why}. "

    def _once_more(self, retry: Retry) -> None:
        """Slurm may have taken an array though sbatch said that it had not: its tasks find nothing to run, and go."""
        from snakemake_executor_plugin_submitit.cluster import ClusterError

        if retry.batch is not None:
            try:
                if (identity := self.executor.cluster.find(retry.batch)) is not None:
                    self.executor.cluster.cancel([identity])
            except ClusterError as error:
                self._not_taken(retry.array, retry.batch, retry.attempt, str(error), ask=True)
                return
            retry.batch.remove()
        self._submit(retry.array, retry.attempt)

    def _submit(self, array: Any, attempt: int = 0) -> None:
        """One sbatch. Where Slurm is busy or down it is tried again later, with growing pauses."""
        from snakemake_executor_plugin_submitit import packing

        executor, batch = self.executor, None
        if not executor.cluster.fits(array.request):
            self.retries.append(Retry(array, attempt, time.monotonic() + 1))
            return
        try:
            batch, tasks, name = packing.prepare(array, executor.ledger, executor.settings, executor.cluster.name)
            identity = executor.cluster.submit(batch, tasks, array.request, name)
        except Exception as error:  # sbatch's complaint, a full disk, …: of this array alone
            self._not_taken(array, batch, attempt, str(error))
            return
        try:
            batch.submitted(identity)
        except OSError as error:  # nobody would find it again
            executor.cluster.cancel([identity])
            self._not_taken(array, batch, attempt, str(error))
            return
        members = [one for task in array.tasks for one in task]
        tasks = "1 task" if len(array.tasks) == 1 else f"{len(array.tasks)} tasks"
        what = f"{len(members)} jobs in {tasks}" if len(members) > 1 else members[0].name
        executor.logger.info(f"submitit: {what} submitted as {executor.cluster.name} job {identity}")
        for entry, one in zip(batch.entries, members, strict=True):
            executor.watch(one, batch, entry)

    def _not_taken(self, array: Any, batch: Any, attempt: int, complaint: str, ask: bool = False) -> None:
        from snakemake_executor_plugin_submitit import cluster

        executor = self.executor
        if (ask or cluster.transient(complaint)) and attempt + 1 < executor.settings.submit_attempts:
            pause = min(300, 2 ** (attempt + 1))
            executor.logger.warning(f"submitit: {complaint}; trying again in {pause} s")
            self.retries.append(Retry(array, attempt + 1, time.monotonic() + pause, batch))
            return
        if batch is not None:
            batch.remove()
        why = f"{complaint} (asked for: {array.request})" if batch is not None else complaint
        for one in (one for members in array.tasks for one in members):
            self._give_up(one, why)
