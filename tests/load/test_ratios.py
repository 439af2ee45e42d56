"""Intervals of ratios cover as often as they promise, in simulated trials whose machine drifts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from quantwise.load.generator import Answer, Block
from quantwise.load.ratios import TERMS, paired_ratio, ratios, spread, tail_ratios
from quantwise.runtimes.streaming import Streamed
from quantwise.stats.bootstrap import bootstrap_ratio
from quantwise.stats.student import MIN_BLOCKS


@pytest.mark.parametrize("blocks", [6, 10])
def test_intervals_cover_the_true_ratio_under_drift(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    true, trials = 1.1, 300
    covered = plain = 0
    for _ in range(trials):
        drift = np.exp(np.cumsum(rng.normal(0, 0.2, blocks)))  # the machine slows down and recovers
        one = true * drift * np.exp(rng.normal(0, 0.05, blocks))
        two = drift * np.exp(rng.normal(0, 0.05, blocks))
        got = paired_ratio(one, two)
        assert got is not None
        assert got.low is not None
        assert got.high is not None
        covered += got.low <= true <= got.high
        narrow = bootstrap_ratio(one, two, resamples=1000)
        plain += narrow.low <= true <= narrow.high  # type: ignore[operator]
    assert covered / trials >= 0.92
    assert plain < covered


def test_drift_cancels_in_pairs() -> None:
    drift = np.linspace(1, 3, 10)
    got = paired_ratio(2 * drift, drift)
    assert got is not None
    assert (got.value, got.low, got.high) == pytest.approx((2, 2, 2))


def test_too_few_blocks_say_nothing() -> None:
    assert paired_ratio([1.0] * (MIN_BLOCKS - 1), [1.0] * (MIN_BLOCKS - 1)) is None
    assert paired_ratio([1.0] * 9, [0.0] * 9) is None


def times(seconds: Iterable[float], lost: int = 0) -> Block:
    """A block of answers whose first text came after so many seconds, and of failures."""
    answers = [
        Answer(0.0, Streamed("ok", 0.0, t + 0.1, pieces=(t,), finished=t + 0.1, finish="stop", output_tokens=1))
        for t in seconds
    ]
    return Block((*answers, *[Answer(0.0, Streamed("error", 0.0, 0.1, "no"))] * lost), 1.0, ())


def test_intervals_of_tails_cover_the_true_ratio_under_drift() -> None:
    rng = np.random.default_rng(7)
    covered, trials = 0, 60
    for _ in range(trials):
        drift = np.exp(np.cumsum(rng.normal(0, 0.2, 6)))
        one = [times(1.2 * d * rng.gamma(3, 0.1, 20)) for d in drift]
        two = [times(d * rng.gamma(3, 0.1, 20)) for d in drift]
        got = tail_ratios(one, two)
        covered += got["p95_ttft_ms"]["low"] <= 1.2 <= got["p95_ttft_ms"]["high"]
        assert got["p99_ttft_ms"] is None  # 120 requests
    assert covered / trials >= 0.92


def test_tails_are_ratios_of_percentiles_and_unknown_where_those_are() -> None:
    blocks = [times(np.linspace(0.1, 0.2, 60)) for _ in range(6)]
    twice = [times(2 * np.linspace(0.1, 0.2, 60)) for _ in range(6)]
    got = tail_ratios(twice, blocks)
    assert got["p95_ttft_ms"] == {"ratio": pytest.approx(2), "low": pytest.approx(2), "high": pytest.approx(2)}
    assert got["p99_ttft_ms"]["ratio"] == pytest.approx(2)
    assert 1 < got["p95_e2el_ms"]["ratio"] < 2
    failing = [times(np.linspace(0.1, 0.2, 56), lost=4) for _ in range(6)]
    assert tail_ratios(failing, blocks)["p95_ttft_ms"] is None
    assert tail_ratios(twice[:5], blocks[:5])["p95_ttft_ms"] is None
    assert set(tail_ratios([], []).values()) == {None}
    one_bad = [*blocks[:5], times(np.linspace(0.1, 0.2, 48), lost=12)]
    got = tail_ratios(one_bad, blocks)  # 12 of 360 failures: p95 is known, but not in every resample
    assert got["p95_ttft_ms"]["high"] is None
    assert got["p95_ttft_ms"]["low"] is not None


def row(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(TERMS, value)


def test_blocks_without_a_figure_are_left_out_in_pairs() -> None:
    first = [row(2.0)] * 6 + [row(None)]
    second = [row(1.0)] * 7
    assert ratios(first, second)["mean_ttft_ms"] == {"ratio": 2.0, "low": 2.0, "high": 2.0}
    assert ratios(first[1:], second[1:])["mean_ttft_ms"] is None
    assert ratios([row(0.0)] * 6 + [row(1.0)], second)["request_goodput"]["ratio"] == pytest.approx(1 / 7)


def test_spread_is_the_coefficient_of_variation_between_blocks() -> None:
    got = spread([row(1.0), row(2.0), row(3.0)])
    assert got["cv_mean_ttft_ms"] == pytest.approx(1 / 2)
    assert spread([row(1.0)])["cv_mean_ttft_ms"] is None
    assert spread([row(1.0), row(None)])["cv_mean_ttft_ms"] is None
