"""A bound is never said to be tighter than it is."""

from __future__ import annotations

import pytest

from quantwise.core.verdict import Comparison, Verdict
from quantwise.stats.wording import explain, rounded_down, rounded_up


@pytest.mark.parametrize(
    ("share", "digits", "low", "high"),
    [
        (0.0304, 1, 0.030, 0.031),
        (0.031, 1, 0.031, 0.031),  # 0.031 * 1000 is 31.000000000000004 in binary
        (0.0311, 2, 0.0311, 0.0311),
        (0.69996, 1, 0.699, 0.700),
        (0.0, 1, 0.0, 0.0),
        (-0.00001, 1, -0.001, 0.0),
    ],
)
def test_rounding_goes_outward(share: float, digits: int, low: float, high: float) -> None:
    assert rounded_down(share, digits) == pytest.approx(low, abs=1e-12)
    assert rounded_up(share, digits) == pytest.approx(high, abs=1e-12)


def test_what_the_items_certify_is_not_rounded_to_a_margin_that_they_do_not() -> None:
    comparison = Comparison(400, 9, 4, 0.01, -0.0125, (-0.04, 0.02), 2.0, 0.1)
    verdict = Verdict(
        "a", "b", "t", "UNKNOWN", "items_exhausted", comparison, (100, 200, 300), None, 0.0302, 0.0412
    )  # fmt: skip
    said = explain(verdict, 0.05, 1, False, 0)
    assert "those seen certify a margin of 3.1 %" in said
    assert "compatible with a drop of at most 4.2 %" in said
