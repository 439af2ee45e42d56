"""Which measured costs of two candidates differ by more than the noise of one run.

Bytes are exact. Times are not: two servers with one file differ by some percent whenever one looks. So a time decides
only where a bootstrap over blocks says that the difference is not chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quantwise.core.evidence import Measurement
from quantwise.cost.candidate import P99_FLOOR
from quantwise.stats.differences import FloatArray

RESAMPLES = 400
# With fewer blocks in common the bootstrap's interval is far too narrow, and nothing is said.
MIN_BLOCKS = 5

Ratio = tuple[float, float]
_Arm = dict[tuple[str, int], FloatArray]


def ratios(first: Sequence[Measurement], second: Sequence[Measurement], *, seed: int = 0) -> Mapping[str, Ratio | None]:
    """95 % intervals of the first candidate's seconds per item, tail ratio and tokens per second over the second's.

    Blocks of one task that both were asked are resampled together, because the arms took turns within them. None where
    they share fewer than five blocks, or where the tail has too few items to be known.
    """
    one, two = _by_block(first), _by_block(second)
    common = sorted(set(one) & set(two))
    terms: dict[str, Callable[[list[FloatArray]], float | None]] = {
        "seconds_per_item": _seconds,
        "p99_over_p50": _tail,
        "tokens_per_s": _rate,
    }
    if len(common) < MIN_BLOCKS:
        return dict.fromkeys(terms)
    drawn = np.random.default_rng(seed).integers(0, len(common), size=(RESAMPLES, len(common)))
    return {
        term: _interval(statistic, [one[key] for key in common], [two[key] for key in common], drawn)
        for term, statistic in terms.items()
    }


def _by_block(rows: Sequence[Measurement]) -> _Arm:
    """(task, block) -> seconds and output tokens of its answered items, shape (items, 2)."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in rows:
        if row.seconds is not None and row.finish in ("stop", "length"):
            found.setdefault((row.task, row.block), []).append((row.seconds, float(row.output_tokens or 0)))
    return {key: np.asarray(values, dtype=np.float64) for key, values in found.items()}


def _interval(
    statistic: Callable[[list[FloatArray]], float | None],
    one: list[FloatArray],
    two: list[FloatArray],
    drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> Ratio | None:
    found = []
    for row in drawn:
        top, bottom = statistic([one[i] for i in row]), statistic([two[i] for i in row])
        if not top or not bottom:
            return None
        found.append(top / bottom)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _seconds(blocks: list[FloatArray]) -> float:
    """Blocks count alike, so that both arms weigh the tasks alike."""
    return float(np.mean([block[:, 0].mean() for block in blocks]))


def _tail(blocks: list[FloatArray]) -> float | None:
    seconds = np.concatenate(blocks)[:, 0]
    if len(seconds) < P99_FLOOR:
        return None
    middle, high = np.quantile(seconds, [0.5, 0.99])
    return float(high / middle) if middle > 0 else None


def _rate(blocks: list[FloatArray]) -> float | None:
    together = np.concatenate(blocks).sum(axis=0)
    return float(together[1] / together[0]) if together[0] > 0 else None
