"""Where a number comes from: a hash of the code behind it, the commit, versions and the machine."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ghostgrad.dependencies import dependencies, is_type_checking, parse

PACKAGES = ("torch", "torchvision", "numpy", "snakemake")

# Contexts (load or store), prefixes of strings, and what only type checkers read. Python versions
# differ in `type_params` and in whether empty lists are stored, so absent and empty values are
# skipped. Positions are no fields. Of an `if TYPE_CHECKING:`, `else` is not hashed either.
IGNORED_FIELDS = frozenset({"annotation", "ctx", "kind", "returns", "type_comment", "type_params"})
DEFINITIONS = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _without_docstring(node: ast.AST, statements: list[ast.stmt]) -> list[ast.stmt]:
    if isinstance(node, DEFINITIONS) and statements:
        first = statements[0]
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            return statements[1:]
    return statements


def _tokens(node: ast.AST) -> Iterator[str]:
    """The syntax tree in prefix form, without imports, docstrings, comments and annotations."""
    if isinstance(node, ast.Import | ast.ImportFrom) or is_type_checking(node):
        return
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        if name in IGNORED_FIELDS or value is None or value == []:
            continue
        yield name
        if name == "body" and isinstance(value, list):
            value = _without_docstring(node, value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _tokens(part)
            else:
                yield repr(part)
    yield ")"


@cache
def module_digest(module: str) -> bytes:
    """SHA-256 over what a module does: its syntax tree without imports, docstrings, comments and
    annotations. Moving or formatting a module, or annotating parameters and return values, does not
    change the digest; annotating an assignment does."""
    return hashlib.sha256("\0".join(_tokens(parse(module))).encode()).digest()


@cache
def code_hash(*roots: str) -> str:
    """Eight hexadecimal digits over the modules that `roots` depend on, whatever their names."""
    digests = sorted(module_digest(module) for module in dependencies(*roots))
    return hashlib.sha256(b"".join(digests)).hexdigest()[:8]


def task_hash(task: str) -> str:
    """The hash of the code that computes the runs of a task, with the code that reads its data."""
    return code_hash(f"tasks.{task}")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def current_commit() -> str | None:
    """The commit of this checkout, followed by -dirty where files differ from it; None outside a
    repository."""
    # A snapshot in docs/ may be written again before it is committed; only code counts.
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ":/workflow")
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and status else commit


def environment(task: str, device: str) -> dict[str, Any]:
    """What this process runs on: commit, code, versions, hardware, Slurm job."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(status) if status is not None else None,
        "code": task_hash(task),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "job": os.environ.get("SLURM_JOB_ID"),
        "command": " ".join(sys.argv[:2]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
