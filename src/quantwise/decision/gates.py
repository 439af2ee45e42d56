"""What stands between a candidate and being shipped: its verdicts, its floors, fit, price and service level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantwise.core.artifact import Candidate
from quantwise.core.question import Question
from quantwise.core.verdict import FloorVerdict, RuledOut, Verdict, two_digits
from quantwise.decision.objective import MATERIAL, Evidence, size_of

_UNSURE = "UNKNOWN whether within the budget: "


def standing(verdicts: Sequence[Verdict | FloorVerdict], candidate: str) -> str:
    """PASS, FAIL or UNKNOWN over all gates of a candidate: any FAIL is FAIL, else any UNKNOWN is UNKNOWN."""
    answers = {v.verdict for v in verdicts if v.candidate == candidate}
    if "FAIL" in answers:
        return "FAIL"
    return "PASS" if answers == {"PASS"} else "UNKNOWN"


def gates_of(
    question: Question, verdicts: Sequence[Verdict], floors: Sequence[FloorVerdict]
) -> list[Verdict | FloorVerdict]:
    """The verdicts that gate: beside the baseline and against the floors, or where the scenario says so those alone."""
    return [*floors] if question.by_floor else [*verdicts, *floors]


def why_not(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """The reason why a candidate cannot be shipped, or None; the gravest reason first."""
    name = candidate.name
    fit = evidence.fits.get(name)
    verdicts = [] if question.by_floor else [v for v in evidence.verdicts if v.candidate == name]
    failed = [v for v in verdicts if v.verdict == "FAIL"]
    unknown = [v for v in verdicts if v.verdict == "UNKNOWN"]
    low, floor_open = (_floors(evidence, candidate, answer) for answer in ("FAIL", "UNKNOWN"))
    dearer = _dearer(question, evidence, candidate)
    over, price_open = over_budget(question, evidence, candidate)
    gone = evidence.broken.get(name)
    away = gone is not None and RuledOut(name, gone).open  # it may answer again; what is shown already stays shown
    if gone is not None and not away:
        return gone
    if fit is not None and fit.fits == "no":
        return f"does not fit: {fit.fix or 'needs more memory than the site has'}"
    if failed:
        return f"{_fails(candidate, failed)}{f'; {dearer}' if dearer else ''}"
    if low:
        return "below the floor: " + "; ".join(f"{v.task}, {v.explanation}" for v in low)
    if candidate.control:
        return "the negative control; it is measured and never shipped"
    if dearer is not None or over is not None:
        return dearer or over
    if away:
        return gone
    if unknown:
        return _still_unknown(
            unknown, len(verdicts), "tasks" if len(question.gates) == len(question.tasks) else "gates"
        )
    if floor_open:
        return "UNKNOWN whether at the floor: " + "; ".join(f"{v.task}, {v.explanation}" for v in floor_open)
    return price_open or _not_as_served(evidence, candidate) or _too_slow(question, evidence, candidate)


def over_budget(question: Question, evidence: Evidence, candidate: Candidate) -> tuple[str | None, str | None]:
    """That a solved item is shown to cost more than the scenario's budget, or that this is UNKNOWN; None: neither.

    The interval is that of `cost.solved.solved_items`: within the budget is what lies below it whole.
    """
    limit = budget_of(question)
    if limit is None or candidate.control:
        return None, None
    found, currency = evidence.price_of(candidate), question.scenario["prices"]["currency"]
    each = (question.scenario.get("budget") or {}).get("per_solved_item")
    of_month = " (that of a month over its requests)" if each is None or limit < each else ""
    if found is None or found.money is None or found.money_interval is None:
        why = "two blocks of items tell, of 30 items or more whose times are known"
        return None, f"UNKNOWN what a solved item costs ({why}), and the budget is {limit:.3g} {currency}{of_month}"
    low, high = found.money_interval
    said = f"a solved item costs {found.money:.3g} {currency} ({low:.3g} to {high:.3g}), the budget is {limit:.3g}"
    if low > limit:
        return f"over the budget: {said}{of_month}", None
    return None, f"{_UNSURE}{said}{of_month}" if high > limit else None


def budget_of(question: Question) -> float | None:
    """Money per solved item that the scenario allows: its limit, and that of a month over what is to be solved."""
    said = question.scenario.get("budget") or {}
    month, traffic = said.get("per_month"), question.scenario.get("requests_per_month")
    limits = [said.get("per_solved_item"), month / traffic if month is not None and traffic else None]
    return min((limit for limit in limits if limit is not None), default=None)


def _floors(evidence: Evidence, candidate: Candidate, answer: str) -> list[FloorVerdict]:
    return [v for v in evidence.floors if v.candidate == candidate.name and v.verdict == answer]


def _not_as_served(evidence: Evidence, candidate: Candidate) -> str | None:
    if candidate.computes_as_stored and candidate.name not in evidence.dequantized:
        return None
    if not candidate.computes_as_stored and candidate.runtime == "transformers" and candidate.cache != "f16":
        return (
            "passes on quality only: its cache is kept small but read back into 16 bit here, so its time and peak "
            "memory are unknown"
        )
    return (
        "passes on quality only: it is stored small but dequantized to be computed here, so its time and memory "
        "are unknown"
    )


def _too_slow(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    level, p95 = question.scenario.get("max_p95_seconds"), evidence.p95_seconds.get(candidate.name)
    if level is None:
        return None
    if p95 is None:
        return (
            "UNKNOWN whether fast enough: its p95 is unknown (that takes 59 timed requests), and the scenario allows "
            f"{level} s"
        )
    found = f"p95 {p95:.2f} s" if math.isfinite(p95) else "one request in twenty or more failed or was asked again"
    return f"too slow: {found}, the scenario allows {level} s" if p95 > level else None


def _fails(candidate: Candidate, failed: Sequence[Verdict]) -> str:
    tasks = ", ".join(f"{v.task} ({_points(v.comparison.delta)} in {v.comparison.n} items)" for v in failed)
    return f"{'the negative control, and as it should it ' if candidate.control else ''}FAILs {tasks}"


def _dearer(question: Question, evidence: Evidence, candidate: Candidate) -> str | None:
    """That a solved item costs more than the baseline's, where that is shown and the baseline could be shipped."""
    found = evidence.solved.get(candidate.name)
    base = question.baseline_of(candidate)
    if found is None or candidate.control or not found.dearer(MATERIAL) or why_not_baseline(question, evidence, base):
        return None
    own, whole = size_of(evidence, candidate), size_of(evidence, base)
    return found.why_dearer(question.scenario, own / whole if own is not None and whole else None)


