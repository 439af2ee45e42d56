"""The loop: measure a block of items with all arms in rotating order, compare, stop or go on.

A pair (candidate, task) is settled at the first block at which its e-value crosses a threshold, and is not measured
further; so its verdict depends only on rows that were committed, and can be recomputed from the run folder at any time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Pair
from quantwise.core.progress import Progress
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.verdict import Verdict
from quantwise.measure import Arm, Bench, ItemSupply
from quantwise.stats.compare import MOST_MISSING, Rule, Supply, compare, verdict_from_comparison
from quantwise.stats.differences import Differences
from quantwise.stats.eprocess import log_e, log_e_fail
from quantwise.stats.pairing import pairs
from quantwise.store import Store


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop asking: items per task, and a moment on the monotonic clock."""

    items: Mapping[str, int]
    deadline: float | None = None


def settle(store: Store, question: Question, candidate: Candidate, task: TaskQuestion, *, first: int = 0) -> Verdict:
    """The verdict that the committed rows carry, looking after every block in order and stopping at the first crossing.

    ``first`` is the first block to look at, for a caller who knows that earlier ones settled nothing. A fixed-n
    question is looked at once, when its last item has been answered, and not before.
    """
    base = question.baseline_of(candidate)
    theirs, ours = store.rows("certify", base.name, task.name), store.rows("certify", candidate.name, task.name)
    done = min(store.blocks("certify", base.name, task.name), store.blocks("certify", candidate.name, task.name))
    rule = Rule(alpha=question.alpha, multiplicity=question.m, mode=question.mode)
    looks = range(min(first, done), done) if question.mode == "sequential" else range(max(0, done - 1), done)
    seen: tuple[list[Pair], int] = ([], 0)
    asked = 0
    for block in looks:
        rows = [[r for r in side if r.block <= block] for side in (theirs, ours)]
        seen, asked = pairs(*rows), len(rows[0])
        if _crossed(Differences.of_pairs(seen[0]), seen[1], task.margin, rule):
            break
    if question.mode == "fixed" and asked < task.items:
        seen = ([], 0)
    return verdict_from_comparison(
        compare(seen[0], task.margin, alpha=question.alpha, missing=seen[1]),
        candidate=candidate.name,
        baseline=base.name,
        task=task.name,
        rule=rule,
        supply=Supply(
            items_left=None if task.available is None else max(0, task.available - asked),
            seconds_per_item=_pace(store, base, candidate, task),
        ),
        differences=Differences.of_pairs(seen[0]),
    )


def _crossed(differences: Differences, missing: int, margin: float, rule: Rule) -> bool:
    """Whether either e-value has reached its threshold (and not too much is missing for a verdict)."""
    if rule.mode == "fixed" or missing > MOST_MISSING * differences.n:
        return False
    passed = log_e(differences, margin) >= math.log(rule.pass_threshold)
    return passed or log_e_fail(differences, margin) >= math.log(rule.fail_threshold)


def _pace(store: Store, base: Candidate, candidate: Candidate, task: TaskQuestion) -> float | None:
    """Seconds that one more paired item takes, as last measured."""
    paces = [store.get("pace", f"{arm.name}|{task.name}") for arm in (base, candidate)]
    known = [float(pace) for pace in paces if pace is not None]
    return sum(known) if len(known) == len(paces) else None


def verdicts(store: Store, question: Question) -> list[Verdict]:
    """Every verdict of a run, recomputed from its folder alone."""
    arms = [c for c in question.candidates if not c.baseline]
    return [settle(store, question, c, t) for c in arms for t in question.tasks]


@dataclass(frozen=True, slots=True)
class Certification:
    """The loop with what it needs: where rows go, what was asked, the arms by name, and their items."""

    store: Store
    question: Question
    arms: Mapping[str, Arm]
    supply: ItemSupply
    limits: Limits
    bench: Bench
    progress: Progress

    def run(self) -> None:
        """Measure until every pair is settled, the items are used up, or the budget is spent."""
        candidates = [c for c in self.question.candidates if not c.baseline and c.name in self.arms]
        open_pairs = {(c.name, t.name) for c in candidates for t in self.question.tasks}
        rounds = max((self._blocks(t) for t in self.question.tasks), default=0)
        self.progress.stage("certify", rounds)
        for index in range(rounds):
            if self.limits.deadline is not None and time.monotonic() >= self.limits.deadline:
                return
            open_pairs = self._still_open(open_pairs, index)
            if not open_pairs:
                return
            needed = self._needed(open_pairs, index)
            names = list(self.arms)
            turn = index % len(names)
            for name in names[turn:] + names[:turn]:
                for task in self.question.tasks:
                    if task.name in needed.get(name, ()):
                        self.progress.advance(0, f"{len(open_pairs)} verdicts open, {task.name} {name}")
                        self._measure(self.arms[name], task, index)
            self.progress.advance(1, f"{len(open_pairs)} verdicts open")

    def _blocks(self, task: TaskQuestion) -> int:
        return -(-self.limits.items[task.name] // self.question.block)

    def _still_open(self, open_pairs: set[tuple[str, str]], index: int) -> set[tuple[str, str]]:
        """Pairs that the first ``index`` blocks left open. Fixed-n questions are not looked at before their end."""
        if self.question.mode == "fixed" or index == 0:
            return open_pairs
        left = set()
        for candidate in self.question.candidates:
            for task in self.question.tasks:
                if (candidate.name, task.name) not in open_pairs:
                    continue
                found = settle(self.store, self.question, candidate, task, first=index - 1)
                if found.verdict == "UNKNOWN":
                    left.add((candidate.name, task.name))
        return left

    def _needed(self, open_pairs: set[tuple[str, str]], index: int) -> dict[str, set[str]]:
        """Arm to the tasks of which it must answer this block: open pairs, and the baseline of each."""
        needed: dict[str, set[str]] = defaultdict(set)
        for candidate in self.question.candidates:
            for task in self.question.tasks:
                if (candidate.name, task.name) in open_pairs and index < self._blocks(task):
                    needed[candidate.name].add(task.name)
                    needed[self.question.baseline_of(candidate).name].add(task.name)
        return needed

    def _measure(self, arm: Arm, task: TaskQuestion, index: int) -> None:
        if self.store.has_block(arm.name, "certify", task.name, index):
            return
        first = index * self.question.block
        last = min(first + self.question.block, self.limits.items[task.name])
        items = self.supply(task.name, last)[first:last]
        began = time.monotonic()
        self.store.add_block(items, self.bench.block(arm, items, stage="certify", task=task.name, block=index))
        self.store.put("pace", f"{arm.name}|{task.name}", (time.monotonic() - began) / len(items))
