"""The cheap look before certification: does it load, how far is it from 16 bit, a few dozen items. It only drops.

Items seen here are never used for a PASS. The A/A check measures every baseline a second time, in a process of its
own and with another batch composition: the flips it finds are the noise floor of the runtime.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.evidence import ANSWERED, Stage
from quantwise.core.progress import Progress
from quantwise.core.question import Question
from quantwise.core.runtime import Ask, Distributions
from quantwise.measure import Arm, Bench, ItemSupply, why_lost
from quantwise.prompts.check import wrong_prompts
from quantwise.runtimes.capabilities import TellsCapabilities
from quantwise.stats.compare import compare
from quantwise.stats.divergence import divergence
from quantwise.stats.pairing import pairs
from quantwise.stats.wording import MOST_MISSING
from quantwise.store import Store

_SHOWN = {
    "kl_mean": "mean_kl",
    "kl_mean_se": "mean_kl_se",
    "kl_p99": "p99_kl",
    "same_top": "same_top",
    "perplexity": "perplexity",
    "positions": "positions",
    "truncated": "truncated",
}
Logprobs = list[list[dict[int, float]]] | None
"""For each text and position: token id to log-probability."""
TOP = 128
"""Likeliest tokens kept per position, because a server pays for each; the divergence says that it is a lower bound."""


class _NotComparable(EnvironmentFailure):
    """An arm reads other prompts than it is meant to, or refuses all that it is asked of a task."""


def screen(
    store: Store, question: Question, arms: Mapping[str, Arm], supply: ItemSupply, texts: Sequence[str], bench: Bench,
    progress: Progress
) -> dict[str, str]:  # fmt: skip
    """Measure the screening items on every arm. Returns candidate to the reason for which it goes no further.

    A candidate is dropped when it cannot be loaded, when its answers equal the baseline's to the last digit although
    its weights were rounded (a quantization that did nothing), when it reads other prompts than its baseline, when it
    refuses every item of a task, or when the screening items alone show a drop beyond every margin; the negative
    control is never dropped for its answers. Raises EnvironmentFailure for a baseline that reads other prompts than it
    should, or refuses every item of a task.
    """
    known = {arm.name for arm in arms.values() if _answered(store, question, arm)}
    progress.stage("screen", len(arms), len(known))
    broken: dict[str, str] = {}
    references: dict[str, Logprobs] = {}
    for arm in arms.values():
        progress.advance(0, arm.name)
        try:
            _look_at_server(store, arm, bench, again=arm.name not in known)
            if (why := wrong_prompts(store, question, arm, supply, bench)) is not None:
                raise _NotComparable(why)
            distant = bool(texts) and store.get("divergence", arm.name) is None
            if distant or arm.name not in known:
                bench.session(arm)
            _answers(store, question, arm, supply, bench, "screen")
            if distant:
                base = question.baseline_of(arm.candidate).name
                # One that another machine measured is not opened here, and the divergence from it stays unknown.
                if base not in references:
                    references[base] = _logprobs_of(arms[base], texts, bench) if base in arms else None
                # Another model has another tokenizer: its distributions are over other tokens.
                alike = arm.candidate.model == question.baseline_of(arm.candidate).model
                _divergence(store, arm, references[base] if alike else None, texts, bench)
        except (RuntimeFailure, _NotComparable) as error:
            if arm.candidate.baseline:
                raise
            broken[arm.name] = why_lost(arm, error) if isinstance(error, RuntimeFailure) else str(error)
        progress.advance(int(arm.name not in known), arm.name)
    for name, arm in arms.items():
        if name not in broken and not arm.candidate.baseline and (why := _dropped(store, question, arm)):
            broken[name] = why
    return broken


def _look_at_server(store: Store, arm: Arm, bench: Bench, again: bool) -> None:
    """Keep what somebody else's server can do; of our own runtimes it is known.

    ``again`` although it was looked at: what kept it from answering may have been mended since.
    """
    if arm.candidate.runtime == "openai" and (again or store.get("capabilities", arm.name) is None):
        session = bench.session(arm)
        if isinstance(session, TellsCapabilities):
            store.put("capabilities", arm.name, session.capabilities())


def noise_floor(
    store: Store, question: Question, again: Sequence[Arm], supply: ItemSupply, beside: Bench, progress: Progress
) -> None:
    """Measure the baselines again (``again`` holds their second incarnations) on the screening items.

    ``beside`` holds the arms that are open already and makes room for them. Where one cannot be opened a second time
    its noise stays unknown, and a note says so.
    """
    known = {arm.name for arm in again if _answered(store, question, arm, "aa")}
    progress.stage("A/A noise floor", len(again), len(known))
    for arm in again:
        if arm.name in known:
            store.put("note", arm.name, None)
            continue
        beside.make_room(arm)
        with Bench() as bench:
            try:
                _answers(store, question, arm, supply, bench, "aa")
            except RuntimeFailure as error:
                store.put("note", arm.name, f"could not be opened a second time for the A/A check: {error}")
            else:
                store.put("note", arm.name, None)
        progress.advance(1, arm.name)


def noise(store: Store, question: Question) -> list[dict[str, Any]]:
    """Flips between the two measurements of each baseline, per task."""
    out = []
    for base in (c for c in question.candidates if c.baseline):
        for task in question.tasks:
            first, second = (store.rows(stage, base.name, task.name) for stage in ("screen", "aa"))
            lost = {r.item for r in (*first, *second) if r.finish not in ANSWERED}
            told = ([r for r in side if r.item not in lost] for side in (first, second))
            matched, _ = pairs(*([replace(r, repeat=0) for r in side] for side in told))
            flips = sum(p.baseline != p.candidate for p in matched)
            out.append({"runtime": base.runtime, "task": task.name, "n": len(matched), "flips": flips})
    return out


def screened(store: Store, question: Question) -> list[dict[str, Any]]:
    """One line per candidate: accuracy over the screening items, and divergence where the runtime can tell."""
    out = []
    for candidate in question.candidates:
        rows = store.rows("screen", candidate.name)
        scores = [r.score for r in rows if r.score is not None]
        line: dict[str, Any] = {"candidate": candidate.name, "n": len(scores)}
        line["accuracy"] = sum(scores) / len(scores) if scores else None
        measured = store.get("divergence", candidate.name) or {}
        out.append(line | {shown: measured.get(key) for shown, key in _SHOWN.items()})
    return out


def _answered(store: Store, question: Question, arm: Arm, stage: Stage = "screen") -> bool:
    """Whether an earlier process had this arm answer every screening item, so that it need not be loaded here."""
    return all(store.has_block(arm.name, stage, task.name, 0) for task in question.tasks if task.screen_items)


def _answers(store: Store, question: Question, arm: Arm, supply: ItemSupply, bench: Bench, stage: Stage) -> None:
    for task in question.tasks:
        if not store.has_block(arm.name, stage, task.name, 0) and task.screen_items:
            items = supply(task.name, task.screen_items)
            if stage == "aa":
                items = items[::-1]  # another batch composition
            rows = bench.block(arm, items, stage=stage, task=task.name, block=0, repeat=int(stage == "aa"))
            if all(row.finish == "refused" for row in rows):  # not kept: what refuses them may be mended
                raise _NotComparable(
                    f"{arm.name} refuses every item of {task.name}: {rows[0].error}; run the same command again where "
                    f"that is mended, or leave {task.name} out"
                )
            store.add_block(items, rows)


def _logprobs_of(arm: Arm, texts: Sequence[str], bench: Bench) -> Logprobs:
    """The arm's distributions over each text, or None where its runtime does not tell them."""
    session = bench.session(arm)
    if not isinstance(session, Distributions):
        return None
    try:
        return [session.next_token_logprobs(text, TOP) for text in texts]
    except (RuntimeFailure, InputError):
        return None  # a server that does not tell distributions leaves the divergence unknown


