"""Student's t, and what it says of a bootstrap over few blocks.

The distribution function at a whole number of degrees of freedom is a finite sum: Abramowitz and Stegun 26.7.3, 26.7.4.
"""

from __future__ import annotations

import math
from statistics import NormalDist

MIN_BLOCKS = 6
"""Six ratios have the true one between the least and the greatest 97 times in 100; fewer do so too seldom."""


def student_quantile(share: float, freedom: int) -> float:
    """t with P(T <= t) = ``share`` (0.5 to 1) at ``freedom`` degrees of freedom, by bisection."""
    low, high = 0.0, 1.0
    while _below(high, freedom) < share:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _below(middle, freedom) < share else (low, middle)
    return (low + high) / 2.0


def expanded_alpha(alpha: float, blocks: int) -> float:
    """The level at which a percentile interval over so few blocks covers as often as ``alpha`` promises.

    It is widened by as much as Student's t is wider than the normal: the expanded percentile interval of T. Hesterberg,
    "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015).
    """
    wide = math.sqrt(blocks / (blocks - 1)) * student_quantile(1.0 - alpha / 2.0, blocks - 1)
    return 2.0 * NormalDist().cdf(-wide)


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
