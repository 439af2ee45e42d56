"""What the rows of a study say: for each option its bytes, recall, divergence and speed beside those of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from quantwise.cache_study.request import CacheOption, Request
from quantwise.cache_study.subject import Subject
from quantwise.core.errors import InputError
from quantwise.core.evidence import Measurement
from quantwise.core.verdict import Verdict
from quantwise.machine import facts
from quantwise.stats.compare import Rule, compare, verdict_from_comparison
from quantwise.stats.differences import Differences
from quantwise.stats.divergence import divergence
from quantwise.stats.log_ratio import log_ratio
from quantwise.stats.pairing import pairs
from quantwise.store import Store
from quantwise.tasks.long_recall import depths

LEAST_RECALL = 0.25
"""Below it the model itself cannot do the task, and a cache that loses nothing has shown nothing."""
_TASK = "long recall"
_MIB = 1024 * 1024
Units = Mapping[int, Mapping[str, Any]]


def findings(store: Store, subject: Subject, request: Request, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a study, as far as it has come. Bytes, seconds, nats; ``None`` reads as unknown."""
    held = list(store.all("unit").values())
    wanted = range(request.documents)
    by_option: dict[str, dict[int, Mapping[str, Any]]] = {o.name: {} for o in request.options}
    for unit in held:
        if unit["number"] in wanted and unit["option"] in by_option:
            by_option[unit["option"]][unit["number"]] = unit
    base = request.options[0]
    tokens = [unit["tokens"] for unit in by_option[base.name].values()]
    return {
        "model": subject.artifact.location,
        "hash": subject.artifact.hash,
        **{key: kept[key] for key in ("context", "questions", "seed", "threads", "runtime", "tail", "top", "written")},
        "text_tokens": sum(tokens) / len(tokens) if tokens else None,
        "baseline": base.name,
        "margin": request.margin,
        "alpha": request.alpha,
        **facts(),
        "options": [
            _option(store, subject, request, option, (by_option[base.name], by_option[option.name]))
            for option in request.options
        ],
    }


def _option(
    store: Store, subject: Subject, request: Request, option: CacheOption, units: tuple[Units, Units]
) -> dict[str, Any]:
    base, own = units
    both = sorted(set(base) & set(own))
    first = option == request.options[0]
    return {
        "name": option.name,
        "cache": option.cache,
        "flash_attention": option.flash,
        "texts": len(own),
        **_memory(store, subject, request, option),
        **_recall(own),
        "verdict": None if first else _verdict([(base[n], own[n]) for n in both], request, option.name),
        "divergence": None if first or not both else asdict(_divergence([(base[n], own[n]) for n in both])),
        **_speeds(base, own, request.timed, first),
    }


def _memory(store: Store, subject: Subject, request: Request, option: CacheOption) -> dict[str, Any]:
    """Bytes as planned and as llama.cpp's log states them, which rounds each buffer to a hundredth of a MiB."""
    told = store.get("memory", option.name) or {}
    planned, logged = subject.cache_bytes(option), told.get("cache_bytes")
    return {
        "cache_bytes": planned,
        "cache_bytes_logged": logged,
        "as_planned": None if logged is None else abs(logged - planned) <= 0.01 * _MIB,
        "cache_share": planned / subject.cache_bytes(request.options[0]),
        "weights_bytes": told.get("weights_bytes"),
        "compute_bytes": told.get("compute_bytes"),
        "peak_process_bytes": told.get("peak_process_bytes"),
    }


def _recall(own: Units) -> dict[str, Any]:
    """Share right of the questions that were answered, in all and by the depth of the fact; ``lost`` of them were not.

    ``asked`` counts the answers. A verdict holds what was lost against the option, the shares leave it out.
    """
    by_depth: dict[int, list[float]] = {}
    lost = sum(answer["score"] is None for unit in own.values() for answer in unit["answers"])
    for unit in own.values():
        for place, answer in enumerate(unit["answers"]):
            if answer["score"] is not None:
                by_depth.setdefault(place, []).append(answer["score"])
    known = [value for values in by_depth.values() for value in values]
    count = max(by_depth, default=-1) + 1
    return {
        "asked": len(known),
        "lost": lost,
        "recall": sum(known) / len(known) if known else None,
        "recall_by_depth": [
            {"depth": depth, "recall": sum(by_depth[place]) / len(by_depth[place])}
            for place, depth in enumerate(depths(count) if count else ())
            if place in by_depth
        ],
    }


