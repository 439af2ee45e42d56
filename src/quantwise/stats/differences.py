"""Paired differences as a histogram: the sufficient data of every statistic here.

A difference d = candidate - baseline lies in [-1, 1]. Scores of right or wrong give only -1 (a regression), 0 and
1 (an improvement); the histogram of three bars makes each statistic O(1) in the number of items, and makes it
independent of their order by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantwise.core.errors import InputError
from quantwise.core.evidence import Pair

FloatArray = NDArray[np.float64]


def check_margin(margin: float) -> None:
    """Raise InputError unless the margin is a share strictly between 0 and 1."""
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin {margin:g} is out of range: give a share between 0 and 1, for example 0.01 or 1%")


def check_counts(regressions: int, improvements: int, n: int) -> None:
    """Raise InputError unless the counts are possible."""
    if min(regressions, improvements, n) < 0:
        raise InputError(
            f"counts must not be negative: got {regressions} regressions, {improvements} improvements, {n} items"
        )
    if regressions + improvements > n:
        raise InputError(
            f"{regressions} regressions and {improvements} improvements do not fit into {n} items: "
            "an item flips at most once; give --items as the number of all paired items"
        )


@dataclass(frozen=True)
class Differences:
    """Histogram of differences: ``values`` sorted, in [-1, 1], each once; ``counts`` > 0, same shape (k,)."""

    values: FloatArray
    counts: FloatArray

    @classmethod
    def of_counts(cls, regressions: int, improvements: int, n: int) -> Differences:
        """Right-or-wrong items given as flips both ways. Raises InputError for impossible counts."""
        check_counts(regressions, improvements, n)
        values = np.array([-1.0, 0.0, 1.0])
        counts = np.array([regressions, n - regressions - improvements, improvements], dtype=np.float64)
        return cls(values[counts > 0], counts[counts > 0])

    @classmethod
    def of_values(cls, differences: Sequence[float] | FloatArray) -> Differences:
        """Any bounded differences. Raises InputError for one outside [-1, 1]."""
        array = np.asarray(differences, dtype=np.float64)
        if array.size and not (np.abs(array) <= 1.0).all():
            raise InputError("a difference lies outside [-1, 1]: scores must lie between 0 and 1")
        values, counts = np.unique(array, return_counts=True)
        return cls(values, counts.astype(np.float64))

    @classmethod
    def of_pairs(cls, pairs: Iterable[Pair]) -> Differences:
        """Differences of paired scores; the difference is taken here and nowhere else."""
        return cls.of_values([p.candidate - p.baseline for p in pairs])

    @cached_property
    def n(self) -> int:
        """Number of items (or clusters)."""
        return round(float(self.counts.sum()))

    @cached_property
    def mean(self) -> float | None:
        """Mean difference, negative when the candidate is worse; None without items."""
        return float(self.values @ self.counts) / self.n if self.n else None

    @cached_property
    def regressions(self) -> int:
        """Items on which the candidate scores lower."""
        return round(float(self.counts[self.values < 0].sum()))

    @cached_property
    def improvements(self) -> int:
        """Items on which the candidate scores higher."""
        return round(float(self.counts[self.values > 0].sum()))

    @property
    def binary(self) -> bool:
        """Whether only -1, 0 and 1 occur, so that the counts say everything."""
        return bool(np.isin(self.values, (-1.0, 0.0, 1.0)).all())

    def mirrored(self) -> Differences:
        """The same evidence with the arms swapped."""
        return Differences(-self.values[::-1], self.counts[::-1])

    def coarsened(self, bars: int = 41) -> Differences:
        """At most ``bars`` evenly spaced bars with the same n and mean.

        Each count is split between the two nearest bars in proportion, which keeps the mean and can only widen the
        spread; used for forecasts, never for a verdict.
        """
        if len(self.values) <= bars:
            return self
        grid = np.linspace(-1.0, 1.0, bars)
        place = (self.values + 1.0) * (bars - 1) / 2.0
        low = np.minimum(place.astype(np.int64), bars - 2)
        share = place - low
        counts = np.zeros(bars)
        np.add.at(counts, low, self.counts * (1.0 - share))
        np.add.at(counts, low + 1, self.counts * share)
        return Differences(grid[counts > 0], counts[counts > 0])
