"""Claims of the field: what it advises, where that comes from, and what would overturn it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from quantwise.core.errors import InputError

Status = Literal["supported", "contradicted", "untested here"]
STATUSES: tuple[str, ...] = get_args(Status)
HARDWARE = ("cpu", "apple", "ampere", "ada", "hopper", "blackwell", "cdna3")
SIZES = ("small", "medium", "large")
NEEDS = ("fit", "decode", "prompt", "throughput", "quality", "context", "train")


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of advice. ``claim`` is the sentence, ``use`` what one would do by it.

    It is about ``hardware``, ``size`` of model and ``need``; empty means any. ``shown`` is a file of this repository
    that bears on it, ``finding`` what was found there or in a vendor's document.
    """

    name: str
    claim: str
    source: str
    status: Status
    overturned: str
    use: str = ""
    hardware: tuple[str, ...] = ()
    size: tuple[str, ...] = ()
    need: tuple[str, ...] = ()
    shown: str = ""
    finding: str = ""

    def about(self, hardware: str | None, size: str | None, need: str | None) -> bool:
        """Whether it bears on a case; None asks for nothing."""
        asked = ((hardware, self.hardware), (size, self.size), (need, self.need))
        return all(one is None or not own or one in own for one, own in asked)

    def to_json(self) -> dict[str, Any]:
        """As a record."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, in the order of ``claims.toml``."""
    text = resources.files("quantwise.advise").joinpath("claims.toml").read_text(encoding="utf-8")
    return tuple(claim_of(name, record) for name, record in tomllib.loads(text).items())


def claim_of(name: str, record: Mapping[str, Any]) -> Claim:
    """A claim from its record. Raises InputError where a field or a word is unknown, or a finding has no place."""
    unknown = sorted(set(record) - {f.name for f in fields(Claim)})
    if unknown:
        raise InputError(f"claim {name}: unknown field {unknown[0]!r}")
    parts: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    found = Claim(name=name, **parts)
    if found.status not in STATUSES:
        raise InputError(f"claim {name}: unknown status {found.status!r}; allowed: {', '.join(STATUSES)}")
    if found.status != "untested here" and not found.finding:
        raise InputError(f"claim {name} is {found.status}: say by which finding")
    for words, allowed in ((found.hardware, HARDWARE), (found.size, SIZES), (found.need, NEEDS)):
        for word in words:
            if word not in allowed:
                raise InputError(f"claim {name}: unknown word {word!r}; allowed: {', '.join(allowed)}")
    return found


def chosen(
    hardware: str | None = None, size: str | None = None, need: str | None = None, status: str | None = None
) -> Sequence[Claim]:
    """The claims that bear on a case. Raises InputError for words that are not known."""
    asked = (
        ("hardware", hardware, HARDWARE),
        ("size", size, SIZES),
        ("need", need, NEEDS),
        ("status", status, STATUSES),
    )
    for what, word, allowed in asked:
        if word is not None and word not in allowed:
            raise InputError(f"unknown {what} {word!r}; allowed: {', '.join(allowed)}")
    return [c for c in claims() if c.about(hardware, size, need) and status in (None, c.status)]
