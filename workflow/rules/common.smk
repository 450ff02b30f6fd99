"""
What the rules share: the registry, this machine's settings, and the functions that name inputs and parameters.

REQUIRED INPUTS: config.yaml, workflow/experiments/*.yaml (read here; no rule takes them as an input).
OUTPUTS: none.

Machine facts (state folder, data paths, PATH) reach the jobs through the environment, which holds in jobs spawned on a
cluster too; only what can change a number stands in `params`.
"""

import json
import os
import re
import sys
from pathlib import Path

import snakemake.cli

from ghostgrad.cli import lock as controller
from ghostgrad.report import overview
from ghostgrad.registry import spec
from ghostgrad.registry.config import check_config, load_config, machine_facts
from ghostgrad.registry.registry import load_registry
from ghostgrad import dependencies
from ghostgrad.checks import InputError
from ghostgrad.cli.estimates import expectation
from snakemake_interface_executor_plugins.settings import ExecMode

# Relative, so that a checkout that is moved or copied with its results redraws nothing.
WORKFLOW = os.path.relpath(Path(workflow.basedir, "workflow"))

try:
    load_config(Path(workflow.basedir, "config.yaml"))
    check_config(config, "--config or --configfile")
    REGISTRY = load_registry()
except InputError as error:
    sys.exit(f"ghostgrad: {error}")

if workflow.exec_mode == ExecMode.DEFAULT:
    controller.hold()


def check_targets():
    """Refuse targets that nothing makes, with the nearest one that something does."""
    if workflow.exec_mode != ExecMode.DEFAULT or Path(sys.argv[0]).stem not in ("snakemake", "__main__"):
        return  # another program's command line
    try:
        # Snakemake tells the workflow its targets only after it has been read.
        for target in snakemake.cli.get_argument_parser().parse_args(sys.argv[1:]).targets:
            REGISTRY.check_target(target, [rule.name for rule in workflow.rules])
    except InputError as error:
        sys.exit(f"ghostgrad: {error}")


SCALE = config["scale"]
PARTIAL = str(config.get("partial", False)).lower() == "true"  # --config gives text
DATA = config.get("data") or {}
WHY_NOT = {
    name: reason for name, a in REGISTRY.artifacts.items() if (reason := REGISTRY.missing(SCALE, a, DATA, PARTIAL))
}
NEVER = "(?!)"  # the pattern of a wildcard that nothing matches

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each job would compile what it imports anew
os.environ.update(
    machine_facts(config),
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH', '')}",
)


wildcard_constraints:
    scale="|".join(spec.SCALES),
    experiment="[a-z0-9_]+",
    variant="[A-Za-z0-9_.-]+",
    seed="[0-9]+",
    artifact="[a-z0-9]+[.][A-Za-z0-9_]+",


def of_task(task, weights=False):
    """The pattern of the experiments of a task; of those that publish their weights or, else, of the others."""
    found = [e.name for e in REGISTRY.experiments.values() if e.task == task and e.publishes_weights == weights]
    return "|".join(found) or NEVER


def run_of(wildcards):
    return REGISTRY.run(wildcards.scale, f"{wildcards.experiment}/{wildcards.variant}-s{wildcards.seed}")


def run_spec(wildcards):
    return run_of(wildcards).canonical


def run_inputs(wildcards):
    """The files that a run reads: the data manifest, another run's weights."""
    return run_of(wildcards).inputs


def run_resource(name, default):
    """A resource of the run from the registry."""

    def value(wildcards):
        return run_of(wildcards).resources.get(name, default)

    return value


def artifact_of(wildcards):
    return REGISTRY.artifact(wildcards.artifact)


def finished_runs(wildcards):
    """metrics.csv of every run of an artifact that exists or can be made; it is published last."""
    runs = REGISTRY.artifact_runs(wildcards.scale, artifact_of(wildcards))
    return [f"{run.directory}/metrics.csv" for run in runs if spec.available(run, DATA, PARTIAL)]


