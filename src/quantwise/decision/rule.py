"""The rule, and only the rule: fits, verdicts and costs in, a decision out.

Of the candidates that pass every gate, fit and meet the service level, the best by the scenario's objective. A
candidate whose time and memory are unknown (dequantized) cannot be chosen for being faster or
smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question
from quantwise.core.verdict import Decision, RuledOut
from quantwise.decision.gates import gates_of, standing, why_not, why_not_baseline
from quantwise.decision.objective import (
    Evidence,
    compared,
    no_better,
    not_shown,
    ranked_by,
    size_of,
    unknown_objectives,
    words,
)


def decide(question: Question, evidence: Evidence) -> Decision:
    """Choose what to ship.

    ``status`` is ``ship`` for a candidate, ``keep`` where every candidate failed or lost to the baseline, ``unknown``
    where some candidate might still pass.
    """
    baselines = [c for c in question.candidates if c.baseline]
    arms = [c for c in question.candidates if not c.baseline]
    blocked = {c.name: why_not(question, evidence, c) for c in arms}
    if question.multiplicity == "ladder":
        blocked = _climb(question, evidence, arms, blocked)
    acceptable = tuple(c.name for c in arms if blocked[c.name] is None)
    for candidate in arms:
        if candidate.name in acceptable:
            blocked[candidate.name] = _worth_nothing(question, evidence, candidate)
    eligible = [c for c in arms if blocked[c.name] is None]
    ranked = ranked_by(question, evidence, eligible)
    ruled_out = _ruled_out(arms, blocked)
    open_names = {row.candidate for row in ruled_out if row.open} - evidence.dequantized
    open_arms = [c for c in arms if c.shippable and c.name in open_names]
    missing_objective = unknown_objectives(question, evidence, eligible or open_arms or arms)
    if ranked:
        chosen = ranked[0]
        base = question.baseline_of(chosen)
        gain, out = _gain(evidence, chosen, base), why_not_baseline(question, evidence, base)
        why = f"passes, but {chosen.name} is better: "
        losers = [RuledOut(c.name, f"{why}{compared(question, evidence, chosen, c)}") for c in ranked[1:]]
        return Decision(
            ship=chosen.name,
            status="ship",
            headline=f"Ship {chosen.name}{gain}.",
            fallback=_fallback(evidence, ranked, chosen) or (None if out else base.name),
            rollback=base.name,
            because=_because(question, evidence, chosen, ranked),
            ruled_out=(*losers, *ruled_out),
            unmeasured=_unmeasured(question, evidence, missing_objective),
            best_supported=chosen.name,
            acceptable=acceptable,
        )
    best = _best_supported(question, evidence, open_arms)
    if open_arms:
        lead = f"; best supported so far is {best.name}" if best else ""
        headline = f"Unknown: no candidate has passed every gate yet{lead}. Until then keep {baselines[0].name}."
    else:
        headline = f"Keep {baselines[0].name}: {_no_candidate(question, arms, acceptable)}."
    if (out := why_not_baseline(question, evidence, baselines[0])) is not None:
        headline = f"{headline} But {baselines[0].name} {out}."
    return Decision(
        ship=None if open_arms else baselines[0].name,
        status="unknown" if open_arms else "keep",
        headline=headline,
        fallback=None,
        rollback=baselines[0].name,
        because=(),
        ruled_out=ruled_out,
        unmeasured=_unmeasured(question, evidence, missing_objective),
        best_supported=best.name if best else None,
        acceptable=acceptable,
    )


def _standing(question: Question, evidence: Evidence, candidate: Candidate) -> str:
    return standing(gates_of(question, evidence.verdicts, evidence.floors), candidate.name)


def _worth_nothing(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """Why nothing speaks for leaving the baseline, where that could stay; None where something does."""
    if why_not_baseline(question, evidence, question.baseline_of(candidate)) is not None:
        return None
    return no_better(question, evidence, candidate)


def _climb(
    question: Question, evidence: Evidence, arms: Sequence[Candidate], blocked: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Fixed-sequence testing: safest (largest) first at full alpha, and nothing counts after the first non-PASS."""
    ladder = sorted((c for c in arms if c.shippable), key=lambda c: -(size_of(evidence, c) or 0))
    out = dict(blocked)
    stopped: str | None = None
    for candidate in ladder:
        if stopped and out[candidate.name] is None:
            out[candidate.name] = f"stands below {stopped} on the ladder, which did not pass"
        if not stopped and _standing(question, evidence, candidate) != "PASS":
            stopped = candidate.name
    return out


def _fallback(evidence: Evidence, ranked: Sequence[Candidate], chosen: Candidate) -> str | None:
    """The next safer candidate: the smallest eligible one that is larger than the chosen one."""
    size = size_of(evidence, chosen) or 0
    larger = [c for c in ranked if c is not chosen and (size_of(evidence, c) or 0) > size]
    return min(larger, key=lambda c: size_of(evidence, c) or 0).name if larger else None


def _gain(evidence: Evidence, chosen: Candidate, base: Candidate) -> str:
    small, large = size_of(evidence, chosen), size_of(evidence, base)
    if not small or not large:
        return ""
    return f": {small / large:.0%} of the bytes of {base.name}, and it passes every gate"


