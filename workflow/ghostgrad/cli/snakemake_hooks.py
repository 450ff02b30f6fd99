"""How bad input ends a Snakemake process, and the two places where the workflow relies on more of
Snakemake than its documented interface.

These two, `check_targets` and `remove_default_rate_limit`, were checked with Snakemake 9.27, the
oldest version that the Snakefile accepts; pyproject.toml excludes Snakemake 10. The tests
tests/workflow/test_failures.py and test_rate_limit.py notice when a newer 9.x behaves differently.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghostgrad.checks import InputError
from ghostgrad.dependencies import PACKAGE
from ghostgrad.registry.registry import Registry
from ghostgrad.registry.targets import check_target


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """End the process with the one line of an InputError, as the command line does."""
    try:
        yield
    except InputError as error:
        sys.exit(f"ghostgrad: {error}")


def check_library(checkout: Path) -> None:
    """Raise InputError where the library is not that of the checkout whose Snakefile is read.

    With the environment of another checkout, the rules would be this one's, and the registry and
    the code another one's.
    """
    if PACKAGE.parents[1] != checkout.resolve():
        raise InputError(
            f"{checkout}: the library is that of {PACKAGE.parents[1]}; activate the environment of"
            " this checkout (make setup creates .venv)"
        )


def check_targets(registry: Registry, rules: Iterable[str]) -> None:
    """Raise InputError for a target on Snakemake's command line that no rule makes; the message
    names the nearest target that exists. Snakemake would only name what is missing, after seconds.

    Snakemake hands its targets to a workflow after it has read the Snakefile
    (`workflow.dag_settings` is not set before), so the command line is parsed again, by
    Snakemake's own parser. In a process of another program, which has called Snakemake's Python
    interface, there is no such command line.
    """
    if Path(sys.argv[0]).stem not in ("snakemake", "__main__"):
        return
    from snakemake.cli import get_argument_parser

    names = list(rules)
    for target in get_argument_parser().parse_args(sys.argv[1:]).targets:
        check_target(registry, target, names)


def remove_default_rate_limit(workflow: Any) -> None:
    """Let Snakemake start jobs as fast as it can, unless `--max-jobs-per-timespan` was given.

    Under any limit, Snakemake's scheduler looks at all jobs that are ready again one timespan
    after each look, and it looks once for every job that has ended. With thousands of ready jobs
    this costs more than the jobs' submission, and `--max-jobs-per-timespan` has no value that
    means no limit. The scheduler exists from `onstart` on; it reads `job_rate_limiter` at each
    look and takes None as no limit.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):  # the default of the option
        workflow.scheduler.job_rate_limiter = None
