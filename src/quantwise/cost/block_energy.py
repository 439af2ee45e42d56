"""Energy of blocks of items, from what meters told while each was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from quantwise.core.question import Question

METERS = ("cpu", "gpu")

BlockJoules = Mapping[tuple[int, str], float]
"""(block, task) of one candidate to the joules that this machine used while it answered it."""


def asks_for_energy(question: Question) -> bool:
    """Whether anything rests on it: an objective, or prices, with which it is shown for each solved item."""
    terms = {"joules_per_item", "joules_per_solved"}
    return "prices" in question.scenario or not terms.isdisjoint(question.scenario["objective"])


def meters_of(told: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Those of `METERS` that told anything in any block; each of ``told`` is as in `block_joules`."""
    return tuple(name for name in METERS if any(one[name] is not None for one in told))


def block_joules(told: Sequence[Mapping[str, Any]]) -> dict[str, BlockJoules]:
    """By candidate. Each of ``told`` has ``candidate``, ``task``, ``block``, and ``cpu`` and ``gpu`` in joules or None.

    A block in which not all of `meters_of` told something is left out: sums of different meters cannot be compared.
    """
    meters = meters_of(told)
    found: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for one in told if meters else ():
        if all(one[name] is not None for name in meters):
            found[one["candidate"]][one["block"], one["task"]] = sum(one[name] for name in meters)
    return dict(found)
