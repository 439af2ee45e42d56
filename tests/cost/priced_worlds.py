"""Simulated candidates whose true cost ratio is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question, TaskQuestion

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
    objective: tuple[str, ...] = ("bytes",)
    budget: float | None = None

    @property
    def question(self) -> Question:
        review = {"probability": self.reviewed, "price": self.price, "solves": self.solves}
        scenario = {"name": "x", "objective": [*self.objective], "prices": {"currency": "EUR", "machine_hour": 3600.0}}
        limit = {} if self.budget is None else {"budget": {"per_solved_item": self.budget}}
        tasks = tuple(TaskQuestion(f"t{t}", "x", "0", "other", 0.01, self.items, 0) for t in range(self.tasks))
        return Question(
            model="m", model_hash="0", scenario={**scenario, **limit, "reruns": self.reruns, "review": review},
            tasks=tasks,
            candidates=(BASE, SMALL), calibration={}, runtimes={}, brought={}, template_hash=None, scorers="1",
        )  # fmt: skip

    @property
    def truth(self) -> float:
        """Money per solved item over the baseline's."""
        return self.true_price / self._unit(self.base_fails, 1.0)

    @property
    def true_price(self) -> float:
        """Money per solved item with the candidate."""
        return self._unit(self.small_fails, self.small_seconds)

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