def _because(question: Question, evidence: Evidence, chosen: Candidate, ranked: Sequence[Candidate]) -> tuple[str, ...]:
    own = [v for v in evidence.verdicts if v.candidate == chosen.name]
    # An endpoint looks at the same answers again: its items are no further ones, and its rise is no drop of a score.
    verdicts = [v for v in own if v.task in {t.name for t in question.tasks}]
    margins = sorted({t.margin for t in question.tasks})
    span = f"{margins[0]:.1%}" if len(margins) == 1 else f"{margins[0]:.1%} to {margins[-1]:.1%}"
    items = sum(v.comparison.n for v in verdicts)
    drops = [v.max_drop for v in verdicts if v.max_drop is not None]
    named = f"{len(verdicts)} task{'s' * (len(verdicts) != 1)}"
    signs = len(own) - len(verdicts)
    beside = f", and on {signs} endpoint{'s' * (signs != 1)} of the answers" if signs else ""
    lines = [f"non-inferior on {named} and {items} paired items at margins of {span}, alpha {question.alpha:g}{beside}"]
    lines = [] if question.by_floor else lines
    floors = [v for v in evidence.floors if v.candidate == chosen.name]
    lines += [f"at or above the floor on {v.task}: {v.explanation}" for v in floors]
    if (out := why_not_baseline(question, evidence, question.baseline_of(chosen))) is not None:
        lines.append(f"{question.baseline_of(chosen).name} {out}, so nothing had to be better than it")
    if drops and not question.by_floor:
        level = f"{1 - question.alpha:.0%}, each task by itself"
        most = math.ceil(1000.0 * max(drops) - 1e-6) / 1000.0  # rounded up, because it is said to be the most
        lines.append(f"the data are compatible with a drop of at most {most:.1%} on any one task ({level})")
    cost = evidence.costs.get(chosen.name)
    if cost and cost.seconds_per_item is not None:
        lines.append(f"{cost.seconds_per_item * 1000:.0f} ms per item at {question.requests(chosen.runtime)} at a time")
    if (found := evidence.solved.get(chosen.name)) is not None:
        lines += found.price(question.scenario)
    for other in (*ranked[1:], question.baseline_of(chosen)):
        lines += not_shown(question, evidence, chosen, other)
    flips = sum(v.comparison.regressions + v.comparison.improvements for v in verdicts)
    noise = evidence.noise.get(chosen.runtime)
    if noise and items and noise >= flips / items / 2:
        lines.append(
            f"noise: the baseline differs from itself on {noise:.1%} of items, at least half of the flips seen"
        )
    return tuple(lines)


def _ruled_out(arms: Sequence[Candidate], blocked: Mapping[str, str | None]) -> tuple[RuledOut, ...]:
    return tuple(RuledOut(c.name, why) for c in arms if (why := blocked[c.name]) is not None)


def _best_supported(question: Question, evidence: Evidence, arms: Sequence[Candidate]) -> Candidate | None:
    """The open candidate whose weakest gate has the strongest evidence for it; None where nothing was measured."""
    asked = {v.candidate for v in evidence.verdicts if v.comparison.n} | {v.candidate for v in evidence.floors if v.n}

    def weakest(candidate: Candidate) -> float:
        if question.by_floor:
            return min((v.e_pass for v in evidence.floors if v.candidate == candidate.name), default=0.0)
        return min((v.comparison.e_pass for v in evidence.verdicts if v.candidate == candidate.name), default=0.0)

    return max((c for c in arms if c.name in asked), key=weakest, default=None)


def _no_candidate(question: Question, arms: Sequence[Candidate], acceptable: Sequence[str]) -> str:
    if not any(c.shippable for c in arms):
        return "no candidate here could be shipped as smaller or faster"
    if acceptable:
        return f"{', '.join(acceptable)} would be acceptable, but nothing shows that the change is worth making"
    if "prices" in question.scenario:
        return "no candidate passed every gate, fits, meets the service level and solves items at no higher cost"
    return "no candidate passed every gate, fits and meets the service level"


def _unmeasured(question: Question, evidence: Evidence, missing: Sequence[str]) -> tuple[str, ...]:
    """What nobody should believe was shown."""
    lines = [f"{words(term)}: unknown here, did not decide" for term in missing]
    if "prices" in question.scenario:
        priced = {name for name, found in evidence.solved.items() if found.interval is not None}
        if open_ := [c.name for c in question.candidates if c.shippable and c.name not in priced]:
            lines.append(f"what a solved item costs with {', '.join(open_)} (too few items, or times unknown)")
    if question.models:
        lines.append("divergence between models (their tokenizers differ); what one lost to its own 16 bit is not seen")
    lines.append("latency under your own traffic and concurrency (only batch time on this machine was seen)")
    lines.append(f"contexts longer than {question.context} tokens")
    decoding = "other temperatures than this" if question.decoding.sampled else "sampled decoding"
    lines.append(f"anything that these tasks do not ask: safety, refusals, {decoding}, other languages and domains")
    return tuple(lines)
