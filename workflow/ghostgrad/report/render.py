"""The forms in which people read a table: Markdown, HTML and LaTeX, `paper / ours` in each cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ghostgrad.report.cells import Record, TableRow, arrange, cell_text, footer, parse_row, pivot
from ghostgrad.report.pages import render_page
from ghostgrad.report.verdicts import LEGEND, css_class


def render_markdown(title: str, records: Sequence[Record], scale: str) -> str:
    """A table of GitHub-flavored Markdown with its title, footer and legend."""
    header, body = pivot(records)
    lines = [_markdown_line(cells) for cells in (header, ["---"] * len(header), *body)]
    return "\n".join([f"### {title}", "", *lines, "", footer(records, scale), "", LEGEND, ""])


def _markdown_line(cells: Sequence[str]) -> str:
    # A bar ends a cell, so that E|x| has to be escaped.
    return "| " + " | ".join(text.replace("|", r"\|") for text in cells) + " |"


def render_html(title: str, records: Sequence[Record], scale: str) -> str:
    """An offline page. The verdict colors a cell; its source and code are shown on hover."""
    grid = arrange([parse_row(record) for record in records])
    return render_page(
        "table",
        title=title,
        header=grid.header,
        lines=[(label, [_html_cell(row) for row in rows]) for label, rows in grid.lines],
        footer=footer(records, scale),
        legend=LEGEND,
    )


def _html_cell(row: TableRow | None) -> dict[str, str] | None:
    if row is None:
        return None
    hint = f"{row.verdict}; {row.source}"
    if row.code:
        hint += f"; code {row.code}"
    return {"kind": css_class(row.verdict), "hint": hint, "text": cell_text(row)}


def render_latex(title: str, records: Sequence[Record], scale: str) -> str:
    """A table float with its caption, for a document that loads booktabs and amssymb."""
    header, body = pivot(records)
    header_line, *lines = [
        " & ".join(escape_latex(text) for text in cells) + r" \\" for cells in (header, *body)
    ]
    caption = (
        f"{escape_latex(title)}. {escape_latex(LEGEND)} {escape_latex(footer(records, scale))}"
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
            header_line,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


LATEX = {
    # characters that are commands
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"$\sim$",
    "<": "$<$",
    ">": "$>$",
    # characters that pdfTeX does not know without packages
    "±": r"$\pm$",
    "–": "--",
    "√": r"$\surd$",
    "α": r"$\alpha$",
    "²": "$^2$",
    "′": "$'$",
    "₁": "$_1$",
    "ᵖ": "$^p$",
    "✓": r"$\checkmark$",
    "≈": r"$\approx$",
    "✗": r"$\times$",
}
SYMBOL = re.compile(r"(?<!\w)([A-Za-z]_[A-Za-z])(?!\w)")


def escape_latex(text: str) -> str:
    """Text for LaTeX; symbols such as R_f become mathematics."""
    parts = SYMBOL.split(text)  # text, symbol, text, …, text
    escaped = []
    for index, part in enumerate(parts):
        if index % 2:
            escaped.append(f"${part}$")
        else:
            escaped.append("".join(LATEX.get(character, character) for character in part))
    return "".join(escaped)
