"""The ledger of claims: workflow/claims/*.yaml and claims.csv, read without torch or pandas."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ghostgrad.checks import InputError, load_yaml, nearest, shown, validate

FILES = ("ghost", "ghost_errata", "lalc", "bnres", "across")
VERDICTS = ("holds", "holds as corrected", "fails", "editorial", "not run")

Row = Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """One statement of a paper. `module` and `function` compute its comparisons; an editorial one has quotes."""

    id: str
    module: str
    function: str
    section: str
    statement: str
    paper: str = ""
    corrected: str = ""
    runs: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()

    @property
    def computed(self) -> bool:
        return not self.quotes


def load(workflow: Path) -> dict[str, Claim]:
    """Every claim, in the order of the files; InputError names what is wrong."""
    claims: dict[str, Claim] = {}
    for module in FILES:
        path = workflow / "claims" / f"{module}.yaml"
        if not path.exists():
            continue
        bodies = load_yaml(path)
        validate(bodies, "claims", shown(path))
        for name in bodies:
            claims[name] = _claim(name, module, bodies, shown(path))
    return claims


def _claim(name: str, module: str, bodies: Mapping[str, Mapping], where: str) -> Claim:
    body, source = dict(bodies[name]), name
    if like := body.pop("like", None):
        if like not in bodies:
            raise InputError(f"{where}: {name}.like: '{like}' is no claim{nearest(like, bodies)}")
        source, body = like, {**bodies[like], **body}
    for key in ("section", "statement"):
        if key not in body:
            raise InputError(f"{where}: {name}: key '{key}' is missing")
    ways = [key for key in ("paper", "quotes") if key in body]
    if len(ways) != 1:
        raise InputError(f"{where}: {name}: needs paper or quotes; found {' and '.join(ways) or 'neither'}")
    lists = {key: tuple(body.pop(key, ())) for key in ("runs", "quotes")}
    # ghost.prop3_8 -> prop3_8, E-G8 -> e_g8, X1 -> x1
    function = source.partition(".")[2] or source.replace("-", "_").lower()
    return Claim(name, module, function, **body, **lists)


def read(path: Path) -> list[Row]:
    """claims.csv; InputError where it has not been built."""
    if not path.exists():
        raise InputError(f"{path}: not built yet; build it with: snakemake {path}")
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def counts(rows: Iterable[Mapping]) -> str:
    """`12 holds, 30 holds as corrected, …`, each claim once."""
    verdicts = {row["id"]: row["verdict"].partition(" (")[0] for row in rows}
    number = Counter(verdicts.values())
    return ", ".join(f"{number[name]} {name}" for name in VERDICTS if number[name])
