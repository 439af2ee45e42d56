"""Few paired repeats: the interval beside the textbook's, what is refused."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from quantwise.core.errors import InputError
from quantwise.stats.log_ratio import log_ratio


def test_the_interval_is_that_of_a_paired_t_test_of_logarithms() -> None:
    top, bottom = [10.0, 12.0, 9.0, 11.0], [20.0, 21.0, 19.0, 24.0]
    found = log_ratio(top, bottom)
    logs = [math.log(a / b) for a, b in zip(top, bottom, strict=True)]
    low, high = stats.t.interval(0.95, 3, loc=sum(logs) / 4, scale=stats.sem(logs))
    assert (found.value, found.low, found.high) == pytest.approx(
        (math.exp(sum(logs) / 4), math.exp(low), math.exp(high))
    )


def test_drift_that_falls_on_both_sides_cancels() -> None:
    found = log_ratio([1.0, 10.0, 100.0], [2.0, 20.0, 200.0])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_two_repeats_have_a_ratio_and_no_interval() -> None:
    found = log_ratio([1.0, 4.0], [1.0, 1.0])
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(("top", "bottom"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_what_has_no_ratio_is_refused(top: list[float], bottom: list[float]) -> None:
    with pytest.raises(InputError, match="paired values above 0"):
        log_ratio(top, bottom)
