"""What a solved item is paid for: the machine by the hour, a person by the review. Data, frozen, checked.

All amounts are in one currency, the user's own; it is a name and is never converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantwise.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Prices:
    """``machine_hour`` is one hour of everything that serves: rent, or electricity and wear. Above 0."""

    currency: str
    machine_hour: float

    def __post_init__(self) -> None:
        if not isinstance(self.currency, str) or not self.currency.strip() or len(self.currency) > 12:
            raise InputError('prices currency must be a short text, such as "EUR"')
        if not _amount(self.machine_hour) or self.machine_hour == 0:
            raise InputError(f"prices machine_hour must be an amount above 0, not {self.machine_hour!r:.40}")


@dataclass(frozen=True, slots=True)
class Review:
    """A person who looks at what no rerun made valid.

    ``probability`` is the share of such items that a person is given, ``price`` what each costs, ``solves`` the share
    of the reviewed items that end solved. Shares lie in [0, 1].
    """

    probability: float
    price: float
    solves: float = 1.0

    def __post_init__(self) -> None:
        for name, share in (("probability", self.probability), ("solves", self.solves)):
            if not _amount(share) or share > 1:
                raise InputError(f"review {name} must be a share from 0 to 1, not {share!r:.40}")
        if not _amount(self.price):
            raise InputError(f"review price must be an amount of at least 0, not {self.price!r:.40}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent: on a solved item, or on all that are to be solved in a month. Above 0; None: no limit."""

    per_solved_item: float | None = None
    per_month: float | None = None

    def __post_init__(self) -> None:
        given = {"per_solved_item": self.per_solved_item, "per_month": self.per_month}
        if all(amount is None for amount in given.values()):
            raise InputError(f"budget must be a table with {' or '.join(given)}")
        for name, amount in given.items():
            if amount is not None and (not _amount(amount) or amount == 0):
                raise InputError(f"budget {name} must be an amount above 0, not {amount!r:.40}")


def prices_of(given: object) -> Prices:
    """Prices from a record of their fields. Raises InputError for anything else, and for unknown or missing fields."""
    return Prices(**_record(given, "prices", ("currency", "machine_hour"), ("currency", "machine_hour")))


def review_of(given: object) -> Review:
    """A review from a record of its fields. Raises InputError for anything else, and for unknown or missing fields."""
    return Review(**_record(given, "review", ("probability", "price", "solves"), ("probability", "price")))


def budget_of(given: object) -> Budget:
    """A budget from a record of its fields. Raises InputError for anything else, and for unknown fields."""
    return Budget(**_record(given, "budget", ("per_solved_item", "per_month"), ()))


def _record(given: object, what: str, allowed: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{what} must be a table with {', '.join(needed)}")
    if unknown := sorted(map(str, set(given) - set(allowed))):
        raise InputError(f"unknown field {unknown[0]!r} in {what}; fields: {', '.join(allowed)}")
    if missing := [name for name in needed if name not in given]:
        raise InputError(f"{what} {missing[0]} is missing; {what} must be a table with {', '.join(needed)}")
    return dict(given)


def _amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
