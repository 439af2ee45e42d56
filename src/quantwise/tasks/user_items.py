"""A user's own items: one JSON object a line. Everything that could be a slip of the pen is refused, with its reason.

Fields: ``id``; ``prompt`` (raw text) or ``messages`` (turns of ``role`` and ``content``); ``target``; ``scorer``; and
where wanted ``choices``, ``cluster``, ``options``, ``schema``, ``pattern`` and ``tools`` (short for the options of that
name), ``max_tokens``, ``stop``. See docs/tasks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from quantwise.core.errors import InputError
from quantwise.core.item import Item, Message, Role
from quantwise.tasks.scorers import SCORERS, check_item

FIELDS = (
    *("id", "prompt", "messages", "target", "scorer", "choices", "cluster", "options", "schema", "pattern"),
    *("tools", "max_tokens", "stop"),
)
WITHOUT_TARGET = ("regex", "json_schema")
"""Scorers that can do without a target."""


def user_item(record: Mapping[str, Any], task: str) -> Item:
    """The item that one line describes. Raises InputError, which the caller completes with file and line."""
    unknown = sorted(set(record) - set(FIELDS))
    if unknown:
        raise InputError(f"unknown field {unknown[0]!r}; fields: {', '.join(FIELDS)}")
    scorer = _scorer(record)
    choices = _texts(record, "choices")
    if (scorer == "choice") != bool(choices):
        raise InputError("scorer choice needs the field choices, and no other scorer takes it")
    item = Item(
        id=_id(record),
        task=task,
        target=_target(record, scorer, choices),
        scorer=scorer,
        prompt=_prompt(record),
        messages=_messages(record),
        choices=choices,
        options=_options(record),
        cluster=_cluster(record),
        max_tokens=_max_tokens(record),
        stop=(record["stop"],) if isinstance(record.get("stop"), str) and record["stop"] else _texts(record, "stop"),
    )
    check_item(item)
    return item


def _id(record: Mapping[str, Any]) -> str:
    value = record.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError("field id must be a text or a whole number, different on every line")
    return str(value)


def _scorer(record: Mapping[str, Any]) -> Any:
    if "scorer" not in record:
        raise InputError(f"field scorer is missing; scorers: {', '.join(SCORERS)}")
    name = record["scorer"]
    if not isinstance(name, str) or name not in SCORERS:
        raise InputError(f"unknown scorer {name!r}; scorers: {', '.join(SCORERS)}")
    return name


def _prompt(record: Mapping[str, Any]) -> str | None:
    if ("prompt" in record) == ("messages" in record):
        raise InputError("give exactly one of prompt (raw text) and messages (a conversation)")
    prompt = record.get("prompt")
    if "prompt" in record and (not isinstance(prompt, str) or (not prompt and record["scorer"] != "choice")):
        raise InputError("prompt must be a text; it may be empty for scorer choice only")
    return prompt


def _messages(record: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" not in record:
        return ()
    given = record["messages"]
    if not isinstance(given, list) or not given:
        raise InputError('messages must be a list such as [{"role": "user", "content": "..."}]')
    for message in given:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise InputError("every message has exactly the fields role and content")
        if message["role"] not in get_args(Role):
            raise InputError(f"unknown role {message['role']!r}; roles: {', '.join(get_args(Role))}")
        if not isinstance(message["content"], str):
            raise InputError("the content of a message must be a text")
    if given[-1]["role"] != "user":
        raise InputError("the last message must be the user's; the model answers it")
    return tuple(Message(message["role"], message["content"]) for message in given)


def _target(record: Mapping[str, Any], scorer: str, choices: tuple[str, ...]) -> Any:
    if "target" not in record:
        if scorer in WITHOUT_TARGET:
            return None
        raise InputError(f"field target is missing; only {' and '.join(WITHOUT_TARGET)} can do without it")
    target = record["target"]
    return choices.index(target) if isinstance(target, str) and target in choices else target


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    options = record.get("options", {})
    if not isinstance(options, dict):
        raise InputError("options must be a JSON object")
    options = dict(options)
    for name in ("schema", "pattern", "tools"):
        if name in record:
            if name in options:
                raise InputError(f"{name} is given twice, as a field and in options; keep one")
            options[name] = record[name]
    return options


def _cluster(record: Mapping[str, Any]) -> str | None:
    value = record.get("cluster")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError("cluster must be a text or a whole number")
    return str(value)


def _max_tokens(record: Mapping[str, Any]) -> int:
    value = record.get("max_tokens", 64)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise InputError("max_tokens must be a whole number from 1 to 1000000")
    return value


def _texts(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = record.get(field, [])
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        raise InputError(f"{field} must be a list of texts, none empty")
    return tuple(value)
