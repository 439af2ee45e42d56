"""When a pair is settled, and the verdict that the committed rows carry.

A pair (candidate, task) is settled at the first block at which its e-value crosses a threshold, and is not measured
further; so its verdict depends only on rows that were committed, and can be recomputed from the run folder at any time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import ANSWERED, Measurement, Pair
from quantwise.core.imported import caveats, ended, imported_left
from quantwise.core.question import EndpointGate, Question, TaskQuestion
from quantwise.core.verdict import Verdict
from quantwise.losses import lost_note
from quantwise.stats.compare import Rule, Supply, compare, verdict_from_comparison
from quantwise.stats.differences import Differences
from quantwise.stats.eprocess import e_value, log_e, log_e_fail
from quantwise.stats.pairing import pairs
from quantwise.stats.wording import MOST_MISSING, percent
from quantwise.store import Store
from quantwise.tasks.answer_signs import asked_texts, shows


@dataclass(frozen=True, slots=True)
class Look:
    """What the committed rows show at the block at which a pair was settled, or at its last one.

    ``missing`` of the ``pairs`` were scored at their worst, and in ``kindly`` at their best, for the candidate;
    ``asked`` counts items, several of which may be one pair.
    """

    pairs: list[Pair]
    kindly: list[Pair]
    missing: int
    asked: int
    settled: bool


def look(store: Store, question: Question, candidate: Candidate, task: TaskQuestion, *, first: int = 0) -> Look:
    """Look after every block in order and stop at the first crossing; a fixed-n question is not looked at on the way.

    ``first`` is the first block to look at, for a caller who knows that earlier ones settled nothing.
    """
    base = question.baseline_of(candidate)
    names = (base.name, candidate.name)
    theirs, ours = (rows_about(store, name, task) for name in names)
    blocks = [by_block(side) for side in (theirs, ours)]
    done = min(store.blocks("certify", name, task.rows_of) for name in names)
    rule = _rule(question)
    seen: list[Pair] = []
    kindly: list[Pair] = []
    missing, block, settled = 0, -1, False
    for block in range(done):
        matched, failed = pairs(*(side[block] for side in blocks))
        seen += matched
        kindly += pairs(*(side[block] for side in blocks), kindly=True)[0] if failed else matched
        missing += failed
        if block >= first and (settled := _crossed(seen, kindly, missing, task.margin, rule)):
            break
    return Look(seen, kindly, missing, len({row.item for row in theirs if row.block <= block}), settled)


def rows_about(store: Store, candidate: str, task: TaskQuestion) -> list[Measurement]:
    """Certification rows; for an endpoint an answer without the sign scores 1, and a request without an answer None.

    A request that was refused is 0 for a scorer, but says nothing of how an answer would have looked.
    """
    rows = store.rows("certify", candidate, task.rows_of)
    if not isinstance(task, EndpointGate):
        return rows
    asked = asked_texts(store.asked(task.of))
    return [
        replace(row, score=1.0 - shows(row, task.endpoint, asked) if row.finish in ANSWERED else None) for row in rows
    ]


def open_gates(store: Store, question: Question, candidate: Candidate, task: TaskQuestion, first: int) -> bool:
    """Whether the task or an endpoint on its answers is unsettled; the ``first`` blocks left the task open."""
    gates = question.gates_of(task)
    # Where several share the rows, some may have been settled long before the block that settles the last.
    return any(not look(store, question, candidate, g, first=first if len(gates) == 1 else 0).settled for g in gates)


def by_block(rows: Sequence[Measurement]) -> dict[int, list[Measurement]]:
    """Block to its rows, without those of a cluster that an earlier block has shown.

    A cluster counts by its items in the first block that has any: if later ones still changed its mean, wealth that was
    already staked would be paid out again, and the e-value would not hold at every look.
    """
    found: dict[int, list[Measurement]] = defaultdict(list)
    shown: dict[str | None, int] = {}
    for row in rows:
        if row.cluster is None or shown.setdefault(row.cluster, row.block) == row.block:
            found[row.block].append(row)
    return found


def _rule(question: Question) -> Rule:
    return Rule(alpha=question.alpha, multiplicity=question.m, mode=question.mode)


def _crossed(seen: Sequence[Pair], kindly: Sequence[Pair], missing: int, margin: float, rule: Rule) -> bool:
    """Whether either e-value has reached its threshold (and not too much is missing for a verdict)."""
    differences = Differences.of_pairs(seen)
    best = Differences.of_pairs(kindly) if missing else differences
    if rule.mode == "fixed" or missing > MOST_MISSING * differences.n:
        return False
    passed = e_value(log_e(differences, margin)) >= rule.pass_threshold
    return passed or e_value(log_e_fail(best, margin)) >= rule.fail_threshold


def settle(store: Store, question: Question, candidate: Candidate, task: TaskQuestion) -> Verdict:
    """The verdict that the committed rows carry; recomputed from the run folder it is always the same."""
    verdict = _settled(store, question, candidate, task)
    imported = store.imported()
    names = (question.baseline_of(candidate).name, candidate.name)
    sides = {name: store.rows("certify", name, task.rows_of) for name in names}
    seen = look(store, question, candidate, task)
    said = (
        *caveats(question, candidate, imported),
        *lost_note(task.rows_of, sides),
        *nothing_to_lose(names[0], task, seen.pairs),
    )
    left = imported_left(question, candidate, task.rows_of, imported, seen.asked)
    if verdict.verdict == "UNKNOWN" and left == 0:
        said += (ended(question, candidate, task.rows_of, imported),)
    explanation = "; ".join(filter(None, (verdict.explanation, *said)))
    return replace(verdict, caveats=said, explanation=explanation) if said else verdict


def nothing_to_lose(baseline: str, task: TaskQuestion, seen: Sequence[Pair]) -> tuple[str, ...]:
    """A sentence where the baseline's own score is no larger than the margin: then no candidate could lose more."""
    score = sum(pair.baseline for pair in seen) / len(seen) if seen else 1.0
    if score > task.margin:
        return ()
    return (
        f"a PASS says nothing here: {baseline} itself scores {percent(score)} on {task.name}, so no candidate could "
        f"lose more than the margin of {percent(task.margin)}",
    )


