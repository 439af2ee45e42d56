"""Flips for the page: items whose score changed, outputs side by side, cut to what a page can carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from quantwise.report import notation

#: How many flips a page carries, and how many characters of each text.
MOST_FLIPS, MOST_CHARACTERS = 400, 2_000


@dataclass(frozen=True, slots=True)
class Flip:
    """One item where baseline and candidate score differently.

    Each output is split where the two first part: ``same`` + ``baseline`` and ``same`` + ``candidate``.
    """

    task: str
    item: str
    candidate: str
    baseline: str
    worse: bool
    prompt: str
    target: str
    same: str
    baseline_rest: str
    candidate_rest: str
    baseline_score: object
    candidate_score: object


def choose(flips: Iterable[Mapping[str, Any]], limit: int = MOST_FLIPS) -> tuple[list[Flip], int]:
    """At most ``limit`` flips, in turn from every task, candidate and direction; and how many there were in all."""
    groups: dict[tuple[str, str, bool], list[int]] = {}
    rows = list(flips)
    for number, row in enumerate(rows):
        groups.setdefault((str(row["task"]), str(row["candidate"]), _worse(row)), []).append(number)
    turns = sorted((turn, number) for group in groups.values() for turn, number in enumerate(group))
    kept = sorted(number for _, number in turns[:limit])
    return [_flip(rows[number]) for number in kept], len(rows)


def _worse(row: Mapping[str, Any]) -> bool:
    """Whether the candidate lost what the baseline had; a score that is missing counts as nothing gained."""
    before, after = notation.finite(row.get("baseline_score")), notation.finite(row.get("candidate_score"))
    return (after if after is not None else 0.0) < (before if before is not None else 0.0)


def _flip(row: Mapping[str, Any]) -> Flip:
    before, after = _cut(row.get("baseline_output")), _cut(row.get("candidate_output"))
    same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(before, after, strict=False)))
    return Flip(
        task=notation.plain(row["task"]),
        item=notation.plain(row.get("item") or ""),
        candidate=notation.plain(row["candidate"]),
        baseline=notation.plain(row.get("baseline") or "baseline"),
        worse=_worse(row),
        prompt=_cut(row.get("prompt")),
        target=_cut(row.get("target")),
        same=before[:same],
        baseline_rest=before[same:],
        candidate_rest=after[same:],
        baseline_score=row.get("baseline_score"),
        candidate_score=row.get("candidate_score"),
    )


def _cut(text: object) -> str:
    """The text, without its middle where it is too long: the question usually stands at the end of a prompt."""
    if text is None:
        return notation.UNKNOWN
    whole = notation.plain(text)
    if len(whole) <= MOST_CHARACTERS:
        return whole
    half = MOST_CHARACTERS // 2
    return f"{whole[:half]}\n[… {len(whole) - 2 * half:,} characters left out …]\n{whole[-half:]}"
