"""The output of Slurm's commands is turned into states of tasks."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit import slurm_commands
from snakemake_executor_plugin_submitit.cluster import UNLIMITED, ClusterError, State
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import SlurmCluster
from snakemake_executor_plugin_submitit.slurm_commands import SlurmStates

SACCT = """12_0|COMPLETED|0:0|node1|None
12_1|CANCELLED by 0|0:15|node2|None
12_[2-4,7%2]|PENDING|0:0|None assigned|JobArrayTaskLimit
13|OUT_OF_MEMORY|0:125|node3|OutOfMemory
14_1|NODE_FAIL|1:0|node[1-2]|None
"""
SQUEUE = "20_0|RUNNING|node1|None\n20_1|PENDING||Resources\n21|SUSPENDED|node2|None\n"
SCONTROL = """JobId=31 ArrayJobId=30 ArrayTaskId=1 JobState=FAILED Reason=NonZeroExitCode \
ExitCode=3:0 NodeList=node4
JobId=30 ArrayJobId=30 ArrayTaskId=2-3%2 JobState=PENDING Reason=Resources ExitCode=0:0 NodeList=
JobId=40 JobName=y UserId=root(0) JobState=TIMEOUT Reason=TimeLimit Requeue=1 ExitCode=0:0 \
NodeList=node1
"""


@pytest.fixture
def answers(monkeypatch):
    """The output of every command, and a list of the calls; a command without output fails."""
    outputs = {"sacct": SACCT, "squeue": SQUEUE, "scontrol": SCONTROL}
    commands = []

    def run_command(*command):
        commands.append(command)
        if command[0] not in outputs:
            raise ClusterError(f"{command[0]}: down")
        return outputs[command[0]]

    monkeypatch.setattr(slurm_commands, "run_command", run_command)
    return outputs, commands


def test_sacct_lines_become_states(answers):
    states = SlurmStates().states(["12_0", "12_1", "12_3", "12_7", "13", "14_1"])
    assert states["12_0"] == State("COMPLETED", "0:0", "node1", "None")
    assert states["12_1"].word == "CANCELLED"
    assert states["12_3"].word == "PENDING"
    assert states["12_3"].node == ""
    assert states["12_7"].word == "PENDING"
    assert states["13"].word == "OUT_OF_MEMORY"
    assert not states["14_1"].is_alive


def test_one_query_for_all_jobs(answers):
    """There is one query for all tasks, with the id of every array once."""
    SlurmStates().states([f"12_{i}" for i in range(200)] + ["13"])
    (command,) = answers[1]
    assert command[-1] == "12,13"


def test_cancelled_between_a_requeue_and_the_next_start(answers):
    """A task cancelled after its requeue stays REQUEUED in accounting, so the queue decides."""
    answers[0]["sacct"] = (
        "20_0|REQUEUED|0:0|node1|None\n20_1|REQUEUED|0:0|node1|None\n22|REQUEUED|0:0|node2|None\n"
    )
    states = SlurmStates().states(["20_0", "20_1", "22"])
    assert states["20_0"].is_alive
    assert states["20_1"].is_alive
    assert (states["22"].word, states["22"].node) == ("CANCELLED", "node2")


def test_running_in_accounting_only(answers):
    """If slurmdbd has missed the end of a task, it stays RUNNING in accounting.

    Every fifth round asks the queue as well, and a task that is missing there is not alive.
    """
    answers[0]["sacct"] = "22|RUNNING|0:0|node2|None\n"
    slurm = SlurmStates()
    assert [slurm.states(["22"])["22"].is_alive for _ in range(6)] == [True] * 4 + [False] * 2
    assert [command[0] for command in answers[1]].count("squeue") == 2


def test_without_sacct_the_others_answer(answers):
    """squeue knows the tasks in the queue, scontrol those that have just left it."""
    del answers[0]["sacct"]
    states = SlurmStates().states(["20_0", "20_1", "21", "30_1", "30_3", "40", "50"])
    assert states["20_0"].is_alive
    assert states["20_1"].word == "PENDING"
    assert states["21"].is_alive, "a suspended job continues"
    assert states["30_1"] == State("FAILED", "3:0", "node4", "NonZeroExitCode")
    assert states["30_3"].word == "PENDING"
    assert states["40"].word == "TIMEOUT"
    assert "50" not in states, "unknown is not ended"


def test_accounting_that_is_silent(answers):
    """A task that is missing in accounting twice is looked for in the queue.

    While the queue does not answer, the task counts as alive.
    """
    answers[0]["sacct"] = ""
    slurm = SlurmStates()
    assert slurm.states(["20_0", "50"]) == {}
    assert slurm.states(["20_0", "50"])["20_0"].word == "RUNNING"
    assert "50" not in slurm.states(["20_0", "50"])
    del answers[0]["squeue"]
    assert slurm.states(["20_0", "50"])["50"].is_alive


def test_jobs_on_other_clusters(answers):
    """Every query asks for all clusters; squeue then prints a header for each of them."""
    answers[0]["squeue"] = "CLUSTER: one\n20_0|RUNNING|node1|None\nCLUSTER: two\n"
    slurm = SlurmStates("squeue")
    slurm.ask_all_clusters()
    assert set(slurm.states(["20_0"])) == {"20_0"}
    assert answers[1][0][:3] == ("squeue", "-M", "all")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("infinite", UNLIMITED),
        ("30:00", 30),
        ("4:00:00", 240),
        ("2-00:00:00", 2880),
        ("1-12:30:00", 2190),
        ("n/a", UNLIMITED),
    ],
)
def test_time_limits_of_partitions(limit, expected):
    assert slurm_commands.parse_minutes(limit) == expected


def test_an_error_names_every_failed_command(answers):
    answers[0].clear()
    with pytest.raises(ClusterError, match="sacct: down; squeue: down; scontrol: down"):
        SlurmStates().states(["12"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            True,
        ),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("Unable to contact slurm controller (connect failure)", True),
        (
            "Batch job submission failed: Job violates accounting/QOS policy "
            "(QOSMaxSubmitJobPerUserLimit)",
            True,
        ),
        (
            "Batch job submission failed: Invalid account or account/partition combination "
            "specified",
            False,
        ),
        ("invalid partition specified: gpuu", False),
        ("Requested node configuration is not available", False),
    ],
)
def test_which_complaints_pass_by_themselves(text, expected):
    assert slurm_commands.is_transient(text) is expected


def test_scancel_by_array(answers):
    """scancel is called with one id per array, at most 200 in a call."""
    answers[0]["scancel"] = ""
    cluster = SlurmCluster(ExecutorSettings())
    cluster.cancel([f"{array}_{task}" for array in range(1, 301) for task in range(3)])
    assert [len(command) - 1 for command in answers[1]] == [200, 100]


def test_a_list_that_slurm_has_cut_short(answers):
    """The "..." of a shortened list is ignored, and so are the arrays of other users."""
    answers[0].pop("sacct")
    answers[0]["squeue"] = ""
    answers[0]["scontrol"] = (
        "JobId=31 ArrayJobId=31 ArrayTaskId=0 JobState=RUNNING NodeList=node1\n"
        "JobId=30 ArrayJobId=30 ArrayTaskId=0,2-6:2,42... JobState=PENDING NodeList=\n"
        "JobId=99 ArrayJobId=99 ArrayTaskId=all JobState=RUNNING NodeList=node1\n"
    )
    states = SlurmStates().states(["30_0", "30_4", "30_5", "31_0", "31_1"])
    assert {task: state.word for task, state in states.items()} == {
        "30_0": "PENDING",
        "30_4": "PENDING",
        "30_5": "CANCELLED",  # the others of its array wait
        "31_0": "RUNNING",
    }


def test_a_pending_task_that_the_queue_does_not_know(answers):
    """A task cancelled before its start may stay PENDING in accounting, so the queue decides."""
    answers[0]["sacct"] = (
        "20_[0-1]|PENDING|0:0|None assigned|None\n22_0|PENDING|0:0|None assigned|None\n"
    )
    slurm = SlurmStates()
    states = [slurm.states(["20_0", "22_0"]) for _ in range(5)]
    assert states[-1]["20_0"].is_alive
    assert states[-1]["22_0"].word == "CANCELLED"
