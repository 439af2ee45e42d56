"""The sites that ship, out of ``sites.toml``: each figure with its source and date, what has none left out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from importlib import resources
from typing import Any

from quantwise.core.errors import InputError
from quantwise.scenarios.site import Site

SITE_FIELDS = tuple(f.name for f in fields(Site))


@cache
def sites() -> Mapping[str, Site]:
    """All of them by name, in the order of the file."""
    text = resources.files("quantwise.scenarios").joinpath("sites.toml").read_text(encoding="utf-8")
    return {name: _site({"name": name} | record) for name, record in tomllib.loads(text).items()}


def site_of(given: object) -> Site:
    """A site by the name of one that ships, or from a record of its fields, which may start from one: ``base``.

    Raises InputError for anything else, and for unknown fields.
    """
    if isinstance(given, str):
        if given not in sites():
            raise InputError(f"site must be a table with name and memory_bytes, or one of: {', '.join(sites())}")
        return sites()[given]
    if not isinstance(given, Mapping):
        raise InputError("site must be a table with name and memory_bytes, or the name of a site")
    return _site(given)


def _site(given: Mapping[str, Any]) -> Site:
    parts = dict(given)
    base = parts.pop("base", None)
    refuse_unknown(parts, SITE_FIELDS)
    for name in ("lacks",):
        if isinstance(parts.get(name), list):
            parts[name] = tuple(parts[name])
    if base is None:
        return Site(**parts)
    start = sites().get(base) if isinstance(base, str) else None
    if start is None:
        raise InputError(f"unknown base {base!r:.40} of a site; sites: {', '.join(sites())}")
    # The source of what was changed is the user, and the note spoke of the unchanged site.
    kept = {name: text for name, text in start.sources.items() if name not in parts}
    mine = {name: "given by the user" for name in parts if name not in ("name", "sources", "note")}
    return replace(start, **({"note": "", "sources": kept | mine} | parts))


def refuse_unknown(given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise InputError where a record has a field that is not ``allowed``."""
    unknown = sorted(map(str, set(given) - set(allowed)))
    if unknown:
        raise InputError(f"unknown field {unknown[0]!r}; fields: {', '.join(allowed)}")
