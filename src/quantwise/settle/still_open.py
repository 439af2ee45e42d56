"""What is not settled yet: for which candidates and tasks more has to be asked, and of whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question, TaskQuestion
from quantwise.settle.floor import look_at_floor
from quantwise.settle.pair import open_gates, settle
from quantwise.store import Store

Why = Literal["pair", "floor", "price"]
"""A pair and a price are settled beside the baseline, a floor by the candidate alone."""


def still_open(
    store: Store, question: Question, candidate: Candidate, task: TaskQuestion, *, first: int = 0
) -> Why | None:
    """Why a candidate has to be asked more of a task, or None. ``first`` is the first block to look at.

    Where the scenario compares with the floor alone, a pair is shown and settles nothing.
    """
    alone = question.by_floor
    if not alone and open_gates(store, question, candidate, task, first):
        return "pair"
    floors = [gate for gate in question.gates_of(task) if gate.floor is not None]
    # Where another gate shares the rows, a floor may have been settled long before the first block to look at.
    first = first if alone and len(floors) == 1 else 0
    if all(look_at_floor(store, question, candidate, floor, first=first).settled for floor in floors):
        return None
    lost = not alone and settle(store, question, candidate, task).verdict == "FAIL"
    return None if lost else "floor"


def fewest_asked(store: Store, question: Question, unpriced: frozenset[str] = frozenset()) -> dict[str, int]:
    """Each task that is still open, and how many items its least measured open candidate has answered.

    ``unpriced`` are the candidates whose price is open, which concerns all of their tasks.
    """
    fewest: dict[str, int] = {}
    for candidate in question.candidates:
        if candidate.baseline or store.get("broken", candidate.name) is not None:
            continue
        for task in question.tasks:
            why = still_open(store, question, candidate, task) or ("price" if candidate.name in unpriced else None)
            if why is not None:
                asked = asked_of(store, candidate, task)
                fewest[task.name] = min(asked, fewest.get(task.name, asked))
    return fewest


def asked_of(store: Store, candidate: Candidate, task: TaskQuestion) -> int:
    """Certification items that a candidate has answered."""
    return len({row.item for row in store.rows("certify", candidate.name, task.name)})


def with_baseline(open_: Mapping[tuple[str, str], Why], candidate: str, task: str) -> bool:
    """Whether the baseline has to answer beside a candidate."""
    return open_.get((candidate, task)) in ("pair", "price")
