"""The course of an item: asked, validated, asked again up to k times, then given to a person.

An answer is valid where its scorer gives it the full score. Of the repeats measured of an item in any order, the first
valid one ends it; a rerun that no repeat was measured for is paid for and counted as failing, so that one greedy answer
per item lets no rerun help. What is left goes to review with a probability and at a price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from quantwise.core.evidence import ANSWERED, Measurement
from quantwise.core.question import Question
from quantwise.scenarios.prices import Prices, Review
from quantwise.scenarios.reader import read_scenario
from quantwise.stats.differences import FloatArray
from quantwise.stats.wording import MOST_MISSING

Key = tuple[str, str]
Repeats = list[tuple[bool, float]]
"""Of one item: whether valid, and seconds of the machine."""
Arm = dict[Key, Repeats]


@dataclass(frozen=True, slots=True)
class Way:
    """How an item is worked on until it is solved, and what that costs; as the scenario says."""

    prices: Prices
    reruns: int = 0
    review: Review | None = None
    requests_per_month: float | None = None

    def money(self, seconds: FloatArray, reviews: FloatArray) -> FloatArray:
        """Amount for so many seconds of the machine and so many reviews."""
        return seconds * (self.prices.machine_hour / 3600.0) + reviews * (self.review.price if self.review else 0.0)


def way_of(question: Question) -> Way | None:
    """The way of a question's scenario; None where it states no prices."""
    if "prices" not in question.scenario:
        return None
    said = read_scenario(question.scenario)
    return None if said.prices is None else Way(said.prices, said.reruns, said.review, said.requests_per_month)


def course(repeats: Sequence[tuple[bool, float]], way: Way) -> tuple[float, float, float, float, float]:
    """Expected course of one item over all orders of its measured ``repeats`` (valid, seconds), at least one.

    Returns the share of first answers that fail, answers, seconds, reviews and the probability that it ends solved.
    With K repeats, F of them failing, the first j answers all fail with probability C(F, j) / C(K, j). Answers beyond
    the K measured take what a failing one takes, and fail.
    """
    failed = [seconds for valid, seconds in repeats if not valid]
    passed = [seconds for valid, seconds in repeats if valid]
    open_, answers, spent = 1.0, 0.0, 0.0
    for asked in range(1 + way.reruns):
        left, failing = len(repeats) - asked, len(failed) - asked
        fails = failing / left if left > 0 else 1.0
        answers += open_
        spent += open_ * (fails * mean_of(failed) + (1.0 - fails) * mean_of(passed))
        open_ *= fails
        if not open_:
            break
    review = way.review
    reviews = open_ * review.probability if review else 0.0
    solved = 1.0 - open_ + (reviews * review.solves if review else 0.0)
    return len(failed) / len(repeats), answers, spent, reviews, solved


def arm_of(rows: Sequence[Measurement], requests: int) -> Arm | None:
    """Repeats of each item; None where times are unknown, but for a few failed requests: they count as the mean.

    Requests that are under way together share the machine, so each takes its share of the time that it waited.
    """
    together: dict[tuple[str, int], int] = defaultdict(int)
    for row in rows:
        together[row.task, row.block] += 1
    found: Arm = {}
    times: dict[str, list[float]] = defaultdict(list)
    untimed: list[tuple[Key, int]] = []
    for row in rows:
        key = row.task, row.item
        repeats = found.setdefault(key, [])
        valid = row.finish in ANSWERED and row.score is not None and row.score >= 1.0
        if row.seconds is None:
            untimed.append((key, len(repeats)))
            repeats.append((valid, 0.0))
            continue
        seconds = row.seconds / min(requests, together[row.task, row.block])
        times[row.task].append(seconds)
        repeats.append((valid, seconds))
    if len(untimed) > MOST_MISSING * len(rows) or any(key[0] not in times for key, _ in untimed):
        return None
    for key, place in untimed:
        found[key][place] = found[key][place][0], mean_of(times[key[0]])
    return found


def mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
