"""Tango's score test for paired proportions, with the guards that small samples need.

    z = (b - a + n m) / sqrt(n (2 q + m (1 - m))),   a regressions, b improvements, m margin,

where q is the likelihood estimate of the improvement rate under a drop of exactly m. For questions whose number of
items was fixed beforehand; looking repeatedly inflates its error (use ``eprocess`` then).

Sources: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17 (1998) 891-908. The score test is slightly liberal for few items, so a verdict also
asks for the exact unconditional p-value (largest over the nuisance rate) and for the zero-flip floor.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from quantwise.core.verdict import Answer
from quantwise.stats.differences import FloatArray, check_counts, check_margin

_NUISANCE_POINTS = 96


def score_z(regressions: int, improvements: int, n: int, margin: float) -> float:
    """Tango's z; ``margin`` in [-1, 1]. Positive when the drop looks smaller than the margin.

    Infinite where the null hypothesis makes the data impossible; 0.0 without items.
    """
    a, b = float(regressions), float(improvements)
    excess = b - a + n * margin
    quad = 2.0 * n
    lin = -a - b + (2.0 * n - a + b) * margin
    const = -b * margin * (1.0 - margin)
    root = math.sqrt(max(0.0, lin * lin - 4.0 * quad * const))
    q = (root - lin) / (2.0 * quad) if n else 0.0
    variance = n * (2.0 * q + margin * (1.0 - margin))
    if variance <= 1e-12 * max(1, n):
        return 0.0 if abs(excess) < 1e-9 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def interval(regressions: int, improvements: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Two-sided score interval of the mean difference at level 1 - alpha, by inverting z; (-1, 1) without items.

    Valid for one look at a number of items that was fixed beforehand.
    """
    check_counts(regressions, improvements, n)
    if n == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    return -_margin_at(regressions, improvements, n, z), _margin_at(improvements, regressions, n, z)


def largest_drop(regressions: int, improvements: int, n: int, alpha: float = 0.05) -> float:
    """Upper bound of the drop at one-sided level 1 - alpha, for one look; at least 0."""
    check_counts(regressions, improvements, n)
    if n == 0:
        return 1.0
    return max(0.0, _margin_at(regressions, improvements, n, NormalDist().inv_cdf(1.0 - alpha)))


def _margin_at(regressions: int, improvements: int, n: int, z: float) -> float:
    """The margin at which the score reaches z; the score grows with the margin."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if score_z(regressions, improvements, n, middle) >= z:
            high = middle
        else:
            low = middle
    return high


def zero_flip_floor(margin: float, alpha: float = 0.05) -> int:
    """Fewest items that could ever exclude a drop of ``margin``: ceil(ln alpha / ln(1 - margin)).

    With fewer, no flip at all still has probability above alpha when the true drop is the margin.
    """
    check_margin(margin)
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def exact_p(regressions: int, improvements: int, n: int, margin: float) -> float:
    """Exact unconditional p-value of the score test: P(z at least as large), largest over the nuisance rate.

    ``margin`` in (-1, 1); with arms swapped and a negative margin it is the p-value of the opposite claim. Sums the
    trinomial over the rejection region, flips B binomial and regressions given B binomial, on a grid of improvement
    rates that is dense near zero, refined once around its maximum. O(n) array steps.
    """
    check_counts(regressions, improvements, n)
    if n == 0:
        return 1.0
    bounds = _rejection_bounds(n, margin, score_z(regressions, improvements, n, margin))
    low, high = max(0.0, -margin), (1.0 - margin) / 2.0
    rates = low + (high - low) * np.linspace(0.0, 1.0, _NUISANCE_POINTS) ** 3
    tail = _region_probability(bounds, n, margin, rates)
    best = int(tail.argmax())
    around = np.linspace(rates[max(0, best - 1)], rates[min(len(rates) - 1, best + 1)], 33)
    return float(min(1.0, max(tail.max(), _region_probability(bounds, n, margin, around).max())))


def _rejection_bounds(n: int, margin: float, z: float) -> list[int]:
    """For each number of flips B = 0..n the largest number of regressions whose score reaches z, or -1.

    One more improvement raises the score and one more regression lowers it, so the bound rises by 0 or 1 with B.
    """
    bounds = []
    bound = -1
    for flips in range(n + 1):
        while bound < flips and score_z(bound + 1, flips - bound - 1, n, margin) >= z - 1e-10:
            bound += 1
        bounds.append(bound)
    return bounds


def _region_probability(bounds: list[int], n: int, margin: float, rates: FloatArray) -> FloatArray:
    """P(regressions <= bound of their B) for each improvement rate; shape of ``rates``."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    flip_rate = np.clip(2.0 * rates + margin, 0.0, 1.0)
    # Given a flip, it is a regression with probability theta. Clipped logs stand for 0 ln 0 = 0.
    theta = np.clip(np.divide(rates + margin, flip_rate, out=np.full_like(rates, 0.5), where=flip_rate > 0), 0.0, 1.0)
    logs = [np.log(np.maximum(p, 1e-300)) for p in (flip_rate, 1.0 - flip_rate, theta, 1.0 - theta)]
    below = np.zeros_like(rates)
    total = np.zeros_like(rates)
    previous = -1
    for flips, bound in enumerate(bounds):
        # F(k; B) = F(k; B-1) - theta f(k; B-1), then F(k+1; B) = F(k; B) + f(k+1; B).
        if previous >= 0:
            below = below - theta * _binomial(log_factorial, previous, flips - 1, logs[2], logs[3])
        for k in range(previous + 1, bound + 1):
            below = below + _binomial(log_factorial, k, flips, logs[2], logs[3])
        previous = bound
        if bound >= 0:
            total += np.clip(below, 0.0, 1.0) * _binomial(log_factorial, flips, n, logs[0], logs[1])
    return total


def _binomial(log_factorial: FloatArray, k: int, n: int, log_p: FloatArray, log_rest: FloatArray) -> FloatArray:
    """Binomial probability of k in n, for arrays of log rates."""
    ways = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    probability: FloatArray = np.exp(ways + k * log_p + (n - k) * log_rest)
    return probability


def fixed_n_verdict(regressions: int, improvements: int, n: int, margin: float, alpha: float = 0.05) -> Answer:
    """PASS, FAIL or UNKNOWN for a number of items that was fixed before looking.

    Both claims need the score beyond the normal quantile and an exact p-value of at most alpha; PASS also needs the
    zero-flip floor.
    """
    check_margin(margin)
    check_counts(regressions, improvements, n)
    critical = NormalDist().inv_cdf(1.0 - alpha)
    z = score_z(regressions, improvements, n, margin)
    if z > critical and n >= zero_flip_floor(margin, alpha):
        return "PASS" if exact_p(regressions, improvements, n, margin) <= alpha else "UNKNOWN"
    if z < -critical and exact_p(improvements, regressions, n, -margin) <= alpha:
        return "FAIL"
    return "UNKNOWN"
