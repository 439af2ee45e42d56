"""The luck of the machine's turns, as factors on the seconds of resamples.

In its turn an arm answers a block of every task, so blocks of one number share their luck; tasks are brought to one
scale. What both arms suffer alike leaves their ratio alone, but not what either takes by itself: so there are two kinds
of factors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantwise.cost.course import Key, Repeats, mean_of
from quantwise.stats.block_noise import block_noise
from quantwise.stats.differences import FloatArray


@dataclass(frozen=True, slots=True)
class Luck:
    """Factors on both arms' seconds of each resample, each (resamples, 2): for their ratio, and for each by itself.

    Of a single block nothing is known of its luck: all factors are infinite, and no interval can be told.
    """

    between: FloatArray
    alone: FloatArray


def luck_of_turns(items: Mapping[Key, tuple[int, Repeats, Repeats]], resamples: int, seed: int) -> Luck:
    """The luck that blocks show: ``items`` are their block and both arms' answers."""
    blocks = _blocks(items)
    shared = _drawn(blocks, resamples, [seed, 1])
    sides = [
        _drawn([np.column_stack([block[:, arm], np.ones(len(block))]) for block in blocks], resamples, [seed, 2 + arm])
        for arm in (0, 1)
    ]
    return Luck(_factors([shared / 2.0, -shared / 2.0]), _factors(sides))


def _blocks(items: Mapping[Key, tuple[int, Repeats, Repeats]]) -> list[FloatArray]:
    """Per block an array (items, 2) of both arms' seconds, over the mean of the item's task."""
    tasks: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    for (task, _), (block, *arms) in items.items():
        tasks[task].append((block, [mean_of([seconds for _, seconds in repeats]) for repeats in arms]))
    blocks: dict[int, list[FloatArray]] = defaultdict(list)
    for rows in tasks.values():
        seconds = np.array([took for _, took in rows])
        scaled = seconds / np.maximum(seconds.mean(axis=0), np.finfo(float).tiny)
        for (block, _), row in zip(rows, scaled, strict=True):
            blocks[block].append(row)
    return [np.array(rows) for rows in blocks.values()]


def _drawn(blocks: Sequence[FloatArray], resamples: int, seed: Sequence[int]) -> FloatArray:
    """Logarithms of so many factors on the ratio of the two columns; infinite where nothing is known of it."""
    noise = block_noise(blocks)
    if noise is None:
        return np.full(resamples, np.inf)
    return noise.drawn(resamples, np.random.default_rng(seed)).clip(-99, 99)


def _factors(logarithms: Sequence[FloatArray]) -> FloatArray:
    """(resamples, 2); what is unknown is infinite on both sides."""
    return np.asarray(np.exp(np.where(np.isinf(logarithms), np.inf, logarithms)).T, dtype=np.float64)
