"""From the rows of a table's CSV to the texts of its cells, in the shape that the paper gives it.

Rows come from a DataFrame or from a file, so their values are numbers or text. Imports neither
torch nor pandas, because `ghostgrad show` prints tables where loading those would take longer than
everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.verdict import PROVENANCE, SIGNS, mark, sign

Record = Mapping[str, object]

METRIC_NAMES = {
    "rate": "factor per layer",
    "growth": "growth g₁/g_L",
    "alpha": "α = √r",
    "largest_deviation": "largest deviation",
    "R2_exponential": "R² exponential",
    "R2_linear": "R² linear",
    "variance_rate": "variance factor per module",
    "norm_rate": "norm factor per module",
    "test_accuracy": "test accuracy",
    "best_test_accuracy": "best test accuracy",
    "first_block_rate": "R_b/R_f of the first block",
    "first_block_formula": "formula, first block",
    "last_block_rate": "R_b/R_f of the last block",
    "last_block_formula": "formula, last block",
    "exponent": "exponent p, growth ~ Lᵖ",
    "r": "r = E[s′²]/Var[s]",
    "sqrt_r": "√r",
    "as_printed": "E[s′]²/Var[s], as printed",
    "R_f": "R_f",
    "R_b": "R_b",
    "train_accuracy": "training accuracy",
    "top1": "top-1 accuracy",
    "input_variance": "variance of the input",
    "dropped_variance": "variance with a random half dropped",
    "relu_variance": "variance of the positive part",
    "sample_gradient_variance": "variance of a sample's gradient",
    "conv_activation_variance": "variance behind convolution",
    "norm_activation_variance": "variance behind BN",
    "act_activation_variance": "variance behind ReLU",
    "conv_gradient_variance": "variance of the gradient behind convolution",
    "weight_variance": "variance of the weights",
    "weight_offset": "|mean|/std of the weights",
    "act_activation_offset": "|mean|/std behind ReLU",
    "conv_gradient_offset": "|mean|/std of the gradient behind convolution",
    "norm_activation_gradient_correlation": "correlation of activation and gradient behind BN",
    "act_activation_correlation": "correlation of activations behind ReLU",
}


def metric_name(metric: str) -> str:
    """What people read in place of a metric's name, with the step if it has one."""
    base, *step = metric.split(", step ", 1)
    return ", step ".join([METRIC_NAMES.get(base, base), *step])


def parse_number(value: object) -> float:
    """The number in a cell of the CSV; NaN where it is empty."""
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number raises, as intended
    except (TypeError, ValueError):
        return math.nan


def _parse_count(value: object) -> int | None:
    number = parse_number(value)
    return None if math.isnan(number) else int(number)


@dataclass(frozen=True)
class TableRow:
    """One number of a statement or of ours: a row of the CSV, a cell of the table. Numbers that do
    not exist are NaN, counts None."""

    row: str
    column: str
    metric: str
    unit: str
    relation: str
    reference: float
    provenance: str
    basis: str
    ours: float
    ours_se: float
    tolerance: float
    n: int | None
    n_diverged: int | None
    verdict: str
    source: str
    code: str

    @property
    def place(self) -> tuple[str, str, str]:
        return self.row, self.column, self.metric


def parse_row(record: Record) -> TableRow:
    """A row of the CSV; columns that only machines read are left out."""
    return TableRow(
        row=str(record["row"]),
        column=str(record["column"]),
        metric=str(record["metric"]),
        unit=str(record["unit"]),
        relation=str(record["relation"]),
        reference=parse_number(record["reference"]),
        provenance=str(record["provenance"]),
        basis=str(record["basis"]),
        ours=parse_number(record["ours"]),
        ours_se=parse_number(record["ours_se"]),
        tolerance=parse_number(record["tolerance"]),
        n=_parse_count(record["n"]),
        n_diverged=_parse_count(record["n_diverged"]),
        verdict=str(record["verdict"]),
        source=str(record["source"]),
        code=str(record["code"]),
    )


def format_estimate(value: float, se: float = math.nan, digits_without_error: int = 5) -> str:
    """A number of ours with its standard error, both to the second digit of the error; five
    significant digits where there is no error, and nothing for NaN."""
    if math.isnan(value):
        return ""
    if se > 0:
        digits = max(0, 1 - math.floor(math.log10(se)))
        if abs(value) < 1e5 and digits <= 9:
            return f"{value:.{digits}f} ± {se:.{digits}f}"
    text = f"{value:.{digits_without_error}g}" if abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def format_paper_value(value: float, percentage: bool = False) -> str:
    """A number as the paper prints it, up to six significant digits; percentages have one decimal,
    unless the paper prints more. Nothing for NaN."""
    if math.isnan(value):
        return ""
    if percentage and round(value, 1) == value:
        return f"{value:.1f}"
    return f"{value:.6g}"


def reference_text(row: TableRow) -> str:
    """`≥70 %‡`: the number beside ours with its relation and the mark of its provenance; a dash
    where there is none."""
    if math.isnan(row.reference):
        return "–"
    relation = "" if row.relation == "=" else SIGNS[row.relation]
    # A bound such as "higher than 70 %" is a round number in the paper's text.
    number = format_paper_value(row.reference, percentage=row.unit == "%" and not relation)
    unit = f" {row.unit}" if row.unit else ""
    return f"{relation}{number}{unit}{mark(row.provenance)}"


