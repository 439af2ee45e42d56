"""Whose price is still open and could change the decision, so that more items are asked of it.

A price is looked at after 2, 4, 8, ... blocks, each time with an interval at a level that all looks share
(`cost.solved.price_level`): who asks on until an interval excludes 1 would else find that it does sooner or later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question
from quantwise.core.solved_item import PER_SOLVED
from quantwise.cost.course import way_of
from quantwise.cost.solved import FIRST_LOOK, price_looks, priced, solved_items
from quantwise.decision.gates import budget_of
from quantwise.decision.objective import MATERIAL
from quantwise.settle.floor import settle_floor
from quantwise.settle.pair import settle
from quantwise.store import Store


def price_open(store: Store, question: Question, blocks: int) -> frozenset[str]:
    """Candidates whose price none of the looks at the first ``blocks`` blocks has settled; none without prices.

    A candidate that FAILs a gate, or is dearer than the baseline or the budget, is settled; so is one that is shown to
    take less or more than each rival, or alike. Exact terms before the price in the objective settle it too.
    Where prices only rule out, two blocks are asked in any case: one tells no interval and could rule out nothing.
    """
    budget = budget_of(question)
    terms = _price_terms(question)
    decides = bool(terms) or budget is not None
    if not decides and (way_of(question) is None or blocks >= FIRST_LOOK):
        return frozenset()
    live = {
        c.name: c for c in question.candidates
        if c.shippable and store.get("broken", c.name) is None and not _failed(store, question, c)
    }  # fmt: skip
    if not decides:
        return frozenset(live)
    open_ = set(live)
    rows = {c.name: store.rows("certify", c.name) for c in question.candidates if c.name in live or c.baseline}
    for look in price_looks(question):
        if look > blocks or not open_:
            break
        seen = {name: [r for r in of if r.block < look] for name, of in rows.items()}
        open_ -= _settled(question, live, seen, terms, budget)
    return frozenset(open_)


def _price_terms(question: Question) -> list[str]:
    """Money or seconds per solved item, where bytes that differ do not decide before it."""
    terms = []
    for term in question.scenario["objective"]:
        if term == "bytes":
            break
        if term in PER_SOLVED and term != "joules_per_solved":
            terms.append(term)
    return terms


def _failed(store: Store, question: Question, candidate: Candidate) -> bool:
    floors = (settle_floor(store, question, candidate, t).verdict for t in question.floors)
    pairs = (settle(store, question, candidate, t).verdict for t in question.gates if not question.by_floor)
    return "FAIL" in floors or "FAIL" in pairs


def _settled(
    question: Question, live: Mapping[str, Candidate], rows: Mapping[str, Sequence[Measurement]], terms: Sequence[str],
    budget: float | None,
) -> set[str]:  # fmt: skip
    solved = solved_items(question, rows, {}, {})
    names = {name for name, of in rows.items() if of}
    found = priced(question, rows, names) if terms else {}
    out = {n for n, item in solved.items() if n in live and item.dearer(MATERIAL)}
    ours = {n: item.ours.money_interval for n, item in solved.items() if n in live}
    out |= {n for n, span in ours.items() if budget is not None and span is not None and span[0] > budget}
    unsure = {n for n in live if budget is not None and ((span := ours.get(n)) is None or span[1] > budget)}
    settled = set(out)
    for name in set(live) - out - unsure:
        rivals = names - out - {name}
        ratios = [found.get((name, rival), {}).get(term) for rival in rivals for term in terms[:1]]
        if all(ratio is not None and ratio.settled(MATERIAL) for ratio in ratios):
            settled.add(name)
    return settled
