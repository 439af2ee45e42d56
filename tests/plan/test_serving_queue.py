"""The simulated server: against one that goes token by token, by hand, and against queueing theory."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from oracles.serving_by_steps import serve
from quantwise.core.errors import InputError
from quantwise.plan.request_trace import SECOND, Lengths, TracedRequest, poisson_trace
from quantwise.plan.server_pace import ServerPace
from quantwise.plan.serving_queue import Pool, simulate


def scenario(seed: int) -> tuple[list[TracedRequest], Pool, ServerPace]:
    chance = random.Random(seed)
    block = chance.choice([1, 2, 3, 4, 16, 40])
    requests, now = [], 0
    for _ in range(chance.randrange(1, 25)):
        now += chance.choice([0, 0, 1, chance.randrange(30), chance.randrange(200)])
        prompt = chance.randrange(1, 30)
        group = chance.randrange(3)
        # In a group now and then somebody whose prefix is shorter.
        prefix = min(prompt, chance.choice([(0, 9, 16)[group], chance.randrange(4)]))
        requests.append(TracedRequest(now, prompt, chance.randrange(1, 40), group, prefix))
    least = max(-(-r.tokens // block) for r in requests)
    pool = Pool(
        blocks=least + chance.choice([0, 1, 5, chance.randrange(60)]),
        block=block,
        slots=chance.choice([None, None, 1, 3]),
        shares=chance.random() < 0.6,
        watermark=chance.choice([0.0, 0.01, 0.2]),
    )
    pace = ServerPace(chance.randrange(1, 5) / SECOND, chance.randrange(3) / SECOND, chance.randrange(3) / SECOND)
    return requests, pool, pace


def test_jumping_clock_finds_what_single_steps_find() -> None:
    preempted = shared = 0
    for seed in range(200):
        requests, pool, pace = scenario(seed)
        found, expected = simulate(requests, pool, pace), serve(requests, pool, pace)
        assert found == expected, f"seed {seed}"
        preempted += expected.preemptions > 0
        shared += expected.prefill_tokens < sum(r.prompt for r in requests)
    assert preempted > 20
    assert shared > 10


def test_three_requests_by_hand() -> None:
    # Four blocks of two tokens. Steps take 10 ns, prompts nothing. A (2 + 4) and B (2 + 2) come at 0, C (2 + 1) at 5.
    requests = [TracedRequest(0, 2, 4), TracedRequest(0, 2, 2), TracedRequest(5, 2, 1)]
    pool, pace = Pool(blocks=4, block=2, watermark=0.0), ServerPace(step_s=10 / SECOND)
    found = simulate(requests, pool, pace)
    # 0 to 20: A and B hold two blocks each. B is done. A and C want one more each, one is left: C goes back.
    # 20 to 30: A takes the third block. C is let in with the last one, wants another, goes back again.
    # 30 to 40: A is done. C is let in and takes one step.
    assert found.preemptions == 2
    assert found.waits == (0, 0, 15 + 10 + 10)
    assert found.durations == (40, 20, 45)
    assert found.prefill_tokens == 2 + 2 + 3 * 2
    # Tokens after each step: 6, 8, 5, 6, 3, of 8 that there are; blocks 4, 4, 3, 3, 2.
    assert found.utilization == (6 + 8 + 5 + 6 + 3) / (5 * 8)
    assert found.waste == 1 - (6 + 8 + 5 + 6 + 3) / (2 * (4 + 4 + 3 + 3 + 2))


def test_a_watermark_keeps_who_was_put_back_from_coming_too_soon() -> None:
    # Three blocks of two tokens for two requests of 2 + 2: both are let in, the first token needs two blocks more and
    # one is there. Where an admission must leave a block free, the second starts again when the first is done.
    requests, pace = [TracedRequest(0, 2, 2), TracedRequest(0, 2, 2)], ServerPace(step_s=10 / SECOND)
    found = simulate(requests, Pool(blocks=3, block=2, watermark=0.3), pace)
    assert (found.preemptions, found.durations, found.waits, found.prefill_tokens) == (1, (20, 40), (0, 20), 6)
    assert simulate(requests, Pool(blocks=3, block=2, watermark=0.0), pace).preemptions == 2


def test_one_server_waits_as_long_as_the_theory_says() -> None:
    # M/D/1: mean wait is load / (2 (1 - load)) services (Pollaczek and Khinchine).
    load, service = 0.6, 0.1
    waits = []
    for seed in range(4):
        trace = poisson_trace(Lengths(1, 100, 101, spread=0.0), load / service, 4000, seed)
        waits.append(mean(simulate(trace, Pool(1, 101, watermark=0.0), ServerPace(service / 100)).waits) / SECOND)
    assert mean(waits) == pytest.approx(service * load / (2 * (1 - load)), rel=0.08)


def test_nobody_waits_where_there_is_room_for_all() -> None:
    trace = poisson_trace(Lengths(50, 50, 400), 100.0, 300, 1)
    found = simulate(trace, Pool(300, 400, watermark=0.0), ServerPace(0.01))
    # A newcomer waits at most for the step that runs when it comes.
    assert max(found.waits) <= 0.01 * SECOND
    assert found.preemptions == 0


def test_contiguous_reservations_waste_what_paging_does_not() -> None:
    # 16 reservations of 2048 tokens; requests that are mostly a quarter as long.
    trace = poisson_trace(Lengths(300, 200, 2048, prefix=128), 40.0, 300, 3)
    pace = ServerPace(0.01, 0.0, 1e-5)
    whole = simulate(trace, Pool(16, 2048, watermark=0.0), pace)
    paged = simulate(trace, Pool(16 * 128, 16), pace)
    shared = simulate(trace, Pool(16 * 128, 16, shares=True), pace)
    assert whole.waste > 0.5 > 0.05 > paged.waste
    assert paged.utilization > 1.5 * whole.utilization
    assert sum(whole.waits) > 10 * sum(paged.waits) >= 10 * sum(shared.waits)
    assert shared.prefill_tokens < 0.8 * paged.prefill_tokens


def test_a_request_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="request 1 of 200 tokens does not fit a cache of 160"):
        simulate([TracedRequest(0, 5, 5), TracedRequest(0, 100, 100)], Pool(10, 16), ServerPace(0.01))
