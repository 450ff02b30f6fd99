"""What the workflow's rules ask of the registry (ghostgrad/cli/rules.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ghostgrad.checks import InputError
from ghostgrad.cli import rules, snakemake_hooks
from ghostgrad.cli.rules import Build
from ghostgrad.registry.registry import load_registry
from ghostgrad.registry.tasks import RUN_RULES
from ghostgrad.runs.record import FILES
from tests.conftest import ROOT
from tests.unit.fabricate import publish

CONFIG = {"scale": "laptop", "state_dir": "state", "data": {"cifar10": None}}


@pytest.fixture
def build(bench) -> Build:
    """A build of a registry whose artifact ghost.x shows the variants a, b, c and d of one
    experiment."""
    return Build.from_config(bench, CONFIG)


def wildcards(**values: str) -> SimpleNamespace:
    defaults = {"scale": "laptop", "experiment": "nets", "variant": "a", "seed": "0"}
    return SimpleNamespace(**defaults | {"artifact": "ghost.x"} | values)


def test_the_configuration_makes_a_build(bench):
    build = Build.from_config(bench, CONFIG)
    assert (build.scale, build.state_dir, build.partial) == ("laptop", Path("state"), False)
    for value in (True, "true", "True"):
        assert Build.from_config(bench, {**CONFIG, "partial": value}).partial
    for value in (False, "false"):
        assert not Build.from_config(bench, {**CONFIG, "partial": value, "data": None}).partial


def test_every_experiment_belongs_to_one_run_rule():
    """The task, and whether the runs publish weights.pt, determine the rule. Snakemake refuses two
    rules that make the same file."""
    build = Build.from_config(load_registry(), CONFIG)
    patterns = [build.experiments_pattern(*rule) for rule in RUN_RULES.values()]
    for name in build.registry.experiments:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in patterns) == 1


def test_a_task_without_experiments_matches_nothing(build):
    assert build.experiments_pattern("classify", False) == "nets"
    assert not re.match(build.experiments_pattern("detect", False), "nets")


def test_a_runs_files_are_named_and_in_the_order_of_publication():
    assert tuple(rules.run_files(True).values()) == FILES
    assert list(rules.run_files(False)) == ["spec", "series", "probes", "env", "metrics"]


def test_a_runs_rule_gets_its_spec_inputs_and_resources(build):
    run = build.registry.run("laptop", "nets/a-s0")
    assert build.run_spec(wildcards()) == run.canonical
    assert build.run_inputs(wildcards()) == ["results/data/digits.json"]
    assert build.run_resource("gpu", 7)(wildcards()) == 0
    assert build.run_resource("mem_mb", 2000)(wildcards()) == 2000, "the default"


def test_an_artifacts_inputs_are_the_runs_that_exist_or_can_be_made(build):
    metrics = [f"results/laptop/runs/nets/{v}-s{seed}/metrics.csv" for v in "abc" for seed in "012"]
    assert build.artifact_metrics(wildcards()) == metrics
    partial = Build.from_config(build.registry, {**CONFIG, "partial": True})
    assert partial.artifact_metrics(wildcards()) == []
    publish(build.registry.run("laptop", "nets/b-s1"))
    assert partial.artifact_metrics(wildcards()) == [metrics[4]]


def test_what_cannot_be_measured_says_why(build):
    assert build.not_run == {}
    assert build.reason_not_run(wildcards()) == ""
    partial = Build.from_config(build.registry, {**CONFIG, "partial": True})
    assert partial.not_run == {"ghost.x": "no finished run"}
    assert partial.reason_not_run(wildcards()) == "no finished run"
    assert partial.files_not_run() == build.paper_files("ghost")
    assert partial.cpu_files() == []
    assert build.cpu_files() == build.paper_files("ghost")


def test_targets_are_the_artifacts_files_and_the_lists(build):
    table = [f"results/laptop/tables/ghost.x.{suffix}" for suffix in ("csv", "md", "tex", "html")]
    assert build.paper_files("ghost") == table
    assert build.paper_files("lalc") == []
    assert build.leading_files() == ["results/laptop/tables/ghost.x.html"]
    lists = ["results/laptop/artifacts.csv", "results/laptop/claims.csv"]
    assert build.all_files() == lists + table


def test_references_are_those_that_exist(build):
    assert build.references(["ghost.x"]) == []
    Path("workflow/reference/ghost.x.csv").write_text("")
    expected = ["workflow/reference/ghost.x.csv"]
    assert build.references(["ghost.x"]) == build.artifact_references(wildcards()) == expected


def test_a_definition_is_of_the_artifact(build):
    definition = build.registry.artifact("ghost.x").definition
    assert build.artifact_definition(wildcards()) == definition
    assert build.definitions(["ghost.x"]) != build.definitions([])


def test_the_caption_is_escaped_for_restructuredtext(build, monkeypatch):
    """What the registry says of an artifact is text: none of its characters is markup."""
    assert build.caption(wildcards()).startswith("**Accuracies** (tab. 1).")
    assert rules._escape("a_b *c* `d` |e|") == r"a\_b \*c\* \`d\` \|e\|"
    texts = {"title": "a_b", "section": "sec. *1*", "caption": "c_d"}
    marked = replace(build.registry.artifact("ghost.x"), **texts)
    monkeypatch.setitem(build.registry.artifacts, "ghost.x", marked)
    monkeypatch.setattr(type(build.registry), "notes", lambda *_: ["e_f", "g|h"])
    expected = [r"**a\_b** (sec. \*1\*). c\_d", "", r"- e\_f", r"- g\|h"]
    assert build.caption(wildcards()).split("\n") == expected


def test_report_labels_tell_a_table_from_a_figure():
    for form in ("table", "figure"):
        labels = rules.report_labels(form)
        for artifact in ("ghost.x", "ghost.y"):
            expected = {"artifact": artifact, "form": form}
            assert labels(wildcards(artifact=artifact)) == expected


def test_the_announcement_counts_the_runs_among_the_jobs(build):
    jobs = [
        SimpleNamespace(wildcards=SimpleNamespace(keys=lambda: ["variant"], **vars(wildcards()))),
        SimpleNamespace(wildcards=SimpleNamespace(keys=lambda: ["artifact"], artifact="ghost.x")),
    ]
    assert build.announcement(jobs, 2, False).startswith("1 run to do")


def test_code_inputs_are_relative_files_of_the_library(monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = rules.library_files("report.tables")
    assert "workflow/ghostgrad/report/tables.py" in paths
    assert all(Path(path).is_file() for path in paths)


@pytest.mark.parametrize("page", ["table", "claims", "artifacts"])
def test_pages_are_made_from_relative_files_of_the_workflow(monkeypatch, page):
    monkeypatch.chdir(ROOT)
    paths = rules.page_templates(page)
    assert {"workflow/report/style.css", f"workflow/report/{page}.html.j2"} <= set(paths)
    assert all(Path(path).is_file() for path in paths)


def test_jobs_find_this_checkouts_command_and_then_this_python(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = rules.job_environment(CONFIG)
    scripts, python, rest = environment["PATH"].split(":")
    assert Path(scripts, "ghostgrad").is_file()
    assert (Path(python), rest) == (Path(sys.executable).parent, "/usr/bin")
    assert environment["GHOSTGRAD_STATE_DIR"] == str(Path("state").absolute())


def test_the_command_of_the_jobs_runs_the_library_beside_it(tmp_path):
    """It needs no installed ghostgrad: the Python here has neither site-packages nor PYTHONPATH."""
    library = tmp_path / "workflow" / "ghostgrad" / "cli"
    library.mkdir(parents=True)
    for folder in (library.parent, library):
        (folder / "__init__.py").write_text("")
    (library / "commands.py").write_text("def main():\n    print('this one')\n")
    script = tmp_path / "workflow" / "scripts" / "ghostgrad"
    script.parent.mkdir()
    script.write_bytes((ROOT / "workflow/scripts/ghostgrad").read_bytes())
    done = subprocess.run(
        [sys.executable, "-S", script], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout == "this one\n"


def test_bad_input_ends_the_process_with_one_line():
    with pytest.raises(SystemExit) as stop, snakemake_hooks.exit_on_bad_input():
        raise InputError("config.yaml: scale: wrong")
    assert stop.value.code == "ghostgrad: config.yaml: scale: wrong"


@pytest.mark.parametrize("program", ["/bin/snakemake", "/lib/snakemake/__main__.py"])
def test_targets_on_the_command_line_are_checked(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "ghots", "--config", "scale=smoke", "-n"])
    with pytest.raises(InputError, match="did you mean 'ghost'"):
        snakemake_hooks.check_targets(load_registry(), ["ghost", "all"])
    monkeypatch.setattr(sys, "argv", [program, "ghost", "--cores", "2"])
    snakemake_hooks.check_targets(load_registry(), ["ghost", "all"])


def test_another_programs_command_line_is_not_snakemakes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/their_program", "ghots"])
    snakemake_hooks.check_targets(load_registry(), ["ghost", "all"])


def scheduled(limit: SimpleNamespace | None) -> SimpleNamespace:
    return SimpleNamespace(
        scheduling_settings=SimpleNamespace(max_jobs_per_timespan=limit),
        scheduler=SimpleNamespace(job_rate_limiter="theirs"),
    )


def test_only_the_default_rate_limit_is_removed():
    for limit, left in (((100, 1), None), ((100, 60), "theirs"), ((5, 1), "theirs")):
        workflow = scheduled(SimpleNamespace(max_jobs=limit[0], timespan=limit[1]))
        snakemake_hooks.remove_default_rate_limit(workflow)
        assert workflow.scheduler.job_rate_limiter == left
    snakemake_hooks.remove_default_rate_limit(scheduled(None))


def test_the_library_of_another_checkout_is_refused(tmp_path):
    """The rules would be those of one checkout, and registry and code those of another."""
    snakemake_hooks.check_library(ROOT)
    with pytest.raises(InputError) as error:
        snakemake_hooks.check_library(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: the library is that of {ROOT}; activate")