def _settled(store: Store, question: Question, candidate: Candidate, task: TaskQuestion) -> Verdict:
    base = question.baseline_of(candidate)
    found = look(store, question, candidate, task)
    pace = _pace(store, base, candidate, task)
    if question.mode == "fixed" and 0 < found.asked < task.items:
        return _unfinished(store, base, candidate, task, found.asked)
    differences = Differences.of_pairs(found.pairs)
    return verdict_from_comparison(
        compare(found.pairs, task.margin, question.alpha, found.missing, found.kindly if found.missing else None),
        candidate=candidate.name,
        baseline=base.name,
        task=task.name,
        rule=_rule(question),
        supply=Supply(
            items_left=_left(store, question, candidate, task, found.asked),
            seconds_per_item=pace,
            budget_seconds=0.0 if _stopped_by_budget(store) else None,
        ),
        differences=differences,
    )


def _unfinished(store: Store, base: Candidate, candidate: Candidate, task: TaskQuestion, asked: int) -> Verdict:
    """A fixed-n question before its end: a look now would spend the error rate that was kept for the planned one."""
    left = task.items - asked
    pace = _pace(store, base, candidate, task)
    return Verdict(
        candidate=candidate.name,
        baseline=base.name,
        task=task.name,
        verdict="UNKNOWN",
        reason="budget" if _stopped_by_budget(store) else "need_n",
        comparison=compare([], task.margin),
        n_more=(left, left, left),
        minutes_more=None if pace is None else left * pace / 60.0,
        explanation=f"{asked} of {task.items} items are measured; with --fixed-n they are looked at once, at the end",
    )


def _left(store: Store, question: Question, candidate: Candidate, task: TaskQuestion, asked: int) -> int | None:
    """Items that could still be measured: what is left of a fixed number, of a file or of imported rows, or no limit
    (None)."""
    if question.mode == "fixed":
        return max(0, task.items - asked)
    supply = store.get("supply", task.rows_of)
    known = [imported_left(question, candidate, task.rows_of, store.imported(), asked)]
    known += [] if supply is None or supply["items"] is None else [max(0, int(supply["items"]) - asked)]
    return min((n for n in known if n is not None), default=None)


def _stopped_by_budget(store: Store) -> bool:
    return store.get("stopped", "certify") == "budget"


def _pace(store: Store, base: Candidate, candidate: Candidate, task: TaskQuestion) -> float | None:
    """Seconds that one more paired item takes, as last measured; imported rows take none here."""
    imported = store.imported()
    paces = [store.get("pace", f"{arm.name}|{task.rows_of}") for arm in (base, candidate) if arm.name not in imported]
    known = [float(pace) for pace in paces if pace is not None]
    return sum(known) if known and len(known) == len(paces) else None


def verdicts(store: Store, question: Question) -> list[Verdict]:
    """Every verdict of a run, recomputed from its folder alone."""
    arms = [c for c in question.candidates if not c.baseline]
    # Where floors alone decide, an endpoint is one of them.
    asked = question.tasks if question.by_floor else question.gates
    return [settle(store, question, c, t) for c in arms for t in asked]
