"""The objective: which of two candidates it prefers, and in what order it puts them.

Bytes are exact; what is measured decides only where resampling says that the difference is no chance, and
it is material.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Fit
from quantwise.core.question import Question
from quantwise.core.solved_item import PER_SOLVED, Priced, SolvedItem, Solving
from quantwise.core.verdict import Cost, FloorVerdict, Verdict

# Of one: measured costs that differ by less are what nobody changes a deployment for.
MATERIAL = 0.05
# These carry noise from item to item, so that a difference must also be shown by resampling.
MEASURED_PER_ITEM = ("seconds_per_item", "joules_per_item", "p99_over_p50", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the rule looks at.

    ``broken`` is candidate -> why, ``noise`` runtime -> share of items on which the baseline differs from itself.
    ``ratios`` gives, for two candidates and a measured term of an objective, the interval of the first's over the
    second's, or None where nothing can be said of it. ``solved`` is what a solved item costs with a candidate, where
    the scenario states prices.
    """

    verdicts: Sequence[Verdict]
    fits: Mapping[str, Fit]
    costs: Mapping[str, Cost]
    broken: Mapping[str, str]
    p95_seconds: Mapping[str, float | None]
    noise: Mapping[str, float | None] = field(default_factory=dict)
    ratios: Mapping[tuple[str, str], Mapping[str, tuple[float, float] | None]] = field(default_factory=dict)
    solved: Mapping[str, SolvedItem] = field(default_factory=dict)
    dequantized: frozenset[str] = frozenset()
    """Candidates whose sessions said that weights are expanded first, whatever was expected of them."""
    floors: Sequence[FloorVerdict] = ()
    priced: Mapping[tuple[str, str], Mapping[str, Priced | None]] = field(default_factory=dict)
    """For two candidates and a term per solved item: the first's over the second's on the items that both answered."""

    def price_of(self, candidate: Candidate) -> Solving | None:
        """What a solved item takes with a candidate; with a baseline on the most items that a candidate shares."""
        if (own := self.solved.get(candidate.name)) is not None:
            return own.ours
        beside = [one for one in self.solved.values() if one.baseline == candidate.name]
        return max(beside, key=lambda one: one.items).theirs if beside else None


def no_better(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """Why the objective does not speak for leaving the baseline; None where it does."""
    base = question.baseline_of(candidate)
    for term in question.scenario["objective"]:
        answer = prefer(evidence, candidate, base, term)
        if answer < 0:
            return None
        if answer > 0:
            ours, theirs = value_of(evidence, candidate, term), value_of(evidence, base, term)
            return f"passes, but {base.name} is better: {words(term)} {number(theirs)} against {number(ours)}"
    terms = ", ".join(words(t) for t in question.scenario["objective"])
    return f"passes, but nothing shows that it is better than {base.name}: {terms} are equal within noise, or unknown"


def ranked_by(question: Question, evidence: Evidence, eligible: Sequence[Candidate]) -> list[Candidate]:
    """Best first: term by term, whoever is worse than that term's best by more than noise drops behind; then the order
    in which they were named."""
    terms = [t for t in question.scenario["objective"] if all(value_of(evidence, c, t) is not None for c in eligible)]
    left, ranked = list(eligible), []
    while left:
        leaders = left
        for term in terms:
            best = min(leaders, key=lambda c: value_of(evidence, c, term) or 0.0)
            leaders = [c for c in leaders if prefer(evidence, c, best, term) <= 0]
        ranked.append(leaders[0])
        left.remove(leaders[0])
    return ranked


def prefer(evidence: Evidence, one: Candidate, two: Candidate, term: str) -> int:
    """-1 where the first is better by this term, 1 where the second is, 0 where it is unknown or within the noise."""
    a, b = value_of(evidence, one, term), value_of(evidence, two, term)
    if a is None or b is None or a == b:
        return 0
    name = term.removeprefix("-")
    if name in PER_SOLVED:
        found = evidence.priced.get((one.name, two.name), {}).get(name)
        return 0 if found is None else found.direction(MATERIAL)
    if name != "bytes" and abs(a - b) <= MATERIAL * min(abs(a), abs(b)):
        return 0
    if name in MEASURED_PER_ITEM:
        interval = evidence.ratios.get((one.name, two.name), {}).get(name)
        # The interval is of what both were asked, the values of all that each was: they must point the same way.
        shown = interval is not None and (interval[1] < 1.0 if abs(a) < abs(b) else interval[0] > 1.0)
        if not shown:
            return 0
    return -1 if a < b else 1


def value_of(evidence: Evidence, candidate: Candidate, term: str) -> float | None:
    """One term of an objective; a leading minus means that more is better."""
    cost, name = evidence.costs.get(candidate.name), term.removeprefix("-")
    if name in PER_SOLVED:
        price = evidence.price_of(candidate)
        return None if price is None else getattr(price, PER_SOLVED[name])
    if cost is None:
        return None
    value = {
        "bytes": cost.artifact_bytes,
        "memory_bytes": cost.memory_bytes,
        "seconds_per_item": cost.seconds_per_item,
        "p99_over_p50": cost.p99_over_p50,
        "tokens_per_s": cost.tokens_per_s,
        "joules_per_item": cost.joules_per_item,
    }[name]
    if value is None:
        return None
    return -value if term.startswith("-") else float(value)


def unknown_objectives(question: Question, evidence: Evidence, arms: Sequence[Candidate]) -> list[str]:
    return [
        t for t in question.scenario["objective"] if any(value_of(evidence, c, t) is None for c in arms if c.shippable)
    ]


def size_of(evidence: Evidence, candidate: Candidate) -> int | None:
    cost = evidence.costs.get(candidate.name)
    return cost.artifact_bytes if cost else None


def compared(question: Question, evidence: Evidence, chosen: Candidate, other: Candidate) -> str:
    for term in question.scenario["objective"]:
        if prefer(evidence, chosen, other, term):
            a, b = value_of(evidence, chosen, term), value_of(evidence, other, term)
            return f"{words(term)} {number(a)} against {number(b)}"
    return "equal within noise by the objective, and named first"


def words(term: str) -> str:
    return term.removeprefix("-").replace("_", " ")


def number(value: float | None) -> str:
    if value is not None and math.isinf(value):
        return "without end (its p99 falls on a request that failed or was asked again)"
    return "unknown" if value is None else f"{abs(value):,.4g}" if abs(value) < 1e4 else f"{abs(value):,.0f}"


def not_shown(question: Question, evidence: Evidence, one: Candidate, two: Candidate) -> list[str]:
    """What stands before the term that tells two candidates apart, and is not shown to differ between them."""
    said: list[str] = []
    for term in question.scenario["objective"]:
        if prefer(evidence, one, two, term):
            return [f"{line}, so {words(term)} decided between them" for line in said]
        if term in PER_SOLVED:
            found = evidence.priced.get((one.name, two.name), {}).get(term)
            ratio = "unknown" if found is None else f"{found.ratio:.2f} times, {found.low:.2f} to {found.high:.2f}"
            said.append(f"{words(term)} is not shown to differ from that of {two.name} ({ratio})")
    return [f"{line}, and nothing else tells them apart" for line in said]
