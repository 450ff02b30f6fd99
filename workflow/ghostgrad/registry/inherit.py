"""The key `like` of artifacts and claims: a body that starts from another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ghostgrad.checks import InputError, nearest

Body = Mapping[str, Any]  # of an artifact or a claim, as YAML has it


def resolve_like(
    noun: str,
    name: str,
    bodies: Mapping[str, Body],
    where: str,
    not_inherited: Collection[str] = (),
) -> tuple[str, dict[str, Any]]:
    """The name that `name` repeats in the end (itself without `like`), and the merged keys.

    `noun` says in messages what the bodies are. InputError, with `where` in front, for a name that
    does not exist or leads back to itself.
    """
    source, body = name, dict(bodies[name])
    seen = {name}
    while like := body.pop("like", None):
        if like not in bodies:
            raise InputError(f"{where}.like: no {noun} '{like}'{nearest(like, bodies)}")
        if like in seen:
            raise InputError(f"{where}.like: '{like}' leads back to itself")
        seen.add(like)
        inherited = {k: v for k, v in bodies[like].items() if k not in not_inherited}
        source, body = like, {**inherited, **body}
    return source, body
