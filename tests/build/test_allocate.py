"""Bits under a budget: exact against trying everything, and close to it where the table would be too large."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantwise.build.allocate import Choices, Option, allocate
from quantwise.core.errors import InputError


def cost(choices: Choices, picked: dict[str, str]) -> tuple[float, int]:
    options = [choices[tensor][kind] for tensor, kind in picked.items()]
    return sum(o.loss for o in options), sum(o.bytes for o in options)


def everything(choices: Choices, budget: int) -> float:
    """The oracle: the least loss of all combinations within the budget."""
    combinations = itertools.product(*(options.values() for options in choices.values()))
    return min(sum(o.loss for o in c) for c in combinations if sum(o.bytes for o in c) <= budget)


def random_choices(rng: random.Random, tensors: int, types: int, falling: bool) -> Choices:
    choices = {}
    for t in range(tensors):
        size, weight = rng.choice([64, 128, 384]), rng.lognormvariate(0, 1.5)
        bits = sorted(rng.sample(range(2, 17), types))
        losses = [weight * 4.0**-b * rng.uniform(0.5, 2) if falling else rng.uniform(-1, 1) for b in bits]
        choices[f"t{t}"] = {f"q{b}": Option(size * b, loss) for b, loss in zip(bits, losses, strict=True)}
    return choices


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), falling=st.booleans(), share=st.floats(0, 1.1))
def test_it_is_the_best_of_all_combinations(seed: int, falling: bool, share: float) -> None:
    choices = random_choices(random.Random(seed), 5, 4, falling)
    low = sum(min(o.bytes for o in options.values()) for options in choices.values())
    high = sum(max(o.bytes for o in options.values()) for options in choices.values())
    budget = int(low + share * (high - low))
    loss, used = cost(choices, allocate(choices, budget))
    assert used <= budget
    assert loss == pytest.approx(everything(choices, budget), abs=1e-12)


def test_without_a_table_it_stays_within_the_budget_and_close_to_the_best() -> None:
    worst = 1.0
    for seed in range(5):
        choices = random_choices(random.Random(seed), 250, 5, falling=True)
        low = sum(min(o.bytes for o in options.values()) for options in choices.values())
        budget = int(low * 2.1)
        exact, _ = cost(choices, allocate(choices, budget))
        loss, used = cost(choices, allocate(choices, budget, most_cells=0))
        assert used <= budget
        worst = max(worst, loss / exact)
    assert 1.0 <= worst < 1.005


def test_of_equal_losses_the_smaller_wins() -> None:
    same = {"a": {"q4": Option(4, 1.0), "q8": Option(8, 1.0)}, "b": {"q4": Option(4, 1.0), "q5": Option(5, 0.5)}}
    assert allocate(same, 100) == {"a": "q4", "b": "q5"}
    assert allocate(same, 100, most_cells=0) == {"a": "q4", "b": "q5"}


def test_bits_go_where_the_loss_is() -> None:
    choices = {
        "deaf": {"q2": Option(2, 0.01), "q8": Option(8, 0.0)},
        "keen": {"q2": Option(2, 1.00), "q8": Option(8, 0.0)},
    }
    assert allocate(choices, 10) == {"deaf": "q2", "keen": "q8"}
    assert allocate(choices, 15) == {"deaf": "q2", "keen": "q8"}
    assert allocate(choices, 16) == {"deaf": "q8", "keen": "q8"}


def test_a_budget_that_is_too_small_names_the_smallest() -> None:
    with pytest.raises(InputError, match="too small; the smallest choice takes 6 bytes"):
        allocate({"a": {"q2": Option(2, 1.0)}, "b": {"q4": Option(4, 0.1), "q8": Option(8, 0.0)}}, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no type to choose from"),
        ({"q4": Option(4, float("nan"))}, "has loss nan"),
        ({"q4": Option(-4, 0.0)}, "-4 bytes"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(options: dict[str, Option], said: str) -> None:
    with pytest.raises(InputError, match=said):
        allocate({"a": options}, 10)


def test_nothing_to_choose_is_an_empty_choice() -> None:
    assert allocate({}, 0) == {}
