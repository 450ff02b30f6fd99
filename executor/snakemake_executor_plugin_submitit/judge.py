"""How each job in the queue stands: its result file, else what Slurm says of its task."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import task
from snakemake_executor_plugin_submitit.cluster import ENDED, TAKEN, ClusterError, State

FAILURES = "FAILED OUT_OF_MEMORY TIMEOUT COMPLETED DEADLINE".split()  # of a task by its own doing
NEVER = re.compile(
    r"[Hh]eld|PartitionNodeLimit|PartitionTimeLimit|PartitionDown|PartitionInactive|BadConstraints|Invalid|NotAllowed|"
    r"DependencyNeverSatisfied|PerJob|ReservationDeleted|Licenses"
)
TAIL = 12  # lines of a failed job's log
BYTES = 2**16  # of it that are looked at


def look(executor: Any) -> None:
    """Give every job that has ended its outcome, and submit again what Slurm took away."""
    open_jobs = [live for live in executor.live.values() if live.outcome is None]
    by_batch: dict[str, list] = {}
    for live in open_jobs:
        by_batch.setdefault(live.batch.id, []).append(live)
    for members in by_batch.values():
        ended = members[0].batch.ended()
        for live in members:
            if live.entry.n in ended and (result := live.batch.result(live.entry.n)) is not None:
                end(executor, live, result)
    left = [live for live in open_jobs if live.outcome is None]
    if left and time.monotonic() - executor.asked_at >= executor.settings.status_seconds:
        _ask(executor, left)


def end(executor: Any, live: Any, result: dict[str, Any]) -> None:
    """The outcome of a job that has a result."""
    one, totals = live.waiting, executor.total(live.waiting.rule)
    totals.wall += result["seconds"]
    totals.gpu += result["seconds"] * one.request.gpus
    totals.restarts += result["lives"] - 1
    if result["rc"] and result["late"] and one.requeues < executor.settings.max_requeues:
        one.requeues += 1  # in a pack, whose limit is not yet over; alone the task would have been requeued
        executor.again(live, result["reason"])
        return
    totals.jobs += 1
    totals.wait += max(0.0, result["began"] - live.submitted) if not live.adopted else 0.0
    totals.rss_mb, totals.mem_mb = max(totals.rss_mb, result["rss_mb"]), max(totals.mem_mb, one.request.mem_mb)
    if result["rc"] == 0:
        live.outcome = True
        return
    totals.failed += 1
    why = result["reason"] or _death(result["rc"])
    if result.get("out_of_memory"):
        why = f"out of memory: {one.request.mem_mb} MB asked for, {result['rss_mb']} MB used when last measured"
    live.outcome = explain(live, why, result["node"])


def _death(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by signal {-code}"


def _ask(executor: Any, left: list) -> None:
    executor.asked_at = time.monotonic()
    try:
        states = executor.cluster.states([live.info.external_jobid for live in left])
    except ClusterError as error:
        if not executor.complained:
            executor.logger.warning(f"submitit: {error}; asking again, results are still seen")
        executor.complained = True
        return
    executor.complained = False
    for live in left:
        state = states.get(live.info.external_jobid)
        if state is not None and state.alive:
            live.gone_since = None
            _tell_of_waiting(executor, live, state)
            continue
        if live.gone_since is None:
            live.gone_since = time.monotonic()
        # Between the end of a task and its result file, and between PREEMPTED and PENDING again, time may pass.
        if time.monotonic() - live.gone_since >= _patience(executor, state):
            try:
                _lost(executor, live, state)
            except ClusterError:  # it could not be cancelled: the next round tries again
                continue
            except Exception as error:  # of this job alone, such as a ledger that has been deleted
                live.outcome = f"{live.waiting.name}: {type(error).__name__}: {error}. "


def _patience(executor: Any, state: State | None) -> float:
    """Seconds to wait for a result, or for Slurm's own requeue. A network file system may show a file late."""
    grace, latency = executor.settings.grace, executor.workflow.execution_settings.latency_wait
    if executor.cluster.name == "local":
        latency = 0
    if state is None or state.word not in ENDED:
        return grace
    return max(latency, grace if state.word == "COMPLETED" else min(grace, 2 * executor.settings.status_seconds))


