"""
What the rules share: the registry, this machine's configuration, and the wildcards' patterns.

REQUIRED INPUTS: config.yaml, workflow/experiments/*.yaml. They are read here; no rule takes them as
an input.
OUTPUTS: none.

The functions that rules call for each job are methods of BUILD (workflow/ghostgrad/cli/rules.py).
What config.yaml says of the machine (state folder, data paths) reaches the jobs through the
environment, which jobs on a cluster get too. A rule's `params` hold only what can change a number.
"""

import json
import os
import sys
from pathlib import Path

from snakemake_interface_executor_plugins.settings import ExecMode

from ghostgrad.cli import lock
from ghostgrad.cli.rules import (
    RULE_MODULES,
    Build,
    job_environment,
    library_files,
    page_templates,
    report_labels,
    run_files,
)
from ghostgrad.cli.snakemake_hooks import (
    check_library,
    check_targets,
    exit_on_bad_input,
    remove_default_rate_limit,
)
from ghostgrad.registry.config import check_config, load_config
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.spec import SCALES
from ghostgrad.registry.tasks import RUN_RULES
from ghostgrad.report import overview

with exit_on_bad_input():
    check_library(Path(workflow.basedir))
    load_config(Path(workflow.basedir, "config.yaml"))
    check_config(config, "--config or --configfile")
    BUILD = Build.from_config(load_registry(), config)

SCALE = BUILD.scale
REGISTRY = BUILD.registry
IS_MAIN_PROCESS = workflow.exec_mode == ExecMode.DEFAULT  # not one that Snakemake started for a job

if IS_MAIN_PROCESS:
    lock.hold()

# A job that may not write bytecode would compile again all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.update(job_environment(config))


wildcard_constraints:
    scale="|".join(SCALES),
    experiment="[a-z0-9_]+",
    variant="[A-Za-z0-9_.-]+",
    seed="[0-9]+",
    artifact="[a-z0-9]+[.][A-Za-z0-9_]+",
