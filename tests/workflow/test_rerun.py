"""What reruns and what does not, according to Snakemake's own dry runs.

The rules are those of docs/architecture.md, rerun semantics.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable

from ghostgrad.registry import spec
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.registry import load_registry
from tests.conftest import Checkout


def test_a_finished_build_has_nothing_to_do(built: Checkout):
    assert built.planned_jobs() == {}


def edit_module(checkout: Checkout, name: str) -> None:
    """Append a statement to a module of the library."""
    path = checkout.path(f"workflow/ghostgrad/{name}")
    path.write_text(path.read_text() + "\nEDITED = 1\n")


def measurable(is_meant: Callable[[Artifact], object]) -> int:
    """Return how many artifacts that satisfy `is_meant` can be measured at scale smoke."""
    loaded = load_registry()
    return sum(
        bool(is_meant(artifact)) and not loaded.missing("smoke", artifact, {})
        for artifact in loaded.artifacts.values()
    )


def test_editing_training_code_or_a_rules_text_reruns_nothing(built: Checkout):
    edit_module(built, "tasks/classify.py")
    edit_module(built, "tasks/simulate.py")
    built.edit("workflow/rules/runs.smk", "--threads {threads}", "--threads  {threads}")
    assert built.planned_jobs() == {}


def test_editing_one_variant_reruns_it_and_what_depends_on_it(built: Checkout):
    built.edit(
        "workflow/experiments/ghost.yaml",
        "tanh: {like: tanh-bn, norm: none}",
        "tanh: {like: tanh-bn, norm: layer}",
    )
    jobs = built.planned_jobs()
    # These are fig5, its alias in the tiny paper, the claims that it decides and the artifact list.
    assert jobs == {
        "simulate": 1,
        "tidy": 2,
        "table": 2,
        "figure": 2,
        "claims": 1,
        "artifacts": 1,
        "all": 1,
    }


def test_editing_a_figure_module_redraws_that_papers_figures_only(built: Checkout):
    edit_module(built, "figures/bnres.py")
    figures = measurable(lambda artifact: artifact.paper == "bnres" and artifact.has_figure)
    assert built.planned_jobs() == {"figure": figures, "artifacts": 1, "all": 1}


def test_editing_the_diagrams_redraws_the_figures_of_the_papers_that_have_some(built: Checkout):
    edit_module(built, "figures/diagram.py")
    figures = measurable(
        lambda artifact: artifact.paper in ("ghost", "bnres") and artifact.has_figure
    )
    assert built.planned_jobs() == {"figure": figures, "artifacts": 1, "all": 1}


def test_editing_the_statistics_redoes_all_that_shows_measured_numbers(built: Checkout):
    """All tables, figures and claims are made again, but no run is."""
    edit_module(built, "analysis/statistics.py")
    assert built.planned_jobs() == {
        "table": measurable(lambda artifact: artifact.has_table),
        "figure": measurable(lambda artifact: artifact.has_figure),
        "not_run": 1,
        "claims": 1,
        "artifacts": 1,
        "all": 1,
    }


def claim_tables(*modules: str) -> int:
    """Return how many tables show the comparisons of a claim of these modules."""
    claims = load_registry().claims
    return measurable(
        lambda artifact: artifact.table == "claim" and claims[artifact.id].module in modules
    )


def test_editing_the_theory_reruns_no_run_and_gathers_no_run_again(built: Checkout):
    edit_module(built, "theory/residual.py")
    jobs = built.planned_jobs()
    tables = claim_tables("bnres", "bnres_training")
    assert jobs == {"table": tables, "claims": 1, "artifacts": 1, "all": 1}


def test_editing_the_table_module_redoes_tables_and_runs_nothing(built: Checkout):
    edit_module(built, "report/tables.py")
    tables = measurable(lambda artifact: artifact.has_table)
    assert built.planned_jobs() == {"table": tables, "not_run": 1, "artifacts": 1, "all": 1}


def test_editing_a_claim_redoes_the_claims_and_their_tables_only(built: Checkout):
    """The module of the errata imports that of the claims."""
    edit_module(built, "claims/ghost.py")
    tables = claim_tables("ghost", "ghost_errata")
    assert tables > 0
    assert built.planned_jobs() == {"claims": 1, "table": tables, "artifacts": 1, "all": 1}


def test_editing_an_artifacts_definition_redraws_that_artifact_only(built: Checkout):
    built.edit("workflow/experiments/ghost.yaml", "metrics: [rate, growth]}}", "metrics: [rate]}}")
    assert built.planned_jobs() == {"tidy": 2, "table": 2, "figure": 2, "artifacts": 1, "all": 1}


def test_one_more_seed_adds_only_new_runs(built: Checkout):
    text = built.path("workflow/experiments/bnres.yaml").read_text()
    smoke = text.index("      smoke:")
    changed = text[:smoke] + text[smoke:].replace("seeds: 1", "seeds: 2", 1)
    built.path("workflow/experiments/bnres.yaml").write_text(changed)
    jobs = built.planned_jobs()
    assert jobs["classify"] == 3
    assert "simulate" not in jobs
    assert "data" not in jobs


def test_one_more_activation_is_yaml_only_and_builds_one_run(built: Checkout):
    """The target is really built, and the figure then shows the new curve."""
    built.edit(
        "workflow/experiments/ghost.yaml",
        "      relu-bn-40:",
        "      gelu-bn: {activation: gelu}\n      relu-bn-40:",
    )
    built.edit(
        "workflow/experiments/ghost.yaml",
        "      Tanh + BN:",
        "      GELU + BN: plainnet_init/gelu-bn\n      Tanh + BN:",
    )
    target = "results/smoke/figures/ghost.fig5.svg"
    assert built.planned_jobs(target) == {"simulate": 1, "tidy": 1, "figure": 1}
    kept = built.path("results/smoke/runs/plainnet_init/relu-bn-s0/metrics.csv").stat().st_mtime_ns
    built.build(target)
    assert "GELU + BN" in built.path("results/smoke/figures/ghost.fig5.csv").read_text()
    assert (
        built.path("results/smoke/runs/plainnet_init/relu-bn-s0/metrics.csv").stat().st_mtime_ns
        == kept
    )


def test_a_new_defaulted_option_reruns_nothing(built: Checkout):
    specs = "workflow/ghostgrad/registry/specs"
    new = '    dropout: Annotated[float, Option("Probability.", minimum=0)] = 0\n'
    for task, option in (
        ("simulate", "    repeats: Annotated["),
        ("classify", "    seed: Annotated["),
    ):
        built.edit(f"{specs}/{task}.py", option, new + option)
    assert built.planned_jobs() == {}


def test_a_forgotten_run_is_computed_again(built: Checkout):
    """It is computed even if everything that is made from it had been built before."""
    run = "plainnet_init/relu-bn-s0"
    assert built.planned_jobs() == {}
    done = built.ghostgrad("forget", run, "--scale", "smoke")
    assert "files that were made from it" in done.stdout
    jobs = built.planned_jobs()
    assert jobs["simulate"] == 1
    assert jobs.keys() >= {"tidy", "table", "figure", "claims"}
    target = "results/smoke/tables/ghost.fig6.md"
    built.build(target)
    assert built.path(f"results/smoke/runs/{run}/metrics.csv").exists()
    assert built.planned_jobs(target) == {}


def test_a_moved_state_folder_or_data_path_reruns_nothing(built: Checkout):
    built.edit("config.yaml", "state_dir: state", "state_dir: elsewhere")
    built.edit("config.yaml", "  cifar10:", f"  cifar10: {built.folder}")
    built.edit("config.yaml", "checkpoint_minutes: 5", "checkpoint_minutes: 1")
    assert built.planned_jobs() == {}


def test_a_fresh_clone_builds_from_nothing(checkout: Checkout):
    jobs = checkout.planned_jobs("--config", "scale=smoke")
    tasks = Counter(
        run.task for run in load_registry().runs("smoke") if spec.unset_data(run, {}) is None
    )
    assert {task: jobs[task] for task in tasks} == tasks


def test_tables_and_figures_are_the_same_bytes_when_built_again(built: Checkout):
    """Each function that makes tables or figures is checked on one artifact."""
    reg, kinds = load_registry(), {}
    for artifact in reg.artifacts.values():
        for folder, function in (("tables", artifact.table), ("figures", artifact.figure)):
            if function and not reg.missing("smoke", artifact, {}):
                kinds.setdefault((folder, artifact.paper, function), artifact.id)
    paths = [
        built.path(f"results/smoke/{folder}/{name}.csv") for (folder, *_), name in kinds.items()
    ]
    files = [path for named in paths for path in named.parent.glob(f"{named.stem}.*")]
    before = {path: path.read_bytes() for path in files}
    assert len(before) > 3 * len(paths) > 30
    for path in files:
        path.unlink()
    for name in kinds.values():
        built.path(f"results/smoke/tidy/{name}.csv").unlink(missing_ok=True)
    built.build(PYTHONHASHSEED="7")
    assert [path.name for path in before if before[path] != path.read_bytes()] == []


def test_partial_builds_from_what_exists_and_runs_nothing(built: Checkout):
    shutil.rmtree(built.path("results/smoke/runs/plainnet_init/tanh-s0"))
    shutil.rmtree(built.path("results/smoke/runs/resnet15_cifar"))
    jobs = built.planned_jobs("--config", "partial=true")
    assert not {"simulate", "classify", "data"} & jobs.keys()
    built.build(
        "--config", "partial=true", "--report", "results/smoke/report.html", "--report-after-run"
    )
    fig5 = built.path("results/smoke/tables/ghost.fig5.csv").read_text()
    assert "not run (no finished run)" in fig5
    assert (
        "not run (no finished run)" in built.path("results/smoke/tables/bnres.tab1.csv").read_text()
    )
    assert built.path("results/smoke/report.html").exists()
    # the next full build completes them: four runs, published from their state folders
    jobs = built.planned_jobs()
    assert (jobs["simulate"], jobs["classify"]) == (1, 3)
    built.build()
    assert "not run" not in built.path("results/smoke/tables/ghost.fig5.csv").read_text()
    assert built.planned_jobs() == {}


def test_data_that_appear_rebuild_what_was_not_run(built: Checkout):
    """An artifact whose data key is unset is written as not run.

    Setting the key changes its inputs, so that it is built again.
    """
    text = built.path("workflow/experiments/bnres.yaml").read_text()
    smoke = text.index("      smoke:")
    text = text[:smoke] + text[smoke:].replace("data: digits", "data: cifar10", 1)
    built.path("workflow/experiments/bnres.yaml").write_text(text)
    shutil.rmtree(built.path("results/smoke/runs/resnet15_cifar"))
    target = "results/smoke/tables/bnres.tab1.csv"
    built.build(target)
    assert "not run (data.cifar10 is not set in config.yaml)" in built.path(target).read_text()
    built.edit("config.yaml", "  cifar10:", f"  cifar10: {built.folder}")
    assert built.planned_jobs(target) == {"data": 1, "classify": 3, "tidy": 1, "table": 1}


def test_named_targets_build_their_own_runs_only(built: Checkout):
    """A paper's target builds the runs of its artifacts, and not those that only a claim needs."""
    for target in ("ghost", "lalc", "bnres", "cpu", "all"):
        assert built.planned_jobs(target) == {}
    for folder in ("runs/plainnet_init", "tidy", "tables", "figures"):
        shutil.rmtree(built.path(f"results/smoke/{folder}"))
    reg = load_registry()
    runs = {run for run in reg.runs("smoke") if run.experiment == "plainnet_init"}

    def needed_by(paper: str) -> int:
        artifacts = [artifact for artifact in reg.artifacts.values() if artifact.paper == paper]
        needed = {run for artifact in artifacts for run in reg.artifact_runs("smoke", artifact)}
        return len(needed & runs)

    assert 1 < needed_by("ghost") < len(runs), "only a claim needs plainnet_init/linear-bn"
    assert built.planned_jobs("ghost")["simulate"] == needed_by("ghost")
    assert built.planned_jobs("cpu")["simulate"] == needed_by("ghost")
    assert built.planned_jobs("all")["simulate"] == len(runs)
    jobs = built.planned_jobs("bnres")
    assert jobs["simulate"] == needed_by("bnres") == 1, "equation 13 and figure 5 share a run"
    tables = measurable(lambda artifact: artifact.paper == "bnres" and artifact.has_table)
    assert jobs["table"] == tables
