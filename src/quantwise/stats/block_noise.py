"""What a machine's mood adds to a ratio of times: arms take turns by blocks, and all items of a turn share its luck.

Resampling items takes them for independent. Whatever blocks differ by beyond that is estimated here, as a variance
component of a one-way layout (Searle, Casella and McCulloch, "Variance Components", 1992, chapter 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quantwise.stats.differences import FloatArray


def block_noise(blocks: Sequence[FloatArray]) -> tuple[float, int]:
    """Standard error that blocks put on the log of the ratio of two arms' times, and its degrees of freedom.

    Each block is an array (items, 2) of both arms' seconds on the same items; tasks that differ in their ratio must be
    brought to one scale before. The log ratios of the blocks are held against their mean, less what items alone would
    scatter them by. (0, 0) where fewer than two blocks have a time: then nothing can be known of it.
    """
    known = [b for b in blocks if b.sum(axis=0).min(initial=math.inf) > 0.0]
    if len(known) < 2:
        return 0.0, 0
    freedom = len(known) - 1
    logs = [math.log(b[:, 0].sum() / b[:, 1].sum()) for b in known]
    squares = float(np.square(np.subtract(logs, np.mean(logs))).sum())
    excess = max(0.0, squares / freedom - sum(map(_by_items, known)) / len(known))
    sizes = np.array([b.sum() for b in known])
    return math.sqrt(excess * float(np.square(sizes / sizes.sum()).sum())), freedom


def _by_items(block: FloatArray) -> float:
    """Variance of a block's log ratio if its items were independent, by linearization; 0 for a single item."""
    items = len(block)
    shares = block / block.sum(axis=0)
    return 0.0 if items < 2 else float(np.square(shares[:, 0] - shares[:, 1]).sum()) * items / (items - 1)
