"""The loop: measure a block of items with all arms in rotating order, look at what is settled, stop or go on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from quantwise.core.artifact import Candidate
from quantwise.core.errors import RuntimeFailure
from quantwise.core.evidence import ANSWERED, LOST, Measurement
from quantwise.core.item import Item
from quantwise.core.progress import Progress
from quantwise.core.question import Question, TaskQuestion
from quantwise.cost.block_energy import asks_for_energy
from quantwise.losses import lost_items
from quantwise.measure import Arm, Bench, ItemSupply, why_lost
from quantwise.runtimes.energy import Joules, meter, meter_of
from quantwise.settle.still_open import Why, still_open, with_baseline
from quantwise.store import Store


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop asking: items per task, and a moment on the monotonic clock."""

    items: Mapping[str, int]
    deadline: float | None = None


def _open(pairs: Mapping[tuple[str, str], Why]) -> str:
    return f"{len(pairs)} verdict{'' if len(pairs) == 1 else 's'} open"


def _place(arm: Arm, task: TaskQuestion, index: int) -> str:
    return f"{arm.name}|{task.name}|{index}"


def _answered_late(rows: Iterable[Measurement], before: Iterable[Measurement]) -> list[Measurement]:
    """``rows`` with ``error`` saying of each answer that it was lost ``before``, as it does of one after a retry."""
    lost = {(row.item, row.repeat): row for row in before if row.finish in LOST}
    told = []
    for row in rows:
        old = lost.get((row.item, row.repeat))
        if old is not None and row.finish in ANSWERED:
            why = f"answered only when a later run asked again, after {old.finish}: {old.error or 'no reason was told'}"
            row = replace(row, error="; ".join(filter(None, (row.error, why))))
        told.append(row)
    return told


