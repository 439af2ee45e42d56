"""The rule, and only the rule: fits, verdicts and costs in, a decision out.

Of the candidates that pass every gate, fit and meet the service level, the best by the scenario's objective. A
candidate whose time and memory are unknown (dequantized) cannot be chosen for being faster or
smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question
from quantwise.core.verdict import Decision, RuledOut, Verdict
from quantwise.objective import (
    MATERIAL,
    Evidence,
    compared,
    no_better,
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
    blocked = {c.name: _why_not(question, evidence, c) for c in arms}
    if question.multiplicity == "ladder":
        blocked = _climb(question, evidence, arms, blocked)
    acceptable = tuple(c.name for c in arms if blocked[c.name] is None)
    for candidate in arms:
        if candidate.name in acceptable:
            blocked[candidate.name] = no_better(question, evidence, candidate)
    eligible = [c for c in arms if blocked[c.name] is None]
    missing_objective = unknown_objectives(question, evidence, eligible or arms)
    ranked = ranked_by(question, evidence, eligible)
    open_arms = [c for c in arms if c.shippable and (blocked[c.name] or "").startswith("UNKNOWN")]
    if ranked:
        chosen = ranked[0]
        base = question.baseline_of(chosen)
        gain = _gain(evidence, chosen, base)
        losers = [
            RuledOut(c.name, f"passes, but {chosen.name} is better: {compared(question, evidence, chosen, c)}")
            for c in ranked[1:]
        ]
        return Decision(
            ship=chosen.name,
            status="ship",
            headline=f"Ship {chosen.name}{gain}.",
            fallback=_fallback(evidence, ranked, chosen) or base.name,
            rollback=base.name,
            because=_because(question, evidence, chosen),
            ruled_out=tuple(losers) + _ruled_out(arms, blocked),
            unmeasured=_unmeasured(question, evidence, missing_objective),
            best_supported=chosen.name,
            acceptable=acceptable,
        )
    best = _best_supported(evidence, open_arms)
    if open_arms:
        lead = f"; best supported so far is {best.name}" if best else ""
        headline = f"Unknown: no candidate has passed every gate yet{lead}. Until then keep {baselines[0].name}."
    else:
        headline = f"Keep {baselines[0].name}: {_no_candidate(question, arms, acceptable)}."
    return Decision(
        ship=None if open_arms else baselines[0].name,
        status="unknown" if open_arms else "keep",
        headline=headline,
        fallback=None,
        rollback=baselines[0].name,
        because=(),
        ruled_out=_ruled_out(arms, blocked),
        unmeasured=_unmeasured(question, evidence, missing_objective),
        best_supported=best.name if best else None,
        acceptable=acceptable,
    )


def standing(verdicts: Sequence[Verdict], candidate: str) -> str:
    """PASS, FAIL or UNKNOWN over all gates of a candidate: any FAIL is FAIL, else any UNKNOWN is UNKNOWN."""
    answers = {v.verdict for v in verdicts if v.candidate == candidate}
    if "FAIL" in answers:
        return "FAIL"
    return "PASS" if answers == {"PASS"} else "UNKNOWN"


def _standing(evidence: Evidence, candidate: Candidate) -> str:
    return standing(evidence.verdicts, candidate.name)


def _why_not(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """The reason why a candidate cannot be shipped, or None; the gravest reason first."""
    name = candidate.name
    fit = evidence.fits.get(name)
    verdicts = [v for v in evidence.verdicts if v.candidate == name]
    failed = [v for v in verdicts if v.verdict == "FAIL"]
    unknown = [v for v in verdicts if v.verdict == "UNKNOWN"]
    level = question.scenario.get("max_p95_seconds")
    p95 = evidence.p95_seconds.get(name)
    dearer = _dearer(question, evidence, candidate)
    if name in evidence.broken:
        return evidence.broken[name]
    if fit is not None and fit.fits == "no":
        return f"does not fit: {fit.fix or 'needs more memory than the site has'}"
    if failed:
        return f"{_fails(candidate, failed)}{f'; {dearer}' if dearer else ''}"
    if (low := _below_floor(question, evidence, verdicts)) is not None:
        return low
    if candidate.control:
        return "the negative control; it is measured and never shipped"
    if dearer is not None:
        return dearer
    if unknown:
        return _still_unknown(unknown, len(verdicts))
    if not candidate.computes_as_stored and candidate.runtime == "transformers" and candidate.cache != "f16":
        return (
            "passes on quality only: its cache is kept small but read back into 16 bit here, so its time and peak "
            "memory are unknown"
        )
    if not candidate.computes_as_stored or name in evidence.dequantized:
        return (
            "passes on quality only: it is stored small but dequantized to be computed here, so its time and memory "
            "are unknown"
        )
    if level is not None and p95 is None:
        return f"its p95 is unknown and the scenario asks for at most {level} s"
    if level is not None and p95 is not None and p95 > level:
        return f"too slow: p95 {p95:.2f} s, the scenario allows {level} s"
    return None


def _below_floor(question: Question, evidence: Evidence, verdicts: Sequence[Verdict]) -> str | None:
    for verdict in verdicts:
        floor = next((t.floor for t in question.tasks if t.name == verdict.task), None)
        mean = evidence.accuracy.get(verdict.candidate, {}).get(verdict.task)
        lost = evidence.lost.get(verdict.candidate, {}).get(verdict.task, 0.0)
        if floor is not None and mean is not None and mean < floor <= mean + lost:
            return f"UNKNOWN whether at the floor of {floor:.0%} on {verdict.task}: {lost:.1%} of the items are lost"
        if floor is not None and (mean is None or mean < floor):
            return f"below the floor of {floor:.0%} on {verdict.task}: {'unknown' if mean is None else f'{mean:.1%}'}"
    return None


def _fails(candidate: Candidate, failed: Sequence[Verdict]) -> str:
    tasks = ", ".join(f"{v.task} ({_points(v.comparison.delta)} in {v.comparison.n} items)" for v in failed)
    return f"{'the negative control, and as it should it ' if candidate.control else ''}FAILs {tasks}"


def _dearer(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """That a solved item costs more than the baseline's, where that is shown."""
    found = evidence.solved.get(candidate.name)
    if found is None or candidate.control or not found.dearer(MATERIAL):
        return None
    own, whole = size_of(evidence, candidate), size_of(evidence, question.baseline_of(candidate))
    return found.why_dearer(question.scenario, own / whole if own is not None and whole else None)


