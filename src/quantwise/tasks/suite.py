"""What a task suite is, and how its items are split so that nothing that is tested was ever trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

from quantwise.core.errors import InputError
from quantwise.core.item import Item, fingerprint

# An item and a full answer that its scorer accepts, as a model that knows it would write it.
Solved = tuple[Item, str]

Split = Literal["train", "calibration", "screen", "certify"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Upper ends, in hundredths of the fingerprint space, of train, calibration, screen and certify.
_UPPER_ENDS: tuple[tuple[Split, int], ...] = (("train", 60), ("calibration", 65), ("screen", 75), ("certify", 100))

# A split holds at least 5 % of the prompts, so a fresh one takes 20 draws on average; this many in vain: it is empty.
_VAIN_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Suite:
    """A procedural, seeded source of items.

    ``draw`` makes one item and its full answer from a random stream; the id is left empty, :func:`items` fills it in.
    ``practice``, where given, is the distribution of the training split, in which the patterns that the suite tests are
    rarer than in ``draw``.
    """

    name: str
    summary: str
    draw: Callable[[random.Random], Solved]
    practice: Callable[[random.Random], Solved] | None = None

    def item(self, rng: random.Random) -> Item:
        """One item of the test distribution, of whichever split."""
        return self.draw(rng)[0]


def split_of(text: str) -> Split:
    """The split that a prompt belongs to, decided by its fingerprint alone, so that splits cannot overlap."""
    return _split_of_fingerprint(fingerprint(text))


def _split_of_fingerprint(key: str) -> Split:
    bucket = int(key[:12], 16) % 100
    return next(split for split, end in _UPPER_ENDS if bucket < end)


def check_split(split: str) -> Split:
    """The split as a checked name. Raises InputError for any other word."""
    for known in SPLITS:
        if split == known:
            return known
    raise InputError(f"unknown split {split!r}; allowed are {', '.join(SPLITS)}; use one of them")


def items(suite: Suite, split: str, count: int, seed: int = 0) -> list[Item]:
    """``count`` distinct items of one split; the same suite, split and seed give the same items, and more extend fewer.

    Raises InputError for an unknown split, a negative count, or when the suite has no further distinct prompts.
    """
    return [item for item, _ in solved_items(suite, split, count, seed)]


def solved_items(suite: Suite, split: str, count: int, seed: int = 0) -> list[Solved]:
    """The same items as :func:`items`, each with a full answer, for training and for tests of the scorers."""
    wanted = check_split(split)
    if count < 0:
        raise InputError(f"cannot draw {count} items of {suite.name}; the count must be 0 or more; ask for fewer")
    found: list[Solved] = []
    drawn = _distinct(suite, wanted, random.Random(f"{suite.name}/{wanted}/{seed}"))
    for item, answer in islice(drawn, count):
        found.append((replace(item, id=f"{suite.name}-{wanted}-{seed}-{len(found):06d}"), answer))
    if len(found) < count:
        raise InputError(
            f"suite {suite.name} has about {len(found)} distinct {wanted} items, not {count}; ask for at most that many"
        )
    return found


def _distinct(suite: Suite, split: Split, rng: random.Random) -> Iterator[Solved]:
    """Distinct items of the split until too many draws in a row bring nothing new."""
    draw = suite.practice if split == "train" and suite.practice is not None else suite.draw
    seen: set[str] = set()
    vain = 0
    while vain < _VAIN_DRAWS:
        item, answer = draw(rng)
        vain += 1
        key = fingerprint(item.text)
        if _split_of_fingerprint(key) == split and key not in seen:
            seen.add(key)
            vain = 0
            yield item, answer