def why_not_baseline(question: Question, evidence: Evidence, base: Candidate) -> str | None:
    """Why the baseline itself could not be shipped: no room at the site, a floor, a budget; else None.

    Then nothing has to be better than it. Otherwise it is what runs today, and stays.
    """
    fit = evidence.fits.get(base.name)
    if fit is not None and fit.fits == "no":
        return "does not fit"
    if low := _floors(evidence, base, "FAIL"):
        return "is below the floor on " + ", ".join(v.task for v in low)
    if question.by_floor and (unsure := _floors(evidence, base, "UNKNOWN")):
        return "is not shown to be at the floor on " + ", ".join(v.task for v in unsure)
    over, price_open = over_budget(question, evidence, base)
    if price_open:
        return f"is not shown to be within the budget: {price_open.removeprefix(_UNSURE)}"
    return over and f"is {over}"


def _still_unknown(unknown: Sequence[Verdict], asked: int, gates: str) -> str:
    """The one or two open ones, or how many are open and which of them is farthest from an answer."""
    if len(unknown) <= 2:
        return f"UNKNOWN on {', '.join(f'{v.task} ({_more(v)})' for v in unknown)}"
    farthest = max(unknown, key=lambda v: v.n_more[1] if v.n_more else 0)
    return (
        f"UNKNOWN on {len(unknown)} of {asked} {gates}; farthest from an answer is {farthest.task} ({_more(farthest)})"
    )


def _more(verdict: Verdict) -> str:
    if verdict.n_more is not None:
        low, middle, high = map(two_digits, verdict.n_more)
        return f"about {middle:,} more items, {low:,} to {high:,}"
    return "too many answers are missing" if verdict.reason == "missing" else verdict.reason.replace("_", " ")


def _points(delta: float | None) -> str:
    return "unknown" if delta is None else f"{delta * 100:+.1f} points"
