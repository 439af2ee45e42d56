"""Numbers of items: the published table, simulation, and whether the forecast keeps its promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.stats import eprocess, sample_size
from quantwise.stats.differences import Differences

# flip rate, margin -> fixed n at 80 % power, e-process median and 80th percentile (simulated in the research notes).
SIMULATED = {
    (0.01, 0.01): (805, 1112, 1755),
    (0.01, 0.02): (256, 410, 575),
    (0.01, 0.005): (2664, 3520, 5905),
    (0.02, 0.03): (205, 305, 440),
    (0.04, 0.01): (2568, 3192, 5502),
    (0.04, 0.02): (670, 836, 1408),
    (0.08, 0.01): (5061, 6132, 10584),
    (0.08, 0.03): (586, 729, 1244),
}


@pytest.mark.parametrize(("given_rates", "expected"), SIMULATED.items())
def test_planning_agrees_with_simulation(given_rates: tuple[float, float], expected: tuple[int, int, int]) -> None:
    rate, margin = given_rates
    assert sample_size.items_fixed(margin, rate) == pytest.approx(expected[0], rel=0.2)
    assert sample_size.items_sequential(margin, rate) == pytest.approx(expected[1:], rel=0.15)


@pytest.mark.parametrize(("margin", "fixed", "sequential"), [(0.005, 598, 1136), (0.01, 299, 567), (0.02, 149, 282)])
def test_floors(margin: float, fixed: int, sequential: int) -> None:
    assert sample_size.zero_flip_floor_sequential(margin) == sequential
    assert sample_size.items_fixed(margin, 1e-6) >= fixed


def test_rule_of_thumb() -> None:
    assert sample_size.items_fixed(0.01, 0.08) == pytest.approx(6.18 * 0.08 / 0.01**2, rel=0.05)


def test_needed_rows_grow_with_flips_and_candidates() -> None:
    alone, shared = sample_size.items_needed(0.02), sample_size.items_needed(0.02, candidates=4)
    assert [row.flip_rate for row in alone] == [0.01, 0.04, 0.08, 0.12]
    assert all(a.typical < b.typical and a.typical < a.likely for a, b in pairwise(alone))
    assert all(a.typical < s.typical and a.fixed < s.fixed for a, s in zip(alone, shared, strict=True))
    with pytest.raises(InputError, match="margin"):
        sample_size.items_needed(0.0)


def test_middle_is_the_missing_evidence_over_its_growth() -> None:
    """Recomputed by a slow maximisation over stakes."""
    a, b, n, margin = 12, 8, 1000, 0.01
    p10, p01 = (a + 0.5) / (n + 1.5), (b + 0.5) / (n + 1.5)
    best = max(
        p01 * math.log(1 + s * (1 + margin))
        + (1 - p01 - p10) * math.log(1 + s * margin)
        + p10 * math.log(1 - s * (1 - margin))
        for s in np.linspace(0.001, 0.98, 5000)
    )
    forecast = sample_size.n_more(Differences.of_counts(a, b, n), margin)
    assert forecast.more[1] == pytest.approx((math.log(20) - math.log(1.3088)) / best, rel=0.01)
    assert forecast.more[0] < forecast.more[1] < forecast.more[2]
    assert forecast.towards == "PASS"


def test_forecast_leans_to_fail_when_the_drop_exceeds_the_margin() -> None:
    assert sample_size.n_more(Differences.of_counts(30, 10, 500), 0.01).towards == "FAIL"


def test_forecast_is_deterministic_and_asks_more_of_several_candidates() -> None:
    evidence = Differences.of_counts(3, 3, 200)
    one = sample_size.n_more(evidence, 0.02)
    assert one == sample_size.n_more(evidence, 0.02)
    assert sample_size.n_more(evidence, 0.02, threshold=100.0).more[1] > one.more[1]


def test_forecast_of_graded_scores_is_near_that_of_their_coarse_twin() -> None:
    values = np.random.default_rng(2).normal(0.0, 0.15, 400).clip(-1, 1)
    more = sample_size.n_more(Differences.of_values(values), 0.03).more
    assert more == pytest.approx(sample_size.n_more(Differences.of_values(values.round(2)), 0.03).more, rel=0.2)


def test_nothing_seen_still_gives_a_finite_forecast() -> None:
    low, mid, high = sample_size.n_more(Differences.of_counts(0, 0, 0), 0.01).more
    assert 1 <= low <= mid <= high <= sample_size.HORIZON


def resolved_at(a: int, b: int, n: int, margin: float, p: tuple[float, float], rng: np.random.Generator) -> int:
    """Further items until E or E' reaches 20, looking after every one."""
    chunk, extra = 200, 0
    while extra < 400_000:
        draw = rng.random(chunk)
        worse, better = a + (draw < p[0]).cumsum(), b + (draw > 1.0 - p[1]).cumsum()
        items = n + np.arange(1, chunk + 1)
        hit = eprocess.log_e_counts(worse, better, items, margin) >= math.log(20.0)
        hit |= eprocess.log_e_counts(better, worse, items, -margin) >= math.log(20.0)
        if hit.any():
            return extra + int(hit.argmax()) + 1
        a, b, n, extra = int(worse[-1]), int(better[-1]), n + chunk, extra + chunk
        chunk = min(2 * chunk, 5000)
    return extra


