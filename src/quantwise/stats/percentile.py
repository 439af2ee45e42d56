"""Percentiles as order statistics, each with the least number of samples that can tell it.

The largest of n samples lies above the q-quantile with probability 1 - q^n. Below the n at which that reaches 95 %, not
even the largest sample bounds the quantile, and it is unknown: 59 samples for p95, 299 for p99.
"""

from __future__ import annotations

from collections.abc import Sequence

P95_FLOOR = 59
P99_FLOOR = 299


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-quantile of ``values`` in their unit, or None below its sample floor. Infinite values are allowed."""
    if len(values) < max(1, sample_floor(q)):
        return None
    return sorted(values)[rank(q, len(values))]


def sample_floor(q: float) -> int:
    """How many samples a q-quantile takes; none are asked of one below p95."""
    return P99_FLOOR if q >= 0.99 else P95_FLOOR if q >= 0.95 else 0


def rank(q: float, count: int) -> int:
    """The place, from 0, of the q-quantile among ``count`` sorted values."""
    return min(count - 1, int(q * count))