def _tell_of_waiting(executor: Any, live: Any, state: State) -> None:
    """Once for each array and reason: a task that will not start by itself."""
    said = (live.batch.id, state.reason)
    if NEVER.search(f"{state.word} {state.reason}") and said not in executor.told_of_waiting:
        executor.told_of_waiting.add(said)
        why = state.reason if state.reason not in ("", "None") else state.word
        executor.logger.warning(f"submitit: {live.waiting.name}, job {live.info.external_jobid}, waits: {why}")


def _lost(executor: Any, live: Any, state: State | None) -> None:
    """Its task is over and it has no result."""
    result = live.batch.result(live.entry.n)  # one last look
    if result is not None:
        end(executor, live, result)
        return
    task.end_leftovers(live.batch.claim_text(live.entry.n))  # without Slurm nobody else does
    begun = live.batch.begun(live.entry.n)
    packed_with = [entry.n for entry in live.batch.entries if entry.task == live.entry.task]
    failed_to_start = not any(map(live.batch.begun, packed_with)) and state is not None and state.word in FAILURES
    saved = (live.batch.folder / f"task{live.entry.task}.saved").exists()
    word = (state.word or state.reason) if state else "gone from the queue and the accounts"
    from_outside = word == "CANCELLED" and not any(map(live.batch.begun, packed_with))
    identity = live.info.external_jobid
    if (state is None or state.word not in ENDED) and identity not in executor.replaced:
        executor.cluster.cancel([identity], whole=False)  # should it live after all, it must not go on beside the next
        executor.replaced.add(identity)
    if not begun and not failed_to_start and not from_outside:
        executor.again(live, f"its task ended before it began ({word})")
    elif state is not None and (word in TAKEN or (saved and word != "CANCELLED")):
        executor.again(live, f"{word} on {state.node or 'its node'}")
    else:
        live.batch.take_back(live.entry.n)
        totals = executor.total(live.waiting.rule)
        totals.jobs, totals.failed = totals.jobs + 1, totals.failed + 1
        totals.mem_mb = max(totals.mem_mb, live.waiting.request.mem_mb)
        reasons = {
            "TIMEOUT": f"ran into its time limit of {live.batch.request.get('minutes')} min",
            "OUT_OF_MEMORY": f"out of memory: {live.batch.request.get('mem_mb')} MB asked for",
            "CANCELLED": "cancelled from outside",
            "COMPLETED": "its task ended and it has no result",
            "FAILED": "its task failed and it has no result",
        }
        why = reasons.get(word, word)
        if state and state.exit_code not in ("", "0:0"):
            why += f" (exit code {state.exit_code})"
        live.outcome = explain(live, why, state.node if state else "")


def explain(live: Any, why: str, node: str) -> str:
    """The text of a failure: rule and wildcards, Slurm id, reason, node, and the log's last lines."""
    one = live.waiting
    where = f" on {node}" if node else ""
    lines = [f"{one.name}, {live.batch.cluster} job {live.info.external_jobid}{where}: {why}.", f"Log: {one.log}"]
    for log in (Path(one.log), live.batch.task_log(live.entry)):  # the task's own, of a job that never began
        with contextlib.suppress(OSError):
            if text := own_lines(_end_of(log).splitlines()):
                lines += [f"  | {line}" for line in text[-TAIL:]]
                break
    return "\n".join(lines) + "\n"


def _end_of(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - BYTES))
        return stream.read().decode(errors="replace")


def own_lines(log: list[str]) -> list[str]:
    """What the job itself said, without what submitit and the Snakemake around it say before and after."""
    log = [line for line in log if not line.startswith(("submitit INFO", "Will exit after finishing"))]
    begins = [index for index, line in enumerate(log) if line.startswith("    resources: ")]
    first = begins[-1] + 1 if begins else 0
    ends = [index for index, line in enumerate(log) if line.startswith("Error in rule ") and index > first]
    return log[first : ends[0] - 1 if ends else None]