def covered(settings: list[tuple[float, float, float, int]], runs: int) -> float:
    """Share of UNKNOWN pilots whose forecast range held the number of items that settled them."""
    rng = np.random.default_rng(4)
    inside = []
    for margin, flip_rate, delta, pilot in settings:
        p = ((flip_rate - delta) / 2.0, (flip_rate + delta) / 2.0)
        for _ in range(runs):
            a, b, _rest = (int(c) for c in rng.multinomial(pilot, [*p, 1.0 - sum(p)]))
            evidence = Differences.of_counts(a, b, pilot)
            if max(eprocess.log_e(evidence, margin), eprocess.log_e_fail(evidence, margin)) >= math.log(20.0):
                continue
            low, _, high = sample_size.n_more(evidence, margin).more
            inside.append(low <= resolved_at(a, b, pilot, margin, p, rng) <= high)
    assert len(inside) >= len(settings) * runs // 3
    return float(np.mean(inside))


def test_an_unknown_resolves_within_its_range_as_often_as_promised() -> None:
    """The range is an 80 % range; over several situations it must hold about that often."""
    settings = [(0.05, 0.04, 0.0, 64), (0.05, 0.12, -0.1, 64), (0.02, 0.04, 0.0, 320), (0.05, 0.12, 0.0, 128)]
    assert 0.7 <= covered(settings, runs=20) <= 0.97


@pytest.mark.long
def test_the_range_holds_in_many_situations() -> None:
    settings = [
        (margin, rate, share * margin, pilot)
        for margin in (0.01, 0.02, 0.05)
        for rate in (0.01, 0.04, 0.12)
        for share in (0.0, -0.5, -2.0)
        for pilot in (64, 320, 1000)
        if abs(share * margin) <= rate
    ]
    assert 0.75 <= covered(settings, runs=12) <= 0.95


def test_smallest_margin_is_where_a_pass_begins_and_shrinks_with_items() -> None:
    evidence = Differences.of_counts(12, 8, 1000)
    now = sample_size.smallest_margin(evidence)
    assert now is not None
    assert eprocess.log_e(evidence, now) >= math.log(20.0)
    assert eprocess.log_e(evidence, now - 1e-5) < math.log(20.0)
    later = sample_size.smallest_margin(evidence, items_left=3000)
    assert later is not None
    assert later < now
    assert sample_size.smallest_margin(Differences.of_counts(5, 0, 5)) is None


def test_a_fresh_run_of_fixed_size() -> None:
    run = sample_size.fresh_run(Differences.of_counts(12, 8, 1000), 0.02)
    assert run is not None
    assert run.more[0] < run.more[1] < run.more[2]
    assert sample_size.fresh_run(Differences.of_counts(80, 8, 1000), 0.02) is None
