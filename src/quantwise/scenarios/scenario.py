"""A scenario: site, workload, service levels, objective, margins. Data, frozen, impossible values refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from quantwise.core.decoding import GREEDY, Decoding
from quantwise.core.endpoint import endpoint_margins
from quantwise.core.errors import InputError
from quantwise.core.solved_item import PER_SOLVED
from quantwise.core.template_arguments import template_arguments_of
from quantwise.scenarios.prices import Budget, Prices, Review
from quantwise.scenarios.service_levels import service_levels_of
from quantwise.scenarios.site import Site

OBJECTIVES = (
    "bytes", "memory_bytes", "seconds_per_item", "joules_per_item", "p99_over_p50", "-tokens_per_s", *PER_SOLVED
)  # fmt: skip
"""What can be made small; a leading minus means that more is better."""

KINDS = ("code", "instructions", "reasoning", "other")
DEFAULT_MARGINS: Mapping[str, float] = {"code": 0.01, "instructions": 0.02, "reasoning": 0.005, "other": 0.01}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a person wants from a model at a site.

    ``objective`` is compared term by term, smaller first. ``context`` is in tokens per request, ``concurrency`` in
    requests at a time. ``max_p95_seconds`` is a service level for a whole request; ``service_levels`` (milliseconds by
    ``ttft``, ``tpot``, ``e2e``) are for `load` and decide nothing. ``margins`` (the largest acceptable drop) and
    ``floors`` (the least acceptable score) lie in [0, 1]; margins are by kind of task or by a task's name, floors by a
    task's name. ``budget_seconds`` bounds the measuring.

    With ``prices`` the decision also asks what a solved item costs: an answer that is not valid is asked again up to
    ``reruns`` times and then goes to ``review``; ``requests_per_month`` are the items to be solved in a month.
    ``decoding`` is how the answers are drawn, ``template_arguments`` what chat templates are told beside the messages;
    ``endpoints`` are margins for signs that no scorer looks for. A ``budget`` bounds what a solved item or a month may
    cost. With ``compare`` = "floor" the absolute floors alone decide what is good enough, and the comparison with the
    baseline is only shown.
    """

    name: str
    objective: tuple[str, ...]
    site: Site = field(default_factory=Site)
    context: int = 1024
    concurrency: int = 1
    max_p95_seconds: float | None = None
    margins: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    budget_seconds: float | None = None
    alpha: float = 0.05
    note: str = ""
    prices: Prices | None = None
    reruns: int = 0
    review: Review | None = None
    requests_per_month: float | None = None
    decoding: Decoding = GREEDY
    endpoints: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None
    compare: Literal["baseline", "floor"] = "baseline"
    service_levels: Mapping[str, float] = field(default_factory=dict)
    template_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError("scenario name must be a text")
        if not isinstance(self.note, str):
            raise InputError("scenario note must be a text")
        _check_objective(self.objective)
        for name, count in (("context", self.context), ("concurrency", self.concurrency)):
            if not _whole(count, 1):
                raise InputError(f"{name} must be a whole number of at least 1, not {count!r:.40}")
        for name, seconds in (("max_p95_seconds", self.max_p95_seconds), ("budget_seconds", self.budget_seconds)):
            if seconds is not None and not _between(seconds, 0, float("inf")):
                raise InputError(f"{name} must be a number of seconds above 0, not {seconds!r:.40}")
        if not _between(self.alpha, 0, 0.5):
            raise InputError(f"alpha must lie between 0 and 0.5, such as 0.05, not {self.alpha!r:.40}")
        for task, margin in _shares(self.margins, "margins"):
            if not _between(margin, 0, 1):
                raise InputError(f"margin of {task} must lie between 0 and 1, such as 0.01 for 1 %, not {margin!r:.40}")
        for task, floor in _shares(self.floors, "floors"):
            if not _between(floor, 0, 1) and floor != 1:
                raise InputError(f"floor of {task} must be above 0 and at most 1, such as 0.7, not {floor!r:.40}")
        endpoint_margins(self.endpoints)
        service_levels_of(self.service_levels)
        template_arguments_of(self.template_arguments)
        self._check_solving()

    def _check_solving(self) -> None:
        if not _whole(self.reruns, 0):
            raise InputError(f"reruns must be a whole number of at least 0, not {self.reruns!r:.40}")
        monthly = self.requests_per_month
        if monthly is not None and not _between(monthly, 0, float("inf")):
            raise InputError(f"requests_per_month must be a number above 0, not {monthly!r:.40}")
        if self.compare not in ("baseline", "floor"):
            raise InputError(f"compare must be baseline or floor, not {self.compare!r:.40}")
        if self.budget is not None and self.budget.per_month is not None and monthly is None:
            raise InputError("budget per_month needs requests_per_month, the items to be solved in a month")
        if self.prices is None and (term := next((t for t in self.objective if t in PER_SOLVED), None)) is not None:
            raise InputError(
                f'objective {term} needs prices; add [prices] with currency = "EUR" and machine_hour = 1.2'
            )
        for name in ("reruns", "review", "requests_per_month", "budget") if self.prices is None else ():
            if getattr(self, name):
                raise InputError(
                    f'{name} has no use without prices; add [prices] with currency = "EUR" and machine_hour = 1.2'
                )

    def margin(self, task: str, kind: str) -> float:
        """Margin of a task: its own, else that of its kind here, else the default of its kind."""
        for source, key in ((self.margins, task), (self.margins, kind), (DEFAULT_MARGINS, kind)):
            if key in source:
                return source[key]
        return DEFAULT_MARGINS["other"]

    def to_json(self) -> dict[str, Any]:
        """The record that goes into the question; ``reader.read_scenario`` reads it back."""
        record = asdict(self) | {
            "objective": list(self.objective), "margins": dict(self.margins), "floors": dict(self.floors),
            "site": self.site.to_json(),
        }  # fmt: skip
        # A scenario that says nothing of these is the record that it was before there were any, and hashes alike.
        record |= {"decoding": self.decoding.to_json(), "endpoints": dict(self.endpoints)}
        record |= {"service_levels": dict(self.service_levels), "template_arguments": dict(self.template_arguments)}
        for name in (
            "prices", "reruns", "review", "requests_per_month", "budget", "decoding", "endpoints", "service_levels",
            "template_arguments",
        ):  # fmt: skip
            if not record[name]:
                del record[name]
        if self.compare == "baseline":
            del record["compare"]
        return record


def _check_objective(objective: object) -> None:
    allowed = ", ".join(OBJECTIVES)
    if not isinstance(objective, tuple) or not objective:
        raise InputError(f"objective must be a list of at least one of: {allowed}")
    for term in objective:
        if term not in OBJECTIVES:
            raise InputError(f"unknown objective {term!r}; objectives: {allowed}")
    if len({term.removeprefix("-") for term in objective}) < len(objective):
        raise InputError("objective names a term twice; keep its first place")


def _shares(given: object, name: str) -> list[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise InputError(f"{name} must be a table of names and shares")
    return [(str(task), share) for task, share in given.items()]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high
