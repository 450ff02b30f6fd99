"""HTML pages from the Jinja2 templates in workflow/report.

A page is one file that is read offline, from a report or from a cluster's file system: the style
sheet is included in it, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

# Templates are part of the workflow, as the report's captions are, and not of the package.
TEMPLATES = Path(__file__).resolve().parents[2] / "report"
SHARED = ("base.html.j2", "style.css")  # of all pages


def template_files(page: str) -> list[Path]:
    """The files from which a page is made, for Snakemake: editing one renews the page."""
    return [TEMPLATES / name for name in (f"{page}.html.j2", *SHARED)]


@cache
def _environment() -> Environment:
    # Imported here because `ghostgrad status` and `show` render no page.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(page: str, **values: object) -> str:
    """The page `table`, `claims` or `artifacts`; `values` are the variables of its template.
    Text is escaped; a variable that the template names and `values` lacks raises an error."""
    return _environment().get_template(f"{page}.html.j2").render(values)
