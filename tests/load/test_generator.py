"""The loops against a server of known delays, in virtual time: percentiles, no coordinated omission, what is late;
and over the wire: failures, bounds. Percentiles over the wire are in test_load_in_real_time.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quantwise.load import generator
from quantwise.load.arrivals import Arrivals
from quantwise.load.generator import Block, closed_loop, open_loop
from quantwise.load.latency import ServiceLevels, latencies, spoilt, summary

STEADY = float("inf")


def test_known_delays_come_out_as_they_are(simulate: Callable[..., Block]) -> None:
    """The goal is 2 %; without a machine in between, two in a thousand (a millisecond of each timer) are left."""
    count, tokens, tpot = 300, 11, 0.1
    ttft = np.random.default_rng(3).permutation(np.linspace(1.2, 2.0, count))
    wanted = [{"ttft": float(t), "tpot": tpot, "tokens": tokens} for t in ttft]
    got = summary(
        [simulate(open_loop, wanted, Arrivals(200).offsets(count, 60, 0), 20.0)],
        ServiceLevels(ttft_ms=1600, tpot_ms=150),
    )
    assert (got["completed"], got["failed"], got["total_output_tokens"]) == (count, 0, count * tokens)
    for name, known in (("ttft", ttft), ("e2el", ttft + tpot * (tokens - 1)), ("tpot", np.full(count, tpot))):
        ms = 1000 * np.sort(known)
        assert got[f"mean_{name}_ms"] == pytest.approx(ms.mean(), rel=0.002)
        assert got[f"median_{name}_ms"] == pytest.approx(np.median(ms), rel=0.002)
        assert got[f"p95_{name}_ms"] == pytest.approx(ms[int(0.95 * count)], rel=0.002)
        assert got[f"p99_{name}_ms"] == pytest.approx(ms[int(0.99 * count)], rel=0.002)
    assert got["mean_itl_ms"] == pytest.approx(1000 * tpot, rel=0.002)
    assert got["good_share"] == pytest.approx((ttft < 1.6).mean(), abs=0.005)
    assert got["request_goodput"] == pytest.approx(got["good_share"] * got["request_throughput"])
    assert 60 < got["max_concurrent_requests"] <= count
    assert got["generator_lag"]["max_send_ms"] < 1


def test_a_stall_is_charged_to_everybody_who_was_due_meanwhile(simulate: Callable[..., Block]) -> None:
    count, rate, stall = 125, 50, 1.0
    wanted = [{"tokens": 1, "stall": stall if i == 25 else 0.0} for i in range(count)]
    opened = latencies(simulate(open_loop, wanted, Arrivals(rate, STEADY).offsets(count, 60, 0), 20.0).answers)
    closed = latencies(simulate(closed_loop, wanted, 1, 60.0, 20.0).answers)
    # While the server stands still, one request falls due every 20 ms: they wait 1000, 980, 960 ... 20 ms.
    waits = 1000 * np.arange(stall, 0, -1 / rate)
    assert opened["mean_ttft_ms"] == pytest.approx(waits.sum() / count, rel=0.02)
    assert opened["p95_ttft_ms"] == pytest.approx(np.sort(waits)[-7], rel=0.02)
    # Counted only when the server lets one ask, the same stall is one bad request in 125.
    assert closed["p95_ttft_ms"] is not None
    assert closed["p95_ttft_ms"] < 2
    assert closed["mean_ttft_ms"] == pytest.approx(1000 * stall / count, rel=0.02)


def test_what_the_generator_is_late_counts_too_and_is_said(simulate: Callable[..., Block]) -> None:
    offsets = Arrivals(100, STEADY).offsets(60, 60, 0)
    got = summary(
        [simulate(open_loop, [{"ttft": 0.05, "tokens": 2}] * 60, offsets, 20.0, late=(0.1, 0.3))], ServiceLevels()
    )
    # It falls asleep at some time between two requests, which are 10 ms apart.
    assert 290 <= got["generator_lag"]["max_send_ms"] <= 301
    assert 285 <= got["generator_lag"]["max_wake_ms"] <= 301
    assert 325 <= got["p95_ttft_ms"] <= 352
    assert any("sent up to" in sentence for sentence in spoilt(got))


def test_nothing_that_fails_is_lost_or_passes(put_on: Callable[..., Block]) -> None:
    faults = ["429", "500", "404", "die", "hang", "garbage", "no finish", "other model", "", ""]
    block = put_on(open_loop, [{"fault": f, "tokens": 4} for f in faults], Arrivals(100).offsets(10, 9, 0), 0.5)
    got = summary([block], ServiceLevels(ttft_ms=10_000))
    assert (got["completed"], got["failed"]) == (2, 8)
    assert got["failures"] == {
        "refused": 1, "overloaded": 1, "error": 1, "timeout": 1, "broken": 1, "malformed": 1, "unfinished": 1,
        "other_model": 1,
    }  # fmt: skip
    assert got["good_share"] == 0.2
    assert got["median_ttft_ms"] is None  # more than half have no answer, so the middle one has none
    assert got["mean_ttft_ms"] is not None
    assert block.seconds >= 0.5


def test_who_finds_no_room_is_recorded_and_never_sent_late(
    put_on: Callable[..., Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "MOST_IN_FLIGHT", 3)
    block = put_on(open_loop, [{"ttft": 0.5, "tokens": 1}] * 9, Arrivals(100, STEADY).offsets(9, 9, 0), 20.0)
    outcomes = [a.streamed.outcome for a in block.answers]
    assert outcomes == ["ok"] * 3 + ["not_sent"] * 6
    assert block.most_in_flight == 3
    assert "3 requests were under way" in str(block.answers[-1].streamed.error)


def test_two_hundred_are_under_way_at_once(simulate: Callable[..., Block]) -> None:
    block = simulate(open_loop, [{"ttft": 1.2, "tokens": 2}] * 220, Arrivals(220, STEADY).offsets(220, 9, 0), 20.0)
    got = summary([block], ServiceLevels())
    assert got["completed"] == 220
    assert got["max_concurrent_requests"] == 220
    assert got["median_ttft_ms"] == pytest.approx(1200, rel=0.002)


def test_users_ask_one_request_after_the_other(simulate: Callable[..., Block]) -> None:
    block = simulate(closed_loop, [{"ttft": 0.05, "tokens": 1}] * 12, 3, 60.0, 20.0)
    assert (len(block.answers), block.most_in_flight) == (12, 3)
    assert block.seconds == pytest.approx(4 * 0.05, rel=0.05)
    assert all(a.lag == 0 for a in block.answers)


def test_time_bounds_a_closed_loop(put_on: Callable[..., Block]) -> None:
    block = put_on(closed_loop, [{"ttft": 0.1, "tokens": 1}] * 500, 2, 0.35, 20.0)
    assert 2 <= len(block.answers) <= 8
    assert block.seconds < 2.0


def test_an_empty_schedule_is_an_empty_block(put_on: Callable[..., Block]) -> None:
    block = put_on(open_loop, [{"tokens": 1}], Arrivals(0.001).offsets(1, 0.5, 0), 20.0)
    assert block.answers == ()
    assert summary([block], ServiceLevels())["request_throughput"] is None
