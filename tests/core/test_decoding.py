"""How answers are drawn: what is refused, what reaches the question's hash, and seeds that arms share."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from fake_arms import question
from quantwise.core.decoding import GREEDY, Decoding, decoding_of, seed_of
from quantwise.core.errors import InputError
from quantwise.core.question import Question

SAMPLED = Decoding(temperature=0.7, top_p=0.9, repeats=4)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 1, "top_p": 0}, "top_p"),
        ({"temperature": 1, "repeats": 0}, "repeats"),
        ({"temperature": 1, "repeats": 65}, "repeats"),
        ({"repeats": 4}, "greedy"),
        ({"top_p": 0.5}, "greedy"),
        ({"thinking_cap": 0}, "thinking_cap"),
        ({"heat": 1}, "heat"),
        ([0.7], "table"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(given: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        decoding_of(given)


def test_greedy_questions_are_the_records_that_they_were() -> None:
    plain = question()
    assert "decoding" not in plain.to_json()
    assert plain.hash == Question.from_json(plain.to_json()).hash
    assert "decoding" not in {k for k in asdict(plain) if k in plain.to_json()}


def test_sampled_questions_have_hashes_of_their_own_and_are_read_back() -> None:
    sampled = question(decoding=SAMPLED)
    assert sampled.to_json()["decoding"] == {"temperature": 0.7, "top_p": 0.9, "repeats": 4}
    assert Question.from_json(sampled.to_json()) == sampled
    capped = question(decoding=Decoding(thinking_cap=100))
    assert len({question().hash, sampled.hash, capped.hash}) == 3
    assert GREEDY.to_json() == {}


def test_seeds_differ_by_item_and_repeat_and_fit_every_runtime() -> None:
    seeds = [seed_of(0, "t", f"i{i}", k) for i in range(200) for k in range(4)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, "t", "i", 1) != seed_of(1, "t", "i", 1)