def _divergence(store: Store, arm: Arm, reference: Logprobs, texts: Sequence[str], bench: Bench) -> None:
    # A baseline is its own reference; asking it twice would tell nothing that the A/A check does not.
    ours = reference if arm.candidate.baseline else _logprobs_of(arm, texts, bench)
    if reference is None or ours is None:
        return
    # A vLLM by URL leaves out a text's first token where its tokenizer puts none before it; others never do.
    if list(map(len, reference)) != list(map(len, ours)):
        return
    measured = asdict(divergence(reference, ours))
    replies = bench.ask(arm, [Ask(text="", choices=(text,), rendered=False) for text in texts])
    nats = [-sum(r.choice_logprobs) for r in replies if r.choice_logprobs]
    known = len(nats) == len(texts)
    measured["perplexity"] = math.exp(sum(nats) / measured["positions"]) if known else None
    store.put("divergence", arm.name, measured)


def _dropped(store: Store, question: Question, arm: Arm) -> str | None:
    if arm.candidate.control:
        return None
    measured = store.get("divergence", arm.name)
    base = question.baseline_of(arm.candidate)
    rounded = (arm.artifact.bits_per_weight or 16.0) < 16.0
    if rounded and measured and measured["mean_kl"] == 0.0:
        return "its distributions equal the baseline's exactly although its weights differ: the runtime ignored them"
    failed = []
    for task in question.tasks:
        sides = (store.rows("screen", name, task.name) for name in (base.name, arm.name))
        matched, missing = pairs(*sides, kindly=True)  # nobody is dropped for what was lost
        known = missing <= MOST_MISSING * len(matched)
        if matched and known and compare(matched, task.margin, alpha=question.alpha).e_fail >= 1e6:
            failed.append(task.name)
    if len(failed) == len(question.tasks):
        return "far below the baseline on every screening task; it goes no further"
    return None
