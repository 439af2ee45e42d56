"""Procedural English prose: filler between a fact and its question, and held-out text for perplexity and divergence."""

from __future__ import annotations

import random
import re

from quantwise.core.errors import InputError
from quantwise.tasks.suite import check_split, split_of

_ADJECTIVES = (
    "old", "small", "quiet", "tall", "bright", "tired", "young", "heavy", "gentle", "clever",
    "cold", "warm", "narrow", "wide", "broken", "shy", "proud", "simple", "strange", "happy",
)  # fmt: skip
_PEOPLE = (
    "baker", "farmer", "sailor", "teacher", "doctor", "painter", "singer", "driver", "gardener", "neighbour",
    "child", "king", "queen", "hunter", "miller", "soldier", "writer", "cook", "guard", "merchant",
)  # fmt: skip
_PLACES = (
    "river", "forest", "market", "bridge", "garden", "harbour", "castle", "village", "mountain", "station",
    "kitchen", "field", "school", "tower", "street", "lake", "church", "mill", "valley", "house",
)  # fmt: skip
_OBJECTS = (
    "boat", "book", "horse", "letter", "coat", "apple", "stone", "wheel", "song", "map",
    "cup", "rope", "hat", "bell", "knife", "bread", "flower", "ring", "cart", "fire",
)  # fmt: skip
_DOES = (
    "found", "lost", "carried", "watched", "painted", "sold", "bought", "hid", "mended", "forgot",
    "wanted", "described", "borrowed", "dropped", "cleaned", "followed",
)  # fmt: skip
_GOES = ("walked", "ran", "rode", "hurried", "went", "returned", "drifted", "came")
_NEAR = ("near", "behind", "beside", "beyond", "under", "opposite")
_TIMES = (
    "In the morning", "At night", "Every summer", "Long ago", "After the rain", "Before noon", "That evening",
    "In winter", "One day", "Later",
)  # fmt: skip
_SHAPES = (
    "The {a1} {p1} {does} a {a2} {o1} {near} the {l1}.",
    "{time} the {p1} {goes} to the {a1} {l1}.",
    "The {p1} and the {a1} {p2} {does} the {o1}.",
    "{time} a {a1} {o1} lay {near} the {l1}.",
    "The {o1} of the {p1} was {a1} and {a2}.",
    "Nobody {does} the {a1} {o1} in the {l1}.",
    "The {a1} {l1} was {near} the {a2} {l2}.",
    "When the {p1} {goes} to the {l1}, the {p2} {does} a {o1}.",
)


_WORDS: dict[str, tuple[str, ...]] = {
    "a": _ADJECTIVES, "p": _PEOPLE, "l": _PLACES, "o": _OBJECTS,
    "does": _DOES, "goes": _GOES, "near": _NEAR, "time": _TIMES,
}  # fmt: skip
_SLOTS = {shape: tuple(dict.fromkeys(re.findall(r"\{(\w+)\}", shape))) for shape in _SHAPES}


def _pick(rng: random.Random, words: tuple[str, ...]) -> str:
    # Several times faster than choice(), and recall items are thousands of sentences.
    return words[int(rng.random() * len(words))]


def sentence(rng: random.Random) -> str:
    """One sentence of seven to fourteen words."""
    shape = _pick(rng, _SHAPES)
    chosen: dict[str, str] = {}
    for slot in _SLOTS[shape]:
        words = _WORDS[slot.rstrip("12")]
        chosen[slot] = _pick(rng, words)
        while slot.endswith("2") and chosen[slot] == chosen.get(f"{slot[0]}1"):
            chosen[slot] = _pick(rng, words)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", shape.format(**chosen))


def held_out_text(split: str, count: int, seed: int = 0) -> list[str]:
    """``count`` documents of 12 to 24 sentences (about 120 to 280 tokens each) that belong to one split.

    A document is in the split that its fingerprint falls into, as items are, so documents of ``screen`` were never
    trained on. Raises InputError for an unknown split or a negative count.
    """
    wanted = check_split(split)
    if count < 0:
        raise InputError(f"cannot write {count} documents; the count must be 0 or more; ask for fewer")
    rng = random.Random(f"prose/{wanted}/{seed}")
    documents: list[str] = []
    while len(documents) < count:
        document = " ".join(sentence(rng) for _ in range(rng.randint(12, 24)))
        if split_of(document) == wanted:
            documents.append(document)
    return documents
