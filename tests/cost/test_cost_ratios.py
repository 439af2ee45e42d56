"""Times decide only beyond their noise."""

import random

import pytest

from quantwise.core.evidence import Measurement
from quantwise.cost.ratios import ratios


def rows(name: str, factor: float, *, blocks: int = 8, tail: float = 1.0, seed: int = 0) -> list[Measurement]:
    """Blocks of 48 items whose seconds vary by a fifth, on top of a machine that slows down from block to block."""
    draw = random.Random(f"{name}{seed}")
    return [
        Measurement(
            name, "certify", "code", f"{block}-{i}", 0, block, 1.0, "stop", "",
            output_tokens=10,
            seconds=0.02 * factor * (1 + 0.3 * block) * draw.uniform(0.8, 1.2) * (tail if i % 32 == 0 else 1.0),
        )
        for block in range(blocks)
        for i in range(48)
    ]  # fmt: skip


def test_equal_arms_are_told_apart_about_as_often_as_promised() -> None:
    told = 0
    for seed in range(60):
        low, high = ratios(rows("a", 1.0, seed=seed), rows("b", 1.0, seed=seed))["seconds_per_item"] or (0.0, 0.0)
        told += not low <= 1.0 <= high
    assert told <= 12  # 5 % are promised; eight blocks resample somewhat too narrowly


def test_a_tenth_slower_is_seen_through_a_machine_that_slows_down_threefold() -> None:
    found = ratios(rows("a", 1.1), rows("b", 1.0))
    low, high = found["seconds_per_item"] or (0.0, 0.0)
    assert 1.0 < low < 1.1 < high < 1.2
    slow, fast = found["tokens_per_s"] or (0.0, 0.0)
    assert 1 / 1.2 < slow < 1 / 1.1 < fast < 1.0


def test_swapping_the_arms_inverts_the_interval() -> None:
    one, two = rows("a", 1.1), rows("b", 1.0)
    low, high = ratios(one, two)["seconds_per_item"] or (0.0, 0.0)
    swapped = ratios(two, one)["seconds_per_item"] or (0.0, 0.0)
    assert swapped == pytest.approx((1 / high, 1 / low), rel=0.01)


def test_a_heavier_tail_is_seen_although_the_mean_is_nearly_the_same() -> None:
    found = ratios(rows("a", 1.0, tail=2.0), rows("b", 1.0))["p99_over_p50"]
    assert found is not None
    assert found[0] > 1.0


def test_few_blocks_or_few_items_say_nothing() -> None:
    assert set(ratios(rows("a", 2.0, blocks=4), rows("b", 1.0, blocks=9)).values()) == {None}
    short = ratios(rows("a", 2.0, blocks=6), rows("b", 1.0, blocks=6))
    assert short["p99_over_p50"] is None
    assert short["seconds_per_item"] is not None
