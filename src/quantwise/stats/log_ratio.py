"""A ratio of speeds from few paired repeats: geometric mean, and Student's t interval of the logarithms.

Three repeats make an interval, a wide one; a bootstrap of three would make one far too narrow. It holds as far as the
logarithms of paired ratios are normal, which nobody can check on three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantwise.core.errors import InputError
from quantwise.stats.bootstrap import Estimate
from quantwise.stats.student import student_quantile

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
