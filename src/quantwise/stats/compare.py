"""From paired scores to a comparison, and from a comparison to PASS, FAIL or UNKNOWN(reason).

The rule, and only the rule: UNKNOWN where more than 5 % of the items are missing, or where they could overturn it; PASS
at E >= m/alpha with m the candidates that could be shipped; FAIL at E' >= 1/alpha; UNKNOWN otherwise, with a forecast
of what would settle it. A question declared ``fixed`` beforehand uses Tango's test with its guards instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.core.evidence import Pair
from quantwise.core.verdict import Answer, Comparison, Reason, Verdict
from quantwise.stats import eprocess, sample_size, tango
from quantwise.stats.differences import Differences, check_margin
from quantwise.stats.wording import MOST_MISSING, explain


@dataclass(frozen=True, slots=True)
class Rule:
    """How evidence becomes a verdict; frozen with the question.

    ``multiplicity`` is the number m of candidates that could be shipped: a PASS needs E >= m/alpha. ``sequential`` may
    be looked at whenever one likes; ``fixed`` once, at a number of items chosen beforehand.
    """

    alpha: float = 0.05
    multiplicity: int = 1
    mode: Literal["sequential", "fixed"] = "sequential"

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 0.5:
            raise InputError(f"alpha {self.alpha:g} is out of range: give a share between 0 and 0.5, for example 0.05")
        if self.multiplicity < 1:
            raise InputError(f"{self.multiplicity} candidates that could be shipped make no sense: give 1 or more")

    @property
    def pass_threshold(self) -> float:
        """E that a PASS needs: m/alpha."""
        return self.multiplicity / self.alpha

    @property
    def fail_threshold(self) -> float:
        """E' that a FAIL needs: 1/alpha."""
        return 1.0 / self.alpha


@dataclass(frozen=True, slots=True)
class Supply:
    """What is left for an answer; ``None`` reads as no limit or unknown. Seconds per paired item."""

    items_left: int | None = None
    seconds_per_item: float | None = None
    budget_seconds: float | None = None

    @property
    def affordable(self) -> tuple[int | None, Reason]:
        """Items that can still be measured, and which limit binds."""
        by_budget = None
        if self.budget_seconds is not None and self.budget_seconds <= 0.0:
            by_budget = 0  # spent, whatever an item takes
        elif self.budget_seconds is not None and self.seconds_per_item:
            by_budget = int(self.budget_seconds / self.seconds_per_item)
        if by_budget is not None and (self.items_left is None or by_budget < self.items_left):
            return by_budget, "budget"
        return self.items_left, "items_exhausted"


def compare(
    pairs: Sequence[Pair], margin: float, alpha: float = 0.05, missing: int = 0, kindly: Sequence[Pair] | None = None
) -> Comparison:
    """Paired evidence for one task. Scores in [0, 1]; ``missing`` of the pairs were scored at their worst for the
    candidate, and in ``kindly`` at their best: a FAIL rests on these alone, and the interval spans both.

    Right-or-wrong scores also get Tango's z. The interval has level 1 - alpha and holds at every look. Raises
    InputError for a score outside [0, 1] or an impossible margin.
    """
    worst = compare_differences(Differences.of_pairs(pairs), margin, alpha, missing)
    if kindly is None:
        return worst
    best = compare_differences(Differences.of_pairs(kindly), margin, alpha, missing)
    spans = worst.interval and best.interval and (worst.interval[0], best.interval[1])
    kind_counts = (best.regressions, best.improvements)
    return replace(worst, e_fail=best.e_fail, interval=spans, kindly=kind_counts, e_lost=(worst.e_fail, best.e_pass))


def compare_differences(differences: Differences, margin: float, alpha: float = 0.05, missing: int = 0) -> Comparison:
    """The same from a histogram of differences, which bare counts make as well (`Differences.of_counts`)."""
    check_margin(margin)
    counts = differences.regressions, differences.improvements, differences.n
    return Comparison(
        n=differences.n,
        regressions=differences.regressions,
        improvements=differences.improvements,
        margin=margin,
        delta=differences.mean,
        interval=eprocess.confidence_sequence(differences, alpha) if differences.n else None,
        e_pass=eprocess.e_value(eprocess.log_e(differences, margin)) if differences.n else 1.0,
        e_fail=eprocess.e_value(eprocess.log_e_fail(differences, margin)) if differences.n else 1.0,
        z=tango.score_z(*counts, margin) if differences.binary and differences.n else None,
        missing=missing,
    )


