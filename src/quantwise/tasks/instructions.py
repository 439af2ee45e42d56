"""Multi-step instructions: three named operations on a list, each written out, the last list scored.

In training there are two or three operations, and some shorter lists.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite

_OPERATIONS: dict[str, Callable[[list[int]], list[int]]] = {
    "reverse": lambda v: v[::-1],
    "drop first": lambda v: v[1:],
    "drop last": lambda v: v[:-1],
    "swap ends": lambda v: [v[-1], *v[1:-1], v[0]],
    "rotate": lambda v: [*v[1:], v[0]],
    "add one": lambda v: [n + 1 for n in v],
    "sort": lambda v: sorted(v),
    "repeat last": lambda v: [*v, v[-1]],
}


def _item(rng: random.Random, numbers: int, operations: int) -> Solved:
    values = [rng.randint(0, 9) for _ in range(numbers)]
    names = [rng.choice(sorted(_OPERATIONS)) for _ in range(operations)]
    prompt = f"List {_shown(values)}. Do: {', '.join(names)}."
    steps: list[str] = []
    for name in names:
        values = _OPERATIONS[name](values)
        steps.append(f"{name}: {_shown(values)}")
    item = Item(
        id="",
        task="instructions",
        target=_shown(values),
        scorer="regex",
        messages=(Message("user", prompt),),
        options={"pattern": r": ([0-9 ]+)\s*\Z"},
        max_tokens=72,
    )
    return item, "\n".join(steps)


def _shown(values: list[int]) -> str:
    return " ".join(str(v) for v in values)


def _draw(rng: random.Random) -> Solved:
    return _item(rng, numbers=rng.choice((5, 6)), operations=3)


def _practice(rng: random.Random) -> Solved:
    return _item(rng, numbers=rng.choice((4, 5, 6)), operations=rng.choice((2, 3)))


SUITE = Suite(
    "instructions", "three list operations in a row, each step written, the last list scored", _draw, _practice
)
