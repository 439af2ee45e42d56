"""The e-process against golden values, an item-by-item oracle, and its promised error rate under continuous peeking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantwise.core.errors import InputError
from quantwise.stats import eprocess
from quantwise.stats.differences import Differences

GOLDEN = [
    ((0, 0, 299, 0.01), 3.068, 0.639),
    ((12, 8, 1000, 0.01), 1.309, 0.464),
    ((40, 35, 1319, 0.02), 5.054, 0.2505),
    ((60, 20, 1319, 0.01), 0.2114, 22.95),
    ((5, 9, 541, 0.03), 2696.0, 0.272),
]
GRADED = st.lists(st.floats(-1.0, 1.0).map(lambda d: round(d, 2)), min_size=1, max_size=60)


def slow_e(differences: list[float], margin: float, against: str) -> float:
    """Wealth by multiplying item after item, stake after stake."""
    total = 0.0
    for i in range(24):
        g = 0.01 * (0.98 / 0.01) ** (i / 23)
        wealth = 1.0
        for d in differences:
            stake = g / (1 - margin) if against == "drop" else -g / (1 + margin)
            wealth *= 1 + stake * (d + margin)
        total += wealth
    return total / 24


@pytest.mark.parametrize(("counts", "e_pass", "e_fail"), GOLDEN)
def test_golden_values(counts: tuple[int, int, int, float], e_pass: float, e_fail: float) -> None:
    a, b, n, margin = counts
    evidence = Differences.of_counts(a, b, n)
    assert math.exp(eprocess.log_e(evidence, margin)) == pytest.approx(e_pass, rel=1e-3)
    assert math.exp(eprocess.log_e_fail(evidence, margin)) == pytest.approx(e_fail, rel=1e-3)
    assert math.exp(float(eprocess.log_e_counts(a, b, n, margin))) == pytest.approx(e_pass, rel=1e-3)
    assert math.exp(float(eprocess.log_e_counts(b, a, n, -margin))) == pytest.approx(e_fail, rel=1e-3)


@given(GRADED, st.floats(0.005, 0.4))
def test_three_paths_agree_with_the_slow_one(differences: list[float], margin: float) -> None:
    evidence = Differences.of_values(differences)
    wagers = eprocess.Wagers(margin)
    for d in differences:
        wagers.add(d)
    for fast, running, against in (
        (eprocess.log_e(evidence, margin), wagers.e_pass, "drop"),
        (eprocess.log_e_fail(evidence, margin), wagers.e_fail, "no drop"),
    ):
        slow = slow_e(differences, margin, against)
        assert math.exp(fast) == pytest.approx(slow, rel=1e-8)
        assert running == pytest.approx(slow, rel=1e-8)


@given(GRADED, st.integers(0, 1000))
def test_order_does_not_matter(differences: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(differences)
    exact = Differences.of_values(differences)
    assert eprocess.log_e(Differences.of_values(shuffled), 0.02) == eprocess.log_e(exact, 0.02)


@given(GRADED)
@settings(max_examples=50)
def test_swapping_the_arms_mirrors_everything(differences: list[float]) -> None:
    evidence, swapped = Differences.of_values(differences), Differences.of_values([-d for d in differences])
    low, high = eprocess.confidence_sequence(evidence)
    assert eprocess.confidence_sequence(swapped) == pytest.approx((-high, -low), abs=1e-8)
    assert eprocess.log_e_fail(evidence, 0.03) == pytest.approx(eprocess.log_e(swapped, -0.03), abs=1e-9)
    assert (swapped.regressions, swapped.improvements) == (evidence.improvements, evidence.regressions)


@given(GRADED)
@settings(max_examples=50)
def test_sequence_contains_the_mean_and_agrees_with_both_e_values(differences: list[float]) -> None:
    evidence = Differences.of_values(differences)
    low, high = eprocess.confidence_sequence(evidence)
    assert evidence.mean is not None
    assert low <= evidence.mean <= high
    for bound, inside, e in ((low, 1e-3, eprocess.log_e), (high, -1e-3, eprocess.log_e_fail)):
        if abs(bound) < 0.95:
            assert e(evidence, -(bound + inside)) < math.log(40.0) + 1e-6
            assert e(evidence, -(bound - inside)) > math.log(40.0) - 1e-6


def test_largest_drop_is_where_a_pass_begins() -> None:
    evidence = Differences.of_counts(12, 8, 1000)
    bound = eprocess.largest_drop(evidence)
    assert eprocess.log_e(evidence, bound) >= math.log(20.0)
    assert eprocess.log_e(evidence, bound - 1e-4) < math.log(20.0)
    assert eprocess.largest_drop(Differences.of_counts(0, 200, 300)) == 0.0


def test_zero_flips_pass_only_from_567_items_on() -> None:
    assert eprocess.log_e(Differences.of_counts(0, 0, 566), 0.01) < math.log(20.0)
    assert eprocess.log_e(Differences.of_counts(0, 0, 567), 0.01) >= math.log(20.0)


def test_an_e_value_stays_a_number() -> None:
    assert math.isfinite(eprocess.e_value(5000.0))
    assert eprocess.confidence_sequence(Differences.of_counts(0, 0, 0)) == (-1.0, 1.0)


def test_differences_outside_the_range_are_refused() -> None:
    with pytest.raises(InputError, match="outside"):
        Differences.of_values([0.0, 1.5])
    with pytest.raises(InputError, match="outside"):
        Differences.of_values([float("nan")])


def test_coarsening_keeps_the_items_and_the_mean() -> None:
    values = np.random.default_rng(3).uniform(-1, 1, 500)
    exact = Differences.of_values(values)
    coarse = exact.coarsened()
    assert len(coarse.values) == 41
    assert coarse.n == 500
    assert coarse.mean == pytest.approx(exact.mean, abs=1e-12)


def crossed(
    p_worse: float, p_better: float, margin: float, n: int, runs: int, threshold: float = 20.0
) -> tuple[np.ndarray, np.ndarray]:
    """In which runs E, and E', ever reached the threshold, looking after every single item."""
    rng = np.random.default_rng(7)
    worse, better = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    passed, failed = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for t in range(1, n + 1):
        draw = rng.random(runs)
        worse += draw < p_worse
        better += draw > 1.0 - p_better
        # Runs with equal counts have equal wealth: compute each pair of counts once.
        pairs, where = np.unique(worse * (n + 1) + better, return_inverse=True)
        a, b = pairs // (n + 1), pairs % (n + 1)
        passed |= (eprocess.log_e_counts(a, b, t, margin) >= math.log(threshold))[where]
        failed |= (eprocess.log_e_counts(b, a, t, -margin) >= math.log(threshold))[where]
    return passed, failed