def _none_unpriced(store: Store, question: Question, blocks: int) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True)
class Certification:
    """The loop with what it needs: where rows go, what was asked, the arms by name, and their items.

    ``unpriced`` tells, from the first so many blocks, the candidates whose price is open and could change the decision:
    they are asked on, all of their tasks alike.
    """

    store: Store
    question: Question
    arms: Mapping[str, Arm]
    supply: ItemSupply
    limits: Limits
    bench: Bench
    progress: Progress
    unpriced: Callable[[Store, Question, int], frozenset[str]] = _none_unpriced

    def run(self) -> None:
        """Measure until every pair is settled, the items are used up, or the budget is spent.

        A candidate that cannot be opened any more is ruled out; for a baseline RuntimeFailure is raised.
        """
        self.store.put("stopped", "certify", "")
        here = {*self.arms, *self._imported_blocks}
        # Where floors alone decide, the baseline is one arm among others.
        alone = self.question.by_floor
        candidates = [c for c in self.question.candidates if (alone or not c.baseline) and c.name in here]
        tasks = self.question.tasks
        open_pairs: dict[tuple[str, str], Why] = {(c.name, t.name): "pair" for c in candidates for t in tasks}
        rounds = max((self._blocks(t) for t in self.question.tasks), default=0)
        known = self._begun() - 1  # the last of them may be unfinished
        self.progress.stage("certify", rounds, max(0, min(known, rounds)))
        self._ask_lost_again(open_pairs)
        for index in range(rounds):
            open_pairs = self._still_open(open_pairs, index)
            if not open_pairs:
                self.progress.advance(0, "every verdict is reached")
                return
            for arm, task in self._turns(open_pairs, index):
                if self.limits.deadline is not None and time.monotonic() >= self.limits.deadline:
                    self.store.put("stopped", "certify", "budget")
                    self.progress.advance(0, "the budget is spent")
                    return
                self.progress.advance(0, f"{_open(open_pairs)}, {task.name} {arm.name}")
                self._measure(arm, task, index)
            self.progress.advance(int(index >= known), _open(open_pairs))

    def _turns(self, open_pairs: Mapping[tuple[str, str], Why], index: int) -> Iterator[tuple[Arm, TaskQuestion]]:
        """Who has still to answer what of this block; a different arm begins each block."""
        needed = self._needed(open_pairs, index)
        names = list(self.arms)
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            for task in self.question.tasks:
                done = self.store.has_block(name, "certify", task.name, index)
                # A candidate can be lost on the task before.
                if task.name in needed.get(name, ()) and not done and self.store.get("broken", name) is None:
                    yield self.arms[name], task

    def _begun(self) -> int:
        """Blocks that this or an earlier process has begun."""
        return max((self.store.blocks("certify", a, t.name) for a in self.arms for t in self.question.tasks), default=0)

    def _blocks(self, task: TaskQuestion) -> int:
        return -(-self.limits.items[task.name] // self.question.block)

    @cached_property
    def _imported_blocks(self) -> dict[str, dict[str, int]]:
        """Candidate that another machine measured to the blocks of each task that were imported."""
        return {
            name: {t.name: self.store.blocks("certify", name, t.name) for t in self.question.tasks}
            for name in self.store.imported()
        }

    def _blocks_of(self, candidate: Candidate, task: TaskQuestion) -> int:
        """Blocks that can be compared: as many as are asked for, and as imported rows reach."""
        sides = (candidate.name, self.question.baseline_of(candidate).name)
        known = [self._imported_blocks[name][task.name] for name in sides if name in self._imported_blocks]
        return min([self._blocks(task), *known])

    def _still_open(self, open_pairs: Mapping[tuple[str, str], Why], index: int) -> dict[tuple[str, str], Why]:
        """Pairs that the first ``index`` blocks left open, without those of candidates that were lost meanwhile."""
        left: dict[tuple[str, str], Why] = {}
        unpriced = self.unpriced(self.store, self.question, index)
        for candidate in self.question.candidates:
            if self.store.get("broken", candidate.name) is not None:
                continue
            for task in self.question.tasks:
                pair = (candidate.name, task.name)
                if pair not in open_pairs or index >= self._blocks_of(candidate, task):
                    continue
                why = still_open(self.store, self.question, candidate, task, first=max(0, index - 1))
                if why is not None or candidate.name in unpriced:
                    left[pair] = "price" if candidate.name in unpriced else why or "pair"
        return left

    def _needed(self, open_pairs: Mapping[tuple[str, str], Why], index: int) -> dict[str, set[str]]:
        """Arm to the tasks of which it must answer this block: open pairs, and the baseline of each."""
        needed: dict[str, set[str]] = defaultdict(set)
        for candidate in self.question.candidates:
            for task in self.question.tasks:
                if (candidate.name, task.name) in open_pairs and index < self._blocks_of(candidate, task):
                    needed[candidate.name].add(task.name)
                    if with_baseline(open_pairs, candidate.name, task.name):
                        needed[self.question.baseline_of(candidate).name].add(task.name)
        return needed

    def _ask_lost_again(self, open_pairs: Mapping[tuple[str, str], Why]) -> None:
        """Ask once more what servers of somebody else lost in an earlier process, if a verdict is still open on it.

        An answer replaces what was unknown and was held against every verdict, so those that were reached stand. For
        times it stays what it was, a request that failed: this server may be less busy than the one that was measured.
        """
        left: dict[tuple[str, str], Why] = {}
        for candidate in self.question.candidates:
            for task in self.question.tasks:
                pair = (candidate.name, task.name)
                if pair not in open_pairs or self.store.get("broken", candidate.name) is not None:
                    continue
                if (why := still_open(self.store, self.question, candidate, task)) is not None:
                    left[pair] = why
        needed = self._needed(left, 0)
        for name, arm in self.arms.items():
            if arm.candidate.runtime != "openai":
                continue
            for task in (t for t in self.question.tasks if t.name in needed.get(name, ())):
                before = self.store.rows("certify", name, task.name)
                for index, ids in sorted(lost_items(before).items()):
                    if self.limits.deadline is not None and time.monotonic() >= self.limits.deadline:
                        return
                    self.progress.advance(0, f"{len(ids)} lost before, {task.name} {name}")
                    items = [item for item in self._items(task, index) if item.id in ids]
                    if (rows := self._asked(arm, task, index, items)) is not None:
                        # What was spent on asking again was not metered.
                        self.store.forget("joules", _place(arm, task, index))
                        self.store.replace_rows(_answered_late(rows, before))

    def _items(self, task: TaskQuestion, index: int) -> Sequence[Item]:
        first = index * self.question.block
        last = min(first + self.question.block, self.limits.items[task.name])
        return self.supply(task.name, last)[first:last]

    def _asked(self, arm: Arm, task: TaskQuestion, index: int, items: Sequence[Item]) -> Sequence[Measurement] | None:
        """Rows, or None where the candidate is out now because its runtime is gone. Raises for a baseline."""
        if self.store.get("broken", arm.name) is not None:
            return None
        try:
            return self.bench.block(arm, items, stage="certify", task=task.name, block=index)
        except RuntimeFailure as error:
            if arm.candidate.baseline:
                raise
            why = why_lost(arm, error).replace("cannot be run:", "cannot be run any more:", 1)
            self.store.put("broken", arm.name, {"why": why})
            return None

    def _meter(self, arm: Arm) -> AbstractContextManager[Joules]:
        """Idle where nobody asks for energy: a meter takes part of the processor that is being measured."""
        if not asks_for_energy(self.question):
            return nullcontext(Joules())
        return meter_of(arm.artifact.location) if arm.candidate.runtime == "openai" else meter()

    def _measure(self, arm: Arm, task: TaskQuestion, index: int) -> None:
        items = self._items(task, index)
        began = time.monotonic()
        with self._meter(arm) as used:
            rows = self._asked(arm, task, index, items)
        if rows is None:
            return
        if (used.cpu, used.gpu) != (None, None):  # before its rows: a block that is asked again is metered again
            body = {"candidate": arm.name, "task": task.name, "block": index, "cpu": used.cpu, "gpu": used.gpu}
            self.store.put("joules", _place(arm, task, index), body)
        self.store.add_block(items, rows)
        self.store.put("pace", f"{arm.name}|{task.name}", (time.monotonic() - began) / len(items))
