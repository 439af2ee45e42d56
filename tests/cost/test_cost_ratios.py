"""Times decide only beyond their noise."""

import math
import random
from dataclasses import replace

import pytest

from quantwise.core.evidence import Measurement
from quantwise.cost.ratios import inverse, ratios


def rows(
    name: str, factor: float, *, blocks: int = 8, tail: float = 1.0, seed: int = 0, mood: float = 0.0, tasks: int = 1
) -> list[Measurement]:
    """Blocks of 48 items whose seconds vary by a fifth, on top of a machine that slows down from block to block.

    ``mood`` is by how much more the machine's speed varies from one turn of an arm to the next.
    """
    draw = random.Random(f"{name}{seed}")
    moods = [math.exp(draw.gauss(0.0, mood)) for _ in range(blocks)]
    return [
        Measurement(
            name, "certify", f"task{task}", f"{block}-{i}", 0, block, 1.0, "stop", "",
            output_tokens=10,
            seconds=0.02 * factor * (1 + 0.3 * block) * moods[block] * draw.uniform(0.8, 1.2)
            * (tail if i % 32 == 0 else 1.0),
        )
        for block in range(blocks)
        for task in range(tasks)
        for i in range(48 // tasks)
    ]  # fmt: skip


def test_equal_arms_are_told_apart_about_as_often_as_promised() -> None:
    told = 0
    for seed in range(60):
        equals = rows("a", 1.0, seed=seed), rows("b", 1.0, seed=seed)
        low, high = ratios(*equals, ["seconds_per_item"])["seconds_per_item"] or (0.0, 0.0)
        told += not low <= 1.0 <= high
    assert told <= 7  # 5 % are promised; of 60 at most 7 in 98 of 100 times


def test_a_machine_of_moods_tells_equal_arms_apart_no_more_often_whatever_the_number_of_tasks() -> None:
    told = 0
    for seed in range(60):
        equals = (rows(name, 1.0, seed=seed, mood=0.2, tasks=8) for name in ("a", "b"))
        low, high = ratios(*equals, ["seconds_per_item"])["seconds_per_item"] or (0.0, 0.0)
        told += not low <= 1.0 <= high
    assert told <= 7


def test_one_turn_says_nothing_however_many_tasks_it_has() -> None:
    assert set(ratios(rows("a", 2.0, blocks=1, tasks=8), rows("b", 1.0, blocks=1, tasks=8)).values()) == {None}


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
    found = ratios(rows("a", 1.0, tail=3.0), rows("b", 1.0))["p99_over_p50"]
    assert found is not None
    assert found[0] > 1.0


def test_few_blocks_or_few_items_say_nothing() -> None:
    assert set(ratios(rows("a", 2.0, blocks=5), rows("b", 1.0, blocks=9)).values()) == {None}
    short = ratios(rows("a", 2.0, blocks=6), rows("b", 1.0, blocks=6))
    assert short["p99_over_p50"] is None
    assert short["seconds_per_item"] is not None


def test_a_choice_has_no_output_and_slows_nothing_down() -> None:
    choices = [replace(r, task="choices", output_tokens=None, seconds=1.0) for r in rows("a", 1.0)]
    alone, both = (ratios(of, rows("b", 1.0))["tokens_per_s"] for of in (rows("a", 1.0), [*rows("a", 1.0), *choices]))
    assert both == alone


def test_failed_requests_belong_to_the_tail() -> None:
    plain, failing = rows("a", 1.0), rows("b", 1.0)
    failing = [replace(r, finish="timeout", seconds=None) if i % 48 == 7 else r for i, r in enumerate(failing)]
    found = ratios(failing, plain)
    assert found["p99_over_p50"] == (math.inf, math.inf)  # one in 48 failed: its slowest hundredth never ends
    assert ratios(plain, failing)["p99_over_p50"] == inverse((math.inf, math.inf)) == (0.0, 0.0)
    assert inverse((0.0, 0.0)) == (math.inf, math.inf)
    assert ratios(failing, failing)["p99_over_p50"] is None
    assert found["seconds_per_item"] is not None


def test_only_the_terms_that_are_asked_for_are_drawn() -> None:
    assert set(ratios(rows("a", 1.0), rows("b", 1.0), ["tokens_per_s"])) == {"tokens_per_s"}
