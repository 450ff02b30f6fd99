"""Slurm's commands: what they print, and the states of tasks that follow from it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence

from snakemake_executor_plugin_submitit.cluster import UNLIMITED, WAITING, ClusterError, State

COMMAND_SECONDS = 60  # that a command of Slurm may take
QUEUE_CHECK_ROUNDS = 5  # every so many rounds, squeue confirms what sacct calls alive
IDS_PER_SCANCEL = 200
DEFAULT_ARRAY_SIZE = 1000
NOT_QUEUED = "not in the queue any more"

# An element of an array's list of indices: 3, 12-14 or 0-8:2.
INDEX_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
SCONTROL_FIELD = re.compile(r"(\w+)=(\S*)")
# Complaints of sbatch that may pass by themselves.
TRANSIENT = re.compile(
    r"timed out|temporar|unable to contact|connection refused|try again|slurm_receive|"
    r"communication|busy|not responding|MaxSubmit|zero bytes|job array limit|did not answer|"
    r"resource temporarily|Slurm backup",
    re.IGNORECASE,
)

TaskStates = Iterator[tuple[str, State]]
Query = Callable[[Iterable[str], Sequence[str]], TaskStates]


def run_command(*command: str) -> str:
    """Return the output of a Slurm command; raise ClusterError with its complaint."""
    name = command[0]
    if shutil.which(name) is None:
        raise ClusterError(f"{name} is not on PATH")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{name} did not answer within {COMMAND_SECONDS} s") from None
    except OSError as error:
        raise ClusterError(f"{name}: {error}") from None
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise ClusterError(f"{name}: {complaint}")
    return done.stdout


def array_ids(ids: Iterable[str]) -> list[str]:
    """Return the ids of the arrays that these tasks belong to: 12_3 becomes 12, each once."""
    return sorted({task.partition("_")[0] for task in ids}, key=int)


class SlurmStates:
    """Asks Slurm for the states of tasks, with one query per round and command.

    Three commands know something, and none knows everything:

    - sacct has tasks that have ended too, but only where the site has accounting, and it takes some
      tasks for alive that are not (see `_confirm`);
    - squeue has exactly the tasks that wait or run;
    - scontrol has them too, and for slurm.conf's MinJobAge those that have ended.
    """

    def __init__(self, command: str = "auto") -> None:
        queries: dict[str, tuple[Query, ...]] = {
            "auto": (sacct, squeue, scontrol),
            "sacct": (sacct,),
            "squeue": (squeue, scontrol),
        }
        self._queries = queries[command]
        self._options: tuple[str, ...] = ()
        self._complaints: dict[str, str] = {}  # of the commands that failed when last asked
        self._rounds = 0
        self._not_in_queue: set[str] = set()  # alive according to sacct alone, in the last round
        self._not_in_accounting: set[str] = set()  # in the last round

    @property
    def options(self) -> tuple[str, ...]:
        """The options of every command."""
        return self._options

    def ask_all_clusters(self) -> None:
        """Ask every cluster from now on, because a job has been sent to another one."""
        self._options = ("-M", "all")

    def states(self, ids: Iterable[str]) -> dict[str, State]:
        """Return the states of the tasks that are known.

        A task is `12`, or `12_3` for a task of an array. Raise ClusterError where no command
        answers: that no state is known must never look like the end of a task.
        """
        wanted = set(ids)
        states: dict[str, State] = {}
        has_answer = False
        # Each command is asked for what the ones before it do not know.
        for query in self._queries:
            missing = wanted - states.keys()
            if not missing:
                break
            answer = self._ask(query, missing)
            if answer is None:
                continue
            has_answer = True
            states |= answer
            if query is sacct:
                states = self._confirm(states)
                # A new task appears in accounting within seconds. Only one that is missing for
                # the second time is worth a query to the queue.
                unknown = missing - states.keys()
                unknown_twice = self._not_in_accounting & unknown
                self._not_in_accounting = unknown
                if not unknown_twice:
                    return states
        if not has_answer:
            raise ClusterError("; ".join(self._complaints.values()))
        unknown = wanted - states.keys()
        if "squeue" in self._complaints:
            # Only squeue can say that a task has left the queue, and it does not answer now.
            return states | {task: State("PENDING") for task in unknown}
        # When one pending task of an array is cancelled, Slurm keeps nothing about it as long as
        # other tasks of the array wait. It must not count as unknown until they have run.
        waiting = set(array_ids(task for task in states if states[task].word in WAITING))
        cancelled = State("CANCELLED", reason=NOT_QUEUED)
        return states | {task: cancelled for task in unknown if task.partition("_")[0] in waiting}

    def _ask(self, query: Query, tasks: set[str]) -> dict[str, State] | None:
        """Return what a command says of these tasks; None where it fails."""
        name = query.__name__
        try:
            states = {task: state for task, state in query(tasks, self._options) if task in tasks}
        except (ClusterError, ValueError) as error:
            self._complaints[name] = str(error)
            return None
        self._complaints.pop(name, None)
        return states

    def _confirm(self, states: dict[str, State]) -> dict[str, State]:
        """Return the states from sacct, corrected by squeue where they may be wrong.

        Accounting keeps a task alive for ever in three cases: PENDING where it is cancelled alone,
        before it starts, while the rest of its array waits; REQUEUED where it is cancelled between
        its requeue and its next start; RUNNING where slurmdbd has missed its end.

        The queue is asked at once for requeued tasks, and for those that were missing there in the
        last round. For all others that are alive, it is asked every few rounds, since one more
        query per round would double the load on Slurm.
        """
        self._rounds += 1
        alive = {task for task, state in states.items() if state.is_alive}
        if self._rounds % QUEUE_CHECK_ROUNDS == 0:
            doubtful = alive
        else:
            requeued = {task for task in alive if states[task].word.startswith("REQUEUE")}
            doubtful = requeued | (alive & self._not_in_queue)
        if not doubtful:
            return states
        queued = self._ask(squeue, doubtful)
        if queued is None:
            return states
        self._not_in_queue = doubtful - queued.keys()
        return states | queued | {task: _left_queue(states[task]) for task in self._not_in_queue}


def _left_queue(state: State) -> State:
    """Return the state of a task that sacct calls alive and that is missing in the queue.

    One that was waiting has been cancelled. How one that was running has ended is not known.
    """
    word = "CANCELLED" if state.word in WAITING else ""
    return State(word, "", state.node, NOT_QUEUED)


def sacct(ids: Iterable[str], options: Sequence[str] = ()) -> TaskStates:
    """Return the states of these arrays' tasks in accounting."""
    fields = ["-o", "JobID,State,ExitCode,NodeList,Reason", "-j", ",".join(array_ids(ids))]
    for line in run_command("sacct", *options, "-X", "-n", "-P", *fields).splitlines():
        tasks, words, exit_code, node, reason = (line.split("|", 4) + [""] * 5)[:5]
        word = words.partition(" ")[0]  # of "CANCELLED by 1000"
        state = State(word, exit_code, "" if node == "None assigned" else node, reason)
        for task in _expand(tasks):
            yield task, state


