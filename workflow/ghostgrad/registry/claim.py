"""The papers' claims: definitions in workflow/claims/*.yaml, and verdicts in claims.csv.

Imports neither torch nor pandas.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostgrad.checks import (
    InputError,
    display_path,
    load_yaml,
    nearest,
    refuse_unknown_files,
    validate,
)
from ghostgrad.registry.inherit import resolve_like
from ghostgrad.registry.schemas import claims_schema
from ghostgrad.registry.signatures import claim_functions

MODULES = ("ghost", "ghost_errata", "lalc", "bnres", "across")  # of ghostgrad/claims, a file each
VERDICTS = ("holds", "holds as corrected", "fails", "editorial", "not run")

Bodies = Mapping[str, Mapping[str, Any]]  # the claims of a file, as YAML has them
Row = Mapping[str, str]  # of claims.csv


@dataclass(frozen=True)
class Claim:
    """One statement of a paper.

    `function` of ghostgrad/claims/`module`.py computes the comparisons that decide it; an erratum
    of wording has `quotes` instead. A claim with a `title` is an artifact too: its table shows the
    comparisons, unless `artifact` (keys as below `artifacts` in workflow/experiments/) says what
    else is shown.
    """

    id: str
    module: str
    function: str
    where: str  # file and key, for error messages
    section: str
    statement: str
    title: str = ""
    paper: str = ""
    corrected: str = ""
    runs: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    artifact: Mapping[str, Any] = field(default_factory=dict)

    @property
    def computed(self) -> bool:
        """True for a claim that a function decides, False for an erratum of wording."""
        return not self.quotes


def load_claims(workflow: Path) -> dict[str, Claim]:
    """Every claim, in the order of the files; InputError names the file and key of a mistake."""
    claims: dict[str, Claim] = {}
    refuse_unknown_files(workflow / "claims", MODULES)
    for module in MODULES:
        path = workflow / "claims" / f"{module}.yaml"
        if not path.exists():
            continue
        bodies = load_yaml(path)
        validate(bodies, claims_schema(), display_path(path))
        for name in bodies:
            where = f"{display_path(path)}: {name}"
            if name in claims:
                raise InputError(f"{where}: duplicate claim, also in {claims[name].where}")
            claims[name] = _claim(name, module, bodies, where)
    return claims


def _claim(name: str, module: str, bodies: Bodies, where: str) -> Claim:
    # A claim that repeats another is no second artifact.
    source, body = resolve_like("claim", name, bodies, where, ("title", "artifact"))
    for key in ("section", "statement"):
        if key not in body:
            raise InputError(f"{where}: key '{key}' is missing")
    kinds = [key for key in ("paper", "quotes") if key in body]
    if len(kinds) != 1:
        found = "both" if kinds else "neither"
        raise InputError(f"{where}: expected either paper or quotes, found {found}")
    if "artifact" in body and "title" not in body:
        raise InputError(f"{where}: key 'title' is missing; an artifact needs one")
    # ghost.prop3_8 -> prop3_8, E-G8 -> e_g8, X1 -> x1
    function = source.partition(".")[2] or source.replace("-", "_").lower()
    known = claim_functions(module)
    if "quotes" not in body and function not in known:
        place = f"ghostgrad/claims/{module}.py"
        raise InputError(f"{where}: no function '{function}' in {place}{nearest(function, known)}")
    for key in ("runs", "quotes"):
        body[key] = tuple(body.get(key, ()))
    return Claim(id=name, module=module, function=function, where=where, **body)


def read_claims_csv(path: Path) -> list[Row]:
    """The rows of claims.csv, one per comparison; InputError where it has not been built."""
    if not path.exists():
        raise InputError(f"{path}: not built yet; build it with: snakemake {path}")
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def count_verdicts(rows: Iterable[Row]) -> str:
    """`12 holds, 30 holds as corrected, …`; a claim with several comparisons counts once."""
    verdicts = {row["id"]: row["verdict"].partition(" (")[0] for row in rows}
    number = Counter(verdicts.values())
    return ", ".join(f"{number[name]} {name}" for name in VERDICTS if number[name])
