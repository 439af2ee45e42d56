"""How answers are drawn: what is refused, what reaches the question's hash, and seeds that arms share."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

import pytest

from fake_arms import question
from quantwise.cli.arguments import add_decoding, decoding_given
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
        ({"top_k": 20}, "top_k 20 of greedy decoding change nothing"),
        ({"min_p": 0.05}, "min_p 0.05 of greedy decoding change nothing"),
        ({"temperature": 1, "top_k": -1}, "top_k must be a whole number from 0"),
        ({"temperature": 1, "top_k": 20.0}, "top_k must be a whole number from 0"),
        ({"temperature": 1, "top_k": 10**7}, "top_k must be a whole number from 0"),
        ({"temperature": 1, "min_p": 1.5}, "min_p must be a number from 0 to 1"),
        ({"temperature": 1, "min_p": float("nan")}, "min_p must be a number from 0 to 1"),
        ({"thinking_cap": 0}, "thinking_cap"),
        ({"heat": 1}, "heat"),
        ([0.7], "table"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(given: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        decoding_of(given)


def test_options_give_the_fields_that_they_are_named_after() -> None:
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    given = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repeats": 4, "thinking_cap": 99}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert decoding_given(parser.parse_args(words)) == given == asdict(decoding_of(given))
    assert decoding_given(parser.parse_args([])) == {}


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
    cut = [question(decoding=replace(SAMPLED, **kept)) for kept in ({"top_k": 20}, {"min_p": 0.05})]
    assert len({question().hash, sampled.hash, capped.hash, *(one.hash for one in cut)}) == 5
    assert cut[0].to_json()["decoding"] == sampled.to_json()["decoding"] | {"top_k": 20}
    assert [Question.from_json(one.to_json()) for one in cut] == cut
    assert GREEDY.to_json() == {}


def test_seeds_differ_by_item_and_repeat_and_fit_every_runtime() -> None:
    seeds = [seed_of(0, "t", f"i{i}", k) for i in range(200) for k in range(4)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, "t", "i", 1) != seed_of(1, "t", "i", 1)
