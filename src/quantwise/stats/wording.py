"""The sentence that goes with a verdict: what the numbers allow to be said, and no more."""

from __future__ import annotations

import math

from quantwise.core.verdict import Verdict
from quantwise.stats.sample_size import HORIZON

MOST_MISSING = 0.05
"""Share of the items; with more of them lost there is no verdict."""

_TIE = 1e-6
"""Of a step: what binary fractions miss a decimal by is no reason to round on."""


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage: 0.01 -> "1 %", 0.0184 -> "1.8 %"; small ones keep two significant digits."""
    value = 100.0 * share
    if value and abs(value) < 0.1:
        digits = max(digits, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %".replace("-0 %", "0 %")


def rounded_up(share: float, digits: int = 1) -> float:
    """The share in whole steps of ``digits`` decimals of a per cent, never below it: for what reads "at most"."""
    steps = 10.0 ** (digits + 2)
    return math.ceil(share * steps - _TIE) / steps


def rounded_down(share: float, digits: int = 1) -> float:
    """The same, never above it: for what reads "at least"."""
    return -rounded_up(-share, digits)


def about(count: int) -> str:
    """A forecast in two significant digits: 3379 -> "3400"."""
    if count >= HORIZON:
        return "a million or more"
    step = 10 ** max(0, len(str(count)) - 2)
    rounded = round(count / step) * step
    return f"{rounded:,}" if rounded >= 10_000 else str(rounded)


def evidence_text(e: float) -> str:
    """An e-value in three digits, without an exponent: 0.464, 2700, "over a million"."""
    if e >= 1e6:
        return "over a million"
    return f"{e:.3g}" if e < 1000.0 else f"{float(f'{e:.3g}'):.0f}"


def duration(minutes: float) -> str:
    """Minutes as a person says them."""
    if minutes < 1.0:
        return "under a minute"
    if minutes < 120.0:
        return f"about {minutes:.0f} min"
    hours = minutes / 60.0
    return f"about {hours:.0f} h" if hours < 72.0 else f"about {hours / 24.0:.0f} days"


def explain(verdict: Verdict, alpha: float, multiplicity: int, fixed: bool, left: int | None) -> str:
    """One sentence for any verdict. ``left``: items that can still be measured, None for no limit."""
    comparison = verdict.comparison
    margin = percent(comparison.margin, 2)
    shared = f"alpha {alpha:g}" + (f" shared by {multiplicity} candidates" if multiplicity > 1 else "")
    level = percent(1.0 - alpha)
    if verdict.verdict == "PASS":
        drop = (
            ""
            if verdict.max_drop is None
            else f"; the drop is at most {percent(rounded_up(verdict.max_drop, 2), 2)} ({level})"
        )
        return f"non-inferior on these items at a margin of {margin}, {shared}{drop}"
    if verdict.verdict == "FAIL":
        low, high = comparison.interval or (-1.0, 1.0)
        return (
            f"worse by more than {margin} on these items, alpha {alpha:g}; "
            f"the change is {percent(comparison.delta or 0.0, 2)} "
            f"({level} interval {percent(low, 2)} to {percent(high, 2)})"
        )
    if verdict.reason == "not_measured":
        return "nothing has been measured yet"
    if verdict.reason == "missing":
        few = comparison.missing <= MOST_MISSING * comparison.n
        allowed = "what they would have been decides" if few else "a verdict allows at most 5 %"
        return (
            f"{comparison.missing} of {comparison.n} items are missing ({percent(comparison.missing / comparison.n)}); "
            f"{allowed}: repair the run and measure them"
        )
    return _unknown(verdict, margin, fixed, left)


def _unknown(verdict: Verdict, margin: str, fixed: bool, left: int | None) -> str:
    lead = f"no evidence of >{margin} loss yet"
    if verdict.reason == "margin_unreachable":
        lead = f"the data leans towards a loss of more than {margin}, without proving it"
    parts = [lead, _forecast(verdict, fixed), _limits(verdict, left)]
    if verdict.max_drop is not None:
        parts.append(f"data so far is compatible with a drop of at most {percent(rounded_up(verdict.max_drop))}")
    return "; ".join(part for part in parts if part)


def _forecast(verdict: Verdict, fixed: bool) -> str:
    if verdict.n_more is None:
        return ""
    low, mid, high = verdict.n_more
    numbers = f"about {about(mid)} {{}}items ({about(low)}-{about(high)})"
    if fixed:
        need = f"a fixed number may not be extended after looking: a fresh run needs {numbers.format('')}"
    elif verdict.reason == "margin_unreachable":
        need = numbers.format("more ") + " would settle it"
    else:
        need = "need " + numbers.format("more ")
    return need + (f", {duration(verdict.minutes_more)}" if verdict.minutes_more is not None else "")


def _limits(verdict: Verdict, left: int | None) -> str:
    if verdict.reason not in ("items_exhausted", "budget") or left is None:
        return ""
    least = verdict.smallest_margin
    reach = "no margin" if least is None else f"a margin of {percent(rounded_up(least))}"
    if left == 0:
        end = "no items are left" if verdict.reason == "items_exhausted" else "the budget is spent"
        return f"{end}, and those seen certify {reach}"
    source = "are left" if verdict.reason == "items_exhausted" else "fit into the budget"
    return f"only {left} {source}, which could certify {reach}"
