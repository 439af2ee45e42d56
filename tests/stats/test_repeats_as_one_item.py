"""The item is the unit: repeats that fail together must not count as so many items."""

from __future__ import annotations

import math

import numpy as np

from quantwise.core.evidence import Measurement
from quantwise.stats.differences import FloatArray
from quantwise.stats.eprocess import STAKES, Wagers, log_mean_exp
from quantwise.stats.pairing import pairs

ALPHA, MARGIN, REPEATS, ITEMS, RUNS = 0.05, 0.1, 8, 300, 600


def ever_passes(differences: FloatArray) -> FloatArray:
    """Runs (runs, items) to whether E reaches 1/alpha at any item; the sum of stake returns written out."""
    wealth = np.zeros((len(differences), len(STAKES)))
    passed = np.zeros(len(differences), dtype=bool)
    for column in differences.T:
        wealth += np.log1p(STAKES * ((column[:, None] + MARGIN) / (1.0 - MARGIN)))
        passed |= log_mean_exp(wealth) >= math.log(1.0 / ALPHA)
    return passed


def at_the_boundary(seed: int, together: float) -> FloatArray:
    """(runs, items, repeats) differences whose mean is exactly minus the margin; a share of items fails as a whole."""
    rng = np.random.default_rng(seed)
    whole = rng.random((RUNS, ITEMS, 1)) < together
    shared = rng.random((RUNS, ITEMS, 1)) < MARGIN
    own = rng.random((RUNS, ITEMS, REPEATS)) < MARGIN
    return -np.where(whole, shared, own).astype(float)


def test_error_rate_at_the_boundary_holds_with_repeats_that_fail_together() -> None:
    for together in (0.0, 0.9, 1.0):
        differences = at_the_boundary(1, together)
        wrong = ever_passes(differences.mean(axis=2)).mean()
        assert wrong <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS), (together, wrong)


def test_repeats_taken_for_items_break_the_error_rate() -> None:
    """The slip that this guards against would be seen by the test above."""
    differences = at_the_boundary(1, 1.0).reshape(RUNS, ITEMS * REPEATS)
    assert ever_passes(differences).mean() > 3 * ALPHA


def test_pairs_are_means_over_repeats_and_feed_the_process_one_item_at_a_time() -> None:
    differences = at_the_boundary(2, 0.5)[0, :40]

    def rows(name: str, scores: FloatArray) -> list[Measurement]:
        return [
            Measurement(name, "certify", "t", f"i{i:03d}", k, 0, float(s), "stop", "")
            for i, of in enumerate(scores)
            for k, s in enumerate(of)
        ]

    matched, failed = pairs(rows("b", np.ones_like(differences)), rows("c", 1.0 + differences))
    assert failed == 0
    assert len(matched) == 40
    wagers = Wagers(MARGIN)
    for pair in matched:
        wagers.add(pair.candidate - pair.baseline)
    assert wagers.n == 40
    assert np.allclose([p.candidate - p.baseline for p in matched], differences.mean(axis=1))