def ours_text(row: TableRow) -> str:
    """Our number with its standard error; of a single run without one only three digits, because
    nothing says how many more there are."""
    unit = f" {row.unit}" if row.unit else ""
    text = ""
    if not math.isnan(row.ours):
        text = format_estimate(row.ours, row.ours_se, 3 if row.n == 1 else 5) + unit
    if row.n_diverged:
        # Runs that diverged early leave no number.
        diverged = f"div ({row.n_diverged} of {row.n})"
        text = f"{diverged}, {text}" if text else diverged
    return text


def cell_text(row: TableRow) -> str:
    """`reference / ours ± standard error ✓`."""
    if row.verdict.startswith("not run"):
        return f"{reference_text(row)} / not run"
    text = f"{reference_text(row)} / {ours_text(row)}"
    return f"{text} {sign(row.verdict)}".rstrip()


MOST_COLUMNS = 8  # a table with a single line and more columns becomes a list


@dataclass(frozen=True)
class Grid:
    """A table in the paper's shape. A line is its label and one row of the CSV per column, None
    where there is none; `header` begins with the empty name of the labels' column."""

    header: list[str]
    lines: list[tuple[str, list[TableRow | None]]]


def arrange(rows: Sequence[TableRow], headings: Mapping[str, str] | None = None) -> Grid:
    """A line per row label, a column per column label and metric, in the order of the CSV.

    `headings` has the headings of columns that are not headed by their label.
    """
    columns = list(dict.fromkeys((row.column, row.metric) for row in rows))
    by_place = {row.place: row for row in rows}
    # One metric is named only where no column label says what is measured.
    several_metrics = len({metric for _, metric in columns}) > 1
    header = [""]
    for column, metric in columns:
        heading = (headings or {}).get(column, column)
        names = [heading, metric_name(metric) if several_metrics or not column else ""]
        header.append(", ".join(name for name in names if name))
    labels = dict.fromkeys(row.row for row in rows)
    if len(labels) == 1 and len(columns) > MOST_COLUMNS:
        # A single line of many numbers is read as a list.
        [label] = labels
        headed = zip(header[1:], columns, strict=True)
        places = [(heading, (label, *column)) for heading, column in headed]
        return Grid(["", label], [(heading, [by_place.get(place)]) for heading, place in places])
    lines = [
        (label, [by_place.get((label, column, metric)) for column, metric in columns])
        for label in labels
    ]
    return Grid(header, lines)


def pivot(
    records: Iterable[Record], headings: Mapping[str, str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """The header and the lines of a table as texts, from the rows of its CSV."""
    grid = arrange([parse_row(record) for record in records], headings)
    body = [[label, *(cell_text(row) if row else "" for row in rows)] for label, rows in grid.lines]
    return grid.header, body


def footer(records: Iterable[Record], scale: str) -> str:
    """The line under a table: its scale, how many runs or repeats are behind a number, within which
    tolerance it is judged, why cells are open or were not run, and the hashes of the code."""
    rows = [parse_row(record) for record in records]
    parts = [f"Scale: {scale}."]
    if counts := [row.n for row in rows if row.n is not None]:
        low, high = min(counts), max(counts)
        parts.append(f"n = {low} to {high}." if high > low else f"n = {low}.")
    if tolerances := _tolerances(rows):
        parts.append(f"Tolerance: {tolerances}.")
    reasons = [
        row.verdict for row in rows if row.verdict.startswith(("open (", "not run (", "fails ("))
    ]
    parts += [f"{reason}." for reason in dict.fromkeys(reasons)]
    if codes := sorted({row.code for row in rows if row.code}):
        parts.append(f"Code {', '.join(codes)}.")
    return " ".join(parts)


ROUNDING = 1e-6  # smaller tolerances allow for rounding only, and are not shown


def _tolerances(rows: Iterable[TableRow]) -> str:
    """`±0.5 % (top1), ±0.0018 to ±0.011 (factor per layer)`, by metric; empty for exact numbers."""
    by_metric: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if not math.isnan(row.reference) and row.tolerance > ROUNDING:
            by_metric.setdefault((row.metric, row.unit), []).append(row.tolerance)
    texts = []
    for (metric, unit), values in by_metric.items():
        low, high = f"±{min(values):.2g}", f"±{max(values):.2g}"
        text = low if low == high else f"{low} to {high}"
        name = metric_name(metric)
        texts.append(" ".join(filter(None, (text, unit, f"({name})" if name else ""))))
    return ", ".join(texts)


def provenance_notes(records: Iterable[Record]) -> list[str]:
    """`* derived: eq. 1 for N(0, 1) inputs`: what each marked number rests on, once each."""
    rows = [parse_row(record) for record in records]
    notes = dict.fromkeys((row.provenance, row.basis) for row in rows if mark(row.provenance))
    return [
        f"{mark(provenance)} {provenance}: {name_papers(basis)}"
        for provenance in PROVENANCE
        for known, basis in notes
        if known == provenance
    ]
