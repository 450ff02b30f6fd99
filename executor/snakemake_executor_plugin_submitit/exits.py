"""Leaving: what the signals do, what is said, what is tidied up."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Totals:
    """What the summary adds up, per rule."""

    jobs: int = 0
    failed: int = 0
    wall: float = 0.0
    gpu: float = 0.0
    wait: float = 0.0
    restarts: int = 0
    resubmits: int = 0
    rss_mb: int = 0
    mem_mb: int = 0


def install(executor: Any) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end the controller as the settings say; Snakemake itself would wait, or die without a
    word. A closing terminal sends several: the first counts."""
    if threading.current_thread() is not threading.main_thread():
        return

    def arrived(number: int, _frame: Any) -> None:
        for one in NUMBERS:
            signal.signal(one, signal.SIG_IGN)
        executor.signal = number
        policy = executor.settings.on_interrupt if number == signal.SIGINT else executor.settings.on_terminate
        executor.detached = policy == "detach"
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, arrived)
    if executor.wakeup == -1:
        executor.wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def relay(executor: Any) -> None:
    """Send the signals that have come to the main thread. Of several at once the system gives some to other threads,
    and then the main one sleeps on."""
    with contextlib.suppress(OSError):
        for number in set(os.read(executor.wakeup, 512)) & set(NUMBERS):
            signal.pthread_kill(threading.main_thread().ident, number)


def leave(executor: Any) -> NoReturn:
    """End this process and leave the jobs alone: say how many go on and how to come back, unlock the folder, and skip
    Snakemake's own end, which deletes what the jobs' commands name (the source cache, empty output folders)."""
    _end_local_rules(executor)
    left = [live for live in executor.live.values() if live.outcome is None]
    ids = ", ".join(sorted({str(live.batch.slurm_id) for live in left}))
    more = [] if executor.workflow.dag_settings.force_incomplete else ["--rerun-incomplete"]
    command = shlex.join(["snakemake", *sys.argv[1:], *more])
    text = f"{len(left)} jobs go on without this process (job {ids}); start again and they are taken over: {command}"
    with contextlib.suppress(Exception):  # the terminal may be gone
        executor.logger.warning(f"submitit: {text if left else 'no job is in the queue; start again and it goes on'}")
    with contextlib.suppress(Exception):
        executor.workflow.persistence.unlock()
    with contextlib.suppress(Exception):
        logging.shutdown()
    os._exit(128 + (executor.signal or signal.SIGINT))


def _end_local_rules(executor: Any) -> None:
    """Kill the local rules that run now: started again, they would run twice."""
    import psutil

    tasks = {int(str(live.batch.slurm_id).partition(":")[0]) for live in executor.live.values() if live.batch.slurm_id}
    ours = tasks if executor.cluster.name == "local" else set()
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.pid not in ours:
                for one in [*child.children(recursive=True), child]:
                    with contextlib.suppress(psutil.Error):
                        one.kill()


def tidy_up(executor: Any) -> None:
    """The summary; then the ledger's closed batches go, and the logs of what went well."""
    if executor.totals and not executor.settings.no_summary:
        executor.logger.info(summary(executor.totals))
    batches = Path(executor.folder, "batches")
    for folder in batches.glob("*/"):
        from snakemake_executor_plugin_submitit import ledger

        batch = ledger.read(folder)
        if batch is not None and {entry.n for entry in batch.entries} - batch.told():
            continue
        if batch is not None and executor.settings.keep_logs == "failed":
            for entry in batch.entries:
                if (result := batch.result(entry.n)) and result["rc"] == 0:
                    with contextlib.suppress(OSError):
                        Path(entry.log).unlink()
                        Path(entry.log).parent.rmdir()  # where nothing else is in it
        shutil.rmtree(folder, ignore_errors=True)


COLUMNS = ("rule", "jobs", "failed", "hours", "GPU h", "wait s", "requeued", "again", "MaxRSS", "asked")


def summary(totals: dict[str, Any]) -> str:
    """Per rule: jobs, hours, GPU hours, mean wait in the queue, requeues, resubmissions, memory used and asked for."""
    rows = [COLUMNS]
    for rule, t in sorted(totals.items()):
        memory = (f"{t.rss_mb} MB", f"{t.mem_mb} MB" if t.mem_mb else "–")
        wait = f"{t.wait / max(1, t.jobs):.0f}"
        hours, gpu = f"{t.wall / 3600:.2f}", f"{t.gpu / 3600:.2f}"
        rows.append((rule, str(t.jobs), str(t.failed), hours, gpu, wait, str(t.restarts), str(t.resubmits), *memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "submitit: what the jobs used\n" + "\n".join(lines)
