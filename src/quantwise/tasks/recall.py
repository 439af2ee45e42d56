"""Long-context recall: a few facts early in a long text, and a question about one of them at its end.

Between the fact that is asked for and the question lie at least ``LEAST_BETWEEN`` filler sentences, which are at least
300 tokens of the reference model's tokenizer; the whole prompt stays under 700.
"""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.prose import sentence
from quantwise.tasks.suite import Solved, Suite
from quantwise.tasks.words import made_up_name

LEAST_BETWEEN = 34
MOST_BETWEEN = 42
MOST_BEFORE = 8


def facts(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """``count`` pairs of distinct made-up names and three-digit codes."""
    names: list[str] = []
    while len(names) < count:
        name = made_up_name(rng)
        if name not in names:
            names.append(name)
    return [(name, str(rng.randint(100, 999))) for name in names]


def fact_sentence(name: str, code: str) -> str:
    """How a fact stands in the text."""
    return f"The code is {name}{code}."


def question(name: str) -> str:
    """How a fact is asked for."""
    return f"Which code begins with {name}?"


def _draw(rng: random.Random) -> Solved:
    known = facts(rng, 3)
    early = [sentence(rng) for _ in range(rng.randint(0, MOST_BEFORE))] + [fact_sentence(*fact) for fact in known]
    rng.shuffle(early)
    filler = [sentence(rng) for _ in range(rng.randint(LEAST_BETWEEN, MOST_BETWEEN))]
    name, code = rng.choice(known)
    prompt = " ".join([*early, *filler, question(name)])
    item = Item(
        id="",
        task="recall",
        target=f"{name}{code}",
        scorer="exact",
        messages=(Message("user", prompt),),
        max_tokens=16,
    )
    return item, f"{name}{code}"


SUITE = Suite("recall", "one of three codes, such as Toven617, asked for at least 300 tokens later", _draw)
