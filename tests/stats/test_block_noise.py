"""The part of a time ratio's noise that whole blocks share."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantwise.stats.block_noise import BlockNoise, block_noise


def blocks(rng: np.random.Generator, count: int, shock: float, items: int = 32) -> list[np.ndarray]:
    """Items of varied length that both arms share, a fifth of noise each, and a shock that an arm's block shares."""
    made = []
    for _ in range(count):
        seconds = rng.gamma(4.0, 0.25, (items, 1)) * np.exp(rng.normal(0.0, 0.2, (items, 2)))
        made.append(seconds * np.exp(rng.normal(0.0, shock / math.sqrt(2), 2)))
    return made


def noise_of(blocks: list[np.ndarray]) -> BlockNoise:
    found = block_noise(blocks)
    assert found is not None
    return found


def spread(noise: BlockNoise) -> float:
    return float(noise.drawn(4000, np.random.default_rng(1)).std())


# Items of that noise scatter a block's ratio by 0.2 * sqrt(2 / 32 * 1.3).
BY_ITEMS = 0.057


def test_shocks_are_found_and_items_alone_are_not_taken_for_them() -> None:
    rng = np.random.default_rng(0)
    found = [noise_of(blocks(rng, 25, 0.2)) for _ in range(40)]
    assert {noise.freedom for noise in found} == {24}
    assert math.sqrt(np.mean([noise.by_items for noise in found])) == pytest.approx(BY_ITEMS, rel=0.1)
    # A t of 24 degrees is 1.04 as wide as a normal.
    assert math.sqrt(np.mean([spread(noise) ** 2 for noise in found])) == pytest.approx(1.04 * 0.2 / 5.0, rel=0.1)
    quiet = [spread(noise_of(blocks(rng, 25, 0.0))) for _ in range(40)]
    assert np.mean(quiet) < 0.5 * BY_ITEMS / 5.0


def test_without_noise_of_items_it_is_students_t() -> None:
    """The quantiles of a t, times the standard error of a mean."""
    drawn = BlockNoise(squares=0.6, freedom=3, by_items=0.0, share=0.25).drawn(100_000, np.random.default_rng(2))
    error = math.sqrt(0.6 / 3 / 4)
    assert np.quantile(drawn, [0.25, 0.75, 0.975]) / error == pytest.approx([-0.765, 0.765, 3.182], rel=0.03)


@pytest.mark.parametrize("shock", [0.0, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("count", [2, 4])
def test_few_blocks_that_resemble_each_other_by_chance_are_not_believed(count: int, shock: float) -> None:
    """With the noise of items added, an interval of 95 % covers a true ratio of 1 in as many of 800 worlds."""
    rng = np.random.default_rng(count)
    covered = 0
    for _ in range(800):
        seen = blocks(rng, count, shock)
        whole, noise = np.concatenate(seen).sum(axis=0), noise_of(seen)
        by_items = math.sqrt(noise.by_items * noise.share)
        moved = noise.drawn(1000, rng) + rng.normal(0.0, by_items, 1000)
        low, high = np.quantile(moved, [0.025, 0.975])
        covered += low <= math.log(whole[0] / whole[1]) <= high
    assert covered / 800 >= 0.935


def test_a_small_block_counts_for_little() -> None:
    """Two blocks of which one is a hundredth: the ratio is the large one's, whose luck stays whole."""
    large, small = np.ones((400, 2)), np.ones((4, 2)) * [math.e, 1.0]
    noise = noise_of([large, small])
    assert noise.freedom == 1
    assert noise.squares == pytest.approx(0.5)
    assert noise.share == pytest.approx(1.0, rel=0.05)
    assert noise_of([large, large * [math.e, 1.0]]).share == pytest.approx(0.5, rel=0.2)


def test_one_block_or_no_time_tells_nothing() -> None:
    rng = np.random.default_rng(2)
    assert block_noise(blocks(rng, 1, 0.5)) is None
    assert block_noise([np.zeros((4, 2)), np.zeros((4, 2))]) is None
    assert block_noise([]) is None
    assert noise_of([np.ones((1, 2)), np.ones((1, 2)) * [math.e, 1.0]]).by_items == 0.0
