"""The bootstrap: seeded, paired, and near the textbook interval where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.stats.bootstrap import bootstrap_ratio


def test_a_ratio_is_paired_and_near_the_normal_interval() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(100.0, 30.0, 400)
    gain = rng.normal(-2.0, 1.0, 400)
    found = bootstrap_ratio(base + gain, base, seed=3)
    # By linearization: the ratio scatters as the residuals do, not as the bases, which vary thirty times as much.
    ratio = 1.0 + gain.sum() / base.sum()
    half = 1.96 * (base + gain - ratio * base).std(ddof=1) / 20.0 / base.mean()
    assert found.value == pytest.approx(ratio)
    assert found.low == pytest.approx(ratio - half, abs=0.15 * half)
    assert found.high == pytest.approx(ratio + half, abs=0.15 * half)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(2).exponential(1.0, 50)
    assert bootstrap_ratio(values, values**2, seed=5) == bootstrap_ratio(values, values**2, seed=5)
    assert bootstrap_ratio(values, values**2, seed=5) != bootstrap_ratio(values, values**2, seed=6)


def test_ratio_of_sums_is_exact_for_proportional_costs_and_covers_the_truth() -> None:
    base = np.random.default_rng(3).exponential(2.0, 80)
    found = bootstrap_ratio(0.5 * base, base)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        estimate = bootstrap_ratio(rng.exponential(1.0, 120), rng.random(120) < 0.8, resamples=400, seed=seed)
        hits += (estimate.low or 0.0) <= 1.25 <= (estimate.high or np.inf)
    assert hits >= 87


def test_a_bound_that_may_be_infinite_reads_unknown() -> None:
    solved = np.array([1.0, 0.0, 0.0, 0.0])
    found = bootstrap_ratio(np.ones(4), solved)
    assert found.value == 4.0
    assert found.high is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="paired"):
        bootstrap_ratio([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="zero"):
        bootstrap_ratio([1.0], [0.0])
