"""What Slurm says of jobs: one query for all of them, sacct or, where that fails, squeue and scontrol."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD".split()
ALIVE = "RUNNING COMPLETING SUSPENDED STOPPED SIGNALING RESIZING STAGE_OUT EXPEDITING".split()
# Slurm took the task away; it may put it back into the queue by itself, and if not it is nobody's fault.
TAKEN = "PREEMPTED NODE_FAIL BOOT_FAIL REVOKED".split()
ENDED = "COMPLETED FAILED TIMEOUT CANCELLED OUT_OF_MEMORY DEADLINE".split()
TIMEOUT = 60  # seconds that a command of Slurm may take


@dataclass(frozen=True)
class State:
    """One task: its state word, and what explains it."""

    word: str
    exit_code: str = ""
    node: str = ""
    reason: str = ""

    @property
    def alive(self) -> bool:
        return self.word in WAITING or self.word in ALIVE


class ClusterError(Exception):
    """Slurm did not answer."""


def run(*command: str) -> str:
    """Output of a Slurm command; ClusterError with its complaint."""
    if shutil.which(command[0]) is None:
        raise ClusterError(f"{command[0]} is not on PATH")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} did not answer within {TIMEOUT} s") from None
    except OSError as error:
        raise ClusterError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise ClusterError(f"{command[0]}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}")
    return done.stdout


def masters(ids: Iterable[str]) -> list[str]:
    """12_3 -> 12, each once."""
    return sorted({one.partition("_")[0] for one in ids}, key=int)


class Slurm:
    """States of tasks by id (`12`, or `12_3` of an array), from whatever answers."""

    def __init__(self, command: str = "auto"):
        self.ways = {"auto": (sacct, squeue, scontrol), "sacct": (sacct,), "squeue": (squeue, scontrol)}[command]
        self.where: tuple[str, ...] = ()  # options of every query: -M all, once a job has gone to another cluster
        self.failed: dict[str, str] = {}  # way -> its last complaint, for the log
        self.asked, self.vanished, self.unknown = 0, set(), set()

    def states(self, ids: Iterable[str]) -> dict[str, State]:
        """Every task that something is known of; ClusterError where nothing answers."""
        wanted, found, answered = set(ids), {}, False
        for way in self.ways:
            missing = wanted - set(found)
            if not missing:
                break
            known = self._ask(way, missing)
            if known is None:
                continue
            answered = True
            found |= known
            if way is sacct:
                again = self.unknown & missing - set(found)  # a new task is in the accounts within seconds
                self.unknown = missing - set(found)
                if not again:
                    return self._confirmed(found)
                found = self._confirmed(found)
        if not answered:
            raise ClusterError("; ".join(self.failed.values()))
        if "squeue" in self.failed:  # nobody says that they have left the queue
            return found | {task: State("PENDING") for task in wanted - set(found)}
        # Of one pending task of an array that is cancelled Slurm keeps nothing, while the others wait on.
        waiting = set(masters(task for task, state in found.items() if state.word in WAITING))
        gone = State("CANCELLED", "", "", "not in the queue any more")
        return found | {task: gone for task in wanted - set(found) if task.partition("_")[0] in waiting}

    def _ask(self, way: Callable, tasks: set[str]) -> dict[str, State] | None:
        try:
            known = {task: state for task, state in way(tasks, self.where) if task in tasks}
        except (ClusterError, ValueError) as error:
            self.failed[way.__name__] = str(error)
            return None
        self.failed.pop(way.__name__, None)
        return known

    def _confirmed(self, found: dict[str, State]) -> dict[str, State]:
        """What the accounts call alive, confirmed by the queue: one task of an array that is cancelled before it starts
        stays PENDING there, one between its requeue and its next start REQUEUED, and one whose end slurmdbd has missed
        RUNNING. Every fifth time all are asked for."""
        self.asked += 1
        alive = {task for task, state in found.items() if state.alive}
        doubtful = {task for task in alive if found[task].word.startswith("REQUEUE")} | (alive & self.vanished)
        if self.asked % 5 == 0:
            doubtful = alive
        if not doubtful or (queued := self._ask(squeue, doubtful)) is None:
            return found
        self.vanished = doubtful - set(queued)
        return found | queued | {task: _gone(found[task]) for task in self.vanished}


def _gone(state: State) -> State:
    """Of a task that the accounts call alive and the queue does not know."""
    word = "CANCELLED" if state.word in WAITING else ""
    return State(word, "", state.node, "not in the queue any more")


RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def _expand(task: str) -> Iterator[str]:
    """476_[12-14,20%4] -> 476_12, 476_13, 476_14, 476_20; 12 and 12_3 are themselves."""
    head, _, rest = task.partition("_")
    if not rest.startswith("["):
        yield task
        return
    for part in rest.strip("[]").partition("%")[0].split(","):
        if found := RANGE.fullmatch(part):  # else the "42..." with which Slurm cuts a long list
            first, last, step = (int(number or 0) for number in found.groups())
            for index in range(first, (last or first) + 1, step or 1):
                yield f"{head}_{index}"


def sacct(ids: Iterable[str], where: Sequence[str] = ()) -> Iterator[tuple[str, State]]:
    fields = ["-o", "JobID,State,ExitCode,NodeList,Reason", "-j", ",".join(masters(ids))]
    for line in run("sacct", *where, "-X", "-n", "-P", *fields).splitlines():
        task, word, code, node, reason = (line.split("|", 4) + [""] * 5)[:5]
        for one in _expand(task):
            yield one, State(word.partition(" ")[0], code, "" if node == "None assigned" else node, reason)


def squeue(ids: Iterable[str], where: Sequence[str] = ()) -> Iterator[tuple[str, State]]:
    """The jobs still in the queue. Asked for all of the user's: with -j, one id that has left fails the whole call."""
    for line in run("squeue", *where, "--me", "-h", "-r", "-o", "%i|%T|%N|%r").splitlines():
        if "|" not in line:  # CLUSTER: name, where several are asked
            continue
        task, word, node, reason = line.split("|", 3)
        yield task, State(word, "", node, reason)


