"""The report and the list of artifacts, and where their numbers come from."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter

from ghostgrad.registry.registry import load_registry
from ghostgrad.runs.provenance import task_hash
from tests.conftest import Checkout


def test_report_is_one_offline_file_with_captions_by_paper(built: Checkout):
    done = built.snakemake("--report", "results/smoke/report.html")
    assert done.returncode == 0, done.stdout[-3000:]
    page = built.path("results/smoke/report.html").read_text()
    for paper in ("ghost", "bnres"):
        assert load_registry().papers[paper]["title"] in page
    assert "All artifacts" in page
    assert "Read from right to left. According to the paper the norms of the last" in page
    for form in ("table", "figure"):
        assert f'{{"artifact": "ghost.fig5", "form": "{form}"}}' in page, (
            "both, under separate labels"
        )
    for attribute in ('src="http', "src='http", 'rel="stylesheet" href="http', "@import url(http"):
        assert attribute not in page


def test_the_list_of_artifacts_says_of_each_whether_it_was_built(built: Checkout):
    with built.path("results/smoke/artifacts.csv").open() as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert list(rows) == list(load_registry().artifacts)
    assert rows["ghost.fig5"]["status"] == "built"
    assert "holds" in rows["ghost.eq1"]["verdicts"]
    assert (rows["lalc.fig3"]["status"], rows["lalc.fig3"]["reason"]) == (
        "not run",
        "not at scale smoke",
    )
    for row in rows.values():
        names = row["files"].split()
        assert names, row["id"]
        for name in names:
            assert built.path(f"results/smoke/{name}").stat().st_size > 0, name


def test_no_cell_is_filled_that_was_not_measured(built: Checkout):
    """Every number of ours comes with the hashes of the code that computed it.

    These are `<code of the runs>/<code of the table>`; a number computed from a formula, without
    runs, has the latter alone.
    """
    measured = Counter()
    for path in built.path("results/smoke/tables").glob("*.csv"):
        artifact = load_registry().artifacts[path.stem]
        with path.open() as stream:
            for row in csv.DictReader(stream):
                if row["verdict"].startswith("not run"):
                    assert row["ours"] == ""
                    continue
                runs, separator, table = row["code"].rpartition("/")
                assert re.fullmatch("[0-9a-f]{8}", table), f"{path.name}: {row}"
                # A comparison of a claim has no n; it is computed from all runs of the claim.
                has_count = artifact.table == "claim" or row["n"] != ""
                from_runs = bool(artifact.cells) and has_count
                assert bool(separator) == from_runs, f"{path.name}: {row}"
                assert all(re.fullmatch("[0-9a-f]{8}", code) for code in runs.split("+") if runs)
                measured[from_runs] += 1
    assert measured[True] > 100 and measured[False] > 10


def test_every_number_traces_back_to_spec_seed_commit_and_machine(built: Checkout):
    with built.path("results/smoke/tidy/bnres.tab1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["variant"] for row in rows} == {"model1", "model2", "model3"}
    for row in rows:
        assert row["seed"] == "0"
        run = load_registry().run("smoke", f"resnet15_cifar/{row['variant']}-s0")
        folder = built.path(run.directory)
        assert json.loads((folder / "spec.json").read_text()) == run.spec.stored()
        (process,) = json.loads((folder / "env.json").read_text())
        assert row["code"] == process["code"] == task_hash("classify")
        # The copy of the checkout may have no git, so its commit may be None.
        assert row["commit"] == (process["commit"] or "") + "-dirty" * bool(process["dirty"])
        assert row["machine"] == f"{process['machine']}, {process['device']}"
        assert all((process["machine"], process["device"], process["packages"]["torch"]))
