"""From run directories to tidy rows: which runs count, and what is reported about the others."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from ghostgrad.analysis.results import Results
from ghostgrad.analysis.tidy import refuse_stale
from ghostgrad.checks import InputError
from tests.unit.fabricate import compared, finish, publish, reference, table_code, tidy_rows


def test_tidy_is_one_row_per_run_and_cell(bench):
    """A row has identity, metrics and provenance; unfinished runs have no row."""
    finish(bench, "a", [1.0, 2.0])
    finish(bench, "c", [5.0], code="12345678")
    rows = tidy_rows(bench)
    columns = ("row", "column", "variant", "seed", "test_accuracy")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("A", "", "a", "0", "1"),
        ("A", "", "a", "1", "2"),
        ("C", "left", "c", "0", "5"),
    ]
    assert {r["comparable"] for r in rows} == {"True"}
    assert rows[2]["code"] == "12345678"
    assert rows[2]["machine"] == "Linux x86_64, 2 cores, cpu"


def test_tidy_marks_what_is_not_comparable(bench):
    """The table judges only rows that are comparable."""
    finish(bench, "a", [1.0], scale="smoke")
    assert [row["comparable"] for row in tidy_rows(bench, "smoke")] == ["False"]


OTHER = [
    ("lr", 0.2),
    ("batch", 64),
    ("bn_eps", 0.001),
    ("seed", 1),
    ("task", "simulate"),
    ("label_smoothing", 0.1),
]


@pytest.mark.parametrize(("key", "value"), OTHER)
def test_a_run_with_another_spec_counts_as_not_run(bench, key, value):
    """A run from before an edit of the registry does not count as the edited run.

    The table gives the reason.
    """
    reference(bench.workflow, "ghost.x", [{"row": "A", "value": 1.0}])
    publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0}, **{key: value})
    assert tidy_rows(bench) == []
    line = compared(bench)["A", ""]
    assert (line["verdict"], math.isnan(line["ours"])) == ("not run (stale run)", True)
    results = Results(bench, bench.artifact("ghost.x"), "laptop")
    assert results.frame(bench.artifact("ghost.x").cells[0], "series.csv").empty


@pytest.mark.parametrize(("key", "value"), OTHER)
def test_a_build_that_depends_on_a_stale_run_names_the_key(bench, key, value):
    """Snakemake may take the run for current if its own record of it was lost."""
    folder = publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0}, **{key: value})
    spec = json.loads((folder / "spec.json").read_text())
    del spec["blocks"]  # as before this option existed; its default applies
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(InputError) as error:
        refuse_stale(bench.run("laptop", "nets/a-s0"))
    message, run = str(error.value), "results/laptop/runs/nets/a-s0"
    assert message.startswith(f"{run}/spec.json: {key} is {value!r}, in the registry ")
    assert message.endswith(f"compute it again: snakemake --force {run}/metrics.csv")


def test_a_required_key_that_the_stored_spec_lacks_is_named(bench):
    """A key without a default, such as the batch size, counts as None."""
    run = bench.run("laptop", "nets/a-s0")
    folder = publish(run, {"test_accuracy": 1.0})
    spec = json.loads((folder / "spec.json").read_text())
    del spec["batch"]
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match=r"spec\.json: batch is None, in the registry 32;"):
        refuse_stale(run)


def test_what_several_processes_computed_names_each_code_and_commit(bench):
    """A run may be stopped and resumed with other code; uncommitted changes are marked as dirty."""
    folder = publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0}, code="bbbb0000")
    first, last = json.loads((folder / "env.json").read_text())
    processes = [{**first, "code": "aaaa0000", "commit": "1" * 40, "dirty": True}, last, last]
    (folder / "env.json").write_text(json.dumps(processes))
    (row,) = tidy_rows(bench)
    assert (row["code"], row["commit"]) == ("aaaa0000+bbbb0000", f"{'1' * 40}-dirty+{'0' * 40}")
    assert row["machine"] == "Linux x86_64, 2 cores, cpu"
    assert compared(bench)["A", ""]["code"] == table_code("aaaa0000+bbbb0000")


def test_tidy_accepts_a_run_from_before_an_option_existed(bench):
    """A spec.json that lacks a key which has a default is the same run."""
    folder = publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0})
    spec = json.loads(Path(folder, "spec.json").read_text())
    del spec["momentum"]
    Path(folder, "spec.json").write_text(json.dumps(spec))
    assert len(tidy_rows(bench)) == 1


DAMAGED = [
    ("spec.json", ""),
    ("spec.json", "[1]"),
    ("env.json", ""),
    ("env.json", "[]"),
    ("env.json", "[{}]"),
]
DAMAGED += [
    ("metrics.csv", text)
    for text in ("", "\n", "status\n", "status,test_accuracy\ndone,9", "status,a\ndone\n")
]


@pytest.mark.parametrize(("name", "text"), DAMAGED)
def test_tidy_names_a_damaged_file(bench, name, text):
    """The message starts with the file and gives the command that makes it again."""
    folder = publish(bench.run("laptop", "nets/a-s0"), {"test_accuracy": 1.0})
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=rf"^{re.escape(str(folder / name))}.*snakemake"):
        tidy_rows(bench)
