"""Cost of a solved item: what its course costs, over all items, from answers that were measured.

Items that end unsolved cost too, and the solved ones carry it: sums over sums, tasks weighing alike.
Intervals: paired percentile bootstrap over items, or over clusters where items share one, within each task
(Efron and Tibshirani, "An Introduction to the Bootstrap", 1993), smoothed by half an item that only one arm fails on
and widened by what whole blocks differ in time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantwise.core.artifact import Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question
from quantwise.core.solved_item import PER_SOLVED, Priced, SolvedItem, Solving
from quantwise.core.verdict import Cost
from quantwise.cost.course import Key, Way, arm_of, course, way_of
from quantwise.cost.turn_luck import luck_of_turns
from quantwise.stats.differences import FloatArray

RESAMPLES = 2000
# Below these the percentile interval of a ratio covers too seldom, and nothing is said.
MIN_ITEMS = 30
FIRST_LOOK = 2
"""Blocks: of one nobody can tell the luck of its turn, so that no interval is told."""
_ROOM = 2_000_000
# Columns of an item: first answers not valid, answers, seconds, reviews, solved.
_FAILING, _ANSWERS, _SECONDS, _REVIEWS, _SOLVED = range(5)


def solved_items(
    question: Question,
    rows: Mapping[str, Sequence[Measurement]],
    costs: Mapping[str, Cost],
    timing: Mapping[str, float | None],
) -> dict[str, SolvedItem]:
    """Candidate to what a solved item costs with it, for those of ``rows`` whose times are known; empty without prices.

    ``rows`` are the certification rows of each arm, ``timing`` the seconds of each stage (None: unknown).
    """
    way = way_of(question)
    if way is None:
        return {}
    found = {}
    for candidate in (c for c in question.candidates if not c.baseline and c.name in rows):
        base = question.baseline_of(candidate)
        if (item := _against(question, way, candidate, base, rows, costs)) is not None:
            found[candidate.name] = _break_even(item, run_cost(way, timing))
    return found


def priced(
    question: Question, rows: Mapping[str, Sequence[Measurement]], names: Collection[str]
) -> dict[tuple[str, str], dict[str, Priced | None]]:
    """Every two of the candidates ``names``: money and seconds per solved item of the first over the second's.

    None where times are unknown or items in common too few; empty where no objective asks for it. Energy has no row of
    its own for an item, so of joules no interval is known.
    """
    way = way_of(question)
    if way is None or not set(question.scenario["objective"]) & set(PER_SOLVED):
        return {}
    # Baselines last, as in `solved_items`, so that both draw alike and tell one interval.
    arms = sorted((c for c in question.candidates if c.name in names), key=lambda c: c.baseline)
    found: dict[tuple[str, str], dict[str, Priced | None]] = {}
    for place, one in enumerate(arms):
        for two in arms[place + 1 :]:
            pair = _pair(question, way, one, two, rows)
            told = {} if pair is None else _priced_terms(way, pair.means, pair.drawn, price_level(question))
            found[one.name, two.name] = told
            found[two.name, one.name] = {term: p.inverse() if p else None for term, p in told.items()}
    return found


def price_level(question: Question) -> float:
    """Error rate of each interval of a price: alpha, shared among all looks where a price decides when to stop.

    Then it is looked at after 2, 4, 8, ... blocks up to those that are planned, and at the end (Bonferroni). One end is
    counted: a run that is ended and goes on has more looks than that.
    """
    asks = set(question.scenario["objective"]) & set(PER_SOLVED) or question.scenario.get("budget")
    return question.alpha / (len(price_looks(question)) + 1) if asks else question.alpha


def price_looks(question: Question) -> list[int]:
    """Numbers of blocks after which the price is looked at; one block cannot tell the luck of its turn."""
    planned = max((-(-task.items // question.block) for task in question.tasks), default=1)
    return [FIRST_LOOK * 2**k for k in range(planned.bit_length() - 1)]


def _priced_terms(way: Way, means: FloatArray, drawn: FloatArray, level: float) -> dict[str, Priced | None]:
    terms: dict[str, Callable[[FloatArray], FloatArray]] = {
        "money_per_solved": lambda rows: _unit(way, rows),
        "seconds_per_solved": lambda rows: _over(rows[:, _SECONDS], rows[:, _SOLVED]),
    }
    found: dict[str, Priced | None] = {}
    for term, unit in terms.items():
        whole, ratio = (_over(unit(rows[:, :5]), unit(rows[:, 5:])) for rows in (means, drawn))
        value, bounds = _finite(whole[0]), _interval(ratio, level)
        found[term] = Priced(value, *bounds) if value and bounds and bounds[0] > 0.0 else None
    return found


def run_cost(way: Way, timing: Mapping[str, float | None]) -> float | None:
    """What quantizing and evaluating cost: hours of all stages at the machine's price; None where one is unknown."""
    known = [seconds for seconds in timing.values() if seconds is not None]
    return sum(known) / 3600.0 * way.prices.machine_hour if known and len(known) == len(timing) else None


