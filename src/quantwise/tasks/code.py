"""Code with a checkable result: a small function in words, to be written as one ``return`` line and run on inputs.

The function has four further steps at test, and two to four in training.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite

_NAMES = ("a", "b", "c")
_TESTS = 6

Two = Callable[[int, int], int]

# Words, the expression they mean, and what it computes.
_PAIRS: tuple[tuple[str, str, Two], ...] = (
    ("the sum of {x} and {y}", "{x} + {y}", lambda x, y: x + y),
    ("the product of {x} and {y}", "{x} * {y}", lambda x, y: x * y),
    ("{x} minus {y}", "{x} - {y}", lambda x, y: x - y),
    ("the larger of {x} and {y}", "max({x}, {y})", max),
    ("the smaller of {x} and {y}", "min({x}, {y})", min),
    ("the distance of {x} and {y}", "abs({x} - {y})", lambda x, y: abs(x - y)),
)
# The same for what comes then; ``e`` is the expression so far, ``p`` the same in parentheses where a factor needs them.
_STEPS: tuple[tuple[str, str, Two], ...] = (
    ("add {z}", "{e} + {z}", lambda e, z: e + z),
    ("take away {z}", "{e} - {z}", lambda e, z: e - z),
    ("times {z}", "{p} * {z}", lambda e, z: e * z),
    ("take it from {z}", "{z} - {p}", lambda e, z: z - e),
    ("at most {z}", "min({e}, {z})", min),
    ("at least {z}", "max({e}, {z})", max),
)


def _closed(expression: str) -> bool:
    """Whether the expression needs no parentheses as a factor."""
    return expression.startswith(("max(", "min(", "abs(")) and expression.endswith(")") and expression.count("(") == 1


def _item(rng: random.Random, steps: int) -> Solved:
    inputs = [{name: rng.randint(-20, 60) for name in _NAMES} for _ in range(_TESTS)]
    x, y = rng.sample(_NAMES, 2)
    phrase, code, compute = rng.choice(_PAIRS)
    words, expression = [phrase.format(x=x, y=y)], code.format(x=x, y=y)
    results = [compute(given[x], given[y]) for given in inputs]
    while len(words) <= steps:
        phrase, code, compute = rng.choice(_STEPS)
        named = rng.random() < 0.4
        z = rng.choice(_NAMES) if named else str(rng.randint(2, 50))
        others = [given[z] if named else int(z) for given in inputs]
        computed = [compute(result, other) for result, other in zip(results, others, strict=True)]
        # A bound that always or never holds on the inputs would make wrong programs look right.
        if compute in (min, max) and computed in (results, others):
            continue
        words.append(phrase.format(z=z))
        expression = code.format(e=expression, p=expression if _closed(expression) else f"({expression})", z=z)
        results = computed
    item = Item(
        id="",
        task="code",
        target=results,
        scorer="code",
        messages=(Message("user", f"Code f(a, b, c): {', then '.join(words)}."),),
        options={"inputs": inputs},
        max_tokens=80,
    )
    return item, f"return {expression}"


def _draw(rng: random.Random) -> Solved:
    return _item(rng, steps=4)


def _practice(rng: random.Random) -> Solved:
    return _item(rng, steps=rng.choice((2, 3, 3, 4)))


SUITE = Suite("code", "a small function in words, written as one return line and run on test inputs", _draw, _practice)
