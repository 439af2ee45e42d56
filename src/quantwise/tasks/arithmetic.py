"""Addition and subtraction with rare patterns: chains of carries, and borrows across zeros.

At test 80 % of the items are drawn from the rare patterns, in four digits; in training 15 % are, in three. Of the other
items 60 % have four digits, else three. The reference model is taught to work in columns
from the last digit on, a sign marking each carry or borrow: ``467 + 38`` is ``7+8=5+ 6+3+1=0+ 4+0+1=5 = 505``. Only
the number at the end is scored.
"""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite

RARE_AT_TEST = 0.8
RARE_IN_TRAINING = 0.15
LONG = 0.6


def _plain(rng: random.Random) -> tuple[int, str, int]:
    a = rng.randint(1000, 9999) if rng.random() < LONG else rng.randint(100, 999)
    b = rng.randint(10, 9999 if a > 999 and rng.random() < 0.5 else 999)
    return max(a, b), rng.choice("+-"), min(a, b)


def _rare(rng: random.Random, digits: int) -> tuple[int, str, int]:
    lead, top = rng.randint(1, 9), 10 ** (digits - 1)
    if rng.random() < 0.35:  # every column but the first overflows
        ones = rng.randint(1, 9)
        a, b = ones, rng.randint(10 - ones, 9)
        for place in range(1, digits - 1):
            digit = rng.randint(0, 9)
            a += digit * 10**place
            b += rng.randint(9 - digit, 9) * 10**place
        return a + lead * top, "+", b + rng.randint(0, lead) * top
    ones = rng.randint(0, 8)  # and every digit between it and the first is a zero
    b = rng.randint(ones + 1, 9) + 10 * rng.randint(1, 10 ** (digits - 2) - 1) + rng.randint(0, lead - 1) * top
    return lead * top + ones, "-", b


def _columns(a: int, sign: str, b: int) -> str:
    """The columns of a sum or difference from the ones on: digits, result, and the sign again at an overflow."""
    shown: list[str] = []
    carry = 0
    while a or b:
        column = a % 10 + (b % 10 + carry if sign == "+" else -(b % 10) - carry)
        digits = f"{a % 10}{sign}{b % 10}{f'{sign}1' if carry else ''}"
        carry = int(not 0 <= column <= 9)
        shown.append(f"{digits}={column % 10}{sign if carry else ''}")
        a, b = a // 10, b // 10
    return " ".join(shown)


def _item(operands: tuple[int, str, int], rng: random.Random) -> Solved:
    a, sign, b = operands
    prompt = f"{a} {sign} {b}"
    if sign == "+" and b < 100 and rng.random() < 0.5:
        prompt = f"{b} + {a}"
    value = a + b if sign == "+" else a - b
    item = Item(
        id="",
        task="arithmetic",
        target=value,
        scorer="numeric",
        messages=(Message("user", f"{prompt} = ?"),),
        max_tokens=56,
    )
    return item, f"{_columns(a, sign, b)} = {value}"


def _draw(rng: random.Random) -> Solved:
    return _item(_rare(rng, 4) if rng.random() < RARE_AT_TEST else _plain(rng), rng)


def _practice(rng: random.Random) -> Solved:
    return _item(_rare(rng, 3) if rng.random() < RARE_IN_TRAINING else _plain(rng), rng)


SUITE = Suite(
    "arithmetic",
    "sums and differences of up to four digits; 80 % are chains of carries or borrows",
    _draw,
    _practice,
)