@dataclass(frozen=True, slots=True)
class _Beside:
    """Two arms on the items that both were asked; ``repeats`` is the fewest answers that were measured of one.

    Ten columns per item: the first arm's five (`_FAILING` to `_SOLVED`), then the second's. ``means``, (1, 10), are as
    measured. The resamples, (RESAMPLES, 10), differ in the luck that they carry: ``drawn`` is for ratios of the two
    arms, ``alone`` for what one arm takes by itself.
    """

    items: int
    repeats: int
    means: FloatArray
    drawn: FloatArray
    alone: FloatArray


def _against(
    question: Question, way: Way, candidate: Candidate, base: Candidate,
    rows: Mapping[str, Sequence[Measurement]], costs: Mapping[str, Cost],
) -> SolvedItem | None:  # fmt: skip
    """A candidate beside its baseline on the items that both were asked; None where times or items are too few."""
    found = _pair(question, way, candidate, base, rows)
    if found is None:
        return None
    means, drawn = found.means, found.drawn
    level = price_level(question)
    joules = [costs[c.name].joules_per_item if c.name in costs else None for c in (candidate, base)]
    ratio = _over(_unit(way, drawn[:, :5]), _unit(way, drawn[:, 5:]))
    whole = _over(_unit(way, means[:, :5]), _unit(way, means[:, 5:]))
    saved = _saved(way, means, drawn, level)
    return SolvedItem(
        candidate=candidate.name,
        baseline=base.name,
        items=found.items,
        ours=_solving(way, means[:, :5], found.alone[:, :5], level, joules[0]),
        theirs=_solving(way, means[:, 5:], found.alone[:, 5:], level, joules[1]),
        ratio=_finite(whole[0]),
        interval=_interval(ratio, level),
        saved_per_month=saved,
        notes=_notes(way, found.repeats, joules),
        alpha=level,
    )


def _pair(
    question: Question, way: Way, one: Candidate, two: Candidate, rows: Mapping[str, Sequence[Measurement]]
) -> _Beside | None:
    """The columns of both on the items that both were asked; None where times or items are too few."""
    ours, theirs = (arm_of(rows[c.name], question.requests(c.runtime)) for c in (one, two))
    if ours is None or theirs is None:
        return None
    asked = sorted(set(ours) & set(theirs))
    clusters = {(r.task, r.item): r.cluster or r.item for r in rows[two.name]}
    strata = _strata([(key, clusters[key], (*course(ours[key], way), *course(theirs[key], way))) for key in asked])
    if not strata or sum(len(s) for s in strata) < MIN_ITEMS:
        return None
    drawn = _resampled(strata, way, question.seed)
    blocks = {(r.task, r.item): r.block for r in rows[two.name]}
    luck = luck_of_turns({key: (blocks[key], ours[key], theirs[key]) for key in asked}, RESAMPLES, question.seed)
    alone, timed = drawn.copy(), [_SECONDS, 5 + _SECONDS]
    with np.errstate(invalid="ignore"):  # no time at all, of unknown luck
        drawn[:, timed] *= luck.between
        alone[:, timed] *= luck.alone
    repeats = min(len(arm[key]) for arm in (ours, theirs) for key in asked)
    return _Beside(len(asked), repeats, _means(strata), drawn, alone)


def _strata(items: Sequence[tuple[Key, str, tuple[float, ...]]]) -> list[FloatArray]:
    """Per task an array (clusters, 11): sums over the cluster of both arms' five columns, and its number of items."""
    sums: dict[str, dict[str, FloatArray]] = defaultdict(dict)
    for (task, _), cluster, columns in items:
        row = np.array([*columns, 1.0])
        sums[task][cluster] = sums[task][cluster] + row if cluster in sums[task] else row
    return [np.stack(list(clusters.values())) for clusters in sums.values()]


def _means(strata: Sequence[FloatArray]) -> FloatArray:
    """Per item, tasks weighing alike: shape (1, 10)."""
    of_task = [s[:, :-1].sum(axis=0, keepdims=True) / s[:, -1].sum() for s in strata]
    return np.asarray(sum(of_task) / len(of_task), dtype=np.float64)


