"""The luck of turns: what both arms suffer alike moves each of them and leaves their ratio alone."""

from __future__ import annotations

import numpy as np
import pytest

from quantwise.cost.course import Key, Repeats
from quantwise.cost.turn_luck import luck_of_turns

Items = dict[Key, tuple[int, Repeats, Repeats]]


def items(blocks: int, one: list[float], two: list[float]) -> Items:
    """Thirty-two items of a second in each block, times each arm's luck there."""
    return {
        ("t", f"{block}-{i}"): (block, [(True, one[block])], [(True, two[block])])
        for block in range(blocks)
        for i in range(32)
    }


def spread(factors: np.ndarray) -> list[float]:
    """Of each arm, from the lower to the upper quartile of its factors' logarithms."""
    low, high = np.quantile(np.log(factors), [0.25, 0.75], axis=0)
    return [float(x) for x in high - low]


def test_a_slow_hour_of_both_leaves_the_ratio_alone() -> None:
    slow = [1.0, 1.5, 0.8, 1.2, 1.0, 1.1]
    luck = luck_of_turns(items(6, slow, slow), 4000, 0)
    assert spread(luck.between) == pytest.approx([0.0, 0.0], abs=1e-9)
    # The error of a mean of six turns; a t of five degrees has its quartiles at 0.727.
    error = np.log(slow).std(ddof=1) / 6**0.5
    assert spread(luck.alone) == pytest.approx([2 * 0.727 * error] * 2, rel=0.1)


def test_luck_of_one_arm_moves_the_ratio_and_that_arm() -> None:
    luck = luck_of_turns(items(6, [1.0, 1.5, 0.8, 1.2, 1.0, 1.1], [1.0] * 6), 4000, 0)
    ours, theirs = spread(luck.alone)
    assert theirs == pytest.approx(0.0, abs=1e-9)
    assert sum(spread(luck.between)) == pytest.approx(ours, rel=0.1)


def test_of_one_block_nothing_is_known() -> None:
    luck = luck_of_turns(items(1, [1.0], [2.0]), 10, 0)
    assert np.isinf(luck.between).all()
    assert np.isinf(luck.alone).all()
