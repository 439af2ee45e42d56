"""What a solved item costs, with the sentences that a decision says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Solving:
    """What one arm takes until an item is solved. Shares, answers and reviews are per item.

    ``failing`` is the share of first answers that are not valid, ``unsolved`` that of items which nothing solves.
    ``seconds`` (of the machine), ``joules`` and ``money`` are per solved item, intervals beside them; None: unknown.
    """

    failing: float
    unsolved: float
    answers: float
    reviews: float
    seconds: float | None
    seconds_interval: tuple[float, float] | None
    joules: float | None
    money: float | None
    money_interval: tuple[float, float] | None


PER_SOLVED: Mapping[str, str] = {
    "money_per_solved": "money",
    "seconds_per_solved": "seconds",
    "joules_per_solved": "joules",
}
"""Terms of an objective to what they are of a `Solving`."""


@dataclass(frozen=True, slots=True)
class Priced:
    """What a solved item takes with one candidate over what it takes with another, and the interval of that ratio."""

    ratio: float
    low: float
    high: float

    def direction(self, material: float) -> int:
        """-1 where the first is shown to take less, 1 where it takes more, 0 where neither is shown or it is no matter.

        ``material`` is the share below which no difference matters.
        """
        if self.low <= 1.0 <= self.high or abs(self.ratio - 1.0) <= material:
            return 0
        return -1 if self.ratio < 1.0 else 1

    def inverse(self) -> Priced:
        """The second over the first."""
        return Priced(1.0 / self.ratio, 1.0 / self.high, 1.0 / self.low)

    def settled(self, material: float) -> bool:
        """Whether further items could hardly change the direction: it is shown, or shown to be no matter."""
        return self.direction(material) != 0 or (self.low >= 1.0 - material and self.high <= 1.0 + material)


@dataclass(frozen=True, slots=True)
class SolvedItem:
    """A candidate (``ours``) beside its baseline (``theirs``) on the ``items`` that both were asked.

    ``ratio`` is money per solved item over the baseline's, ``alpha`` the error rate of each interval.
    ``saved_per_month`` is in the currency of the prices, ``break_even_months`` what the run cost over that; both are
    (low, value, high), and None where they are unknown or the interval of the saving includes zero.
    """

    candidate: str
    baseline: str
    items: int
    ours: Solving
    theirs: Solving
    ratio: float | None
    interval: tuple[float, float] | None
    saved_per_month: tuple[float, float, float] | None = None
    break_even_months: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    alpha: float = 0.05

    def dearer(self, material: float) -> bool:
        """Whether a solved item is shown to cost more than the baseline's, and by more than a share ``material``."""
        return (
            self.ratio is not None and self.interval is not None and self.interval[0] > 1 and self.ratio > 1 + material
        )

    def why_dearer(self, scenario: Mapping[str, Any], bytes_share: float | None) -> str:
        """The sentence that rules it out; ``bytes_share`` is its bytes over the baseline's, None where unknown."""
        smaller = bytes_share is not None and bytes_share < 1
        lead = f"is {1 - bytes_share:.0%} smaller, yet " if bytes_share is not None and smaller else ""
        currency = scenario["prices"]["currency"]
        money = f"{_number(self.ours.money)} {currency} against {_number(self.theirs.money)}"
        told = f"a solved item costs {money}, {self._times()}"
        return f"{lead}{told}: {self._reason(scenario)}; {self._if_fewer_failed(scenario)}"

    def price(self, scenario: Mapping[str, Any]) -> list[str]:
        """What a solved item costs, and when what the run cost is earned back, where that is known."""
        if self.ratio is None or self.interval is None:
            return []
        currency = scenario["prices"]["currency"]
        open_ = "; more items would settle whether it is cheaper" if self.interval[0] <= 1 <= self.interval[1] else ""
        lines = [f"a solved item costs {_number(self.ours.money)} {currency}, {self._times()}{open_}"]
        if self.saved_per_month is not None and self.break_even_months is not None:
            least, saved, most = map(_number, self.saved_per_month)
            when, spent = _duration(*self.break_even_months), self.saved_per_month[1] * self.break_even_months[1]
            hours = _number(spent / scenario["prices"]["machine_hour"])
            lines.append(
                f"quantizing and evaluating, {hours} h at {_number(spent)} {currency}, are earned back in {when}: "
                f"{saved} {currency} a month ({least} to {most}) are saved at "
                f"{scenario['requests_per_month']:,} requests"
            )
        return lines

    def _times(self) -> str:
        low, high = self.interval or (float("nan"), float("nan"))
        level = f"{100 * (1 - self.alpha):.3g}%"
        return f"{self.ratio:.2f} times ({level} interval {low:.2f} to {high:.2f}) that of {self.baseline}"

    def _reason(self, scenario: Mapping[str, Any]) -> str:
        """Answers that fail, slower ones, or both: whatever adds a twentieth, else the larger of the two."""
        ours, theirs = self.ours, self.theirs
        pace = _per_answer(ours) / _per_answer(theirs)
        rest = (self.ratio or 1.0) / pace
        then = " and are rerun" if scenario.get("reruns") else " and go to review" if scenario.get("review") else ""
        words = {
            f"{ours.failing:.0%} of its answers fail validation{then}, {theirs.failing:.0%} of the baseline's": rest,
            f"an answer takes {pace:.2f} times the baseline's": pace,
        }
        told = [said for said, factor in words.items() if factor >= min(1.05, max(words.values()))]
        return "; ".join(told)

    def _if_fewer_failed(self, scenario: Mapping[str, Any]) -> str:
        """How few of its answers might fail for it to cost what the baseline costs; all else as measured."""
        share = self._equal_at(scenario)
        if share is None:
            return "it would be dearer even if none failed"
        return f"with about {share:.{0 if share >= 0.1 else 1}%} failing it would cost the same"

    def _equal_at(self, scenario: Mapping[str, Any]) -> float | None:
        """Share of failing first answers at which it costs what the baseline costs; None where no share is so low.

        Answers keep their pace, and reruns, reviews and unsolved items shrink with the failures that they follow.
        """
        ours, price = self.ours, float((scenario.get("review") or {}).get("price", 0.0))
        answer = _per_answer(ours) * float(scenario["prices"]["machine_hour"]) / 3600.0
        limit = self.theirs.money or 0.0
        failures = (ours.answers - 1.0) * answer + ours.reviews * price + limit * ours.unsolved
        if not answer < limit or not failures > 0.0:
            return None
        return ours.failing * (limit - answer) / failures


def _per_answer(arm: Solving) -> float:
    """Seconds of an answer: from those of a solved item."""
    return (arm.seconds or math.nan) * (1.0 - arm.unsolved) / arm.answers


def _duration(low: float, middle: float, high: float) -> str:
    """Months as the largest unit of which there is at least one."""
    units = {"months": 1.0, "days": 365.25 / 12, "hours": 365.25 * 2, "minutes": 365.25 * 120}
    unit = next((u for u, many in units.items() if middle * many >= 1.0), "minutes")
    return f"{_number(middle * units[unit])} {unit} ({_number(low * units[unit])} to {_number(high * units[unit])})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}" if value >= 1e4 else f"{value:,.3g}"
