"""Comparisons, verdicts and the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["PASS", "FAIL", "UNKNOWN"]
Reason = Literal[
    "",
    "need_n",
    "margin_unreachable",
    "missing",
    "noise",
    "items_exhausted",
    "budget",
    "not_measured",
]


def two_digits(value: float) -> int:
    """A forecast of items as far as anybody knows it: 3379 -> 3400."""
    step: int = 10 ** max(0, len(str(int(value))) - 2)
    return round(value / step) * step


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired candidate-minus-baseline evidence for one task.

    ``n`` counts items (or clusters); ``regressions`` are items where the candidate scores lower, ``improvements``
    higher.
    ``delta`` is the mean difference in [-1, 1], negative when the candidate is worse; ``interval`` is its 95 %
    confidence sequence (valid whenever one looks). ``e_pass`` and ``e_fail`` are e-values against "drop >= margin" and
    "drop <= margin"; ``z`` is the Tango score statistic, given for fixed-n questions.

    ``missing`` of the items were lost, and scored at their worst for the candidate; only ``e_fail`` and the interval's
    upper end take them at their best. Where that is known, ``kindly`` are regressions and improvements at their best,
    and ``e_lost`` the two e-values the other way round: ``e_fail`` at the worst and ``e_pass`` at the best.
    """

    n: int
    regressions: int
    improvements: int
    margin: float
    delta: float | None
    interval: tuple[float, float] | None
    e_pass: float
    e_fail: float
    z: float | None = None
    missing: int = 0
    kindly: tuple[int, int] | None = None
    e_lost: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, FAIL or UNKNOWN(reason) for one candidate and one task, with what would settle it.

    ``n_more`` is a (low, middle, high) forecast of further items, ``None`` where none is possible or needed.
    ``smallest_margin`` is the smallest margin that the items left could still certify. ``max_drop`` is the 95 % upper
    bound of the drop. ``caveats`` are sentences on what it rests on beside what was measured here: rows of another
    machine, a baseline that stands in for one that has no room.
    """

    candidate: str
    baseline: str
    task: str
    verdict: Answer
    reason: Reason
    comparison: Comparison
    n_more: tuple[int, int, int] | None = None
    minutes_more: float | None = None
    smallest_margin: float | None = None
    max_drop: float | None = None
    explanation: str = ""
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FloorVerdict:
    """Whether one arm's own mean score is at or above an absolute ``floor`` on one task.

    ``n`` counts items (or clusters), ``mean`` is unknown without any. ``low`` and ``high`` are bounds of the mean that
    hold at every look, each by itself: ``low`` at level 1 - alpha/m, ``high`` at 1 - alpha. ``missing`` of the items
    were lost and count as wrong, only ``high`` and ``e_fail`` take them as right. ``n_more`` is a (low, middle, high)
    forecast of further items.
    """

    candidate: str
    task: str
    floor: float
    verdict: Answer
    reason: Reason
    n: int
    mean: float | None
    low: float
    high: float
    e_pass: float
    e_fail: float
    missing: int = 0
    n_more: tuple[int, int, int] | None = None
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class RuledOut:
    """A candidate that is not shipped, and why, in one sentence.

    A reason that begins with UNKNOWN is open: more items, or a server that answers again, may settle it.
    """

    candidate: str
    why: str

    @property
    def open(self) -> bool:
        """Whether the candidate might still be shipped."""
        return self.why.startswith("UNKNOWN")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one candidate costs. Bytes and seconds; ``None`` reads as unknown.

    Percentiles are of single requests, and infinite where they fall on one that was lost, or was answered only when
    asked again; the mean is of the answers alone. First tokens are of the tasks in which they are told.
    """

    candidate: str
    artifact_bytes: int | None
    memory_bytes: int | None
    seconds_per_item: float | None
    p99_over_p50: float | None = None
    tokens_per_s: float | None = None
    joules_per_item: float | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    p50_first_token_seconds: float | None = None
    p95_first_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to ship. ``ship`` is None where the evidence does not allow an answer; ``headline`` says it in one line.

    ``acceptable`` names the candidates that pass every gate, fit and meet the service level, better or not.
    """

    ship: str | None
    status: Literal["ship", "keep", "unknown"]
    headline: str
    fallback: str | None
    rollback: str | None
    because: tuple[str, ...]
    ruled_out: tuple[RuledOut, ...]
    unmeasured: tuple[str, ...]
    best_supported: str | None = None
    acceptable: tuple[str, ...] = ()
