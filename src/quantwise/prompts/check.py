"""Whether an arm reads the prompts that it is meant to read: looked at once per arm, before its first block.

Every arm is compared with its baseline, and a second baseline with the first. What differs breaks more comparisons
than quantization does, so it ends the arm. A server that somebody else runs is looked at again by every process: it may
come back with another template.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantwise.core.errors import RuntimeFailure
from quantwise.core.prompt_tokens import PromptTokens, TellsPrompts
from quantwise.core.question import Question
from quantwise.core.runtime import Ask
from quantwise.formats.gguf.beginning_token import beginning_twice
from quantwise.measure import Arm, Bench, ItemSupply
from quantwise.prompts import probes as prompt_probes
from quantwise.prompts.changed import changed
from quantwise.prompts.difference import Finding, compare, disagreement, doubled_beginning
from quantwise.prompts.probes import USER, Told
from quantwise.store import Store

_TRIES, _PAUSE_S = 3, 0.5
_BY = {
    "token ids": "",
    "counts": "only the numbers of prompt tokens could be compared with {other}",
    "nothing": "its prompts could not be compared with {other}: {why}",
}


def wrong_prompts(store: Store, question: Question, arm: Arm, supply: ItemSupply, bench: Bench) -> str | None:
    """Why nothing that this arm answers can be compared, in one line, or None. Its record is kept under ``prompts``.

    Raises RuntimeFailure where the arm cannot be opened.
    """
    known = store.get("prompts", arm.name)
    served = arm.candidate.runtime == "openai"
    if known is not None and not served and known["differs"] is None:
        return None
    wanted = _asks(question, arm, supply)
    told, why = _told(arm, wanted, bench)
    record = _record(store, question, arm, told, why)
    if (said := _unheeded(arm, wanted, told, bench)) is not None:
        record["notes"].append(said)
    since = None
    if told and known is not None and known["differs"] is None and record["differs"] is None:
        since = changed(prompt_probes.from_json(known["told"]), told)
    if since is not None:
        record["differs"] = since
        store.put("prompts", arm.name, known)
    elif told or known is None:
        store.put("prompts", arm.name, record)
    return None if record["differs"] is None else f"{arm.name}: {record['differs']}"


def prompts_of(store: Store, question: Question) -> list[dict[str, Any]]:
    """For the record: one row per arm that was looked at, without the tokens themselves."""
    rows = store.all("prompts")
    return [
        {"candidate": c.name} | {key: value for key, value in rows[c.name].items() if key != "told"}
        for c in question.candidates
        if c.name in rows
    ]


def _asks(question: Question, arm: Arm, supply: ItemSupply) -> Mapping[str, Ask]:
    items = [item for task in question.tasks for item in supply(task.name, task.screen_items or 1)]
    plain = any(item.prompt is not None for item in items)
    chats = any(item.messages for item in items)
    return prompt_probes.asks(arm.template, chats, plain, question.template_arguments)


def _told(arm: Arm, wanted: Mapping[str, Ask], bench: Bench) -> tuple[Told, str]:
    """What the arm reads, or nothing and the reason."""
    session = bench.session(arm)
    if not isinstance(session, TellsPrompts):
        return {}, "its runtime does not tell what it reads"
    why = ""
    for _ in range(_TRIES):
        try:
            told = prompt_probes.probe(session, wanted)
        except RuntimeFailure as error:
            why = str(error)
            time.sleep(_PAUSE_S)
        else:
            known = any(p.ids is not None or p.count is not None for p in told.values())
            return told, "" if known else "it tells neither token ids nor their number"
    return {}, why


def _unheeded(arm: Arm, wanted: Mapping[str, Ask], told: Told, bench: Bench) -> str | None:
    """One line where what a server's own template is told is not seen to change what it reads; else None."""
    ask, session = wanted.get(USER), bench.session(arm)
    if ask is None or not ask.template_arguments or not told or not isinstance(session, TellsPrompts):
        return None
    named = ", ".join(ask.template_arguments)
    try:
        without = session.prompt_tokens(replace(ask, template_arguments={}))
    except RuntimeFailure:
        without = PromptTokens()
    found = compare({USER: without}, {USER: told[USER]})
    if found.compared == "nothing":
        return f"whether its template heeds {named} cannot be seen"
    if found.differs is None:
        return f"it reads the same prompt with {named} and without: that is its template's default, or it is ignored"
    return None


def _record(store: Store, question: Question, arm: Arm, told: Told, why: str) -> dict[str, Any]:
    other = _compared_with(question, arm)
    theirs = store.get("prompts", other) if other else None
    differs = doubled_beginning(told) or disagreement(told)
    finding = Finding("nothing")
    if theirs is not None and told:
        finding = compare(prompt_probes.from_json(theirs["told"]), told)
        if differs is None and finding.differs is not None:
            differs = f"it does not read what {other} reads: {finding.differs}"
    said = _BY[finding.compared].format(other=other, why=why or _why_not(theirs)) if other else why
    return {
        "with": other,
        "compared": finding.compared if other else "nothing",
        "source": next((p.source for p in told.values() if p.source), ""),
        "fingerprint": prompt_probes.fingerprint(told),
        "says": said,
        "notes": _notes(arm),
        "differs": differs,
        "told": prompt_probes.to_json(told),
    }


def _notes(arm: Arm) -> list[str]:
    said = beginning_twice(Path(arm.artifact.location)) if arm.artifact.format == "gguf" else None
    return [] if said is None else [said]


def _why_not(theirs: Mapping[str, Any] | None) -> str:
    return "that one was not looked at here" if theirs is None else "that one tells neither token ids nor their number"


def _compared_with(question: Question, arm: Arm) -> str | None:
    """A candidate with its baseline, a baseline with the first one; None for the first, and across models."""
    first = next(c for c in question.candidates if c.baseline)
    other = first if arm.candidate.baseline else question.baseline_of(arm.candidate)
    # Where a question has several models, each has a tokenizer and a template of its own.
    models = {c.model for c in (other, arm.candidate)}
    return None if other.name == arm.name or len(models) > 1 else other.name