def _verdict(both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], request: Request, name: str) -> Any:
    """PASS, FAIL or UNKNOWN beside the first option. The unit is a text: its questions share one cache."""
    base, own = ([row for pair in both for row in _rows(pair[side])] for side in (0, 1))
    worst, missing = pairs(base, own)
    kindly, _ = pairs(base, own, kindly=True)
    comparison = compare(worst, request.margin, request.alpha, missing, kindly)
    verdict = verdict_from_comparison(
        comparison,
        candidate=name,
        baseline=request.options[0].name,
        task=_TASK,
        rule=Rule(request.alpha, max(1, len(request.options) - 1)),
        differences=Differences.of_pairs(worst),
    )
    scores = [row.score for row in base if row.score is not None]
    able = sum(scores) / len(scores) if scores else 0.0
    if scores and able < LEAST_RECALL:
        verdict = _told_nothing(verdict, able)
    # What is counted here are texts; the sentence is made for items.
    return asdict(replace(verdict, explanation=verdict.explanation.replace("items", "texts")))


def _told_nothing(verdict: Verdict, able: float) -> Verdict:
    """No verdict where the first option itself recalls hardly anything: then there is nothing to lose."""
    why = (
        f"{verdict.baseline} itself recalls {able:.0%}: the model does not do this at so long a context, so it says "
        "nothing about its cache"
    )
    return replace(
        verdict, verdict="UNKNOWN", reason="noise", explanation=why, n_more=None, smallest_margin=None, max_drop=None
    )


def _rows(unit: Mapping[str, Any]) -> list[Measurement]:
    return [
        Measurement(
            unit["option"],
            "certify",
            _TASK,
            answer["item"],
            0,
            unit["number"],
            answer["score"],
            answer["finish"],
            answer["output"],
            cluster=answer["cluster"],
        )
        for answer in unit["answers"]
    ]


def _divergence(both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Any:
    base, own = ([_places(pair[side]) for pair in both] for side in (0, 1))
    return divergence(base, own)


def _places(unit: Mapping[str, Any]) -> list[dict[int, float]]:
    return [{int(token): float(value) for token, value in place} for place in unit["tail"]]


def _speeds(base: Units, own: Units, timed: int | None, first: bool) -> dict[str, Any]:
    """Tokens per second of reading and writing, and their ratios over the first option's with 95 % intervals.

    Ratios pair the texts that one process read with both, because a machine is not the same on another day.
    """
    found: dict[str, Any] = {}
    counted = [n for n in sorted(own) if timed is None or n < timed]
    pairs_ = [(base[n], own[n]) for n in counted if n in base and base[n]["process"] == own[n]["process"]]
    for phase in ("read", "written"):
        sums = [sum(own[n]["phases"][key] for n in counted) for key in (phase, f"{phase}_seconds")]
        found[f"{phase}_tokens_per_s"] = sums[0] / sums[1] if counted and sums[1] > 0 else None
        ratio = None
        if not first and pairs_:
            rates = [[_rate(unit, phase) for unit in pair] for pair in pairs_]
            try:
                ratio = asdict(log_ratio([own_ for _, own_ in rates], [base_ for base_, _ in rates]))
            except InputError:  # a phase without tokens has no speed
                ratio = None
        found[f"{phase}_ratio"] = ratio
    return found | {"timed_texts": len(counted)}


def _rate(unit: Mapping[str, Any], phase: str) -> float:
    seconds = float(unit["phases"][f"{phase}_seconds"])
    return float(unit["phases"][phase]) / seconds if seconds > 0 else 0.0
