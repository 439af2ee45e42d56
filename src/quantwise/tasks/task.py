"""A task: items with one name, and how they part into screening and certification."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from quantwise.core.item import Item, fingerprint

Part = Literal["screen", "certify"]
Kind = Literal["code", "instructions", "reasoning", "other"]
ItemMaker = Callable[[Part, int, int], Sequence[Item]]
"""(part, count, seed) to that many items, a longer list beginning with the shorter one."""

SCREEN_SHARE = 0.1
SCREEN_MOST = 100


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Items under one name.

    ``items`` is a tuple (all that a file has) or a maker of unlimited fresh ones. ``kind`` chooses the default margin.
    ``scorer`` sums up how answers are scored. ``source`` is what `readers.read_tasks` reads this task from, and
    ``source_hash`` the hash of its bytes or, where items are made, of a sample of them.
    """

    name: str
    kind: Kind
    scorer: str
    source: str
    source_hash: str
    items: tuple[Item, ...] | ItemMaker

    @property
    def available(self) -> int | None:
        """Certification items that are there with every seed; None where as many are made as one likes."""
        return len(self.items) - _screen_size(self.items, SCREEN_SHARE) if isinstance(self.items, tuple) else None

    def supply(self, part: Part, count: int, seed: int) -> tuple[Item, ...]:
        """The first ``count`` items of a part in seeded random order, fewer where a file has no more."""
        if isinstance(self.items, tuple):
            return _parts(self, seed)[part == "certify"][:count]
        return tuple(self.items(part, count, seed))


@lru_cache(maxsize=64)
def _parts(task: Task, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    return split_items(task, seed)


def split_items(task: Task, seed: int, screen_share: float = SCREEN_SHARE) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(screening, certification) items of a file: disjoint, together all of them, in seeded random order.

    About ``screen_share`` of the items, at most 100, screen; where there is only one, none does. Items of one cluster
    stay on one side, next to each other. The order depends on the seed and on each item's id alone, so that it stays
    when the file's lines are rearranged. Raises ValueError for a task that makes its items.
    """
    if not isinstance(task.items, tuple):
        raise ValueError(f"task {task.name} makes its items; ask it for a part instead")
    groups: dict[str, list[Item]] = {}
    for item in task.items:
        groups.setdefault(_group(item), []).append(item)
    wanted = _screen_size(task.items, screen_share)
    screen: list[Item] = []
    certify: list[Item] = []
    for key in sorted(groups, key=lambda key: _rank(seed, key)):
        members = sorted(groups[key], key=lambda item: _rank(seed, item.id))
        # A cluster too large for what is left of the screen certifies: the screen is the part that can be small.
        (screen if len(screen) + len(members) <= wanted else certify).extend(members)
    return tuple(screen), tuple(certify)


def _screen_size(items: Sequence[Item], share: float) -> int:
    return min(SCREEN_MOST, math.ceil(share * len(items))) if len({_group(item) for item in items}) > 1 else 0


def _group(item: Item) -> str:
    return f"item {item.id}" if item.cluster is None else f"cluster {item.cluster}"


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()


def cluster_repeats(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items, with those that ask the same thing put into one cluster: asked twice, it is still one observation.

    Prompts are compared by `fingerprint` together with their choices. An item in a cluster takes its copies into it.
    """
    asked = [fingerprint("\n".join((item.text, *item.choices))) for item in items]
    times: dict[str, int] = {}
    known: dict[str, str] = {}
    for key, item in zip(asked, items, strict=True):
        times[key] = times.get(key, 0) + 1
        if item.cluster is not None:
            known.setdefault(key, item.cluster)
    return tuple(
        replace(item, cluster=known.get(key, f"repeat-{key[:12]}")) if times[key] > 1 and item.cluster is None else item
        for key, item in zip(asked, items, strict=True)
    )
