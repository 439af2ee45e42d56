"""A price that is looked at again and again: at the boundary it is told wrongly no more often than alpha says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from priced_worlds import BASE, SMALL, World

from quantwise.core.solved_item import Priced, SolvedItem
from quantwise.cost import solved
from quantwise.decision.objective import MATERIAL

ALPHA = 0.05
RUNS = 1000
# A share that is refuted as alpha at two standard errors.
MOST = ALPHA + 2.0 * (ALPHA * (1.0 - ALPHA) / RUNS) ** 0.5
LOOKED_AT = World(
    0.1, 0.1, items=512, objective=("money_per_solved", "bytes")
)  # looks after 2, 4, 8 and 16 blocks, the last of which is the end
EQUALS = {
    "seldom": replace(LOOKED_AT, base_fails=0.02, small_fails=0.02),
    "seldom and dear": replace(LOOKED_AT, base_fails=0.02, small_fails=0.02, price=100.0),
    "often": replace(LOOKED_AT, base_fails=0.3, small_fails=0.3),
    "never": replace(LOOKED_AT, base_fails=1e-9, small_fails=1e-9),
    "no review": replace(LOOKED_AT, reviewed=0.0, price=0.0),
    "sampled, three repeats": replace(LOOKED_AT, base_fails=0.2, small_fails=0.2, reruns=2, repeats=3),
    "clusters of four": replace(LOOKED_AT, cluster=4),
    "four tasks": replace(LOOKED_AT, base_fails=0.05, small_fails=0.05, items=256, tasks=4),
    "a busy machine": replace(LOOKED_AT, mood=0.2),
    "a busy machine, nothing fails": replace(LOOKED_AT, base_fails=1e-9, small_fails=1e-9, mood=0.3),
}


def at_every_look(world: World, seed: int) -> list[SolvedItem]:
    """What a run tells at each look that the loop takes and at the end; nothing where clusters are too few."""
    question = replace(world.question, seed=seed)
    rows = world.rows(np.random.default_rng(seed))
    ends = sorted({*solved.price_looks(question), -(-world.items // question.block)})
    seen = [{name: [r for r in of if r.block < end] for name, of in rows.items()} for end in ends]
    told = [solved.solved_items(question, some, {}, {}).get(SMALL.name) for some in seen]
    return [item for item in told if item is not None]


def misjudged(world: World, runs: int) -> tuple[float, float]:
    """Shares of runs of equals in which any look says what is not so.

    That one costs more or less than the other, and, with a budget of exactly the true price, that it is over or within
    it. Both come from the same run: the interval knows no budget but for its level, which a price in the objective
    shares among the looks alike.
    """
    apart = judged = 0
    for seed in range(runs):
        found = at_every_look(world, seed)
        # The one interval that ranks two arms and that rules one out (`test_priced_and_solved_tell_one_interval`).
        ratios = [Priced(i.ratio, *i.interval) for i in found if i.ratio and i.interval]
        prices = [i.ours.money_interval for i in found if i.ours.money_interval]
        apart += any(ratio.direction(MATERIAL) for ratio in ratios)
        judged += any(low > world.true_price or high <= world.true_price for low, high in prices)
    return apart / runs, judged / runs


def test_priced_and_solved_tell_one_interval() -> None:
    """What ranks two arms is what rules one out, so that both err together."""
    world = replace(EQUALS["often"], items=64, small_fails=0.4)
    rows = world.rows(np.random.default_rng(3))
    between = solved.priced(world.question, rows, set(rows))[SMALL.name, BASE.name]["money_per_solved"]
    item = solved.solved_items(world.question, rows, {}, {})[SMALL.name]
    assert between is not None
    assert item.interval is not None
    assert (between.ratio, between.low, between.high) == pytest.approx((item.ratio, *item.interval))


def test_a_budget_alone_shares_alpha_among_the_looks_as_an_objective_does() -> None:
    alone = replace(LOOKED_AT, objective=("bytes",), budget=1.0)
    assert solved.price_level(alone.question) == solved.price_level(LOOKED_AT.question) == pytest.approx(ALPHA / 5)
    assert solved.price_level(replace(alone, budget=None).question) == ALPHA


@pytest.mark.parametrize("name", ["often", "a busy machine, nothing fails"])
def test_equals_are_seldom_misjudged_at_any_look(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solved, "RESAMPLES", 500)
    assert max(misjudged(replace(EQUALS[name], items=128), 150)) <= ALPHA


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", EQUALS)
def test_equals_are_misjudged_at_any_look_at_most_as_often_as_alpha(name: str) -> None:
    assert EQUALS[name].truth == pytest.approx(1.0)
    apart, judged = misjudged(EQUALS[name], RUNS)
    print(f"equals at every look, {name}: told apart {apart:.4f}, over or within a budget of their price {judged:.4f}")
    assert apart <= MOST
    assert judged <= MOST
