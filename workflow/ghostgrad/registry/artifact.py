"""Artifacts: the tables, figures and claims of the papers, and the cells that runs fill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One place in an artifact: its labels, and the variant whose runs fill it."""

    row: str
    column: str
    experiment: str
    variant: str

    @property
    def label(self) -> str:
        """`row, column`, or the row alone where the artifact has no columns."""
        return f"{self.row}, {self.column}" if self.column else self.row


def paper_of(artifact_id: str) -> str:
    """The paper of an artifact: `ghost` for ghost.fig5 and for ghost0.fig1_left, from the same
    paper's shorter version."""
    return artifact_id.split(".")[0].removesuffix("0")


@dataclass(frozen=True, eq=False)
class Artifact:
    """One table, figure or claim of a paper, under its id in the list of artifacts."""

    id: str
    title: str
    section: str
    kind: str
    cells: tuple[Cell, ...] = ()
    table: str | None = None
    figure: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    caption: str = ""
    # The artifact that this one repeats by `like`, or itself.
    source: str = ""
    # The artifact whose file in workflow/reference/ applies: its own or, without one, its source's.
    reference: str = ""

    @property
    def paper(self) -> str:
        """The paper that the artifact belongs to."""
        return paper_of(self.id)

    @property
    def has_figure(self) -> bool:
        """True where a figure is drawn."""
        return self.figure is not None

    @property
    def has_table(self) -> bool:
        """True where a table is made."""
        return self.table is not None

    @property
    def definition(self) -> str:
        """JSON of everything, apart from files, that the table and the figure are made from.

        Snakemake compares this text with that of the last build, and redraws where it differs.
        """
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        values["cells"] = [astuple(cell) for cell in self.cells]
        return json.dumps(values, sort_keys=True)
