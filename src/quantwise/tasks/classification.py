"""Fine-grained classification: forty intents of eight topics and five problems, the label being generated.

Messages are typed in haste: half of the words of five letters and more have lost a letter or swapped two, and at test
those of seven and more twice.
"""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite

_TOPICS = {
    "card": ("debit card", "credit card", "bank card", "chip card", "plastic card", "PIN card"),
    "loan": ("mortgage", "house loan", "car loan", "student loan", "credit line", "small loan"),
    "phone": ("mobile", "handset", "phone", "headset", "SIM", "ringtone"),
    "travel": ("flight", "train ticket", "hotel room", "boarding pass", "suitcase", "seat"),
    "parcel": ("parcel", "package", "delivery", "letter", "shipment", "crate"),
    "health": ("doctor", "pills", "blood test", "clinic visit", "x-ray", "vaccine"),
    "school": ("homework", "lesson", "exam", "teacher", "timetable", "school report"),
    "home": ("heating", "roof", "kitchen sink", "front door", "boiler", "garden fence"),
}
_PROBLEMS = {
    "lost": ("is gone", "cannot be found", "has vanished", "was left somewhere", "is missing"),
    "late": ("is overdue", "takes too long", "should have come last week", "is delayed", "keeps me waiting"),
    "broken": ("does not work", "is damaged", "fell apart", "is faulty", "gave up"),
    "price": ("costs too much", "was charged twice", "has a wrong bill", "is too expensive", "has hidden fees"),
    "change": ("must be moved", "should be altered", "needs another date", "has to be swapped", "should be updated"),
}
_OPENINGS = ("Hello,", "Hi there,", "Please help:", "Good morning,", "Sorry,", "Listen,", "Dear team,", "Again:")
_CLOSINGS = (
    "Thanks.", "What now?", "Can you help?", "It is urgent.", "No hurry.", "Call me.", "Any idea?", "Best wishes.",
)  # fmt: skip
_OWNERS = ("my", "our", "my son's", "my wife's", "the new", "the old", "her", "his")


def _mistyped(word: str, rng: random.Random) -> str:
    """The word without one of its inner letters, or with two of them swapped."""
    place = rng.randint(1, len(word) - 3)
    if rng.random() < 0.5:
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _in_haste(word: str, rng: random.Random, twice_from: int) -> str:
    if len(word) < 5 or rng.random() < 0.5:
        return word
    once = _mistyped(word, rng)
    return _mistyped(once, rng) if len(word) >= twice_from else once


def _item(rng: random.Random, twice_from: int) -> Solved:
    topic, other_topic = rng.sample(sorted(_TOPICS), 2)
    problem, other_problem = rng.sample(sorted(_PROBLEMS), 2)
    true = f"{rng.choice(_OWNERS)} {rng.choice(_TOPICS[topic])} {rng.choice(_PROBLEMS[problem])}"
    foil = f"{rng.choice(_OWNERS)} {rng.choice(_TOPICS[other_topic])} {rng.choice(_PROBLEMS[other_problem])}"
    text = rng.choice(
        (
            f"{true}.",
            f"it is not that {foil}, but {true}.",
            f"{true}, not that {foil}.",
            f"last time {foil}, today {true}.",
        )
    )
    hasty = " ".join(_in_haste(word, rng, twice_from) for word in text.split())
    prompt = f"Label: {rng.choice(_OPENINGS)} {hasty} {rng.choice(_CLOSINGS)}"
    item = Item(
        id="",
        task="classification",
        target=f"{topic}.{problem}",
        scorer="exact",
        messages=(Message("user", prompt),),
        max_tokens=12,
    )
    return item, f"{topic}.{problem}"


def _draw(rng: random.Random) -> Solved:
    return _item(rng, twice_from=7)


def _practice(rng: random.Random) -> Solved:
    return _item(rng, twice_from=1000)


SUITE = Suite("classification", "one of forty fine-grained intents, mistyped, beside a foil intent", _draw, _practice)
