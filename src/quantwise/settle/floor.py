"""Where an arm stands by itself: the verdict on an absolute floor that the committed rows carry.

It is settled at the first block at which one of its e-values crosses, as a pair is, and not measured further for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import EndpointGate, Question, TaskQuestion
from quantwise.core.verdict import Answer, FloorVerdict, Reason, two_digits
from quantwise.settle.pair import by_block, rows_about
from quantwise.stats.floor import Scores, bounds, e_above, e_below, items_to_settle, scores_of
from quantwise.stats.wording import MOST_MISSING, rounded_down, rounded_up
from quantwise.store import Store


@dataclass(frozen=True, slots=True)
class FloorLook:
    """Scores up to the block at which the floor was settled, or up to the last one; ``asked`` counts items."""

    scores: Scores
    asked: int
    settled: bool


def look_at_floor(
    store: Store, question: Question, candidate: Candidate, task: TaskQuestion, *, first: int = 0
) -> FloorLook:
    """Look after every block in order and stop at the first crossing; ``first`` as `settle.pair.look` has it.

    Of a fixed-n question the look is the one at the end. Raises ValueError for a task without a floor.
    """
    if task.floor is None:
        raise ValueError(f"{task.name} has no floor")
    rows = rows_about(store, candidate.name, task)
    blocks = by_block(rows)
    done = store.blocks("certify", candidate.name, task.rows_of)
    seen: list[Measurement] = []
    settled, block = False, -1
    scores = scores_of(seen)
    for block in range(done):
        seen += blocks[block]
        if block < first and block < done - 1:
            continue
        scores = scores_of(seen)
        if question.mode == "sequential" and (settled := _answer(scores, question, task.floor) is not None):
            break
    return FloorLook(scores, len({row.item for row in rows if row.block <= block}), settled)


def settle_floor(store: Store, question: Question, candidate: Candidate, task: TaskQuestion) -> FloorVerdict:
    """PASS, FAIL or UNKNOWN with the items that would settle it. Raises ValueError for a task without a floor."""
    found = look_at_floor(store, question, candidate, task)
    scores, floor = found.scores, task.floor or 0.0
    finished = question.mode == "sequential" or found.asked >= task.items
    answer = _answer(scores, question, floor) if finished else None
    more = None if answer else items_to_settle(scores, floor, question.pass_threshold, 1.0 / question.alpha)
    low, high = bounds(scores, question.pass_threshold, 1.0 / question.alpha)
    reason: Reason = "" if answer else _reason(scores, more)
    verdict = FloorVerdict(
        candidate=candidate.name,
        task=task.name,
        floor=floor,
        verdict=answer or "UNKNOWN",
        reason=reason,
        n=scores.n,
        mean=scores.mean,
        low=low,
        high=high,
        e_pass=e_above(scores, floor),
        e_fail=e_below(scores, floor),
        missing=scores.missing,
        n_more=more,
    )
    counted = "items without it" if isinstance(task, EndpointGate) else "items"
    return replace(verdict, explanation=_explained(verdict, counted))


def floor_verdicts(store: Store, question: Question) -> list[FloorVerdict]:
    """Of every arm and every floor, recomputed from the run folder alone."""
    return [settle_floor(store, question, c, gate) for c in question.candidates for gate in question.floors]


def _answer(scores: Scores, question: Question, floor: float) -> Answer | None:
    """PASS or FAIL where an e-value has reached its threshold and not too much is missing."""
    if not scores.n or scores.missing > MOST_MISSING * scores.n:
        return None
    if e_above(scores, floor) >= question.pass_threshold:
        return "PASS"
    return "FAIL" if e_below(scores, floor) >= 1.0 / question.alpha else None


def _reason(scores: Scores, more: tuple[int, int, int] | None) -> Reason:
    if not scores.n:
        return "not_measured"
    if scores.missing > MOST_MISSING * scores.n:
        return "missing"
    return "need_n" if more else "margin_unreachable"


def _explained(found: FloorVerdict, counted: str) -> str:
    if found.mean is None:
        return "not measured"
    low, high = f"{rounded_down(found.low):.1%}", f"{rounded_up(found.high):.1%}"
    lead = f"{found.mean:.1%} of {found.n} {counted}, floor {found.floor:.1%}"
    if found.verdict == "PASS":
        return f"{lead}: shown to be at or above it (lower bound {low}, valid at every look)"
    if found.verdict == "FAIL":
        return f"{lead}: shown to be below it (upper bound {high}, valid at every look)"
    if found.reason == "missing":
        return f"{lead}: {found.missing / found.n:.1%} of the items are lost, too many to tell"
    between = f"{lead}: between {low} and {high}"
    if found.n_more is None:
        return f"{between}; too near the floor for a forecast"
    least, middle, most = map(two_digits, found.n_more)
    return f"{between}; about {middle:,} more items ({least:,} to {most:,}) would settle it"
