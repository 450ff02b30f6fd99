"""The call of Snakemake that runs a job, made inside a forked interpreter instead of a new one."""

from __future__ import annotations

import gc
import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakemake.persistence import PersistenceBase

# What every job needs, imported (and called) once before the first fork.
PRELOADED = (
    "snakemake.cli:get_argument_parser",  # loads the plugins, which takes most of Snakemake's start
    "smart_open",
    "snakemake.storage",
    "snakemake.executors.local",
    "snakemake.scheduling.greedy",
    "snakemake.scheduling.milp",
)


def snakemake_arguments(command: str) -> list[str] | None:
    """Return Snakemake's arguments; None where the command is more than `python -m snakemake …`."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if words[1:3] != ["-m", "snakemake"] or {"&&", "||", ";", "|"} & set(words):
        return None
    return words[3:]


def preload_modules(names: Sequence[str]) -> None:
    """Import what all jobs need, and `names` (module, or module:function to call) besides."""
    for name in (*PRELOADED, *names):
        module_name, _, function = name.partition(":")
        try:
            module = importlib.import_module(module_name)
            if function:
                getattr(module, function)()
        except Exception as error:  # the jobs do without, or fail with a message of their own
            problem = f"{type(error).__name__}: {error}"
            print(f"submitit: {name} could not be loaded: {problem}", file=sys.stderr)
    # A garbage collection in a fork would write to every page that it shares, and so copy it.
    gc.freeze()


def run_snakemake(arguments: list[str]) -> int:
    """Call Snakemake's command line in this process and return its exit code."""
    from snakemake.cli import main
    from snakemake.persistence import PersistenceBase

    async def leave_to_controller(self: PersistenceBase, job: object) -> None:
        """Do nothing, where Snakemake would unmark the outputs and record what made them.

        The controller does both. If the job did, and ended while no controller runs, its outputs
        would look complete: no later run would ask for the job, and nothing would be recorded.
        """

    persistence: Any = PersistenceBase  # a type checker does not let methods be replaced
    persistence.finished = leave_to_controller
    sys.argv = ["snakemake", *arguments]
    try:
        main(arguments)
    except SystemExit as exit_request:
        code = exit_request.code
        # As the interpreter does: no code is a success, and a message is a failure.
        return code if isinstance(code, int) else int(code is not None)
    return 0
