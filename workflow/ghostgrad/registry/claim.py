"""The papers' claims: definitions in workflow/claims/*.yaml, and verdicts in claims.csv.

Imports neither torch nor pandas.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
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
from ghostgrad.registry.verdict import (
    PROVENANCE,
    SIGNS,
    VERDICTS,
    count_verdicts,
    without_reason,
)

# Each of these modules of ghostgrad/claims has a YAML file of its name in workflow/claims.
MODULES = (
    "ghost",
    "ghost_curves",
    "ghost_images",
    "ghost_errata",
    "lalc",
    "lalc_training",
    "bnres",
    "bnres_training",
    "across",
)

# The columns of claims.csv: those of a claim around those of one of its comparisons.
NUMBER_COLUMNS = """comparison relation reference provenance basis ours ours_se tolerance outcome
corrected_relation corrected corrected_outcome""".split()
CLAIM_COLUMNS = [
    *"id section statement stated_relation conditions verdict".split(),
    *NUMBER_COLUMNS,
    *"corrected_form follows_from rests_on evidence code scale".split(),
]

Bodies = Mapping[str, Mapping[str, Any]]  # the claims of a file, as YAML has them
Row = Mapping[str, str]  # of claims.csv


@dataclass(frozen=True)
class NumberSource:
    """Where the numbers of some comparisons come from.

    `names` is the name of a comparison, in which `*` stands for any text. `provenance` is a word of
    `verdict.PROVENANCE`, and `basis` what belongs to it: the words of the paper for a printed
    number; the formula and its conditions for a derived one; the reasons, and what else it could
    be, for a restored one; why we chose it for a threshold of ours.
    """

    names: str
    provenance: str
    basis: str

    def covers(self, comparison: str) -> bool:
        """True if this is the source of the comparison's number."""
        pattern = ".*".join(re.escape(part) for part in self.names.split("*"))
        return re.fullmatch(pattern, comparison) is not None


@dataclass(frozen=True)
class Claim:
    """One statement of a paper.

    `relation` is how the paper relates the two sides, a word of `verdict.RELATIONS`, and
    `conditions` under which conditions. `function` of ghostgrad/claims/`module`.py computes the
    comparisons that decide it, and `numbers` says where their numbers come from. `follows_from` is
    another claim whose mistake this one repeats or follows from. `undecided` says why these
    comparisons cannot decide the claim, and what would. A claim of kind `editorial` or
    `extraction` has `quotes` instead. A claim with a `title` is an artifact too: its table shows
    the comparisons, unless `artifact` (keys as below `artifacts` in workflow/experiments/) says
    what else is shown.
    """

    id: str
    module: str
    function: str
    where: str  # file and key, for error messages
    section: str
    statement: str
    title: str = ""
    relation: str = ""
    conditions: str = ""
    numbers: tuple[NumberSource, ...] = ()
    corrected: str = ""
    follows_from: str = ""
    undecided: str = ""
    runs: tuple[str, ...] = ()
    kind: str = ""
    quotes: tuple[str, ...] = ()
    artifact: Mapping[str, Any] = field(default_factory=dict)

    @property
    def computed(self) -> bool:
        """True for a claim that a function decides, False for an erratum of wording."""
        return not self.quotes

    def source_of(self, comparison: str) -> NumberSource:
        """Where the number of a comparison comes from; InputError if `numbers` does not say."""
        for source in self.numbers:
            if source.covers(comparison):
                return source
        names = [source.names for source in self.numbers]
        raise InputError(
            f"{self.where}.numbers: no entry for '{comparison}'{nearest(comparison, names)}"
        )


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
    for claim in claims.values():
        if claim.follows_from and claim.follows_from not in claims:
            hint = nearest(claim.follows_from, claims)
            raise InputError(f"{claim.where}.follows_from: no claim '{claim.follows_from}'{hint}")
    return claims


def _claim(name: str, module: str, bodies: Bodies, where: str) -> Claim:
    # A claim that repeats another is no second artifact.
    source, body = resolve_like("claim", name, bodies, where, ("title", "artifact"))
    for key in ("section", "statement"):
        if key not in body:
            raise InputError(f"{where}: key '{key}' is missing")
    if source != name:
        body["follows_from"] = source
    _check_kind(body, where)
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
    # The schema has checked that each entry names one provenance.
    body["numbers"] = tuple(
        NumberSource(names, *next(iter(source.items())))
        for names, source in body.get("numbers", {}).items()
    )
    _refuse_shadowed(body["numbers"], where)
    return Claim(id=name, module=module, function=function, where=where, **body)


def _refuse_shadowed(numbers: Sequence[NumberSource], where: str) -> None:
    """Raise InputError for a pattern that an earlier one covers, so that it would never be used."""
    for index, later in enumerate(numbers):
        for earlier in numbers[:index]:
            if earlier.covers(later.names):
                raise InputError(
                    f"{where}.numbers: '{earlier.names}' covers '{later.names}' too; put the more"
                    " specific one first"
                )


def _check_kind(body: Mapping[str, Any], where: str) -> None:
    """Raise InputError unless a claim is either computed, with a relation, conditions and sources
    of its numbers, or an erratum of wording, with a kind and quotes."""
    kinds = [key for key in ("numbers", "quotes") if key in body]
    if len(kinds) != 1:
        found = "both" if kinds else "neither"
        raise InputError(f"{where}: expected either numbers or quotes, found {found}")
    needed = ("relation", "conditions") if "numbers" in body else ("kind",)
    for key in needed:
        if key not in body:
            raise InputError(f"{where}: key '{key}' is missing; a claim with {kinds[0]} needs it")


def read_claims_csv(path: Path) -> list[Row]:
    """The rows of claims.csv, one per comparison; InputError where it has not been built, or is
    damaged or of another version of the code."""
    if not path.exists():
        raise InputError(f"{path}: not built yet; build it with: snakemake {path}")
    try:
        text = path.read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise _unusable(path, "cannot be read") from None
    header, *lines = rows or [[]]
    if header != CLAIM_COLUMNS:
        raise _unusable(path, "has other columns")
    if not lines or not text.endswith("\n") or any(len(line) != len(header) for line in lines):
        raise _unusable(path, "is cut short")
    records: list[Row] = [dict(zip(header, line, strict=True)) for line in lines]
    if not all(_is_sound(row) for row in records):
        raise _unusable(path, "is damaged")
    return records


def _unusable(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; build it again with: snakemake --force {path}")


def _is_sound(row: Row) -> bool:
    """True if the words of a row of claims.csv are known and its numbers are numbers."""
    words = without_reason(row["verdict"]) in VERDICTS and row["provenance"] in ("", *PROVENANCE)
    relations = row["relation"] in SIGNS and row["corrected_relation"] in SIGNS
    try:
        for name in ("reference", "ours", "ours_se", "tolerance", "corrected"):
            float(row[name] or "nan")
    except ValueError:
        return False
    return words and relations


def count_claims(rows: Iterable[Row]) -> str:
    """`12 holds, 30 fails, …`; a claim with several comparisons counts once."""
    return count_verdicts({row["id"]: row["verdict"] for row in rows}.values())


def count_followers(rows: Iterable[Row]) -> str:
    """`20 of the 41 claims that fail repeat, or follow from, the mistake of another`; empty if none
    does."""
    failing = {row["id"]: row for row in rows if row["verdict"].startswith("fails")}
    followers = sum(row["follows_from"] in failing for row in failing.values())
    if not followers:
        return ""
    return (
        f"{followers} of the {len(failing)} claims that fail repeat, or follow from, the mistake of"
        " another"
    )
