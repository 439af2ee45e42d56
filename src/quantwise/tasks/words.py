"""The small vocabulary that the suites share: made-up names, and plain words by kind."""

from __future__ import annotations

import random

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS = ("", "", "n", "r", "s", "l")

COLOURS = ("red", "blue", "green", "black", "white", "brown", "yellow", "grey", "orange", "purple")
THINGS = (
    "lamp", "chair", "table", "clock", "basket", "mirror", "carpet", "bottle", "ladder", "hammer",
    "pillow", "candle", "bucket", "kettle", "blanket", "drawer", "window", "door", "stool", "jar",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def made_up_name(rng: random.Random, syllables: int = 2) -> str:
    """A capitalised name that no text contains, such as ``Toven``, so that it can only be copied, not remembered."""
    body = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))
    return (body + rng.choice(_ENDINGS)).capitalize()
