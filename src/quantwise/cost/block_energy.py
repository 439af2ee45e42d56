"""Energy of blocks of items, from what meters told while each was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

METERS = ("cpu", "gpu")

BlockJoules = Mapping[tuple[int, str], float]
"""(block, task) of one candidate to the joules that this machine used while it answered it."""


def block_joules(told: Iterable[Mapping[str, Any]]) -> dict[str, BlockJoules]:
    """By candidate. Each of ``told`` has ``candidate``, ``task``, ``block``, and ``cpu`` and ``gpu`` in joules or None.

    A meter counts only if it told something in every block: sums of different meters cannot be compared.
    """
    blocks = list(told)
    meters = [name for name in METERS if all(one[name] is not None for one in blocks)]
    found: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for one in blocks if meters else ():
        found[one["candidate"]][one["block"], one["task"]] = sum(one[name] for name in meters)
    return dict(found)
