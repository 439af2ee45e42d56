"""A task: items with one name, and how they part into screening and certification."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.item import Item, fingerprint

Split = Literal["screen", "certify"]
Kind = Literal["code", "instructions", "reasoning", "other"]
ItemMaker = Callable[[Split, int, int], Sequence[Item]]
"""(split, count, seed) to that many items, a longer list beginning with the shorter one."""

SCREEN_SHARE = 0.1
SCREEN_MOST = 100


@dataclass(frozen=True, slots=True)
class Task:
    """Items under one name.

    ``items`` is a tuple (all that the file has) or a maker of unlimited fresh ones. ``kind`` chooses the default margin.
    ``scorer`` sums up how answers are scored; ``source`` is what was asked for, ``source_hash`` of its bytes, or of the
    suite's name and version where items are made.
    """

    name: str
    kind: Kind
    scorer: str
    source: str
    source_hash: str
    items: tuple[Item, ...] | ItemMaker

    @property
    def count(self) -> int | None:
        """How many items there are; None where they are made."""
        return len(self.items) if isinstance(self.items, tuple) else None

    def supply(self, split: Split, count: int | None, seed: int) -> tuple[Item, ...]:
        """The first ``count`` items of one part in seeded random order, fewer where a file has no more.

        ``count`` None means all of them, which only a file has.
        """
        if isinstance(self.items, tuple):
            return split_items(self, seed)[split == "certify"][:count]
        if count is None:
            raise ValueError(f"task {self.name} makes its items; say how many")
        return tuple(self.items(split, count, seed))


def split_items(task: Task, seed: int, screen_share: float = SCREEN_SHARE) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(screening, certification) items of a file: disjoint, together all of them, in seeded random order.

    About ``screen_share`` of the items, at most 100, screen; of a single item none does. Items of one cluster stay on one
    side and next to each other. The order depends on the seed and on each item's id alone, so that it does not change
    when the file's lines are rearranged.
    """
    if not isinstance(task.items, tuple):
        raise ValueError(f"task {task.name} makes its items; ask it for a split instead")
    groups: dict[str, list[Item]] = {}
    for item in task.items:
        key = f"cluster {item.cluster}" if item.cluster is not None else f"item {item.id}"
        groups.setdefault(key, []).append(item)
    order = sorted(groups, key=lambda key: _rank(seed, key))
    wanted = min(SCREEN_MOST, math.ceil(screen_share * len(task.items))) if len(groups) > 1 else 0
    parts: tuple[list[Item], list[Item]] = ([], [])
    for key in order:
        members = sorted(groups[key], key=lambda item: _rank(seed, item.id))
        # A cluster that would overfill the screen goes to certification: the screen is the part that can be small.
        parts[len(parts[0]) + len(members) > wanted].extend(members)
    return tuple(parts[0]), tuple(parts[1])


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()


def cluster_repeats(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items, with those that ask the same thing put into one cluster: a question asked twice is one observation.

    Prompts are compared by `fingerprint` together with their choices; an item that has a cluster lends it to its copies.
    """
    asked = [fingerprint("\n".join((item.text, *item.choices))) for item in items]
    times: dict[str, int] = {}
    known: dict[str, str] = {}
    for print_, item in zip(asked, items, strict=True):
        times[print_] = times.get(print_, 0) + 1
        if item.cluster is not None:
            known.setdefault(print_, item.cluster)
    return tuple(
        replace(item, cluster=known.get(print_, f"repeat-{print_[:12]}"))
        if times[print_] > 1 and item.cluster is None
        else item
        for print_, item in zip(asked, items, strict=True)
    )
