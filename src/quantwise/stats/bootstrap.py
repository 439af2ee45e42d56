"""Seeded paired bootstrap: intervals for seconds, bytes, currency and other quantities without a bound.

Items are resampled together with everything measured on them, which keeps the pairing. For verdicts on scores use the
e-process; this is for costs and latency, where nobody is promised an error rate.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantwise.core.errors import InputError
from quantwise.stats.differences import FloatArray

_ROOM = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its percentile interval; a bound is None where the resamples give no finite one."""

    value: float
    low: float | None
    high: float | None


def bootstrap_ratio(
    numerator: Sequence[float] | FloatArray,
    denominator: Sequence[float] | FloatArray,
    *,
    alpha: float = 0.05,
    resamples: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Sum over sum of two quantities measured on the same items: seconds per solved task, candidate per baseline
    seconds.

    A ratio of sums, not a mean of ratios, so that items with a zero denominator (not solved) still cost. Raises
    InputError for unpaired or empty input and where the denominators sum to zero.
    """
    top, bottom = _paired(numerator, denominator)
    if bottom.sum() == 0.0:
        raise InputError("the ratio has no value: its denominators sum to zero; measure more items")
    return _estimate(top, bottom, alpha, resamples, seed)


def _paired(first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise InputError(f"the bootstrap needs paired values: got {a.size} and {b.size}; give one of each per item")
    return a, b


def _estimate(top: FloatArray, bottom: FloatArray, alpha: float, resamples: int, seed: int) -> Estimate:
    """Percentile interval of sum(top) / sum(bottom) under resampling of the items, in slices that bound the memory."""
    rng = np.random.default_rng(seed)
    n = len(top)
    rows = max(1, _ROOM // n)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, n, size=(min(rows, resamples - start), n))
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1))
    ratios = np.nan_to_num(np.concatenate(parts), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    low, high = np.quantile(ratios, [alpha / 2.0, 1.0 - alpha / 2.0], method="nearest")
    return Estimate(
        value=float(top.sum() / bottom.sum()),
        low=float(low) if np.isfinite(low) else None,
        high=float(high) if np.isfinite(high) else None,
    )
