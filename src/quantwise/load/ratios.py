"""One server's figures over another's, with intervals, from blocks in which both were given the same requests.

Blocks are resampled together (what slows both in a block cancels), and count alike. Over few blocks the percentile
bootstrap is too narrow, so its level is widened for them (`stats.student.expanded_alpha`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quantwise.core.errors import InputError
from quantwise.load.generator import Answer, Block
from quantwise.load.latency import ServiceLevels, summary
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio
from quantwise.stats.differences import FloatArray
from quantwise.stats.percentile import percentile, rank
from quantwise.stats.student import MIN_BLOCKS, expanded_alpha

TERMS = (
    *("mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms"),
    *("request_throughput", "output_throughput", "request_goodput"),
)


_RESAMPLES = 1000
_TAILS: tuple[tuple[str, float, Callable[[Answer], float | None]], ...] = (
    ("p95_ttft_ms", 0.95, lambda a: a.ttft),
    ("p99_ttft_ms", 0.99, lambda a: a.ttft),
    ("p95_e2el_ms", 0.95, lambda a: a.e2e),
    ("p99_e2el_ms", 0.99, lambda a: a.e2e),
)


def block_figures(blocks: Sequence[Block], levels: ServiceLevels) -> list[dict[str, float | None]]:
    """The TERMS of every block by itself."""
    return [{term: figures[term] for term in TERMS} for b in blocks for figures in (summary([b], levels),)]


def spread(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Standard deviation over mean of each term between blocks; None for fewer than two, or where one is unknown."""
    found: dict[str, float | None] = {}
    for term in TERMS:
        values = [row[term] for row in rows]
        known = [v for v in values if v is not None]
        mean = float(np.mean(known)) if known else 0.0
        enough = len(known) == len(values) >= 2 and mean > 0
        found[f"cv_{term}"] = float(np.std(known, ddof=1)) / mean if enough else None
    return found


def ratios(
    first: Sequence[dict[str, float | None]], second: Sequence[dict[str, float | None]], seed: int = 0
) -> dict[str, Any]:
    """For every term ``ratio``, ``low`` and ``high`` (95 %) of first over second; None where fewer than six blocks
    have it on both sides.
    """
    found: dict[str, Any] = {}
    for term in TERMS:
        both = ((a[term], b[term]) for a, b in zip(first, second, strict=True))
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        got = paired_ratio([a for a, _ in pairs], [b for _, b in pairs], seed)
        found[term] = None if got is None else {"ratio": got.value, "low": got.low, "high": got.high}
    return found


def tail_ratios(first: Sequence[Block], second: Sequence[Block], seed: int = 0) -> dict[str, Any]:
    """As :func:`ratios`, for percentiles over all blocks; None also where one of both is unknown (see latency.py).

    Blocks are resampled together here too, and the percentile is that of all their requests.
    """
    enough = len(first) == len(second) >= MIN_BLOCKS
    drawn = np.random.default_rng(seed).integers(0, max(len(first), 1), size=(_RESAMPLES, len(first)))
    found: dict[str, Any] = {}
    for name, q, read in _TAILS:
        one, two = [_times(b, read) for b in first], [_times(b, read) for b in second]
        top, bottom = (percentile(np.concatenate([*times, []]).tolist(), q) for times in (one, two))
        if not enough or top is None or not bottom or not math.isfinite(top) or not math.isfinite(bottom):
            found[name] = None
            continue
        with np.errstate(invalid="ignore"):
            resampled = np.asarray([_tail(one, row, q) / _tail(two, row, q) for row in drawn])
        level = expanded_alpha(0.05, len(first))
        known = np.nan_to_num(resampled, nan=np.inf, posinf=np.inf)
        low, high = np.quantile(known, [level / 2, 1 - level / 2], method="nearest")
        bounds = [float(bound) if np.isfinite(bound) else None for bound in (low, high)]
        found[name] = {"ratio": top / bottom, "low": bounds[0], "high": bounds[1]}
    return found


def _times(block: Block, read: Callable[[Answer], float | None]) -> FloatArray:
    """Seconds of every request of a block; one without an answer takes for ever."""
    times = (read(a) if a.ok else math.inf for a in block.answers)
    return np.asarray([t for t in times if t is not None], dtype=np.float64)


def _tail(blocks: Sequence[FloatArray], drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]], q: float) -> float:
    """The q-quantile of the drawn blocks' requests together; NaN where there is none. Whether so many can tell it was
    looked at before."""
    times = np.sort(np.concatenate([blocks[i] for i in drawn]))
    return float(times[rank(q, len(times))]) if len(times) else math.nan


def paired_ratio(
    first: Sequence[float], second: Sequence[float], seed: int = 0, alpha: float = 0.05
) -> Estimate | None:
    """Ratio of the means of paired block figures with its interval, or None for fewer than MIN_BLOCKS blocks."""
    if len(first) < MIN_BLOCKS:
        return None
    try:
        return bootstrap_ratio(first, second, alpha=expanded_alpha(alpha, len(first)), seed=seed)
    except InputError:  # a denominator of zero
        return None
