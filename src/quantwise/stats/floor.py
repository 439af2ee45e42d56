"""An absolute floor: is the mean score of one arm at or above it, by itself and whenever one looks?

Scores x lie in [0, 1], and a floor f in (0, 1]. The same betting e-processes as for paired differences, with the one
arm in place of the difference: of d = x - 1 the doubted "the mean is at most f" reads "the drop is 1 - f or more", of
d = -x the doubted "the mean is at least f" reads "the drop is f or more". So that

    E  = mean over stakes of  prod (1 + g (x - f) / f)              PASS at E >= m/alpha
    E' = mean over stakes of  prod (1 + g (f - x) / (1 - f))        FAIL at E' >= 1/alpha

are non-negative supermartingales under what they doubt, and an arm that is below the floor ever passes with probability
at most alpha/m (Ville), however often one looks. Source: Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting" (arXiv 2010.09686).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quantwise.core.evidence import ANSWERED, Measurement
from quantwise.stats.differences import Differences
from quantwise.stats.eprocess import e_value, log_e, log_e_counts, rejected_margin

# Nobody asks more of one task; a forecast beyond it says that none can be given.
MOST_ITEMS = 10_000_000


@dataclass(frozen=True)
class Scores:
    """Scores of the items (or clusters) of one arm, each the mean of its repeats and then of its items; in [0, 1].

    ``missing`` of these units hold a lost answer, which counts as 0 in ``worst`` and as 1 in ``best``.
    """

    worst: Differences
    best: Differences
    missing: int

    @property
    def n(self) -> int:
        """Items or clusters."""
        return self.worst.n

    @property
    def mean(self) -> float | None:
        """Mean score, what was lost counting as wrong; None without items."""
        return None if self.worst.mean is None else 1.0 + self.worst.mean


def scores_of(rows: Iterable[Measurement]) -> Scores:
    """Scores of the rows of one arm and task."""
    clusters: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        answered = row.finish in ANSWERED or row.finish == "refused"
        value = row.score if answered else None
        clusters.setdefault(row.cluster or row.item, {}).setdefault(row.item, []).append(value)
    sides = []
    for unknown in (0.0, 1.0):
        sides.append([
            _mean([_mean([unknown if v is None else v for v in repeats]) for repeats in items.values()])
            for items in clusters.values()
        ])  # fmt: skip
    lost = sum(any(None in repeats for repeats in items.values()) for items in clusters.values())
    worst, best = (Differences.of_values([x - 1.0 for x in side]) for side in sides)
    return Scores(worst, best, lost)


def e_above(scores: Scores, floor: float) -> float:
    """The e-value for a mean above ``floor``, what was lost counting as wrong."""
    return e_value(log_e(scores.worst, 1.0 - floor)) if scores.n else 1.0


def e_below(scores: Scores, floor: float) -> float:
    """The e-value for a mean below ``floor``, what was lost counting as right."""
    if not scores.n:
        return 1.0
    if floor >= 1.0:  # a mean of 1 allows no other score at all
        return e_value(math.inf if bool((scores.best.values < 0.0).any()) else 0.0)
    return e_value(log_e(_negated(scores.best), floor))


def bounds(scores: Scores, pass_threshold: float, fail_threshold: float) -> tuple[float, float]:
    """(lower, upper) bound of the mean, each by itself valid at every look.

    The lower is at ``floor`` or above it exactly where `e_above` has reached its threshold.
    """
    if not scores.n:
        return 0.0, 1.0
    low = 1.0 - rejected_margin(scores.worst, pass_threshold)
    high = rejected_margin(_negated(scores.best), fail_threshold)
    return max(0.0, low), min(1.0, high)


def items_to_settle(
    scores: Scores, floor: float, pass_threshold: float, fail_threshold: float
) -> tuple[int, int, int] | None:
    """(low, middle, high) forecast of further items until one of the e-values reaches its threshold.

    The mean is taken as it is, and half to one and a half times as far from the floor where its standard error says no
    better. None where it is on the floor, nothing is known, or more than ten million would be needed.
    """
    mean = scores.mean
    if mean is None or mean == floor or floor >= 1.0:
        return None
    away = mean - floor
    error = math.sqrt(max(mean * (1.0 - mean), 0.25 / scores.n) / scores.n)
    shift = min(error, abs(away) / 2.0) * math.copysign(1.0, away)
    threshold = pass_threshold if away > 0 else fail_threshold
    totals = [_total(min(1.0, max(0.0, mean + s)), floor, threshold) for s in (shift, 0.0, -shift)]
    if any(total is None for total in totals):
        return None
    low, middle, high = (max(1, (total or 0) - scores.n) for total in totals)
    return low, middle, high


def _total(mean: float, floor: float, threshold: float) -> int | None:
    """Right-or-wrong items of this ``mean`` after which the expected evidence reaches the threshold; None: too many."""
    above = mean > floor
    share, margin = (1.0 - mean, 1.0 - floor) if above else (mean, floor)

    def reached(n: int) -> bool:
        return float(log_e_counts(n * share, 0.0, n, margin)) >= math.log(threshold)

    high = 1
    while not reached(high):
        high *= 2
        if high > MOST_ITEMS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _negated(scores: Differences) -> Differences:
    """-x of x - 1."""
    return Differences(-1.0 - scores.values[::-1], scores.counts[::-1])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
