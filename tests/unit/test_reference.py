"""The files workflow/reference/*.csv: a row that its table does not have, or that cannot be read,
is refused, and the error names its line."""

from __future__ import annotations

import pytest

from ghostgrad.checks import InputError
from ghostgrad.registry.reference import COLUMNS, read_reference, table_keys
from ghostgrad.registry.registry import Registry, load_registry
from tests.unit.fabricate import CLAIM, CLASSIFY, experiment, one_line, reference, workflow

OPTIONS = {"table": {"metrics": ["test_accuracy", "train_accuracy"]}}
TABLE = {"title": "T", "section": "s", "table": "final_metrics", "options": OPTIONS}
ROWS = {"SGD": {"128": "nets/a", "4k": "nets/b"}, "LALC": {"128": "nets/c"}}
SGD = {"row": "SGD", "column": "128", "value": 92.5}


def folder(tmp_path, rows, name="ghost.x"):
    """A workflow folder with a table of three cells, its repetition ghost.y, a figure and a claim,
    and with these rows as the reference numbers of `name`."""
    variants = {"a": {}, "b": {"batch": 32}, "c": {"batch": 16}}
    nets = experiment(task="classify", base=dict(CLASSIFY), variants=variants)
    artifacts = {
        "ghost.x": {**TABLE, "rows": ROWS},
        "ghost.y": {"title": "T", "section": "s", "like": "ghost.x"},
        "ghost.curve": {
            "title": "T",
            "section": "s",
            "figure": "accuracy_curves",
            "rows": {"A": "nets/a"},
        },
    }
    claims = {"ghost.rem3_16": {**CLAIM, "title": "T"}}
    path = workflow(tmp_path / "workflow", {"nets": nets}, artifacts, claims)
    reference(path, name, rows)
    return path


DIFFERENCE = {"row": "gain", "value": 1.0, "minus": "SGD|128 minus LALC|128"}
ACCEPTED = {
    "a number of each metric": [SGD, {**SGD, "metric": "train_accuracy"}],
    "another cell": [{**SGD, "column": "4k"}, {**SGD, "row": "LALC"}],
    "a difference under its own label": [DIFFERENCE],
    "a difference in its own column": [{**DIFFERENCE, "row": "SGD", "column": "gain"}],
    "nothing": [],
}


@pytest.mark.parametrize("rows", ACCEPTED.values(), ids=ACCEPTED)
def test_rows_of_the_table(tmp_path, rows):
    assert Registry(folder(tmp_path, rows)).artifacts


REFUSED = {
    "row": (
        {**SGD, "row": "SDG"},
        "row: 'SDG' is not in the table of ghost.x; did you mean 'SGD'?",
    ),
    "column": (
        {**SGD, "column": "4"},
        "column: '4' is not in the table of ghost.x; did you mean '4k'?",
    ),
    "column of another row": (
        {**SGD, "row": "LALC", "column": "4k"},
        "column: '4k' is not in the table of ghost.x; valid: 128",
    ),
    "no column": (
        {**SGD, "column": ""},
        "column: '' is not in the table of ghost.x; valid: 128, 4k",
    ),
    "metric": (
        {**SGD, "metric": "test_acuracy"},
        "metric: 'test_acuracy' is not in the table of ghost.x; did you mean 'test_accuracy'?",
    ),
    "term of a difference": (
        {**DIFFERENCE, "minus": "SGD|128 minus LACL|128"},
        "minus: row: 'LACL' is not in the table of ghost.x; did you mean 'LALC'?",
    ),
    "metric of a difference": (
        {**DIFFERENCE, "metric": "top1"},
        "minus: metric: 'top1' is not in the table of ghost.x; "
        "valid: test_accuracy, train_accuracy",
    ),
    "difference in the place of a cell": (
        {**SGD, "minus": "SGD|4k minus LALC|128"},
        "a difference needs its own label; 'SGD, 128' is a cell of ghost.x",
    ),
    "negative tolerance": ({**SGD, "tolerance": -5}, "tolerance: -5 is less than 0"),
    "negative deviation": ({**SGD, "std": -0.1}, "std: -0.1 is less than 0"),
    **{
        f"{name} {text}": (
            {**SGD, name: text},
            f"{name}: '{text}' is not a number; write 1072.5 for 1,072.5",
        )
        for name, text in (
            ("value", "inf"),
            ("value", "nan"),
            ("value", "1e400"),
            ("value", "1_000"),
            ("value", "１２"),
            ("tolerance", "inf"),
        )
    },
}