def _still_unknown(unknown: Sequence[Verdict], tasks: int) -> str:
    """The one or two open tasks, or how many are open and which of them is farthest from an answer."""
    if len(unknown) <= 2:
        return f"UNKNOWN on {', '.join(f'{v.task} ({_more(v)})' for v in unknown)}"
    farthest = max(unknown, key=lambda v: v.n_more[1] if v.n_more else 0)
    return f"UNKNOWN on {len(unknown)} of {tasks} tasks; farthest from an answer is {farthest.task} ({_more(farthest)})"


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
        if not stopped and _standing(evidence, candidate) != "PASS":
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


def _because(question: Question, evidence: Evidence, chosen: Candidate) -> tuple[str, ...]:
    verdicts = [v for v in evidence.verdicts if v.candidate == chosen.name]
    margins = sorted({t.margin for t in question.tasks})
    span = f"{margins[0]:.1%}" if len(margins) == 1 else f"{margins[0]:.1%} to {margins[-1]:.1%}"
    items = sum(v.comparison.n for v in verdicts)
    drops = [v.max_drop for v in verdicts if v.max_drop is not None]
    lines = [
        f"non-inferior on {len(verdicts)} tasks and {items} paired items at margins of {span}, alpha {question.alpha:g}"
    ]
    if drops:
        level = f"{1 - question.alpha:.0%}, each task by itself"
        lines.append(f"the data are compatible with a drop of at most {max(drops):.1%} on any one task ({level})")
    cost = evidence.costs.get(chosen.name)
    if cost and cost.seconds_per_item is not None:
        lines.append(f"{cost.seconds_per_item * 1000:.0f} ms per item at {question.requests(chosen.runtime)} at a time")
    if (found := evidence.solved.get(chosen.name)) is not None:
        lines += found.price(question.scenario)
    flips = sum(v.comparison.regressions + v.comparison.improvements for v in verdicts)
    noise = evidence.noise.get(chosen.runtime)
    if noise and items and noise >= flips / items / 2:
        lines.append(
            f"noise: the baseline differs from itself on {noise:.1%} of items, at least half of the flips seen"
        )
    return tuple(lines)


def _ruled_out(arms: Sequence[Candidate], blocked: Mapping[str, str | None]) -> tuple[RuledOut, ...]:
    return tuple(RuledOut(c.name, why) for c in arms if (why := blocked[c.name]) is not None)


def _best_supported(evidence: Evidence, arms: Sequence[Candidate]) -> Candidate | None:
    """The open candidate whose weakest gate has the strongest evidence for it."""

    def weakest(candidate: Candidate) -> float:
        return min((v.comparison.e_pass for v in evidence.verdicts if v.candidate == candidate.name), default=0.0)

    return max(arms, key=weakest, default=None)


def _more(verdict: Verdict) -> str:
    if verdict.n_more is not None:
        low, middle, high = verdict.n_more
        return f"about {middle} more items, {low} to {high}"
    return verdict.reason.replace("_", " ")


def _no_candidate(question: Question, arms: Sequence[Candidate], acceptable: Sequence[str]) -> str:
    if not any(c.shippable for c in arms):
        return "no candidate here could be shipped as smaller or faster"
    if acceptable:
        return f"{', '.join(acceptable)} would be acceptable, but nothing shows that the change is worth making"
    if "prices" in question.scenario:
        return "no candidate passed every gate, fits, meets the service level and solves items at no higher cost"
    return "no candidate passed every gate, fits and meets the service level"


def _points(delta: float | None) -> str:
    return "unknown" if delta is None else f"{delta * 100:+.1f} points"


def _unmeasured(question: Question, evidence: Evidence, missing: Sequence[str]) -> tuple[str, ...]:
    """What nobody should believe was shown."""
    lines = [f"{words(term)} is unknown here and did not decide" for term in missing]
    if "prices" in question.scenario:
        priced = {name for name, found in evidence.solved.items() if found.interval is not None}
        if open_ := [c.name for c in question.candidates if c.shippable and c.name not in priced]:
            lines.append(f"what a solved item costs with {', '.join(open_)} (too few items, or times unknown)")
    lines.append("latency under your own traffic and concurrency (only batch time on this machine was seen)")
    lines.append(f"contexts longer than {question.context} tokens")
    decoding = "other temperatures than this" if question.decoding.sampled else "sampled decoding"
    lines.append(f"anything that these tasks do not ask: safety, refusals, {decoding}, other languages and domains")
    return tuple(lines)
