"""Simulated candidates whose true cost ratio is known: do the intervals cover it, and are equals left alone?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from priced_worlds import BASE, SMALL, World

from quantwise.core.evidence import Measurement, Pair
from quantwise.core.solved_item import SolvedItem
from quantwise.cost import solved, turn_luck
from quantwise.decision.objective import MATERIAL
from quantwise.stats.block_noise import BlockNoise
from quantwise.stats.compare import compare


def found(world: World, seed: int) -> SolvedItem:
    question = replace(world.question, seed=seed)
    return solved.solved_items(question, world.rows(np.random.default_rng(seed)), {}, {})[SMALL.name]


def shares(world: World, runs: int) -> tuple[float, float]:
    """How often the interval covers the truth, and how often the candidate is ruled out."""
    covered = ruled_out = 0
    for seed in range(runs):
        item = found(world, seed)
        assert item.interval is not None
        covered += item.interval[0] <= world.truth <= item.interval[1]
        ruled_out += item.dearer(MATERIAL)
    return covered / runs, ruled_out / runs


WORLDS = {
    "three in ten fail": World(0.02, 0.3),
    "slower": World(0.02, 0.02, small_seconds=1.3),
    "faster, fails more": World(0.05, 0.15, small_seconds=0.6),
    "review solves half": World(0.1, 0.2, solves=0.5),
    "sampled, three repeats": World(0.2, 0.4, reruns=2, repeats=3),
    "four tasks": World(0.05, 0.1, items=40, tasks=4),
    "clusters of four": World(0.1, 0.2, items=320, cluster=4),
    "a busy machine": World(0.05, 0.15, items=320, mood=0.2),
    "two blocks": World(0.05, 0.15, items=64),
}
EQUALS = {
    "seldom": World(0.02, 0.02),
    "seldom and dear": World(0.02, 0.02, price=100.0),
    "often": World(0.3, 0.3),
    "never": World(1e-9, 1e-9),
    "a busy machine": World(0.05, 0.05, items=320, mood=0.2),
    "a busy machine, three blocks": World(0.05, 0.05, items=96, mood=0.2),
    "a busy machine, four tasks": World(0.05, 0.05, items=96, tasks=4, mood=0.3),
    "a busy machine, nothing fails": World(1e-9, 1e-9, items=192, mood=0.3),
    "more items": World(0.05, 0.05, items=320),
    "sampled, three repeats": World(0.2, 0.2, reruns=2, repeats=3),
    "clusters of four": World(0.1, 0.1, items=320, cluster=4),
}


def test_the_truth_is_what_many_items_show() -> None:
    for world in (World(0.05, 0.2), World(0.2, 0.4, reruns=2, repeats=3), World(0.1, 0.2, solves=0.5)):
        item = found(replace(world, items=12_000), 7)
        assert item.ratio == pytest.approx(world.truth, rel=0.04)


def test_the_interval_of_seconds_by_hand() -> None:
    """Nothing fails and every answer takes as long: resamples differ by how often they draw half an item that does.

    A resample of 100 items draws it k times, each with probability 1/202: k is 0 in 61 of 100 resamples, and at most 1
    in 91.1, at most 2 in 98.6. So it is 2 at the upper end of 95 %, and 98 items pay for 100 answers; of 75 % it is 1.
    """
    question = World(0.0, 0.0).question
    question = replace(question, scenario={k: v for k, v in question.scenario.items() if k not in ("reruns", "review")})
    rows = {
        arm.name: [
            Measurement(arm.name, "certify", "t0", f"{i:03d}", 0, i // 32, 1.0, "stop", "", seconds=took)
            for i in range(100)
        ]
        for arm, took in ((SMALL, 2.0), (BASE, 0.5))
    }
    item = solved.solved_items(question, rows, {}, {})[SMALL.name]
    assert (item.ours.seconds, item.theirs.seconds) == (2.0, 0.5)
    assert item.ours.seconds_interval == pytest.approx((2.0, 2.0 * 100 / 98))
    assert item.theirs.seconds_interval == pytest.approx((0.5, 0.5 * 100 / 98))
    item = solved.solved_items(replace(question, alpha=0.25), rows, {}, {})[SMALL.name]
    assert item.ours.seconds_interval == pytest.approx((2.0, 2.0 * 100 / 99))


@pytest.mark.parametrize("name", ["three in ten fail", "sampled, three repeats"])
def test_intervals_cover_and_see(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solved, "RESAMPLES", 400)
    covered, ruled_out = shares(WORLDS[name], 60)
    assert covered >= 0.85
    assert ruled_out >= 0.8


@pytest.mark.parametrize("name", ["often", "a busy machine, nothing fails"])
def test_equals_are_seldom_ruled_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solved, "RESAMPLES", 400)
    assert shares(EQUALS[name], 60)[1] <= 0.1


@pytest.mark.long
@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_true_ratio(name: str) -> None:
    covered, ruled_out = shares(WORLDS[name], 800)
    print(f"{name}: true ratio {WORLDS[name].truth:.2f}, covered {covered:.3f}, ruled out {ruled_out:.3f}")
    assert covered >= 0.93


@pytest.mark.long
@pytest.mark.parametrize("name", EQUALS)
def test_equals_are_ruled_out_at_most_as_often_as_alpha(name: str) -> None:
    assert EQUALS[name].truth == pytest.approx(1.0)
    covered, ruled_out = shares(EQUALS[name], 400)
    print(f"equals, {name}: covered {covered:.3f}, ruled out {ruled_out:.3f}")
    assert ruled_out <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("name", ["a busy machine", "a busy machine, nothing fails"])
def test_taking_items_for_independent_rules_out_equals_on_a_busy_machine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the blocks' share of the noise is there for."""
    monkeypatch.setattr(turn_luck, "block_noise", lambda blocks: BlockNoise(0.0, 1, 0.0, 1.0))
    covered, ruled_out = shares(EQUALS[name], 400)
    print(f"equals, {name}, blocks left out: covered {covered:.3f}, ruled out {ruled_out:.3f}")
    assert ruled_out > 0.08


@pytest.mark.long
def test_stopping_when_quality_is_settled_does_not_rule_out_equals() -> None:
    """The loop ends at the first block at which quality is settled, which depends on the same answers."""
    runs, ruled_out = 300, 0
    for seed in range(runs):
        world = World(0.1, 0.1, items=320)
        rows = world.rows(np.random.default_rng(seed))
        for upto in range(32, 321, 32):
            base, small = ([r for r in rows[c.name] if int(r.item) < upto] for c in (BASE, SMALL))
            pairs = [Pair(b.item, b.score or 0.0, s.score or 0.0) for b, s in zip(base, small, strict=True)]
            seen = compare(pairs, 0.1)
            if seen.e_pass >= 20 or seen.e_fail >= 20:
                break
        question = replace(world.question, seed=seed)
        ruled_out += solved.solved_items(question, {BASE.name: base, SMALL.name: small}, {}, {})[SMALL.name].dearer(
            MATERIAL
        )
    print(f"equals, stopped when settled: ruled out {ruled_out / runs:.3f}")
    assert ruled_out / runs <= 0.05
