"""What goes wrong in the field, and what mends it, told with the numbers of the user's own case."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from quantwise.core.errors import InputError
from quantwise.plan.fit import size

_FIELD = re.compile(r"\{(\w+)\}")
# An 8-bit cache keeps 34 bytes of a block of 32 numbers where 16 bit keeps 64.
_Q8 = 34 / 64


@dataclass(frozen=True, slots=True)
class Failure:
    """``logs`` are patterns of messages that go with it. ``case`` is told where all its numbers are known, else
    ``plain``; ``fixes`` stand in the order in which they cost."""

    name: str
    symptom: str
    cause: str
    plain: str
    source: str
    fixes: tuple[str, ...]
    logs: tuple[str, ...] = ()
    case: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a user's case; None is unknown. Bytes, seconds, bytes per second, counts.

    ``cache`` is that of all requests at full context. ``weights_count`` counts weights, ``active`` are bytes that one
    token reads, ``link_bytes`` those that a token sends between devices. ``bound`` is ``bytes`` or ``operations``.
    ``host`` are bytes that lie with the machine around a GPU, which has ``host_limit``. Of training by a ``method``,
    ``states`` are gradients and what the optimizer keeps, ``step`` what one step adds.
    """

    weights: int | None = None
    cache: int | None = None
    rest: int | None = None
    limit: int | None = None
    context: int | None = None
    concurrency: int | None = None
    weights_count: int | None = None
    active: int | None = None
    bandwidth: float | None = None
    bus: float | None = None
    link: float | None = None
    link_bytes: int | None = None
    bound: str | None = None
    flips_at: int | None = None
    prompt_seconds: float | None = None
    method: str | None = None
    states: int | None = None
    step: int | None = None
    host: int | None = None
    host_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A failure in a user's words: ``cause``, ``case`` and ``fixes`` with numbers where they are known."""

    name: str
    symptom: str
    cause: str
    case: str
    fixes: tuple[str, ...]
    source: str


@cache
def failures() -> tuple[Failure, ...]:
    """All of them, in the order of ``failures.toml``."""
    text = resources.files("quantwise.advise").joinpath("failures.toml").read_text(encoding="utf-8")
    return tuple(failure_of(name, record) for name, record in tomllib.loads(text).items())


def failure_of(name: str, record: Mapping[str, Any]) -> Failure:
    """A failure from its record. Raises InputError where a field, or a number that it wants filled in, is unknown."""
    unknown = sorted(set(record) - {f.name for f in fields(Failure)})
    if unknown:
        raise InputError(f"failure {name}: unknown field {unknown[0]!r}")
    parts: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    found = Failure(name=name, **parts)
    wanted = {word for text in (found.cause, found.case, *found.fixes) for word in _FIELD.findall(text)}
    if strange := sorted(wanted - set(NUMBERS)):
        raise InputError(f"failure {name}: nothing fills in {strange[0]!r}")
    return found


def told(failure: Failure, case: Case) -> Told:
    """``failure`` with the numbers of ``case``; a sentence whose numbers are unknown falls back to its plain words."""
    known = numbers(case)
    filled = _filled(failure.case, known) if failure.case else None
    return Told(
        name=failure.name,
        symptom=failure.symptom,
        cause=_filled(failure.cause, known) or _without(failure.cause),
        case=filled or failure.plain,
        fixes=tuple(_filled(fix, known) or _without(fix) for fix in failure.fixes),
        source=failure.source,
    )


def matching(text: str) -> Sequence[Failure]:
    """The failures whose messages occur in a log or a description."""
    return [f for f in failures() if any(re.search(pattern, text, re.IGNORECASE) for pattern in f.logs)]


def numbers(case: Case) -> dict[str, str]:
    """What can be filled in, as a person reads it; what does not follow from ``case`` is left out."""
    found: dict[str, str] = {}
    parts = (case.weights, case.cache, case.rest)
    total = None if None in parts else sum(part or 0 for part in parts)
    for name, amount in (
        ("weights", case.weights), ("cache", case.cache), ("rest", case.rest), ("limit", case.limit), ("total", total),
        ("active", case.active), ("link_bytes", case.link_bytes), ("states", case.states), ("step", case.step),
        ("host", case.host), ("host_limit", case.host_limit),
    ):  # fmt: skip
        if amount is not None:
            found[name] = size(amount)
    for name, count in (("context", case.context), ("concurrency", case.concurrency), ("flips_at", case.flips_at)):
        if count is not None:
            found[name] = f"{count:,}"
    for name, rate in (("bandwidth", case.bandwidth), ("bus", case.bus), ("link", case.link)):
        if rate:
            found[name] = f"{rate / 1e9:.3g} GB/s"
            if case.weights is not None and name != "link":
                found[{"bandwidth": "read_seconds", "bus": "bus_seconds"}[name]] = _seconds(case.weights / rate)
    for name, word in (("bound", case.bound), ("method", case.method)):
        if word is not None:
            found[name] = word
    if case.prompt_seconds is not None:
        found["prompt_seconds"] = _seconds(case.prompt_seconds)
    return found | _room(case, total)


def _room(case: Case, total: int | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if case.cache:
        found["saved_by_q8"] = size(int(case.cache * (1 - _Q8)))
        found["saved_by_half"] = size(case.cache // 2)
        if case.context and case.concurrency:
            found["token_bytes"] = size(case.cache // (case.context * case.concurrency))
            found["context_with_q8"] = f"{int(case.context / _Q8):,}"
    if case.limit is None:
        return found
    if total is not None and total > case.limit:
        found["over"] = size(total - case.limit)
    if case.cache is not None and case.rest is not None:
        fit = max(0, case.limit - case.cache - case.rest)
        found["weights_that_fit"] = size(fit)
        if case.weights_count:
            found["bits_that_fit"] = f"{8 * fit / case.weights_count:.1f}"
    if case.weights is not None and case.rest is not None:
        room = max(0, case.limit - case.weights - case.rest)
        found["room"] = size(room)
        if case.cache and case.context and case.concurrency:
            found["context_that_fits"] = f"{room * case.context // case.cache:,}"
            found["requests_that_fit"] = f"{room * case.concurrency // case.cache:,}"
    return found


NUMBERS = (
    "weights", "cache", "rest", "limit", "total", "over", "active", "link_bytes", "context", "concurrency", "flips_at",
    "bandwidth", "bus", "link", "read_seconds", "bus_seconds", "bound", "prompt_seconds", "saved_by_q8",
    "saved_by_half", "token_bytes", "context_with_q8", "weights_that_fit", "bits_that_fit", "room", "context_that_fits",
    "requests_that_fit", "method", "states", "step", "host", "host_limit",
)  # fmt: skip


def _filled(text: str, known: Mapping[str, str]) -> str | None:
    """``text`` with its numbers; None where one is not known."""
    if set(_FIELD.findall(text)) - set(known):
        return None
    return string.Formatter().vformat(text, (), known)


def _without(text: str) -> str:
    """``text`` with dots where its numbers would stand."""
    return _FIELD.sub("...", text)


def _seconds(amount: float) -> str:
    return f"{1000 * amount:.3g} ms" if amount < 1 else f"{amount:.3g} s"
