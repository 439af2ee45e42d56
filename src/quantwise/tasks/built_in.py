"""The built-in suites as tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from quantwise.core.errors import InputError
from quantwise.core.item import Item
from quantwise.tasks import SUITES
from quantwise.tasks.suite import Suite, items
from quantwise.tasks.task import Kind, Part, Task

KINDS: Mapping[str, Kind] = {"code": "code", "instructions": "instructions", "arithmetic": "reasoning"}
"""What margin a suite gets; the others are ``other``."""

# Enough items for a changed generator to show in the hash.
_SAMPLE = 16


def built_in_task(name: str) -> Task | None:
    """The suite of that name as a task, or None where there is none."""
    suite = next((suite for suite in SUITES if suite.name == name), None)
    if suite is None:
        return None
    sample = [item for part in ("screen", "certify") for item in items(suite, part, _SAMPLE, seed=0)]
    return Task(
        name=suite.name,
        kind=KINDS.get(suite.name, "other"),
        scorer=", ".join(sorted({item.scorer for item in sample})),
        source=suite.name,
        source_hash=hashlib.blake2b("\n".join(map(repr, sample)).encode(), digest_size=16).hexdigest(),
        items=_Maker(suite),
    )


class _Maker:
    """Makes a suite's items and keeps the longest list of each part, which is asked for again block by block."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._made: dict[tuple[Part, int], Sequence[Item]] = {}

    def __call__(self, part: Part, count: int, seed: int) -> Sequence[Item]:
        made = self._made.get((part, seed), ())
        if len(made) < count:
            # Making is sequential, so growing by half at least keeps the total work linear.
            made = self._made[part, seed] = self._grown(part, count, max(count, 3 * len(made) // 2), seed)
        return made[:count]

    def _grown(self, part: Part, needed: int, wished: int, seed: int) -> Sequence[Item]:
        try:
            return items(self._suite, part, wished, seed)
        except InputError:
            if wished == needed:
                raise
            return items(self._suite, part, needed, seed)