FIELD = re.compile(r"(\w+)=(\S*)")


def scontrol(ids: Iterable[str], where: Sequence[str] = ()) -> Iterator[tuple[str, State]]:
    """Jobs that ended within slurm.conf's MinJobAge; it lists everybody's."""
    ours = set(masters(ids))
    for line in run("scontrol", *where, "-o", "show", "job").splitlines():
        fields = dict(FIELD.findall(line))
        task = fields.get("JobId", "")
        if "ArrayJobId" in fields:
            indices = fields.get("ArrayTaskId", "")
            task = f"{fields['ArrayJobId']}_{indices if indices.isdigit() else f'[{indices}]'}"
        if task.partition("_")[0] not in ours:
            continue
        state = State(
            fields.get("JobState", ""), fields.get("ExitCode", ""), fields.get("NodeList", ""), fields.get("Reason", "")
        )
        for one in _expand(task):
            yield one, state


def cancel(ids: Iterable[str], where: Sequence[str] = (), whole: bool = True) -> None:
    """scancel, arrays as a whole or their single tasks, 200 ids at a time; ids that have ended are no error."""
    targets = masters(ids) if whole else sorted(set(ids))
    for first in range(0, len(targets), 200):
        try:
            run("scancel", *where, *targets[first : first + 200])
        except ClusterError as error:
            if "Invalid job id" not in str(error):
                raise


def live_jobs(comment: str, where: Sequence[str] = ()) -> dict[str, str]:
    """Comment -> array id of this user's jobs in the queue whose comment begins so."""
    found = {}
    for line in run("squeue", *where, "--me", "-h", "-o", "%F|%k").splitlines():
        master, _, text = line.partition("|")
        if text.startswith(comment):
            found[text] = master
    return found


UNLIMITED = 10**9  # minutes


def minutes(limit: str) -> int:
    """Of a time limit as Slurm writes it: infinite, minutes:seconds, hours:minutes:seconds, days-hours:…"""
    if not limit[:1].isdigit():
        return UNLIMITED
    days, _, clock = limit.rpartition("-")
    hours, mins, _ = ([0] * 3 + [int(part) for part in clock.split(":")])[-3:]
    return (int(days or 0) * 24 + hours) * 60 + mins


def max_array_size() -> int:
    """Slurm's MaxArraySize less one, the highest index; 1,000 where it does not say."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", run("scontrol", "show", "config"))
    except ClusterError:
        found = None
    return max(1, int(found[1]) - 1) if found else 1000


TRANSIENT = re.compile(
    r"timed out|temporar|unable to contact|connection refused|try again|slurm_receive|communication|busy|"
    r"not responding|MaxSubmit|zero bytes|job array limit|did not answer|resource temporarily|Slurm backup",
    re.IGNORECASE,
)


def transient(message: str) -> bool:
    """True of an sbatch complaint that may pass by itself."""
    return bool(TRANSIENT.search(message))
