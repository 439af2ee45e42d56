"""What memory holds, and what to promise: the issue's digits, and that the promise rests on what it says."""

from __future__ import annotations

import math
import random

import pytest

from quantwise.core.errors import InputError
from quantwise.plan.capacity import (
    LAYOUTS,
    Levels,
    compare_layouts,
    nearest_rank,
    pool_of,
    promise,
    theoretical_requests,
)
from quantwise.plan.request_trace import SECOND, Lengths, TracedRequest, poisson_trace
from quantwise.plan.server_pace import ServerPace
from quantwise.plan.serving_queue import Pool, simulate

# 80 layers, 8 KV heads of 128, keys and values of 2 bytes, 8192 tokens.
REQUEST = 80 * 8 * 128 * 2 * 2 * 8192


def test_eighty_gigabytes_hold_twelve_or_thirteen_and_promise_eight_to_ten() -> None:
    assert REQUEST == 2_684_354_560
    for unit, held in ((10**9, 12), (1 << 30, 13)):
        assert theoretical_requests(80 * unit, 42 * unit, 5 * unit, REQUEST) == held
        assert 8 <= promise(held, 8192).promised <= 10
        assert 8 <= promise(held, 8192, ServerPace(0.025, 0.0005, 1 / 8000), layout="paged").promised <= 10


def test_no_room_and_no_cache() -> None:
    assert theoretical_requests(40, 42, 5, 10) == 0
    assert promise(0, 8192).promised == 0
    with pytest.raises(InputError, match="at least one byte"):
        theoretical_requests(80, 42, 5, 0)
    with pytest.raises(InputError, match="at least 2 tokens"):
        promise(3, 1)


def test_the_promise_keeps_its_levels_and_one_more_does_not() -> None:
    pace = ServerPace(0.02, 0.0, 1 / 3000)
    found = promise(10, 4096, pace)
    assert found.at_promise is not None
    assert found.above is not None
    assert found.at_promise.concurrency == found.promised
    assert found.at_promise.wait_share <= found.levels.wait < found.above.wait_share
    strict = promise(10, 4096, pace, levels=Levels(wait=0.05))
    assert strict.promised < found.promised
    assert found == promise(10, 4096, pace)


def test_the_server_waits_as_the_formula_of_erlang_says() -> None:
    places, load = 12, 9.0
    blocked = 1.0
    for n in range(1, places + 1):
        blocked = load * blocked / (n + load * blocked)
    waits = blocked / (1 - load / places * (1 - blocked))
    times: list[int] = []
    for seed in range(8):
        chance, now, requests = random.Random(seed), 0.0, []
        for _ in range(20_000):
            now += chance.expovariate(load)
            requests.append(TracedRequest(round(now * SECOND), 1, max(1, round(chance.expovariate(1 / 1000)))))
        times += simulate(requests, Pool(places, 100_000, watermark=0.0), ServerPace(0.001)).waits
    # A newcomer also waits for the step that runs.
    assert sum(w > 0.001 * SECOND for w in times) / len(times) == pytest.approx(waits, abs=0.02)
    assert nearest_rank(sorted(times), 0.95) / SECOND == pytest.approx(
        math.log(waits / 0.05) / (places - load), rel=0.1
    )


def test_one_place_is_for_somebody_who_waits_for_each_answer() -> None:
    found = promise(1, 4096)
    assert found.promised == 1
    assert found.at_promise is None


def test_promises_grow_with_the_room_and_so_does_their_share() -> None:
    promised = [promise(n, 2048).promised for n in (1, 4, 16, 32, 100, 1000)]
    assert promised == sorted(promised)
    assert promised[-1] / 1000 > promised[-2] / 100 > promised[-3] / 32 > promised[-4] / 16


def test_speed_unknown_tells_no_seconds() -> None:
    found = promise(8, 2048).at_promise
    assert found is not None
    assert found.wait_p95_s is None
    known = promise(8, 2048, ServerPace(0.02)).at_promise
    assert known is not None
    assert known.wait_p95_s is not None


def test_layouts_on_one_trace() -> None:
    trace = poisson_trace(Lengths(300, 200, 2048, prefix=128), 20.0, 300, 3)
    whole, paged, shared = compare_layouts(trace, 16 * 2048, 2048, ServerPace(0.01, 0.0, 1e-5))
    assert (whole.layout, paged.layout, shared.layout) == LAYOUTS
    assert whole.waste > 0.5 > 0.1 > paged.waste
    assert whole.wait_share > paged.wait_share
    assert whole.utilization < paged.utilization
    with pytest.raises(InputError, match="more than 100 tokens"):
        compare_layouts([TracedRequest(0, 99, 2)], 1000, 100, ServerPace(0.01))


def test_percentile_is_the_nearest_rank() -> None:
    assert [nearest_rank([1, 2, 3, 4], p) for p in (0.0, 0.25, 0.5, 0.51, 0.95, 1.0)] == [1, 1, 2, 3, 4, 4]


def test_a_contiguous_pool_holds_whole_reservations() -> None:
    assert pool_of("contiguous", 5000, 2048).blocks == 2
    assert pool_of("paged", 5000, 2048).blocks == 312
