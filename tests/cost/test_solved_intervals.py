"""Simulated candidates whose true cost ratio is known: do the intervals cover it, and are equals left alone?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement, Pair
from quantwise.core.question import Question
from quantwise.core.solved_item import SolvedItem
from quantwise.cost import solved
from quantwise.decision.objective import MATERIAL
from quantwise.stats.compare import compare

BASE, SMALL = Candidate("f16", "llamacpp", baseline=True), Candidate("q4_0", "llamacpp")


@dataclass(frozen=True)
class World:
    """Items of varied length; a share of each arm's answers fails, half of the time on the same items.

    An answer that fails takes half as long again. With ``repeats`` above 1, items differ in how often they fail (a beta
    distribution of that mean). ``mood`` is the spread of the machine's speed from block to block. The machine costs 1 a
    second, so that a review at ``price`` 10 costs five answers.
    """

    base_fails: float
    small_fails: float
    items: int = 96
    small_seconds: float = 1.0
    reruns: int = 1
    reviewed: float = 0.5
    price: float = 10.0
    solves: float = 1.0
    repeats: int = 1
    tasks: int = 1
    cluster: int = 1
    mood: float = 0.0

    @property
    def question(self) -> Question:
        review = {"probability": self.reviewed, "price": self.price, "solves": self.solves}
        scenario = {"name": "x", "objective": ["bytes"], "prices": {"currency": "EUR", "machine_hour": 3600.0}}
        return Question(
            model="m", model_hash="0", scenario={**scenario, "reruns": self.reruns, "review": review}, tasks=(),
            candidates=(BASE, SMALL), calibration={}, runtimes={}, brought={}, template_hash=None, scorers="1",
        )  # fmt: skip

    @property
    def truth(self) -> float:
        """Money per solved item over the baseline's."""
        return self._unit(self.small_fails, self.small_seconds) / self._unit(self.base_fails, 1.0)

    def _unit(self, fails: float, seconds: float) -> float:
        # Probability that the first j answers all fail: of a beta(3 f, 3 (1 - f)), or all alike after the only one.
        a, b = 3 * fails, 3 * (1 - fails)
        open_ = [1.0, fails]
        for j in range(1, self.reruns + 1):
            open_.append(open_[-1] * ((a + j) / (a + b + j) if self.repeats > j else 1.0))
        per_answer = [
            open_[j + 1] * 1.5 * seconds + (open_[j] - open_[j + 1]) * seconds for j in range(self.reruns + 1)
        ]
        left = open_[self.reruns + 1]
        spent = sum(per_answer) * 2.0 + left * self.reviewed * self.price
        return spent / (1.0 - left + left * self.reviewed * self.solves)

    def rows(self, rng: np.random.Generator) -> dict[str, list[Measurement]]:
        arms = {BASE.name: (self.base_fails, 1.0), SMALL.name: (self.small_fails, self.small_seconds)}
        found = {}
        for name, ways in arms.items():
            # In its turn an arm answers a block of every task.
            moods = np.exp(rng.normal(-(self.mood**2) / 2.0, self.mood, self.items // 32 + 1))
            found[name] = [row for t in range(self.tasks) for row in self._arm(rng, name, t, *ways, moods)]
        return found

    def _arm(
        self, rng: np.random.Generator, name: str, task: int, fails: float, seconds: float, moods: np.ndarray
    ) -> Iterator[Measurement]:
        n = self.items
        # Both arms draw these from one seed: the items are the same.
        shared = np.random.default_rng(abs(hash((self.seed_of(rng), task))))
        length = 2.0 * shared.gamma(4.0, 0.25, n)
        common, is_common = shared.random(n)[np.arange(n) // self.cluster], shared.random(n) < 0.5
        if self.repeats > 1:
            rates = rng.beta(3 * fails, 3 * (1 - fails), n)
        for i in range(n):
            for k in range(self.repeats):
                if self.repeats > 1:
                    failed = bool(rng.random() < rates[i])
                else:
                    failed = bool((common[i] if is_common[i] else rng.random()) < fails)
                took = float(length[i] * moods[i // 32] * seconds * rng.gamma(25.0, 0.04) * (1.5 if failed else 1.0))
                yield Measurement(
                    name, "certify", f"t{task}", f"{i:04d}", k, i // 32, float(not failed), "stop", "",
                    cluster=f"c{i // self.cluster}" if self.cluster > 1 else None, seconds=took,
                )  # fmt: skip

    @staticmethod
    def seed_of(rng: np.random.Generator) -> int:
        """The seed that the generator was made of."""
        return int(rng.bit_generator.seed_seq.entropy)  # type: ignore[attr-defined]


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
    "one block": World(0.1, 0.1, items=32),
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
    monkeypatch.setattr(solved, "block_noise", lambda blocks: (0.0, 0))
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
