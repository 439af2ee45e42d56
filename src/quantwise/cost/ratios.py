"""Which measured costs of two candidates differ by more than the noise of one run.

Bytes are exact. Times are not: two servers with one file differ by some percent whenever one looks. So a time decides
only where a bootstrap says that the difference is not chance. What is resampled are turns: in its turn an arm answers a
block of every task (`certify.py`), all of which share the luck of the machine at that time, however many items and
tasks they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantwise.core.evidence import ANSWERED, Measurement
from quantwise.cost.block_energy import BlockJoules
from quantwise.cost.candidate import request_seconds
from quantwise.decision.objective import MEASURED_PER_ITEM
from quantwise.stats.differences import FloatArray
from quantwise.stats.percentile import P99_FLOOR
from quantwise.stats.student import MIN_BLOCKS, expanded_alpha

RESAMPLES = 2000
Ratio = tuple[float, float]
"""Lower and upper end of the 95 % interval of the first candidate's over the second's."""
_Draws = NDArray[np.int64]
"""How often each turn is in each resample: shape (resamples, turns)."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one arm did in one turn, of the tasks that both arms answered in it.

    ``mean_seconds`` is the sum over its tasks of the mean seconds of an answer; ``tokens`` and ``token_seconds`` are
    sums over the answers that tell both; ``requests`` are the seconds of every request, infinite where it failed;
    ``mean_joules`` the sum over its tasks of joules over requests, NaN where a block was not metered.
    """

    mean_seconds: float
    mean_joules: float
    tokens: float
    token_seconds: float
    requests: tuple[float, ...]


def ratios(
    first: Sequence[Measurement],
    second: Sequence[Measurement],
    terms: Collection[str] = MEASURED_PER_ITEM,
    *,
    joules: tuple[BlockJoules, BlockJoules] = ({}, {}),
    seed: int = 0,
) -> dict[str, Ratio | None]:
    """The interval of each of ``terms``; None where nothing can be said.

    That is where the arms share fewer than six turns, where a term is unknown of one of them, and for a tail of fewer
    than 299 requests. A bound is infinite, or 0, where p99 falls on requests that failed or were answered after a
    further try.
    """
    one, two = _turns((first, second), joules)
    if len(one) < MIN_BLOCKS:
        return dict.fromkeys(terms)
    drawn = np.random.default_rng(seed).multinomial(len(one), [1.0 / len(one)] * len(one), size=RESAMPLES)
    statistics: dict[str, Callable[[Sequence[_Turn], _Draws], FloatArray]] = {
        "seconds_per_item": _seconds,
        "joules_per_item": _joules,
        "p99_over_p50": _tail,
        "tokens_per_s": _rate,
    }
    level = expanded_alpha(0.05, len(one))
    return {term: _interval(statistics[term](one, drawn), statistics[term](two, drawn), level) for term in terms}


def inverse(ratio: Ratio) -> Ratio:
    """That of the second candidate over the first."""
    low, high = ratio
    return 1.0 / high if high else math.inf, 1.0 / low if low else math.inf


def _turns(
    both: tuple[Sequence[Measurement], Sequence[Measurement]], joules: tuple[BlockJoules, BlockJoules]
) -> tuple[list[_Turn], list[_Turn]]:
    """Both arms' turns, in one order, of the tasks and blocks in which both gave timed answers."""
    arms = [_cells(rows) for rows in both]
    common: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for key in sorted(set(arms[0]) & set(arms[1])):
        common[key[0]].append(key)
    one, two = (
        [_turn([cells[key] for key in keys], [used.get(key, math.nan) for key in keys]) for keys in common.values()]
        for cells, used in zip(arms, joules, strict=True)
    )
    return one, two


def _cells(rows: Sequence[Measurement]) -> dict[tuple[int, str], list[Measurement]]:
    """(block, task) to its rows, where any answer in it has a time."""
    found: dict[tuple[int, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        found[row.block, row.task].append(row)
    return {key: of for key, of in found.items() if _answers(of)}


def _answers(rows: Sequence[Measurement]) -> list[tuple[float, int | None]]:
    """Seconds and output tokens (None: not told) of the answers that have a time."""
    return [(r.seconds, r.output_tokens) for r in rows if r.seconds is not None and r.finish in ANSWERED]


def _turn(tasks: Sequence[Sequence[Measurement]], joules: Sequence[float]) -> _Turn:
    answers = [_answers(rows) for rows in tasks]
    written = [(seconds, tokens) for of in answers for seconds, tokens in of if tokens is not None]
    return _Turn(
        mean_seconds=sum(sum(seconds for seconds, _ in of) / len(of) for of in answers),
        mean_joules=sum(used / len(rows) for used, rows in zip(joules, tasks, strict=True)),
        tokens=float(sum(tokens for _, tokens in written)),
        token_seconds=sum(seconds for seconds, _ in written),
        requests=tuple(seconds for rows in tasks for seconds in request_seconds(rows)),
    )


def _interval(top: FloatArray, bottom: FloatArray, level: float) -> Ratio | None:
    """Percentile interval of the ratio of two statistics of the same resamples; a bound may be 0 or infinite where a
    statistic is. A resample that tells nothing (NaN) may be anything; None where the interval then is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = top / bottom
    low = np.quantile(np.where(np.isnan(found), 0.0, found), level / 2.0, method="nearest")
    high = np.quantile(np.where(np.isnan(found), np.inf, found), 1.0 - level / 2.0, method="nearest")
    return (float(low), float(high)) if low > 0.0 or np.isfinite(high) else None


def _seconds(turns: Sequence[_Turn], drawn: _Draws) -> FloatArray:
    """Tasks and blocks count alike; both arms have the same ones, so how many they are cancels in the ratio."""
    return np.asarray(drawn @ np.array([turn.mean_seconds for turn in turns]))


def _joules(turns: Sequence[_Turn], drawn: _Draws) -> FloatArray:
    """As `_seconds`; NaN everywhere where one turn is."""
    return np.asarray(drawn @ np.array([turn.mean_joules for turn in turns]))


def _rate(turns: Sequence[_Turn], drawn: _Draws) -> FloatArray:
    sums = drawn @ np.array([[turn.tokens, turn.token_seconds] for turn in turns])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 0] / sums[:, 1])


def _tail(turns: Sequence[_Turn], drawn: _Draws) -> FloatArray:
    """p99 over p50 of all requests of the drawn turns; NaN of an arm with too few requests to know its p99."""
    place = np.repeat(np.arange(len(turns)), [len(turn.requests) for turn in turns])
    seconds = np.array([s for turn in turns for s in turn.requests])
    if len(seconds) < P99_FLOOR:
        return np.full(len(drawn), np.nan)
    order = np.argsort(seconds)
    seconds, place = seconds[order], place[order]
    found = np.empty(len(drawn))
    for number, times in enumerate(drawn):
        upto = np.cumsum(times[place])
        middle, high = (seconds[np.searchsorted(upto, int(q * upto[-1]), side="right")] for q in (0.5, 0.99))
        found[number] = high / middle if middle > 0.0 and np.isfinite(middle) else np.nan
    return found