def artifact_reference(wildcards):
    path = f"{WORKFLOW}/reference/{artifact_of(wildcards).source}.csv"
    return [path] if Path(path).exists() else []


def references(names):
    """The reference files of several artifacts."""
    paths = {Path(f"{WORKFLOW}/reference/{REGISTRY.artifacts[name].source}.csv") for name in names}
    return sorted(str(path) for path in paths if path.exists())


def code(*modules):
    """The files of modules of the library and of all that they import, as inputs."""
    return [os.path.relpath(path) for path in dependencies.files(modules)]


def claim_runs(wildcards):
    """metrics.csv of every run that decides a claim and exists or can be made."""
    runs = dict.fromkeys(run for claim in REGISTRY.claims.values() for run in REGISTRY.claim_runs(SCALE, claim))
    return [f"{run.directory}/metrics.csv" for run in runs if spec.available(run, DATA, PARTIAL)]


def claim_definitions(wildcards):
    """All that the registry says of the claims and of their runs, as one hash."""
    claims = REGISTRY.claims.values()
    runs = [run.canonical for claim in claims for run in REGISTRY.claim_runs(SCALE, claim)]
    return spec.short_hash(*map(repr, claims), *runs)


def table_code(wildcards):
    return code(*REGISTRY.table_modules(artifact_of(wildcards)))


def figure_code(wildcards):
    return code(*REGISTRY.figure_modules(artifact_of(wildcards)))


def artifact_definition(wildcards):
    return artifact_of(wildcards).definition


def definitions(names):
    """What the registry says of several artifacts, as one hash."""
    return spec.short_hash(*(REGISTRY.artifacts[name].definition for name in names))


def caption(wildcards):
    """Title, place in the paper, caption, and where we fill in or leave the paper, as reStructuredText."""
    artifact = artifact_of(wildcards)

    def plain(text):
        return re.sub(r"([*`|_\\])", r"\\\1", text)

    head = f"**{plain(artifact.title)}** ({plain(artifact.section)}). {plain(artifact.caption)}"
    return "\n".join([head, "", *(f"- {plain(note)}" for note in REGISTRY.notes(artifact))])


def why_not(wildcards):
    return REGISTRY.missing(wildcards.scale, artifact_of(wildcards), DATA, PARTIAL) or ""


def paper_title(wildcards):
    return REGISTRY.papers[artifact_of(wildcards).paper]["title"]


def report_labels(form):
    """Labels of a table or a figure; without their form the two of one artifact would hide each other. Few and short:
    the report's list is as wide as its labels and takes that from the figure. Title and caption open beside it."""

    def labels(wildcards):
        return {"artifact": wildcards.artifact, "form": form}

    return labels


def artifact_files(artifacts):
    return [name for artifact in artifacts for name in overview.files(artifact, SCALE)]


def leading_files(artifacts):
    """One file per table and figure; the others come with it."""
    return [name for name in artifact_files(artifacts) if name.endswith((".html", ".svg"))]


def of_paper(paper):
    return [artifact for artifact in REGISTRY.artifacts.values() if artifact.paper == paper]


def on_cpu():
    """Artifacts all of whose runs need neither a GPU nor external data."""
    built = [artifact for artifact in REGISTRY.artifacts.values() if artifact.id not in WHY_NOT]
    return [artifact for artifact in built if all(run.cpu for run in REGISTRY.artifact_runs(SCALE, artifact))]


def without_rate_limit():
    """Take Snakemake's own limit of jobs per second away, unless another one was asked for. Under one it looks at the
    ready jobs again a second after each time that it looked, once for every job that has ended."""
    asked = workflow.scheduling_settings.max_jobs_per_timespan
    if asked and (asked.max_jobs, asked.timespan) == (100, 1):  # its default
        workflow.scheduler.job_rate_limiter = None


def expected():
    """What the build is about to do, said before it starts."""
    runs = [run_of(job.wildcards) for job in workflow.dag.needrun_jobs() if "variant" in job.wildcards.keys()]
    return expectation(runs, Path(config["state_dir"]), workflow.cores, workflow.non_local_exec)
