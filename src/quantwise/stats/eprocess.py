"""Betting e-processes for paired differences: evidence that may be looked at after every item.

For a margin m, a gambler who doubts "the candidate loses m or more" stakes a fraction of the wealth on every item; the
wealth after n items, averaged over a grid of stakes, is E. Under the doubted hypothesis E is a non-negative
supermartingale that starts at 1, so it ever reaches 1/alpha with probability at most alpha (Ville), whenever and
however often one looks: PASS at E >= 1/alpha. E' bets the other way, against "it loses m or less": FAIL at E' >=
1/alpha.

    E  = mean over stakes of  prod (1 + stake (d + m)),   stake = g / (1 - m)
    E' = mean over stakes of  prod (1 - stake (d + m)),   stake = g / (1 + m)

with g on a geometric grid of 24 points from 0.01 to 0.98. E' of some evidence is E of the same evidence with the arms
swapped and the margin negated, so one function serves both. E grows with m and E' falls with it (term by term), hence
the margins that are not rejected form an interval: the confidence sequence.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (arXiv 2010.09686); Howard
et al., "Time-uniform, nonparametric, nonasymptotic confidence sequences" (arXiv 1810.08240).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from quantwise.stats.differences import Differences, FloatArray

STAKES: FloatArray = np.geomspace(0.01, 0.98, 24)
# exp(700) is near the largest double; beyond it an e-value reads 1e304, so that it stays a number in JSON.
_LOG_CAP = 700.0
# A mean of exactly -1 or 1 cannot be bet against (the stake would be infinite); bounds stop this far from it.
_EDGE = 1e-9


def e_value(log_e: float) -> float:
    """The e-value of its natural logarithm, saturating at about 1e304."""
    return math.exp(min(log_e, _LOG_CAP))


def log_e_counts(regressions: ArrayLike, improvements: ArrayLike, n: ArrayLike, margin: ArrayLike) -> FloatArray:
    """ln E for right-or-wrong items, against "the drop is ``margin`` or more".

    All arguments broadcast against each other; ``margin`` lies in (-1, 1). Counts may be fractions (expected counts).
    O(24) per result. ln E' is ``log_e_counts(improvements, regressions, n, -margin)``.
    """
    arrays = (np.asarray(a, dtype=np.float64)[..., None] for a in (regressions, improvements, n, margin))
    worse, better, items, m = arrays
    stakes = STAKES / (1.0 - m)
    wealth = (
        worse * np.log1p(-stakes * (1.0 - m))
        + better * np.log1p(stakes * (1.0 + m))
        + (items - worse - better) * np.log1p(stakes * m)
    )
    return log_mean_exp(wealth)


def log_e(differences: Differences, margin: float) -> float:
    """ln E for any bounded differences, against "the mean drop is ``margin`` or more"; margin in (-1, 1).

    O(24 k) for k distinct differences, whatever the number of items.
    """
    return float(log_mean_exp(stake_returns(differences.values, margin) @ differences.counts))


def log_e_fail(differences: Differences, margin: float) -> float:
    """ln E' for any bounded differences, against "the mean drop is ``margin`` or less"."""
    return log_e(differences.mirrored(), -margin)


def stake_returns(values: FloatArray, margin: float) -> FloatArray:
    """Log return of every stake for every difference, shape (24, k): ln(1 + stake (d + margin))."""
    return np.log1p(STAKES[:, None] * ((values + margin) / (1.0 - margin)))


def log_mean_exp(log_wealth: FloatArray) -> FloatArray:
    """ln of the mean over the last axis (the stakes) of exp(log_wealth)."""
    top = log_wealth.max(axis=-1, keepdims=True)
    mean: FloatArray = top[..., 0] + np.log(np.exp(log_wealth - top).mean(axis=-1))
    return mean


class Wagers:
    """Both e-processes at one margin, fed item by item; O(24) per item, nothing is stored but the wealth."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._pass = np.zeros(len(STAKES))
        self._fail = np.zeros(len(STAKES))
        self.n = 0

    def add(self, difference: float) -> None:
        """One more item (or cluster mean), in [-1, 1]."""
        value = np.array([difference], dtype=np.float64)
        self._pass += stake_returns(value, self._margin)[:, 0]
        self._fail += stake_returns(-value, -self._margin)[:, 0]
        self.n += 1

    @property
    def e_pass(self) -> float:
        """E so far."""
        return e_value(float(log_mean_exp(self._pass)))

    @property
    def e_fail(self) -> float:
        """E' so far."""
        return e_value(float(log_mean_exp(self._fail)))


def rejected_margin(differences: Differences, threshold: float) -> float:
    """The smallest margin at which E reaches ``threshold``: every larger drop is rejected. In [-1, 1]; 1 if none is."""
    target = math.log(threshold)
    low, high = -1.0 + _EDGE, 1.0 - _EDGE
    if differences.n == 0 or log_e(differences, high) < target:
        return 1.0
    if log_e(differences, low) >= target:
        return -1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if log_e(differences, middle) >= target:
            high = middle
        else:
            low = middle
        if high - low < 1e-10:
            break
    return high


def confidence_sequence(differences: Differences, alpha: float = 0.05) -> tuple[float, float]:
    """Interval for the mean difference that holds at every look at once with probability 1 - alpha.

    Each side spends alpha/2: the set of means at which neither E nor E' reaches 2/alpha.
    """
    low = -rejected_margin(differences, 2.0 / alpha)
    high = rejected_margin(differences.mirrored(), 2.0 / alpha)
    return low, high


def largest_drop(differences: Differences, alpha: float = 0.05) -> float:
    """Upper bound of the drop at one-sided level 1 - alpha, at every look; 0 where an improvement is shown.

    At most ``margin`` exactly when E at ``margin`` has reached 1/alpha, so it agrees with PASS at full alpha.
    """
    return max(0.0, rejected_margin(differences, 1.0 / alpha))
