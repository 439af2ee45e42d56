"""The loop: measure a block of items with all arms in rotating order, compare, stop or go on.

A pair (candidate, task) is settled at the first block at which its e-value crosses a threshold, and is not measured
further; so its verdict depends only on rows that were committed, and can be recomputed from the run folder at any time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.core.artifact import Candidate
from quantwise.core.progress import Progress
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.verdict import Comparison, Verdict
from quantwise.measure import Arm, Bench, Supply
from quantwise.stats.compare import Rule, compare, verdict_from_comparison
from quantwise.stats.pairing import pairs
from quantwise.store import Store

@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop asking: items per task, and a moment on the monotonic clock."""

    items: Mapping[str, int]
    deadline: float | None = None


def settle(store: Store, question: Question, candidate: Candidate, task: TaskQuestion, *, more: int = 0, first: int = 0) -> Verdict:
    """The verdict that the committed rows carry, looking after every block in order and stopping at the first crossing.

    ``more`` is how many certification items beyond the planned number are allowed (``--more``); ``first`` is the first
    block to look at, for a caller who knows that earlier ones settled nothing.
    """
    base = question.baseline_of(candidate)
    theirs, ours = store.rows("certify", base.name, task.name), store.rows("certify", candidate.name, task.name)
    done = min(store.blocks("certify", base.name, task.name), store.blocks("certify", candidate.name, task.name))
    rule = Rule(alpha=question.alpha, multiplicity=question.m, mode=question.mode)
    planned = task.items + more
    verdict: Verdict | None = None
    for block in range(min(first, done), done) if question.mode == "sequential" else [done - 1] if done else []:
        seen = [[r for r in rows if r.block <= block] for rows in (theirs, ours)]
        matched, missing = pairs(*seen)
        comparison = compare(matched, task.margin, alpha=question.alpha, missing=missing)
        verdict = verdict_from_comparison(
            comparison,
            candidate=candidate.name,
            baseline=base.name,
            task=task.name,
            rule=rule,
            items_left=max(0, planned - len(seen[0])),
            seconds_per_item=store.get("pace", f"{candidate.name}|{task.name}"),
        )
        if verdict.verdict != "UNKNOWN":
            break
    if verdict is None:
        return Verdict(candidate.name, base.name, task.name, "UNKNOWN", "not_measured", _nothing(task.margin),
                       explanation="UNKNOWN: not measured")  # fmt: skip
    return verdict


def _nothing(margin: float) -> Comparison:
    return Comparison(n=0, regressions=0, improvements=0, margin=margin, delta=None, interval=None, e_pass=1.0, e_fail=1.0)


def verdicts(store: Store, question: Question) -> list[Verdict]:
    """Every verdict of a run, recomputed from its folder alone."""
    extra = {task.name: int(store.get("extension", task.name) or 0) for task in question.tasks}
    arms = [c for c in question.candidates if not c.baseline]
    return [settle(store, question, c, t, more=extra[t.name]) for c in arms for t in question.tasks]


def certify(
    store: Store, question: Question, arms: Mapping[str, Arm], supply: Supply, limits: Limits, bench: Bench, progress: Progress
) -> None:
    """Measure until every pair is settled, the items are used up, or the budget is spent.

    ``arms`` holds the candidates that survived the screen, by name, and their baselines.
    """
    progress.stage("certify", sum(limits.items.values()) * len(arms))
    rounds = max((_blocks(question, n) for n in limits.items.values()), default=0)
    open_pairs = {(c.name, t.name) for c in question.candidates if not c.baseline and c.name in arms for t in question.tasks}
    for index in range(rounds):
        if limits.deadline is not None and time.monotonic() >= limits.deadline:
            return
        open_pairs = _still_open(store, question, open_pairs, limits, index)
        if not open_pairs:
            return
        needed = _needed(question, open_pairs, limits, index)
        names = list(arms)
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            for task in question.tasks:
                if task.name in needed.get(name, ()):
                    _measure_block(store, question, arms[name], task, supply, (index, limits.items[task.name]), bench, progress)


def _blocks(question: Question, items: int) -> int:
    return -(-items // question.block)


def _still_open(store: Store, question: Question, open_pairs: set[tuple[str, str]], limits: Limits, index: int) -> set[tuple[str, str]]:
    """Pairs that the first ``index`` blocks have not settled. Fixed-n questions are not looked at before their end."""
    if question.mode == "fixed" or index == 0:
        return open_pairs
    left = set()
    for candidate in question.candidates:
        for task in question.tasks:
            if (candidate.name, task.name) not in open_pairs:
                continue
            more = max(0, limits.items[task.name] - task.items)
            if settle(store, question, candidate, task, more=more, first=index - 1).verdict == "UNKNOWN":
                left.add((candidate.name, task.name))
    return left


def _needed(question: Question, open_pairs: set[tuple[str, str]], limits: Limits, index: int) -> dict[str, set[str]]:
    """Arm to the tasks of which it must answer this block: open pairs, and the baseline of each."""
    needed: dict[str, set[str]] = defaultdict(set)
    for candidate in question.candidates:
        for task in question.tasks:
            if (candidate.name, task.name) in open_pairs and index < _blocks(question, limits.items[task.name]):
                needed[candidate.name].add(task.name)
                needed[question.baseline_of(candidate).name].add(task.name)
    return needed


def _measure_block(
    store: Store, question: Question, arm: Arm, task: TaskQuestion, supply: Supply, place: tuple[int, int], bench: Bench, progress: Progress
) -> None:  # fmt: skip
    index, planned = place
    first, last = index * question.block, min((index + 1) * question.block, planned)
    if not store.has_block(arm.name, "certify", task.name, index):
        items = supply(task.name, last)[first:last]
        began = time.monotonic()
        store.add_block(items, bench.block(arm, items, stage="certify", task=task.name, block=index))
        store.put("pace", f"{arm.name}|{task.name}", (time.monotonic() - began) / len(items))
    progress.advance(last - first, f"{task.name} {arm.name}")
