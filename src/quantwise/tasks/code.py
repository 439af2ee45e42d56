"""Code with a checkable result: a small function in words, to be written as one ``return`` line and run on inputs."""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.expression import read_program, run_program
from quantwise.tasks.suite import Solved, Suite

_NAMES = ("a", "b", "c")
_PAIRS = {
    "the sum of {x} and {y}": "{x} + {y}",
    "the product of {x} and {y}": "{x} * {y}",
    "{x} minus {y}": "{x} - {y}",
    "the larger of {x} and {y}": "max({x}, {y})",
    "the smaller of {x} and {y}": "min({x}, {y})",
    "the distance of {x} and {y}": "abs({x} - {y})",
}
_STEPS = {
    "add {z}": "{e} + {z}",
    "take away {z}": "{e} - {z}",
    "times {z}": "{p} * {z}",
    "take it from {z}": "{z} - {p}",
    "at most {z}": "min({e}, {z})",
    "at least {z}": "max({e}, {z})",
}


def _closed(expression: str) -> bool:
    """Whether the expression needs no parentheses as a factor."""
    return expression.startswith(("max(", "min(", "abs(")) and expression.endswith(")") and expression.count("(") == 1


def _draw(rng: random.Random) -> Solved:
    x, y = rng.sample(_NAMES, 2)
    phrase = rng.choice(sorted(_PAIRS))
    words, expression = [phrase.format(x=x, y=y)], _PAIRS[phrase].format(x=x, y=y)
    for _ in range(rng.choice((1, 2))):
        step = rng.choice(sorted(_STEPS))
        z = rng.choice(_NAMES) if rng.random() < 0.4 else str(rng.randint(2, 50))
        factor = expression if _closed(expression) else f"({expression})"
        words.append(step.format(z=z))
        expression = _STEPS[step].format(e=expression, p=factor, z=z)
    inputs = [{name: rng.randint(-20, 60) for name in _NAMES} for _ in range(6)]
    program = read_program(f"return {expression}")
    item = Item(
        id="",
        task="code",
        target=[run_program(program, given) for given in inputs],
        scorer="code",
        messages=(Message("user", f"Code f(a, b, c): {', then '.join(words)}."),),
        options={"inputs": inputs},
        max_tokens=48,
    )
    return item, f"return {expression}"


SUITE = Suite("code", "a small function in words, written as one return line and run on test inputs", _draw)
