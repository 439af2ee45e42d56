"""What a machine's mood adds to a ratio of times: arms take turns by blocks, and all items of a turn share its luck.

Resampling items takes them for independent. What blocks differ by beyond that is a variance component of a one-way
layout (Searle, Casella and McCulloch, "Variance Components", 1992, chapter 3). Its estimate is often zero where blocks
are few, although they do differ: two of them resemble each other by chance. So it is not estimated but drawn, from its
generalized pivotal quantity (Weerahandi, "Generalized Confidence Intervals", JASA 88, 1993): what mean squares of
blocks a chi square would have to have shrunk to the one that was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantwise.stats.differences import FloatArray


@dataclass(frozen=True, slots=True)
class BlockNoise:
    """How the logs of blocks' ratios scatter: ``squares`` about their mean, of ``freedom`` degrees.

    ``by_items`` is the variance that a block would have if its items were independent, ``share`` the part of a
    block's variance that is left in the ratio of all blocks together: one over their number where they are alike.
    """

    squares: float
    freedom: int
    by_items: float
    share: float

    def drawn(self, many: int, rng: np.random.Generator) -> FloatArray:
        """So many draws of what blocks put on the log of the ratio, beyond what their items do; shape (many,)."""
        variances = np.maximum(0.0, self.squares / rng.chisquare(self.freedom, many) - self.by_items)
        return np.asarray(np.sqrt(variances * self.share) * rng.standard_normal(many), dtype=np.float64)


def block_noise(blocks: Sequence[FloatArray]) -> BlockNoise | None:
    """The scatter of both arms' time ratio from block to block; None where fewer than two blocks have a time.

    Each block is an array (items, 2) of both arms' seconds on the same items; tasks that differ in their ratio must be
    brought to one scale before.
    """
    known = [b for b in blocks if b.sum(axis=0).min(initial=math.inf) > 0.0]
    if len(known) < 2:
        return None
    logs = [math.log(b[:, 0].sum() / b[:, 1].sum()) for b in known]
    sizes = np.array([b.sum() for b in known])
    return BlockNoise(
        squares=float(np.square(np.subtract(logs, np.mean(logs))).sum()),
        freedom=len(known) - 1,
        by_items=sum(map(_by_items, known)) / len(known),
        share=float(np.square(sizes / sizes.sum()).sum()),
    )


def _by_items(block: FloatArray) -> float:
    """Variance of a block's log ratio if its items were independent, by linearization; 0 for a single item."""
    items = len(block)
    shares = block / block.sum(axis=0)
    return 0.0 if items < 2 else float(np.square(shares[:, 0] - shares[:, 1]).sum()) * items / (items - 1)