def _resampled(strata: Sequence[FloatArray], way: Way, seed: int) -> FloatArray:
    """The same of ``RESAMPLES`` resamples of the clusters of each task and of what was not seen: (resamples, 10).

    Half an item that only one arm fails on stands for each kind of flip that was not seen: without it nothing could
    ever fail where nothing has failed so far, and intervals of rare and dear failures would be far too narrow.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((RESAMPLES, 10))
    for seen in strata:
        count, rows = len(seen), np.vstack([seen, _unseen(seen, way)])
        halves = np.append(np.repeat(np.arange(count), 2), [count, count + 1])
        step = max(1, _ROOM // len(rows))
        for start in range(0, RESAMPLES, step):
            many = min(step, RESAMPLES - start)
            drawn = halves[rng.integers(0, len(halves), size=(many, count), dtype=np.int32)]
            drawn += len(rows) * np.arange(many)[:, None]
            times = np.bincount(drawn.ravel(), minlength=many * len(rows)).reshape(many, len(rows))
            sums = times @ rows
            total[start : start + many] += sums[:, :-1] / sums[:, -1:]
    return total / len(strata)


def _unseen(rows: FloatArray, way: Way) -> FloatArray:
    """Two clusters that only one arm fails on, each arm once: shape (2, 11)."""
    per_item, size = rows[:, :-1].sum(axis=0) / rows[:, -1].sum(), rows[:, -1].mean()
    took = [float(per_item[arm + _SECONDS] / per_item[arm + _ANSWERS]) for arm in (0, 5)]
    both = [[*course([(not ours, took[0])], way), *course([(ours, took[1])], way), 1.0] for ours in (True, False)]
    return np.asarray(both, dtype=np.float64) * float(size)


def _unit(way: Way, columns: FloatArray) -> FloatArray:
    """Money per solved item of each row; infinite where nothing is solved."""
    return _over(way.money(columns[:, _SECONDS], columns[:, _REVIEWS]), columns[:, _SOLVED])


def _over(top: FloatArray, bottom: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = top / bottom
    ratio[~np.isfinite(ratio)] = np.inf
    return ratio


def _solving(way: Way, mean: FloatArray, drawn: FloatArray, alpha: float, joules: float | None) -> Solving:
    failing, answers, _, reviews, solved = (float(x) for x in mean[0])
    return Solving(
        failing=failing,
        unsolved=max(0.0, 1.0 - solved),
        answers=answers,
        reviews=reviews,
        seconds=_finite(_over(mean[:, _SECONDS], mean[:, _SOLVED])[0]),
        seconds_interval=_interval(_over(drawn[:, _SECONDS], drawn[:, _SOLVED]), alpha),
        joules=joules * answers / solved if solved and joules is not None else None,
        money=_finite(_unit(way, mean)[0]),
        money_interval=_interval(_unit(way, drawn), alpha),
    )


def _saved(way: Way, mean: FloatArray, drawn: FloatArray, alpha: float) -> tuple[float, float, float] | None:
    """(low, value, high) that a month's solved items of the baseline would cost less with the candidate.

    None where the traffic is not stated, and where the interval includes zero.
    """
    if way.requests_per_month is None:
        return None
    with np.errstate(invalid="ignore"):
        monthly = [
            way.requests_per_month * rows[:, 5 + _SOLVED] * (_unit(way, rows[:, 5:]) - _unit(way, rows[:, :5]))
            for rows in (mean, drawn)
        ]
    bounds = _interval(np.nan_to_num(monthly[1], nan=-np.inf), alpha)
    return None if bounds is None or bounds[0] <= 0.0 else (bounds[0], float(monthly[0][0]), bounds[1])


def _break_even(item: SolvedItem, spent: float | None) -> SolvedItem:
    if item.saved_per_month is None or spent is None:
        return item
    low, middle, high = item.saved_per_month
    return replace(item, break_even_months=(spent / high, spent / middle, spent / low))


def _interval(values: FloatArray, alpha: float) -> tuple[float, float] | None:
    """Percentile interval of level 1 - alpha; None where a bound is not finite."""
    low, high = np.quantile(values, [alpha / 2.0, 1.0 - alpha / 2.0], method="nearest")
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None


def _notes(way: Way, repeats: int, joules: Sequence[float | None]) -> tuple[str, ...]:
    """What the figures do not rest on; ``repeats`` is the fewest that were measured of an item."""
    notes = []
    if way.reruns and repeats == 1:
        notes.append("one answer per item was measured: a rerun is paid for and counted as failing like it")
    elif way.reruns >= repeats:
        notes.append(f"{repeats} answers per item were measured: what is asked after them is counted as failing")
    if None in joules:
        notes.append("energy is unknown")
    return tuple(notes)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
