"""The end of the controller: signals, detaching from the jobs, and tidying up.

What happens to a job at its time limit or at SIGTERM is in `task.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from snakemake_executor_plugin_submitit.interfaces import Logger, Workflow
from snakemake_executor_plugin_submitit.jobs import SubmittedJobs
from snakemake_executor_plugin_submitit.ledger import Batch, Ledger, read_batch
from snakemake_executor_plugin_submitit.settings import ExecutorSettings

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalHandler:
    """Ends the controller on Ctrl-C, SIGTERM and SIGHUP as the settings say.

    Snakemake itself would wait for all running jobs on SIGTERM, and die at once on SIGHUP.
    """

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._received: int = signal.SIGINT
        self._wakeup_fd = -1
        self.must_detach = False

    @property
    def exit_status(self) -> int:
        """The exit status of a process that the signal has ended."""
        return 128 + self._received

    def install(self) -> None:
        """Install the handlers; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED:
            # A controller that was started with nohup must survive the hang-up.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if self._wakeup_fd == -1:
            self._wakeup_fd, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # A closing terminal sends several signals. The first decides, and the others must not
        # interrupt what follows from it.
        for handled in HANDLED:
            signal.signal(handled, signal.SIG_IGN)
        self._received = number
        is_interrupt = number == signal.SIGINT
        settings = self._settings
        policy = settings.on_interrupt if is_interrupt else settings.on_terminate
        self.must_detach = policy == "detach"
        # Snakemake's scheduler handles this by calling `cancel` of the executor.
        raise KeyboardInterrupt(signal.Signals(number).name)

    def relay(self) -> None:
        """Send the signals that have arrived to the main thread; called from another thread.

        The system may deliver a signal to any thread. Python then notes it, and runs the handler
        only when the main thread continues, which may be asleep until a job ends. A signal that is
        sent to the main thread itself wakes it up.
        """
        main_thread = threading.main_thread().ident
        with contextlib.suppress(OSError):  # nothing to read, or the pipe does not exist yet
            for number in set(os.read(self._wakeup_fd, 512)) & set(HANDLED):
                if main_thread is not None:
                    signal.pthread_kill(main_thread, number)


def detach(
    jobs: SubmittedJobs,
    cluster_name: str,
    workflow: Workflow,
    logger: Logger,
    exit_status: int,
) -> NoReturn:
    """End this process and leave the jobs alone.

    Say how many continue and how to come back, and unlock the folder. Snakemake's own end is
    skipped: it would delete what the commands of the jobs refer to, such as the source cache and
    the folder for which the jobs wait, and empty output folders.
    """
    _kill_local_rules(jobs, cluster_name)
    unfinished = jobs.unfinished()
    ids = ", ".join(sorted({str(job.batch.slurm_id) for job in unfinished}))
    options = [] if workflow.dag_settings.force_incomplete else ["--rerun-incomplete"]
    command = shlex.join(["snakemake", *sys.argv[1:], *options])
    if unfinished:
        count = f"{len(unfinished)} jobs continue without this process (job {ids})"
        text = f"{count}; start again and they are taken over: {command}"
    else:
        text = "no job is in the queue; start again to continue"
    # The process ends even if one of these fails: the terminal may be gone, or the disk full.
    with contextlib.suppress(Exception):
        logger.warning(f"submitit: {text}")
    with contextlib.suppress(Exception):
        workflow.persistence.unlock()
    with contextlib.suppress(Exception):
        logging.shutdown()
    os._exit(exit_status)


def _kill_local_rules(jobs: SubmittedJobs, cluster_name: str) -> None:
    """Kill the local rules that run now; the next controller would run them a second time."""
    import psutil

    # On the local cluster, the tasks are children of this process too, and they continue.
    tasks: set[int] = set()
    if cluster_name == "local":
        ids = [job.batch.slurm_id for job in jobs.all()]
        tasks = {int(task_id.partition(":")[0]) for task_id in ids if task_id}
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.pid in tasks:
                continue
            for process in [*child.children(recursive=True), child]:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def remove_closed_batches(ledger: Ledger, settings: ExecutorSettings) -> None:
    """Delete the batches without an open job, and the logs of the jobs that have succeeded."""
    for folder in ledger.folders():
        batch = read_batch(folder)
        if batch is not None:
            if batch.is_open:
                continue
            if settings.keep_logs == "failed":
                _remove_logs_of_successes(batch)
        shutil.rmtree(folder, ignore_errors=True)  # that of a damaged batch too


def _remove_logs_of_successes(batch: Batch) -> None:
    for record in batch.records:
        result = batch.result(record.number)
        if result is not None and result.exit_code == 0:
            with contextlib.suppress(OSError):
                Path(record.log).unlink()
                Path(record.log).parent.rmdir()  # only succeeds where nothing else is in it
