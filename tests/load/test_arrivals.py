"""Arrivals have the rate, the spread and the bounds that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.load.arrivals import Arrivals


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_rate_and_the_spread(burstiness: float) -> None:
    gaps = np.diff(Arrivals(20, burstiness).offsets(40_000, 1e9, 1), prepend=0.0)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.04)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.08)


def test_a_poisson_process_counts_like_one() -> None:
    times = Arrivals(50).offsets(100_000, 1000, 2)
    counts = np.histogram(times, bins=1000, range=(0, 1000))[0]
    assert counts.mean() == pytest.approx(50, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


def test_a_constant_pace_is_constant() -> None:
    assert Arrivals(4, math.inf).offsets(5, 100, 0) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.25])


def test_count_time_and_seed_bound_and_settle_it() -> None:
    arrivals = Arrivals(10)
    assert len(arrivals.offsets(7, 1e9, 0)) == 7
    assert arrivals.offsets(1000, 5, 0).max() < 5
    assert (arrivals.offsets(50, 9, (1, 2)) == arrivals.offsets(50, 9, (1, 2))).all()
    assert not np.array_equal(arrivals.offsets(50, 9, (1, 2)), arrivals.offsets(50, 9, (1, 3)))


@pytest.mark.parametrize(("rate", "burstiness"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, math.nan)])
def test_impossible_arrivals_are_refused(rate: float, burstiness: float) -> None:
    with pytest.raises(InputError, match="not possible"):
        Arrivals(rate, burstiness)
