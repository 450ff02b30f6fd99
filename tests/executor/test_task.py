"""A task on its own, in a process that gets the signals that Slurm sends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import sys
from snakemake_executor_plugin_submitit.task import PackedJob, Task
folder, stop_signal = sys.argv[1:]
wait = "while ! test -e $SNAKEMAKE_SUBMITIT_STOP_FILE; do sleep 0.1; done"
command = f"touch {folder}/job.started; {wait}; echo saw the file; exit 75"
job = PackedJob(0, "one", command, f"{folder}/log")
Task(folder, 0, [job], folder, 10, 90, stop_signal, 3)()
"""


@pytest.mark.parametrize(("stop_signal", "expected"), [("none", "saw the file\n"), ("TERM", "")])
def test_a_job_that_only_knows_the_stop_file(tmp_path, stop_signal, expected):
    """Such a job needs --submitit-stop-signal none, because it does not catch SIGTERM.

    In neither case does it count as ended: it has no result.
    """
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), stop_signal])
    for _ in range(300):
        if Path(tmp_path, "job.started").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 0
    assert (tmp_path / "log").read_text() == expected
    assert (tmp_path / "task0.saved").exists()
    assert not (tmp_path / "0.json").exists()
