"""The part of a time ratio's noise that whole blocks share."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantwise.stats.block_noise import block_noise


def blocks(rng: np.random.Generator, count: int, shock: float, items: int = 32) -> list[np.ndarray]:
    """Items of varied length that both arms share, a fifth of noise each, and a shock that an arm's block shares."""
    made = []
    for _ in range(count):
        seconds = rng.gamma(4.0, 0.25, (items, 1)) * np.exp(rng.normal(0.0, 0.2, (items, 2)))
        made.append(seconds * np.exp(rng.normal(0.0, shock / math.sqrt(2), 2)))
    return made


def test_shocks_are_found_and_items_alone_are_not_taken_for_them() -> None:
    rng = np.random.default_rng(0)
    found = [block_noise(blocks(rng, 25, 0.2)) for _ in range(40)]
    assert {freedom for _, freedom in found} == {24}
    assert math.sqrt(np.mean([error**2 for error, _ in found])) == pytest.approx(0.2 / 5.0, rel=0.1)
    # Items of that noise scatter a block's ratio by 0.2 * sqrt(2 / 32 * 1.3) = 0.057; none of it is a shock.
    quiet = [block_noise(blocks(rng, 25, 0.0))[0] for _ in range(40)]
    assert np.mean(quiet) < 0.4 * 0.057 / 5.0


def test_a_small_block_counts_for_little() -> None:
    """Two blocks of which one is a hundredth: the ratio is the large one's, whose luck stays whole."""
    large, small = np.ones((400, 2)), np.ones((4, 2)) * [math.e, 1.0]
    error, freedom = block_noise([large, small])
    assert freedom == 1
    assert error == pytest.approx(math.sqrt(0.5), rel=0.05)
    assert block_noise([large, large * [math.e, 1.0]])[0] == pytest.approx(0.5, rel=0.15)


def test_one_block_or_no_time_tells_nothing() -> None:
    rng = np.random.default_rng(2)
    assert block_noise(blocks(rng, 1, 0.5)) == (0.0, 0)
    assert block_noise([np.zeros((4, 2)), np.zeros((4, 2))]) == (0.0, 0)
    assert block_noise([]) == (0.0, 0)
    assert block_noise([np.ones((1, 2)), np.ones((1, 2)) * [math.e, 1.0]])[0] == pytest.approx(0.5, rel=0.15)