def squeue(ids: Iterable[str], options: Sequence[str] = ()) -> TaskStates:
    """Return the states of all the user's tasks in the queue.

    It is not asked for the ids alone: with -j, one id that has left the queue fails the whole call.
    """
    for line in run_command(
        "squeue", *options, "--me", "-h", "-r", "-o", "%i|%T|%N|%r"
    ).splitlines():
        if "|" not in line:  # "CLUSTER: name", where several clusters are asked
            continue
        task, word, node, reason = line.split("|", 3)
        yield task, State(word, "", node, reason)


def scontrol(ids: Iterable[str], options: Sequence[str] = ()) -> TaskStates:
    """Return the states of these arrays' tasks, until MinJobAge seconds after their end."""
    arrays = set(array_ids(ids))
    for line in run_command("scontrol", *options, "-o", "show", "job").splitlines():
        fields = dict(SCONTROL_FIELD.findall(line))
        tasks = fields.get("JobId", "")
        if "ArrayJobId" in fields:
            indices = fields.get("ArrayTaskId", "")
            tasks = f"{fields['ArrayJobId']}_{indices if indices.isdigit() else f'[{indices}]'}"
        if tasks.partition("_")[0] not in arrays:  # it lists everybody's jobs
            continue
        values = (fields.get(name, "") for name in ("JobState", "ExitCode", "NodeList", "Reason"))
        state = State(*values)
        for task in _expand(tasks):
            yield task, state


def _expand(tasks: str) -> Iterator[str]:
    """Yield 476_12, 476_13, 476_14 and 476_20 for 476_[12-14,20%4]; 12 and 12_3 as they are."""
    array, _, indices = tasks.partition("_")
    if not indices.startswith("["):
        yield tasks
        return
    for part in indices.strip("[]").partition("%")[0].split(","):
        # What does not match is the "42..." with which Slurm cuts a long list short.
        if match := INDEX_RANGE.fullmatch(part):
            first, last, step = (int(number or 0) for number in match.groups())
            for index in range(first, (last or first) + 1, step or 1):
                yield f"{array}_{index}"


def cancel(ids: Iterable[str], options: Sequence[str] = ()) -> None:
    """Cancel these arrays or tasks, some hundreds per call. That one has ended is no error."""
    targets = sorted(set(ids))
    for first in range(0, len(targets), IDS_PER_SCANCEL):
        try:
            run_command("scancel", *options, *targets[first : first + IDS_PER_SCANCEL])
        except ClusterError as error:
            if "Invalid job id" not in str(error):
                raise


def live_jobs(comment_prefix: str, options: Sequence[str] = ()) -> dict[str, str]:
    """Return comment and array id of the user's jobs whose comment starts with the prefix."""
    ids = {}
    for line in run_command("squeue", *options, "--me", "-h", "-o", "%F|%k").splitlines():
        array, _, comment = line.partition("|")
        if comment.startswith(comment_prefix):
            ids[comment] = array
    return ids


def parse_minutes(limit: str) -> int:
    """Return the minutes of a time limit as Slurm prints it; seconds are left out.

    The forms are `infinite`, minutes:seconds, hours:minutes:seconds and days-hours:minutes:seconds.
    """
    if not limit[:1].isdigit():
        return UNLIMITED
    days, _, clock = limit.rpartition("-")
    hours, minutes, _ = ([0] * 3 + [int(part) for part in clock.split(":")])[-3:]
    return (int(days or 0) * 24 + hours) * 60 + minutes


def max_array_size() -> int:
    """Return how many tasks an array may have: the highest valid index, MaxArraySize less one."""
    try:
        config = run_command("scontrol", "show", "config")
    except ClusterError:
        return DEFAULT_ARRAY_SIZE
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", config)
    return max(1, int(match[1]) - 1) if match else DEFAULT_ARRAY_SIZE


def is_transient(complaint: str) -> bool:
    """Return True for a complaint of sbatch that may pass by itself."""
    return bool(TRANSIENT.search(complaint))