@pytest.mark.parametrize(("row", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_row_that_the_table_does_not_have(tmp_path, row, expected):
    """Accepted, it would add a row to the table, and the intended row would lack its number."""
    with pytest.raises(InputError) as error:
        Registry(folder(tmp_path, [{**SGD, "column": "4k"}, row]))
    assert one_line(error) == f"{tmp_path}/workflow/reference/ghost.x.csv, line 3: {expected}"


def test_a_number_twice(tmp_path):
    with pytest.raises(InputError) as error:
        Registry(folder(tmp_path, [SGD, {**SGD, "column": "4k"}, {**SGD, "value": 90.0}]))
    assert one_line(error).endswith(
        "ghost.x.csv, line 4: duplicate of line 2 (SGD, 128, test_accuracy)"
    )


UNREAD = {
    "ghost.xx": "no artifact 'ghost.xx'; did you mean 'ghost.x'?",
    "ghost.curve": "ghost.curve has no table; its numbers would not be read",
    "ghost.rem3_16": "the table of ghost.rem3_16 has the comparisons of a claim; "
    "its numbers would not be read",
}


@pytest.mark.parametrize(("name", "expected"), UNREAD.items())
def test_a_file_that_no_table_reads(tmp_path, name, expected):
    with pytest.raises(InputError) as error:
        Registry(folder(tmp_path, [SGD], name))
    assert one_line(error) == f"{tmp_path}/workflow/reference/{name}.csv: {expected}"


def test_an_artifact_that_repeats_another_may_have_its_own_numbers(tmp_path):
    """ghost.y is like ghost.x, and reads ghost.x.csv unless there is a ghost.y.csv."""
    shared = Registry(folder(tmp_path / "shared", [SGD]))
    assert shared.artifact("ghost.y").reference == "ghost.x"
    registry = Registry(folder(tmp_path / "own", [SGD], "ghost.y"))
    assert [registry.artifact(name).reference for name in ("ghost.x", "ghost.y")] == [
        "ghost.x",
        "ghost.y",
    ]
    assert registry.artifact("ghost.y").source == "ghost.x"


BROKEN = {
    "header": (
        "row,column,metric,unit,relation,minus,vlaue",
        f": columns: expected {','.join(COLUMNS)}, found 'vlaue'; did you mean 'value'?",
    ),
    "number": (
        'A,,m,,=,,"1,072",,,,,printed,b,s',
        ", line 2: value: '1,072' is not a number; write 1072.5 for 1,072.5",
    ),
    "fields": (
        "A,,m,,=,,1,072,,,,,printed,b,s",
        ", line 2: expected 14 fields, found 15; put text that contains a comma in quotes",
    ),
    "relation": (
        "A,,m,,==,,1,,,,,printed,b,s",
        ", line 2: relation: '==' is not allowed; did you mean '='?",
    ),
    "provenance": (
        "A,,m,,=,,1,,,,,pritned,b,s",
        ", line 2: provenance: 'pritned' is not allowed; did you mean 'printed'?",
    ),
    "no provenance": (
        "A,,m,,=,,1,,,,,,b,s",
        ", line 2: provenance: '' is not allowed; valid: derived, ours, printed, restored",
    ),
    "no basis": (
        "A,,m,,=,,1,,,,,derived,,s",
        ", line 2: basis: is empty; say what a derived number rests on",
    ),
    "minus": (
        "A,,m,,=,B|,1,,,,,printed,b,s",
        ", line 2: minus: 'B|' is not of the form row|column minus row|column",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line(tmp_path, text, expected):
    """The error names the file, the line and the column, and says what is wrong."""
    path = folder(tmp_path, []) / "reference" / "ghost.x.csv"
    header = ",".join(COLUMNS)
    path.write_text(text + "\n" if text.startswith("row") else f"{header}\n{text}\n")
    with pytest.raises(InputError) as error:
        Registry(tmp_path / "workflow")
    assert one_line(error) == f"{path}{expected}"


def test_a_file_in_another_encoding_is_one_line(tmp_path):
    """A spreadsheet program may have saved the file in Latin-1."""
    path = folder(tmp_path, []) / "reference" / "ghost.x.csv"
    path.write_bytes("row,Größe\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"ghost\.x\.csv: not UTF-8; save the file as UTF-8$"):
        read_reference(path)


# Artifact -> a row of its table that comes from the table function and not from a cell.
DERIVED = {
    "ghost.fig6": ("ReLU + BN", "", "alpha"),
    "ghost.c3": ("ResNet20 to ResNet40", "", "exponent"),
    "ghost.eq1": ("SELU", "", "as_printed"),
    "ghost.c1_maxpool": ("2x2 max-pool", "", "R_b"),
    "lalc.tab_eta": ("LARS, best", "4k", "eta"),
    "lalc.fig3": ("VGG-like-51", "", "weight_offset, step 1,950"),
    "bnres.fig13": ("Model-1", "", "largest at step 25,000"),
}


@pytest.mark.parametrize(("name", "key"), DERIVED.items())
def test_rows_and_metrics_that_a_table_function_declares(name, key):
    assert key in table_keys(load_registry().artifact(name))


def test_every_table_function_declares_what_it_reports():
    """If a table had no row, its artifact could have no number of the paper."""
    tables = [artifact for artifact in load_registry().artifacts.values() if artifact.has_table]
    assert [
        artifact.id for artifact in tables if artifact.table != "claim" and not table_keys(artifact)
    ] == []
