"""Endpoints of their own: answers that do not end, refusals, changes of script, and how long answers are.

Each is told for every arm and, paired by item, for every candidate beside its baseline. They describe: what is told
here decides nothing; where the scenario sets a margin for one, `settle` holds each task's answers against it. A clear
worsening is named in any case: where the e-process against "no worse on any task" (`stats.eprocess`, at a margin of 0)
reaches the number of endpoints over alpha, which holds whenever one looks, because a cluster counts there by its first
block alone (`settle.pair.by_block`); for lengths, where the bootstrap interval of
the ratio lies above 1 and the ratio is material.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantwise.core.endpoint import ENDPOINTS, Endpoint
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question
from quantwise.settle.pair import by_block
from quantwise.stats.bootstrap import bootstrap_ratio
from quantwise.stats.differences import Differences
from quantwise.stats.eprocess import confidence_sequence, e_value, log_e_fail
from quantwise.stats.pairing import pairs
from quantwise.store import Store
from quantwise.tasks.answer_signs import asked_texts, shows, written

WORDS: Mapping[str, str] = {
    "non_termination": "answers that do not end",
    "refusal": "refusals",
    "language_switch": "answers in another script",
    "length": "tokens per answer",
}
MATERIAL = 0.05
_TESTS = len(WORDS)


def endpoints(store: Store, question: Question) -> dict[str, Any]:
    """``arms``: rates and lengths of each; ``pairs``: each candidate beside its baseline; ``worse``: sentences."""
    texts = {task.name: asked_texts(store.asked(task.name)) for task in question.tasks}
    rows = {c.name: store.rows("certify", c.name) for c in question.candidates}
    first = {name: _first(of) for name, of in rows.items()}
    signed = {
        name: [_Signed(row, texts[row.task], (row.task, row.item) in first[name]) for row in of if written(row)]
        for name, of in rows.items()
    }
    compared = [
        _pair(question, c.name, question.baseline_of(c).name, signed) for c in question.candidates if not c.baseline
    ]
    return {
        "arms": [_arm(name, of) for name, of in signed.items()],
        "pairs": [pair for pair in compared if pair is not None],
        "worse": [said for pair in compared if pair is not None for said in pair["worse"]],
    }


def _first(rows: Sequence[Measurement]) -> set[tuple[str, str]]:
    """(task, item) of what was asked in the first block of its cluster."""
    tasks: dict[str, list[Measurement]] = defaultdict(list)
    for row in rows:
        tasks[row.task].append(row)
    return {(name, row.item) for name, of in tasks.items() for block in by_block(of).values() for row in block}


class _Signed:
    """A row with its signs, each looked for once; ``first``: of the first block that its cluster was asked in."""

    __slots__ = ("first", "row", "signs")

    def __init__(self, row: Measurement, asked: Mapping[str, str], first: bool) -> None:
        self.row, self.first = row, first
        self.signs = {endpoint: shows(row, endpoint, asked) for endpoint in ENDPOINTS}

    def scored(self, endpoint: Endpoint) -> Measurement:
        return replace(self.row, score=float(self.signs[endpoint]))


def _arm(name: str, rows: Sequence[_Signed]) -> dict[str, Any]:
    """Shares of the written answers, and mean tokens where every answer's are known."""
    n = len(rows)
    told: dict[str, Any] = {"candidate": name, "answers": n}
    for endpoint in ENDPOINTS:
        told[endpoint] = sum(row.signs[endpoint] for row in rows) / n if n else None
    told["tokens"] = _mean([row.row.output_tokens for row in rows])
    told["thinking_tokens"] = _mean([row.row.thinking_tokens for row in rows])
    return told


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _pair(
    question: Question, candidate: str, baseline: str, signed: Mapping[str, Sequence[_Signed]]
) -> dict[str, Any] | None:
    """A candidate beside its baseline on the items that both answered; None where there is none."""
    told: dict[str, Any] = {"candidate": candidate, "baseline": baseline}
    worse = []
    for endpoint in ENDPOINTS:
        sides = ([row.scored(endpoint) for row in signed[name] if row.first] for name in (baseline, candidate))
        matched, _ = pairs(*sides)
        if not matched:
            return None
        differences = Differences.of_pairs(matched)
        more = differences.mean or 0.0
        low, high = confidence_sequence(differences, question.alpha)
        # Our difference is a rise, and a rise is bad: bet on it as on a drop of the mirrored difference.
        evidence = e_value(log_e_fail(differences.mirrored(), 0.0))
        clear = evidence >= _TESTS / question.alpha
        rates = [
            sum(values) / len(matched) for values in ([p.baseline for p in matched], [p.candidate for p in matched])
        ]
        told[endpoint] = {
            "baseline": rates[0], "candidate": rates[1], "difference": more, "interval": (low, high),
            "items": differences.n, "e_worse": evidence, "worse": clear,
        }  # fmt: skip
        if clear:
            worse.append(f"{candidate}: {WORDS[endpoint]} {rates[1]:.1%} against {rates[0]:.1%} of {baseline}")
    told["length"] = length = _length(question, signed[candidate], signed[baseline])
    if length is not None and length["worse"]:
        worse.append(
            f"{candidate}: answers {length['ratio']:.2f} times as long as those of {baseline} "
            f"({length['interval'][0]:.2f} to {length['interval'][1]:.2f})"
        )
    return told | {"worse": worse}


def _length(question: Question, ours: Sequence[_Signed], theirs: Sequence[_Signed]) -> dict[str, Any] | None:
    """Tokens of the candidate over the baseline's on the same items, thinking included; None where they are unknown."""
    sides = [_tokens(rows) for rows in (ours, theirs)]
    common = sorted(set(sides[0]) & set(sides[1]))
    tokens = [[side[key] for key in common] for side in sides]
    if len(common) < 2 or not sum(tokens[1]):
        return None
    ratio = bootstrap_ratio(tokens[0], tokens[1], alpha=question.alpha, resamples=1000, seed=question.seed)
    if ratio.low is None or ratio.high is None:
        return None
    clear = ratio.low > 1.0 and ratio.value > 1.0 + MATERIAL
    return {"ratio": ratio.value, "interval": (ratio.low, ratio.high), "items": len(common), "worse": clear}


def _tokens(rows: Sequence[_Signed]) -> dict[tuple[str, str], float]:
    """(task, cluster or item) to mean tokens of its answers; what has an answer of unknown length is left out."""
    found: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for signed in rows:
        row = signed.row
        found[row.task, row.cluster or row.item].append(row.output_tokens)
    return {key: mean for key, counts in found.items() if (mean := _mean(counts)) is not None}
