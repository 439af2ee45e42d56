"""An absolute floor: the e-processes against plain products, and the promised error rate however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantwise.core.evidence import Measurement
from quantwise.stats.eprocess import STAKES
from quantwise.stats.floor import Scores, bounds, e_above, e_below, items_to_settle, scores_of


def row(item: str, score: float, **changes: str) -> Measurement:
    plain = {"finish": "stop", "cluster": None, "repeat": 0} | changes
    return Measurement("c", "certify", "t", item, int(plain["repeat"] or 0), 0, score, plain["finish"], "",  # type: ignore[arg-type]
                       cluster=plain["cluster"])  # type: ignore[arg-type]  # fmt: skip


def scores(values: list[float]) -> Scores:
    return scores_of([row(str(i), value) for i, value in enumerate(values)])


@pytest.mark.parametrize("floor", [0.05, 0.5, 0.6, 0.97])
def test_both_e_values_equal_the_products_that_the_paper_has(floor: float) -> None:
    values = [1.0, 0.0, 1.0, 0.25, 1.0, 1.0, 0.5, 0.0, 1.0]
    above = [math.prod(1 + g * (x - floor) / floor for x in values) for g in STAKES]
    below = [math.prod(1 + g * (floor - x) / (1 - floor) for x in values) for g in STAKES]
    assert e_above(scores(values), floor) == pytest.approx(sum(above) / len(above))
    assert e_below(scores(values), floor) == pytest.approx(sum(below) / len(below))


def test_the_bounds_are_where_the_e_values_cross() -> None:
    found = scores([1.0] * 70 + [0.0] * 30)
    low, high = bounds(found, 40.0, 20.0)
    assert low < 0.7 < high
    assert e_above(found, low - 1e-6) > 40.0 > e_above(found, low + 1e-6)
    assert e_below(found, high + 1e-6) > 20.0 > e_below(found, high - 1e-6)
    assert bounds(scores([]), 40.0, 20.0) == (0.0, 1.0)


def test_a_floor_of_one_is_refuted_by_a_single_item_and_never_shown() -> None:
    assert e_above(scores([1.0] * 500), 1.0) <= 1.0
    assert e_below(scores([1.0] * 500), 1.0) == 1.0
    assert e_below(scores([1.0] * 500 + [0.0]), 1.0) > 1e6


def test_repeats_then_items_then_clusters_are_the_unit_and_losses_count_against_both_answers() -> None:
    rows = [row("a", 1.0), row("a", 0.0, repeat="1"), row("b", 1.0, cluster="k"), row("c", 0.0, cluster="k")]
    found = scores_of([*rows, row("d", 0.0, finish="timeout"), row("e", 0.0, finish="refused")])
    assert (found.n, found.missing) == (4, 1)
    assert found.mean == pytest.approx((0.5 + 0.5 + 0.0 + 0.0) / 4)
    assert found.best.mean == pytest.approx((0.5 + 0.5 + 1.0 + 0.0) / 4 - 1.0)


def test_a_cluster_that_lost_all_of_its_items_is_one_loss() -> None:
    """Losses are held against the number of units: five lost items of one of ten clusters are a tenth, not a half."""
    rows = [row(f"{k}-{i}", 1.0, cluster=f"k{k}") for k in range(1, 10) for i in range(5)]
    lost = [row(f"0-{i}", 0.0, cluster="k0", finish="timeout") for i in range(5)]
    found = scores_of([*rows, *lost])
    assert (found.n, found.missing) == (10, 1)


def test_the_forecast_names_about_what_it_takes() -> None:
    found = items_to_settle(scores([1.0] * 70 + [0.0] * 30), 0.6, 20.0, 20.0)
    assert found is not None
    low, middle, high = found
    assert 1 <= low <= middle <= high
    total = 100 + middle
    assert e_above(scores([1.0] * round(total * 0.7) + [0.0] * round(total * 0.3)), 0.6) == pytest.approx(20, rel=0.4)
    assert items_to_settle(scores([1.0] * 6 + [0.0] * 4), 0.6, 20.0, 20.0) is None


@pytest.mark.parametrize(("floor", "clusters"), [(0.6, 1), (0.95, 1), (0.6, 4)])
def test_at_the_floor_neither_answer_comes_too_often_however_often_one_looks(floor: float, clusters: int) -> None:
    """Just below the floor no PASS, just above it no FAIL, in more than alpha of the runs; a look after every item."""
    rng = np.random.default_rng(int(floor * 100) + clusters)
    runs, looks = 600, 400
    drawn = (rng.random((runs, looks, clusters)) < floor).mean(axis=2)
    passed, failed = np.ones((runs, len(STAKES))), np.ones((runs, len(STAKES)))
    ever = np.zeros((2, runs), dtype=bool)
    for column in drawn.T:
        passed *= 1 + STAKES * (column[:, None] - floor) / floor
        failed *= 1 + STAKES * (floor - column[:, None]) / (1 - floor)
        ever |= np.stack([passed.mean(axis=1) >= 20, failed.mean(axis=1) >= 20])
    shares = ever.mean(axis=1)
    print(f"floor {floor}, clusters of {clusters}: PASS {shares[0]:.1%}, FAIL {shares[1]:.1%} of runs exactly at it")
    assert (shares <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / runs)).all()
    assert (shares > 0.0).any(), "a rule that never answers would pass every such test"


def test_away_from_the_floor_it_answers() -> None:
    rng = np.random.default_rng(1)
    good = [scores(list((rng.random(300) < 0.75).astype(float))) for _ in range(30)]
    assert sum(e_above(s, 0.6) >= 20 for s in good) >= 28
    assert sum(e_below(s, 0.9) >= 20 for s in good) >= 28
