"""A table's four forms: CSV for machines; Markdown, HTML and LaTeX in the paper's shape, paper / ours in each cell.

Works on rows of plain text or numbers (dicts as csv.DictReader gives them), so that it imports neither torch nor
pandas.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

Row = Mapping[str, Any]

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
}
MARKS = {"match": "✓", "close": "≈", "off": "✗", "scaled": "scaled", "cited": "cited"}


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def figures(value: float, se: float = math.nan) -> str:
    """A number to the digits that its standard error supports, else to five significant ones."""
    if math.isnan(value):
        return ""
    if se > 0:
        digits = max(0, 1 - math.floor(math.log10(se)))
        if abs(value) < 1e5 and digits <= 9:
            return f"{value:.{digits}f} ± {se:.{digits}f}"
    text = f"{value:.5g}" if abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def printed(value: float, percentage: bool = False) -> str:
    """A paper's number as the paper prints it, up to six digits; measured percentages have one decimal at least."""
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if percentage and round(value, 1) == value else f"{value:.6g}"


def cell_text(row: Row) -> str:
    """`paper / ours mark` of one number."""
    unit = f" {row['unit']}" if row.get("unit") else ""
    relation = row.get("relation") or "="
    paper = printed(_float(row["paper"]), percentage=unit == " %" and relation == "=")
    ours, verdict = _float(row["ours"]), row["verdict"]
    left = f"{relation if relation != '=' else ''}{paper}{unit}" if paper else "–"
    if verdict.startswith("not run") or verdict == "cited":
        right = "cited" if verdict == "cited" else "not run"
        return f"{left} / {right}"
    diverged = int(_float(row["n_diverged"]) or 0) if row.get("n_diverged") not in ("", None) else 0
    right = "" if math.isnan(ours) else figures(ours, _float(row["ours_se"])) + unit
    if diverged:
        right = f"div ({diverged} of {int(_float(row['n']))})" + (f", {right}" if right else "")
    mark = MARKS.get(verdict, "" if verdict == "no paper value" else verdict)
    return f"{left} / {right}{' ' + mark if mark else ''}"


def pivot(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and body in the paper's shape: a line per row label, a column per column label and metric."""
    rows = list(rows)
    lines = list(dict.fromkeys(row["row"] for row in rows))
    columns = list(dict.fromkeys((row["column"], row["metric"]) for row in rows))
    cells = {(row["row"], row["column"], row["metric"]): cell_text(row) for row in rows}
    several = len({metric for _, metric in columns}) > 1

    def name(column: str, metric: str) -> str:
        metric = METRIC_NAMES.get(metric, metric)
        return ", ".join(part for part in (column, metric if several or not column else "") if part)

    header = ["", *(name(*column) for column in columns)]
    return header, [[line, *(cells.get((line, *column), "") for column in columns)] for line in lines]


def reasons(rows: Iterable[Row]) -> list[str]:
    """The distinct `not run (…)` verdicts."""
    return list(dict.fromkeys(row["verdict"] for row in rows if row["verdict"].startswith("not run")))


LEGEND = (
    "Each cell: the paper's number / ours ± one standard error. ✓ match, ≈ close (within twice the tolerance), ✗ off; "
    "scaled: data, size or length are smaller than the paper's, shown but not judged."
)


def footer(rows: list[Row], scale: str) -> str:
    """Scale, counts and reasons under a table."""
    numbers = [
        int(_float(row["n"])) for row in rows if row.get("n") not in ("", None) and not math.isnan(_float(row["n"]))
    ]
    counts = f" n = {min(numbers)}" + (f" to {max(numbers)}" if max(numbers) > min(numbers) else "") if numbers else ""
    codes = sorted({row["code"] for row in rows if row.get("code")})
    parts = [f"Scale: {scale}.{counts + '.' if counts else ''}", *[reason + "." for reason in reasons(rows)]]
    if codes:
        parts.append(f"Code {', '.join(codes)}.")
    return " ".join(parts)


def markdown(title: str, rows: list[Row], scale: str) -> str:
    """GitHub-flavoured Markdown."""
    header, body = pivot(rows)
    lines = [[text.replace("|", r"\|") for text in line] for line in [header, ["---"] * len(header), *body]]
    lines = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([f"### {title}", "", *lines, "", footer(rows, scale), "", LEGEND, ""])


def html_page(title: str, rows: list[Row], scale: str) -> str:
    """A page of its own, offline, with the verdict as the cell's colour and its numbers on hover."""
    header, _ = pivot(rows)
    lines = list(dict.fromkeys(row["row"] for row in rows))
    columns = list(dict.fromkeys((row["column"], row["metric"]) for row in rows))
    cells = {(row["row"], row["column"], row["metric"]): row for row in rows}
    out = ["<thead><tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in header) + "</tr></thead><tbody>"]
    for line in lines:
        out.append(f"<tr><th>{html.escape(line)}</th>")
        for column in columns:
            row = cells.get((line, *column))
            if row is None:
                out.append("<td></td>")
                continue
            kind = row["verdict"].split(" (")[0].replace(" ", "-")
            hint = f"{row['verdict']}; {row['source']}" + (f"; code {row['code']}" if row.get("code") else "")
            out.append(f'<td class="{kind}" title="{html.escape(hint)}">{html.escape(cell_text(row))}</td>')
        out.append("</tr>")
    body = "".join(out) + "</tbody>"
    return PAGE.format(title=html.escape(title), body=body, footer=html.escape(footer(rows, scale)), legend=LEGEND)


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; }}
h1 {{ font-size: 1.2rem; }} p {{ max-width: 60rem; color: #555; font-size: .85rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; border-top: 2px solid #222;
  border-bottom: 2px solid #222; }}
th, td {{ padding: .3rem .8rem; text-align: right; white-space: nowrap; }}
th:first-child {{ text-align: left; }} thead th {{ border-bottom: 1px solid #222; }}
.match {{ background: #e3f1e6; }} .close {{ background: #fbf3d9; }} .off {{ background: #f8dedb; }}
.not-run, .cited {{ color: #888; }}
</style></head><body><h1>{title}</h1><table>{body}</table><p>{footer}</p><p>{legend}</p></body></html>
"""


def latex(title: str, rows: list[Row], scale: str) -> str:
    """A table float with its caption (packages booktabs and amssymb)."""
    header, body = pivot(rows)
    lines = [" & ".join(_tex(text) for text in line) + r" \\" for line in [header, *body]]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(title)}. {_tex(LEGEND)} {_tex(footer(rows, scale))}}}",
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "–": "--", "√": r"$\surd$", "α": r"$\alpha$"}
_TEX |= {"²": "$^2$", "′": "$'$", "₁": "$_1$", "ᵖ": "$^p$", "~": r"$\sim$", "<": "$<$", ">": "$>$", "^": r"\^{}"}
_TEX |= {"✓": r"$\checkmark$", "≈": r"$\approx$", "✗": r"$\times$"}
_TEX |= {"{": r"\{", "}": r"\}", "$": r"\$", "\\": r"\textbackslash{}"}


def _tex(text: str) -> str:
    """Escaped for LaTeX, symbols such as R_f in mathematics."""
    parts = re.split(r"(?<!\w)([A-Za-z]_[A-Za-z])(?!\w)", text)
    escaped = ("".join(_TEX.get(character, character) for character in part) for part in parts[::2])
    return "".join(plain + f"${symbol}$" * bool(symbol) for plain, symbol in zip_longest(escaped, parts[1::2]))
