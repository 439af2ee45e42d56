"""What tokens cost at a site: rent by the hour over tokens per second, and energy at the most that a device draws."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.plan.speed import Interval, Speed
from quantwise.scenarios.site import Site


@dataclass(frozen=True, slots=True)
class RunningCost:
    """Of ``devices`` devices kept busy, from the fastest to the slowest that is likely; None where a site does not say.

    ``dollars`` are for a million tokens, ``joules`` for one: at full draw, so that is an upper bound.
    """

    dollars: Interval | None
    joules: Interval | None
    source: str


def decode_cost(site: Site, found: Speed, devices: int = 1) -> RunningCost:
    """Cost of written tokens at the batch of ``found``."""
    return _cost(site, found.decode_total, devices)


def prompt_cost(site: Site, found: Speed, devices: int = 1) -> RunningCost:
    """Cost of a prompt's tokens, where one follows another."""
    return _cost(site, found.prefill, devices)


def _cost(site: Site, tokens_per_s: Interval | None, devices: int) -> RunningCost:
    told = [site.source_of(name) for name in ("price_per_hour", "watts") if getattr(site, name) is not None]
    source = "; ".join(dict.fromkeys(told))
    if tokens_per_s is None:
        return RunningCost(None, None, source)
    slow, fast = tokens_per_s

    def over(amount: float | None, scale: float) -> Interval | None:
        return None if amount is None else (devices * amount * scale / fast, devices * amount * scale / slow)

    return RunningCost(over(site.price_per_hour, 1e6 / 3600), over(site.watts, 1.0), source)
