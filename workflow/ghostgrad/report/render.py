"""The forms in which people read a table: Markdown, HTML and LaTeX.

A cell is `reference / ours`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ghostgrad.registry.papers import name_papers
from ghostgrad.registry.verdict import LEGEND, SIGNS
from ghostgrad.report.cells import (
    Record,
    TableRow,
    arrange,
    cell_text,
    footer,
    format_paper_value,
    parse_row,
    pivot,
    provenance_notes,
)
from ghostgrad.report.pages import render_page
from ghostgrad.report.verdicts import css_class

Headings = Mapping[str, str] | None  # of columns that are not headed by their label


def render_markdown(
    title: str, records: Sequence[Record], scale: str, headings: Headings = None
) -> str:
    """A table of GitHub-flavored Markdown with its title, notes, footer and legend."""
    header, body = pivot(records, headings)
    lines = [_markdown_line(cells) for cells in (header, ["---"] * len(header), *body)]
    notes = [f"- {escape_markdown(note)}" for note in provenance_notes(records)]
    if notes:
        notes.append("")
    below = [footer(records, scale), "", escape_markdown(LEGEND), ""]
    return "\n".join([f"### {title}", "", *lines, "", *notes, *below])


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(text) for text in cells) + " |"


def escape_markdown(text: str) -> str:
    """Text for a cell or a line of Markdown."""
    # A bar ends a cell, so that E|x| has to be escaped; an asterisk would begin emphasis.
    return text.replace("|", r"\|").replace("*", r"\*")


def render_html(
    title: str, records: Sequence[Record], scale: str, headings: Headings = None
) -> str:
    """An offline page. The verdict colors a cell; whose number it is, the tolerance and the code
    are shown on hover."""
    grid = arrange([parse_row(record) for record in records], headings)
    return render_page(
        "table",
        title=title,
        header=grid.header,
        lines=[(label, [_html_cell(row) for row in rows]) for label, rows in grid.lines],
        notes=provenance_notes(records),
        footer=footer(records, scale),
        legend=LEGEND,
    )


def _html_cell(row: TableRow | None) -> dict[str, str] | None:
    if row is None:
        return None
    parts = [row.verdict]
    if row.provenance:
        number = f"{SIGNS[row.relation]} {format_paper_value(row.reference)}".strip()
        parts.append(f"{number} is {row.provenance}: {name_papers(row.basis)}")
    if row.tolerance > 0:
        parts.append(f"tolerance ±{row.tolerance:.2g}")
    parts.append(name_papers(row.source))
    if row.code:
        parts.append(f"code {row.code}")
    return {"kind": css_class(row.verdict), "hint": "; ".join(parts), "text": cell_text(row)}


def render_latex(
    title: str, records: Sequence[Record], scale: str, headings: Headings = None
) -> str:
    """A table float with its caption and notes, for a document that loads booktabs and amssymb."""
    header, body = pivot(records, headings)
    header_line, *lines = [
        " & ".join(escape_latex(text) for text in cells) + r" \\" for cells in (header, *body)
    ]
    caption = (
        f"{escape_latex(title)}. {escape_latex(LEGEND)} {escape_latex(footer(records, scale))}"
    )
    notes = [rf"\par\footnotesize {escape_latex(note)}" for note in provenance_notes(records)]
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
            *notes,
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
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "○": r"$\circ$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
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
