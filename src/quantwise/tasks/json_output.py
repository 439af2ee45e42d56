"""Exact JSON output: a short description of a record, to be written as JSON with the right types and nesting.

Names are a syllable longer at test than in training.
"""

from __future__ import annotations

import json
import random
from typing import Any

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite
from quantwise.tasks.words import COLOURS, THINGS, made_up_name

_TEXT_KEYS = ("name", "city", "owner", "team", "street")
_NUMBER_KEYS = ("age", "count", "size", "price", "year")
_TRUTH_KEYS = ("active", "paid", "open")


def _field(rng: random.Random, syllables: tuple[int, ...]) -> tuple[str, Any, str]:
    """A key, its value, and the words that describe it."""
    kind = rng.choice(("text", "text", "number", "number", "truth", "list", "record"))
    if kind == "text":
        name = made_up_name(rng, rng.choice(syllables))
        return rng.choice(_TEXT_KEYS), name, name
    if kind == "number":
        number = rng.randint(2, 999)
        return rng.choice(_NUMBER_KEYS), number, str(number)
    if kind == "truth":
        truth = rng.random() < 0.5
        return rng.choice(_TRUTH_KEYS), truth, "yes" if truth else "no"
    if kind == "list":
        listed = rng.sample(COLOURS, rng.choice((2, 3)))
        return "colours", listed, "the list " + " and ".join(listed)
    thing, count = rng.choice(THINGS), rng.randint(2, 99)
    return "item", {"kind": thing, "count": count}, f"a record of kind {thing} and count {count}"


def _item(rng: random.Random, syllables: tuple[int, ...]) -> Solved:
    record: dict[str, Any] = {}
    described: list[str] = []
    fields = rng.choice((3, 4, 4))
    while len(record) < fields:
        key, value, words = _field(rng, syllables)
        if key not in record:
            record[key] = value
            described.append(f"{key} is {words}")
    prompt = f"Write JSON: {', '.join(described)}."
    item = Item(
        id="",
        task="json_output",
        target=record,
        scorer="json_equal",
        messages=(Message("user", prompt),),
        max_tokens=96,
    )
    return item, json.dumps(record, ensure_ascii=False)


def _draw(rng: random.Random) -> Solved:
    return _item(rng, syllables=(3, 4, 5))


def _practice(rng: random.Random) -> Solved:
    return _item(rng, syllables=(2, 3, 3, 4))


SUITE = Suite(
    "json_output", "a described record as exact JSON: texts, numbers, truth values, lists, nesting", _draw, _practice
)
