from __future__ import annotations

from dataclasses import replace

import pytest
from speed_decoders import llama, served_of

from quantwise.plan.running_cost import decode_cost, prompt_cost
from quantwise.plan.speed import speed
from quantwise.scenarios.sites import sites

CARD = sites()["h100"]
FOUND = speed(CARD, served_of(llama(), 16 * 10**9, "bf16", 1024), 16)


def test_a_million_tokens_by_hand() -> None:
    cost = decode_cost(CARD, FOUND)
    assert FOUND.decode_total
    slow, fast = FOUND.decode_total
    assert cost.dollars == pytest.approx((2.95 / 3600 * 1e6 / fast, 2.95 / 3600 * 1e6 / slow))
    assert cost.joules == pytest.approx((700 / fast, 700 / slow))
    assert "2026-05-20" in cost.source
    two = decode_cost(CARD, FOUND, devices=2)
    assert two.dollars == pytest.approx(tuple(2 * d for d in cost.dollars or ()))


def test_reading_costs_less_than_writing() -> None:
    written, read = decode_cost(CARD, FOUND).dollars, prompt_cost(CARD, FOUND).dollars
    assert written
    assert read
    assert read[1] < written[0]


def test_what_the_site_does_not_say_is_unknown() -> None:
    free = replace(CARD, price_per_hour=None, watts=None)
    assert (decode_cost(free, FOUND).dollars, decode_cost(free, FOUND).joules) == (None, None)
    unknown = speed(replace(CARD, bandwidth=None), served_of(llama(), 16 * 10**9, "bf16", 1024))
    assert decode_cost(CARD, unknown).dollars is None
