"""Endpoints of their own: signs on an answer that no scorer looks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from quantwise.core.errors import InputError

Endpoint = Literal["non_termination", "refusal", "language_switch"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
TITLES: Mapping[Endpoint, str] = {
    "non_termination": "non-termination",
    "refusal": "refusals",
    "language_switch": "language switch",
}


def endpoint_margins(given: object) -> dict[Endpoint, float]:
    """The largest rise of each endpoint's share that is acceptable. Raises InputError for anything else."""
    if not isinstance(given, Mapping):
        raise InputError(f"endpoints must be a table of margins for {', '.join(ENDPOINTS)}")
    found: dict[Endpoint, float] = {}
    for name, margin in given.items():
        if name not in ENDPOINTS:
            raise InputError(f"unknown endpoint {name!r:.40}; endpoints: {', '.join(ENDPOINTS)}")
        if not isinstance(margin, int | float) or isinstance(margin, bool) or not 0 < margin < 1:
            raise InputError(f"margin of endpoint {name} must lie between 0 and 1, such as 0.02, not {margin!r:.40}")
        found[name] = float(margin)
    return found
