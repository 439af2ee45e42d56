"""Figures of made-up answers against what one computes by hand, and what is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from quantwise.load.findings import notes
from quantwise.load.generator import Answer, Block
from quantwise.load.latency import ServiceLevels, latencies, spoilt, summary
from quantwise.runtimes.server_metrics import difference
from quantwise.runtimes.streaming import Outcome, Streamed

NOTHING = difference({}, {})


def answer(ttft: float, tpot: float = 0.01, tokens: int | None = 3, due: float = 0.0, lag: float = 0.0) -> Answer:
    """An answer of 3 pieces whose times are exactly these."""
    first = due + ttft
    pieces = (first, first + tpot, first + 2 * tpot)
    streamed = Streamed(
        "ok", due + lag, pieces[-1], text="abc", pieces=pieces, finished=pieces[-1], finish="length",
        prompt_tokens=10, output_tokens=tokens,
    )  # fmt: skip
    return Answer(due, streamed)


def failure(outcome: Outcome = "error") -> Answer:
    return Answer(0.0, Streamed(outcome, 0.0, 0.1, "no"))


def block(answers: list[Answer], seconds: float = 10.0) -> Block:
    return Block(tuple(answers), seconds, (0.0, 0.001))


def test_definitions_are_vllms() -> None:
    one = answer(0.5, 0.02, due=7.0, lag=0.1)
    assert one.ttft == pytest.approx(0.5)
    assert one.e2e == pytest.approx(0.54)
    assert one.tpot == pytest.approx((0.54 - 0.5) / 2)
    assert one.gaps == pytest.approx([0.02, 0.02])
    assert one.lag == pytest.approx(0.1)
    assert answer(0.5, tokens=1).tpot is None
    assert answer(0.5, tokens=None).tpot is None
    assert (failure().ttft, failure().e2e, failure().tpot, failure("not_sent").lag) == (None, None, None, None)


def test_figures_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.1, size=400)
    got = latencies([answer(float(v)) for v in values])
    ms = np.sort(values) * 1000
    assert got["mean_ttft_ms"] == pytest.approx(ms.mean())
    assert got["std_ttft_ms"] == pytest.approx(ms.std())
    assert got["median_ttft_ms"] == pytest.approx(np.median(ms))
    assert got["p95_ttft_ms"] == pytest.approx(ms[380])
    assert got["p99_ttft_ms"] == pytest.approx(ms[396])
    assert got["p99_over_p50_ttft"] == pytest.approx(ms[396] / np.median(ms))
    assert got["mean_tpot_ms"] == got["mean_itl_ms"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("count", "p95", "p99"), [(58, False, False), (59, True, False), (298, True, False), (299, True, True)]
)
def test_percentiles_have_floors_in_requests(count: int, p95: bool, p99: bool) -> None:
    got = latencies([answer(0.1 + i / 1000) for i in range(count)])
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert (got[f"p95_{name}_ms"] is not None) == p95, name
        assert (got[f"p99_{name}_ms"] is not None) == p99, name
        assert got[f"median_{name}_ms"] is not None


@pytest.mark.parametrize(
    ("lost", "p95", "p99"), [(0, True, True), (2, True, True), (5, True, False), (30, False, False)]
)
def test_a_percentile_that_falls_on_a_failure_is_unknown(lost: int, p95: bool, p99: bool) -> None:
    got = latencies([*(answer(0.1) for _ in range(400 - lost)), *(failure() for _ in range(lost))])
    assert (got["p95_ttft_ms"] is not None, got["p99_e2el_ms"] is not None) == (p95, p99)
    assert got["median_ttft_ms"] == pytest.approx(100)


def test_rates_and_totals() -> None:
    got = summary([block([answer(0.1), answer(0.3)]), block([failure("timeout")], 5.0)], ServiceLevels(ttft_ms=200))
    assert (got["completed"], got["failed"], got["failures"], got["duration"]) == (2, 1, {"timeout": 1}, 15.0)
    assert got["request_throughput"] == pytest.approx(2 / 15)
    assert got["request_goodput"] == pytest.approx(1 / 15)
    assert got["good_share"] == pytest.approx(1 / 3)
    assert (got["total_input_tokens"], got["total_output_tokens"]) == (20, 6)
    assert got["output_throughput"] == pytest.approx(6 / 15)
    assert got["total_token_throughput"] == pytest.approx(26 / 15)
    assert got["prefill_tokens_per_s"] == pytest.approx(20 / 0.4)
    assert got["decode_tokens_per_s"] == pytest.approx(1 / 0.01)


def test_tokens_that_were_in_a_cache_were_not_prefilled() -> None:
    half = replace(answer(0.1), streamed=replace(answer(0.1).streamed, cached_tokens=5))
    got = summary([block([half, answer(0.1)])], ServiceLevels())
    assert got["prefill_tokens_per_s"] == pytest.approx((5 + 10) / 0.2)
    assert got["total_input_tokens"] == 20


def test_goodput_needs_every_level_and_a_known_one() -> None:
    keeps = ServiceLevels(ttft_ms=100, tpot_ms=20, e2e_ms=150).kept
    assert keeps(answer(0.09, 0.01))
    assert not keeps(answer(0.11, 0.01))
    assert not keeps(answer(0.09, 0.021))
    assert not ServiceLevels(e2e_ms=150).kept(answer(0.09, 0.04))
    assert not keeps(failure())
    assert not keeps(answer(0.05, 0.01, tokens=None))
    assert keeps(answer(0.05, 0.01, tokens=1))
    assert ServiceLevels(ttft_ms=100).kept(answer(0.05, 0.01, tokens=None))
    silent = Answer(0.0, Streamed("ok", 0.0, 0.2, finished=0.2, finish="stop", output_tokens=0))
    assert not ServiceLevels(ttft_ms=100).kept(silent)
    assert ServiceLevels(ttft_ms=250).kept(silent)
    assert not ServiceLevels().asked


def test_unknown_tokens_make_unknown_rates_and_never_zero() -> None:
    got = summary([block([answer(0.1), answer(0.1, tokens=None)])], ServiceLevels())
    assert (got["total_output_tokens"], got["output_throughput"], got["total_token_throughput"]) == (None, None, None)
    assert got["request_goodput"] is None
    nothing = summary([], ServiceLevels())
    assert nothing["request_throughput"] is None
    assert all(nothing[f"{kind}_ttft_ms"] is None for kind in ("mean", "median", "std", "p95", "p99"))
    assert not any(isinstance(v, float) and math.isnan(v) for v in nothing.values())


def test_what_a_reader_must_know_is_said() -> None:
    late = summary([block([*(answer(0.1, lag=0.02) for _ in range(9)), failure("overloaded")])], ServiceLevels())
    assert len(spoilt(late)) == 2
    told = " | ".join(notes(late, NOTHING | {"preemptions": 2.0, "prefix_cache_hit_rate": 0.5}, repeated=True))
    assert "1 of 10 requests failed (1 overloaded)" in told
    for part in (
        "p95 is unknown",
        "p99 is unknown: it takes 299",
        "sent up to",
        "preempted 2",
        "50% of the input tokens",
    ):
        assert part in told
    assert "more than once" in told
    kept_up = summary([Block(tuple(answer(0.5, 0.1) for _ in range(300)), 10.0, (0.0,))], ServiceLevels())
    assert notes(kept_up, NOTHING, repeated=False) == []
    assert notes(summary([], ServiceLevels()), NOTHING, repeated=False) == [
        "no request was due in that time: give more --seconds, or a higher --rate"
    ]
    shared = notes(kept_up, NOTHING | {"generation_tokens": 2000.0}, repeated=False)
    assert shared == ["the server wrote 2000 tokens meanwhile, 900 of them for us: others used it too"]
