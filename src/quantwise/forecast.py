"""What a question will take, told before anything runs."""

from __future__ import annotations

from collections import defaultdict

from quantwise.core.question import Question, TaskQuestion
from quantwise.stats.sample_size import items_needed, zero_flip_floor_sequential
from quantwise.stats.tango import zero_flip_floor
from quantwise.stats.wording import about, percent


def expectations(question: Question) -> list[str]:
    """One line per margin: the items that a PASS takes at several flip rates, and where the planned ones cannot do."""
    by_margin: dict[float, list[TaskQuestion]] = defaultdict(list)
    for task in question.tasks:
        by_margin[task.margin].append(task)
    lines = []
    for margin, tasks in sorted(by_margin.items()):
        rows = items_needed(margin, question.alpha, question.m)
        fixed = question.mode == "fixed"
        needs = ", ".join(f"{about(r.fixed if fixed else r.typical)} if {percent(r.flip_rate)} flip" for r in rows)
        names = ", ".join(t.name for t in tasks) if len(tasks) < len(question.tasks) else "every task"
        planned = sorted({t.items for t in tasks})
        spread = f"{planned[0]}" if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"
        lines.append(f"margin {percent(margin)} ({names}): items for a PASS: about {needs}; planned: {spread}")
        floor = _floor(question, margin)
        if short := [t.name for t in tasks if t.items < floor]:
            lines.append(f"  {', '.join(short)} will hardly PASS: without a single flip it takes {floor} items")
    return lines


def _floor(question: Question, margin: float) -> int:
    if question.mode == "fixed":
        return zero_flip_floor(margin, question.alpha / question.m)
    return zero_flip_floor_sequential(margin, question.pass_threshold)
