"""Student's t beside scipy's, and the level of a bootstrap over few blocks."""

from __future__ import annotations

import pytest
from scipy import stats

from quantwise.stats.student import expanded_alpha, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 7, 11, 30, 99])
@pytest.mark.parametrize("share", [0.6, 0.9, 0.975, 0.995])
def test_the_quantile_is_that_of_scipy(freedom: int, share: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9)


def test_the_fewer_the_blocks_the_wider_the_level() -> None:
    assert expanded_alpha(0.05, 5) < expanded_alpha(0.05, 50) < 0.05
    wide = (6 / 5) ** 0.5 * stats.t.ppf(0.975, 5)
    assert expanded_alpha(0.05, 6) == pytest.approx(2 * stats.norm.cdf(-wide), rel=1e-6)
