"""Structured extraction: five facts out of a noisy sentence that also says what is not wanted.

Names of places are longer at test than in training.
"""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite
from quantwise.tasks.words import COLOURS, DAYS, THINGS, made_up_name

_NOISE = ("um,", "well,", "so", "you know,", "I think", "as far as I know", "anyway,", "right,", "ok so", "look,")
_ASIDES = ("if I remember well", "or so they told me", "no idea why", "as usual")
_FOILS = ("not the {c2} {colour2} ones", "the {c2} {colour2} ones came back", "unlike the {colour2} ones")
_TEMPLATES = (
    "{n1} {who} from {where}, not {wrong}, ordered {count} {colour} {thing}s for {day}, {aside}.",
    "{n1} on {day} we send {count} {thing}s, the {colour} ones, to {who} in {where}, {aside}, {wrong} gets none.",
    "{n1} the {count} {colour} {thing}s go to {where} on {day}, {n2} {who} pays, not {wrong}, {aside}.",
    "{n1} {wrong} called, {n2} but it is {who} in {where} who wants {count} {colour} {thing}s by {day}.",
    "{n1} not on {other}, {n2} {who} wants the {colour} {thing}s on {day}, {count} of them, in {where}.",
    "{n1} {who}, {aside}, moved to {where} and needs {count} {colour} {thing}s before {day}, not {other}.",
)


def _item(rng: random.Random, syllables: tuple[int, ...]) -> Solved:
    day, other = rng.sample(DAYS, 2)
    noise = rng.sample(_NOISE, 2)
    colour, colour2 = rng.sample(COLOURS, 2)
    aside = rng.choice(_ASIDES)
    if rng.random() < 0.5:
        aside = rng.choice(_FOILS).format(c2=rng.randint(2, 99), colour2=colour2)
    facts = {
        "who": made_up_name(rng, rng.choice((2, 3))),
        "where": made_up_name(rng, rng.choice(syllables)),
        "wrong": made_up_name(rng),
        "count": str(rng.randint(2, 99)),
        "colour": colour,
        "thing": rng.choice(THINGS),
        "day": day,
        "other": other,
    }
    sentence = rng.choice(_TEMPLATES).format(n1=noise[0], n2=noise[1], aside=aside, **facts)
    target = " | ".join(facts[asked] for asked in ("who", "where", "count", "colour", "thing"))
    item = Item(
        id="",
        task="extraction",
        target=target,
        scorer="exact",
        messages=(Message("user", f"Who, where, count, colour, thing? {sentence}"),),
        max_tokens=40,
    )
    return item, target


def _draw(rng: random.Random) -> Solved:
    return _item(rng, syllables=(4, 5))


def _practice(rng: random.Random) -> Solved:
    return _item(rng, syllables=(3, 3, 4))


SUITE = Suite("extraction", "name, place, count, colour and thing out of a noisy sentence with foils", _draw, _practice)