def crossings(p_worse: float, p_better: float, margin: float, n: int, runs: int) -> tuple[float, float]:
    """Shares of runs in which E, and E', ever reached 20."""
    passed, failed = crossed(p_worse, p_better, margin, n, runs)
    return float(passed.mean()), float(failed.mean())


@pytest.mark.parametrize(("p_better", "margin", "n"), [(0.0, 0.01, 1000), (0.01, 0.02, 800)])
def test_error_rates_at_the_margin_when_peeking_after_every_item(p_better: float, margin: float, n: int) -> None:
    """10,000 runs whose true drop is exactly the margin: neither PASS nor FAIL may come in more than 5 % of them."""
    false_pass, false_fail = crossings(p_better + margin, p_better, margin, n, runs=10_000)
    assert false_pass <= 0.05
    assert false_fail <= 0.05
    # A test that never crosses would pass too: the process must come near its bound.
    assert false_pass + false_fail >= 0.005


@pytest.mark.long
@pytest.mark.parametrize(("p_better", "margin"), [(0.0, 0.005), (0.02, 0.01), (0.06, 0.02), (0.1, 0.05)])
def test_error_rates_over_a_long_run(p_better: float, margin: float) -> None:
    false_pass, false_fail = crossings(p_better + margin, p_better, margin, 10_000, runs=10_000)
    assert false_pass <= 0.05
    assert false_fail <= 0.05


def test_the_oracle_of_the_simulation_notices_power() -> None:
    """The same loop sees a PASS where there is no drop and a FAIL where the drop is five margins."""
    assert crossings(0.01, 0.01, 0.05, 400, runs=500)[0] > 0.9
    assert crossings(0.11, 0.01, 0.02, 600, runs=500)[1] > 0.9


@pytest.mark.parametrize(("p_worse", "p_better"), [(0.03, 0.01), (0.15, 0.05)])
def test_sequence_covers_the_truth_at_every_look_at_once(p_worse: float, p_better: float) -> None:
    """The truth leaves the sequence exactly when one of the two processes at the truth reaches 2/alpha."""
    passed, failed = crossed(p_worse, p_better, p_worse - p_better, 400, runs=3000, threshold=40.0)
    assert 0.002 < (passed | failed).mean() <= 0.05


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 300), st.floats(-0.2, 0.2))
@settings(max_examples=60)
def test_truth_is_in_the_sequence_exactly_when_neither_process_rejects_it(
    a: int, b: int, rest: int, mean: float
) -> None:
    n = a + b + rest
    low, high = eprocess.confidence_sequence(Differences.of_counts(a, b, n))
    top = max(float(eprocess.log_e_counts(a, b, n, -mean)), float(eprocess.log_e_counts(b, a, n, mean)))
    assume(abs(top - math.log(40.0)) > 1e-3)
    assert (low <= mean <= high) == (top < math.log(40.0))


def test_graded_scores_keep_the_error_rate() -> None:
    """Differences of any size, true mean exactly -margin, a look after every item."""
    rng = np.random.default_rng(5)
    runs, n, margin = 300, 300, 0.03
    values = np.array([-0.6, -0.1, 0.0, 0.2, 0.5])
    weights = np.array([0.08, 0.1, 0.72, 0.04, 0.06])
    values = values - (values @ weights + margin) * np.array([0, 0, 1, 0, 0]) / weights[2]
    assert values @ weights == pytest.approx(-margin)
    returns = eprocess.stake_returns(values, margin)
    counts = np.eye(5)[rng.choice(5, p=weights, size=(runs, n))].cumsum(axis=1)
    wealth = eprocess.log_mean_exp(counts @ returns.T)
    assert (wealth >= math.log(20.0)).any(axis=1).mean() <= 0.05
    exact = Differences.of_values(np.repeat(values, counts[0, -1].astype(int)))
    assert eprocess.log_e(exact, margin) == pytest.approx(wealth[0, -1])