def verdict_from_comparison(
    comparison: Comparison,
    *,
    candidate: str,
    baseline: str,
    task: str,
    rule: Rule | None = None,
    supply: Supply | None = None,
    differences: Differences | None = None,
) -> Verdict:
    """The verdict that a comparison allows, with what would settle an UNKNOWN.

    ``differences`` is needed for the forecast of graded scores only (for right or wrong the comparison's counts say it
    all); without them an UNKNOWN of graded scores carries no forecast and the drop is bounded by the interval.
    """
    rule, supply = rule or Rule(), supply or Supply()
    if differences is None and comparison.z is not None:
        differences = Differences.of_counts(comparison.regressions, comparison.improvements, comparison.n)
    if rule.mode == "fixed":
        comparison = _at_fixed_n(comparison, rule)
    answer = _answer(comparison, rule)
    bare = Verdict(
        candidate=candidate,
        baseline=baseline,
        task=task,
        verdict=answer,
        reason=_early_reason(comparison, answer, rule),
        comparison=comparison,
        smallest_margin=_smallest_margin(comparison, differences, rule, supply),
        max_drop=_max_drop(comparison, differences, rule),
    )
    if answer == "UNKNOWN" and bare.reason == "":
        bare = _with_forecast(bare, differences, rule, supply)
    return replace(
        bare, explanation=explain(bare, rule.alpha, rule.multiplicity, rule.mode == "fixed", supply.affordable[0])
    )


def _answer(comparison: Comparison, rule: Rule) -> Answer:
    if comparison.n == 0 or comparison.missing > MOST_MISSING * comparison.n:
        return "UNKNOWN"
    if rule.mode == "fixed":
        counts = comparison.regressions, comparison.improvements, comparison.n
        kindly = comparison.kindly or counts[:2]
        if tango.fixed_n_verdict(*kindly, comparison.n, comparison.margin, rule.alpha) == "FAIL":
            return "FAIL"
        passed = tango.fixed_n_verdict(*counts, comparison.margin, rule.alpha / rule.multiplicity) == "PASS"
        return "PASS" if passed else "UNKNOWN"
    if comparison.e_pass >= rule.pass_threshold:
        return "PASS"
    return "FAIL" if comparison.e_fail >= rule.fail_threshold else "UNKNOWN"


def _early_reason(comparison: Comparison, answer: Answer, rule: Rule) -> Reason:
    if answer != "UNKNOWN":
        return ""
    if comparison.n == 0:
        return "not_measured"
    return "missing" if comparison.missing > MOST_MISSING * comparison.n or _overturned(comparison, rule) else ""


def _overturned(comparison: Comparison, rule: Rule) -> bool:
    """Whether there would be a verdict, had the missing items been what they may have been."""
    if comparison.kindly is None or comparison.e_lost is None:
        return False
    if rule.mode == "fixed":
        worst, best = (comparison.regressions, comparison.improvements), comparison.kindly
        n, margin = comparison.n, comparison.margin
        failed = tango.fixed_n_verdict(*worst, n, margin, rule.alpha) == "FAIL"
        return failed or tango.fixed_n_verdict(*best, n, margin, rule.alpha / rule.multiplicity) == "PASS"
    return comparison.e_lost[0] >= rule.fail_threshold or comparison.e_lost[1] >= rule.pass_threshold


def _at_fixed_n(comparison: Comparison, rule: Rule) -> Comparison:
    """The comparison with the interval of one planned look in place of the confidence sequence."""
    if comparison.n and comparison.z is None:
        raise InputError(
            "a fixed-n verdict needs right-or-wrong scores (0 or 1): leave out --fixed-n for graded scores"
        )
    if not comparison.n:
        return comparison
    counts = comparison.regressions, comparison.improvements, comparison.n
    low, high = tango.interval(*counts, rule.alpha)
    if comparison.kindly is not None:
        high = tango.interval(*comparison.kindly, comparison.n, rule.alpha)[1]
    return replace(comparison, interval=(low, high))


def _max_drop(comparison: Comparison, differences: Differences | None, rule: Rule) -> float | None:
    if comparison.n == 0 or comparison.interval is None:
        return None
    if rule.mode == "fixed":
        return tango.largest_drop(comparison.regressions, comparison.improvements, comparison.n, rule.alpha)
    if differences is None:
        return max(0.0, -comparison.interval[0])
    return eprocess.largest_drop(differences, rule.alpha)


def _smallest_margin(
    comparison: Comparison, differences: Differences | None, rule: Rule, supply: Supply
) -> float | None:
    if comparison.n == 0 or differences is None:
        return None
    if rule.mode == "fixed":
        level = rule.alpha / rule.multiplicity
        return tango.largest_drop(comparison.regressions, comparison.improvements, comparison.n, level)
    return sample_size.smallest_margin(differences, supply.affordable[0] or 0, rule.pass_threshold)


def _with_forecast(verdict: Verdict, differences: Differences | None, rule: Rule, supply: Supply) -> Verdict:
    """UNKNOWN with its reason, its forecast and the minutes that would take."""
    if differences is None:
        return replace(verdict, reason="need_n")
    margin = verdict.comparison.margin
    if rule.mode == "fixed":
        forecast = sample_size.fresh_run(differences, margin, rule.alpha / rule.multiplicity)
        if forecast is None:
            return replace(verdict, reason="margin_unreachable")
    else:
        forecast = sample_size.n_more(differences, margin, rule.alpha, rule.pass_threshold)
    left, limit = supply.affordable
    reason: Reason = "need_n"
    if forecast.towards == "FAIL":
        reason = "margin_unreachable"
    elif left is not None and forecast.more[1] > left:
        reason = limit
    minutes = forecast.more[1] * supply.seconds_per_item / 60.0 if supply.seconds_per_item else None
    return replace(verdict, reason=reason, n_more=forecast.more, minutes_more=minutes)
