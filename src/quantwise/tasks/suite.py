"""What a task suite is, and how its items are split so that nothing that is tested was ever trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from quantwise.core.errors import InputError
from quantwise.core.item import Item, fingerprint

Split = Literal["train", "calibration", "screen", "certify"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Upper ends, in hundredths of the fingerprint space, of train, calibration, screen and certify.
_UPPER_ENDS: tuple[tuple[Split, int], ...] = (("train", 60), ("calibration", 65), ("screen", 75), ("certify", 100))

# A split holds at least 5 % of the prompts, so a fresh one takes 20 draws on average; this many in vain mean it is empty.
_VAIN_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Suite:
    """A procedural, seeded source of items.

    ``draw`` makes one item from a random stream; its id is left empty and filled in by :func:`items`. ``practice``, where
    given, is the distribution of the training split, in which the patterns that the suite tests are rarer than in ``draw``.
    """

    name: str
    summary: str
    draw: Callable[[random.Random], Item]
    practice: Callable[[random.Random], Item] | None = None

    def item(self, rng: random.Random) -> Item:
        """One item of the test distribution, of whichever split."""
        return self.draw(rng)


def split_of(text: str) -> Split:
    """The split that a prompt belongs to, decided by its fingerprint alone, so that splits cannot overlap."""
    bucket = int(fingerprint(text)[:12], 16) % 100
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
    wanted = check_split(split)
    if count < 0:
        raise InputError(f"cannot draw {count} items of {suite.name}; the count must be 0 or more; ask for fewer")
    found: list[Item] = []
    for item in _distinct(suite, wanted, random.Random(f"{suite.name}/{wanted}/{seed}")):
        if len(found) == count:
            break
        found.append(replace(item, id=f"{suite.name}-{wanted}-{seed}-{len(found):06d}"))
    if len(found) < count:
        raise InputError(
            f"suite {suite.name} has only about {len(found)} distinct {wanted} items, not {count}; ask for at most that many"
        )
    return found


def _distinct(suite: Suite, split: Split, rng: random.Random) -> Iterator[Item]:
    """Distinct items of the split until too many draws in a row bring nothing new."""
    draw = suite.practice if split == "train" and suite.practice is not None else suite.draw
    seen: set[str] = set()
    vain = 0
    while vain < _VAIN_DRAWS:
        item = draw(rng)
        vain += 1
        key = fingerprint(item.text)
        if split_of(item.text) == split and key not in seen:
            seen.add(key)
            vain = 0
            yield item


def answer_text(item: Item) -> str:
    """A full answer that the item's scorer accepts, as a model that knows it would write it.

    It is the target itself, except where the target is a value (JSON, a number) or where steps come before the result;
    those items carry it in ``options["worked"]``.
    """
    worked = item.options.get("worked")
    if worked is not None:
        return str(worked)
    return json.dumps(item.target, ensure_ascii=False) if item.scorer == "json_equal" else str(item.target)
