"""A ratio of speeds from few paired repeats: geometric mean, and Student's t interval of the logarithms.

Three repeats make an interval, a wide one; a bootstrap of three would make one far too narrow. It holds as far as the
logarithms of paired ratios are normal, which nobody can check on three. The t distribution of whole degrees of freedom
is a finite sum: Abramowitz and Stegun 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantwise.core.errors import InputError
from quantwise.stats.bootstrap import Estimate

FEWEST = 3
"""With two repeats the 95 % quantile is 12.7, and an interval says next to nothing."""


def log_ratio(top: Sequence[float], bottom: Sequence[float], alpha: float = 0.05) -> Estimate:
    """Geometric mean of top / bottom over paired repeats, and its interval of level 1 - alpha; without one below three.

    Raises InputError for unpaired, empty or not positive values.
    """
    if len(top) != len(bottom) or not top or min(*top, *bottom) <= 0.0:
        raise InputError(f"a ratio needs paired values above 0: got {len(top)} and {len(bottom)}; give one per repeat")
    logs = [math.log(a / b) for a, b in zip(top, bottom, strict=True)]
    count = len(logs)
    mean = sum(logs) / count
    if count < FEWEST:
        return Estimate(math.exp(mean), None, None)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / (count - 1))
    half = student_quantile(1.0 - alpha / 2.0, count - 1) * deviation / math.sqrt(count)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def student_quantile(share: float, freedom: int) -> float:
    """t with P(T <= t) = ``share`` (0.5 to 1) at a whole number of degrees of freedom, by bisection."""
    low, high = 0.0, 1.0
    while _below(high, freedom) < share:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _below(middle, freedom) < share else (low, middle)
    return (low + high) / 2.0


def _below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0."""
    angle = math.atan2(t, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(2, freedom - 1, 2):
            term *= square * (k - 1) / k
            total += term
        return 0.5 + 0.5 * math.sin(angle) * total
    total = term = math.cos(angle) if freedom > 1 else 0.0
    for k in range(3, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    return 0.5 + (angle + math.sin(angle) * total) / math.pi
