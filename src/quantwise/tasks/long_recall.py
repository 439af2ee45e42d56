"""Recall over a context that is full: facts at even depths of a long text, and a question about each at its end.

A text is as long as whoever gives it to a model says (``fits``), so items grow with the context. What fills it is prose
of ours, or a text of the user's. All questions of one text share it, and with it whatever its cache did to it: they are
one cluster. The idea is the needle in a haystack (G. Kamradt, 2023), with several needles as in RULER (Hsieh et al.,
arXiv 2404.06654).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.item import Item, Message
from quantwise.tasks.prose import sentence
from quantwise.tasks.recall import fact_sentence, facts, question

ANSWER_TOKENS = 16
_FEWEST_SENTENCES = 8
_ENDS = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Document:
    """A long text with the facts in it, (name, code), from its beginning to its end."""

    number: int
    text: str
    facts: tuple[tuple[str, str], ...]

    @property
    def depths(self) -> tuple[float, ...]:
        """Where each fact stands, as a share of the text's sentences."""
        return depths(len(self.facts))

    def items(self, chat: bool) -> list[Item]:
        """One item a fact. In a chat it is asked for; a model without a template goes on after ``The code is NAME``."""
        found = []
        for place, (name, code) in enumerate(self.facts):
            bare = Item(
                id=f"long-recall-{self.number:05d}-{place}",
                task="long recall",
                target=f"{name}{code}",
                scorer="contains",
                cluster=f"text-{self.number:05d}",
                max_tokens=ANSWER_TOKENS,
            )
            if chat:
                found.append(replace(bare, messages=(Message("user", f"{self.text} {question(name)}"),)))
            else:
                begun = f"{self.text} {fact_sentence(name, '').removesuffix('.')}"
                only = {"pattern": rf"^\s*{code}\b"}
                found.append(replace(bare, prompt=begun, target=None, scorer="regex", options=only))
        return found


def depths(count: int) -> tuple[float, ...]:
    """``count`` depths in the middles of as many equal parts."""
    return tuple((place + 0.5) / count for place in range(count))


def document(
    number: int, count: int, fits: Callable[[str], bool], prose: Sequence[str] = (), seed: int = 0
) -> Document:
    """The longest text with ``count`` facts that ``fits``, of ``prose`` from some sentence on, or of our own.

    The same number and seed draw the same facts and the same sentences. Raises InputError where not even a few
    sentences fit, and where ``prose`` is too short to fill the context.
    """
    known, text = _draft(number, count, prose, seed)
    if not fits(text(_FEWEST_SENTENCES)):
        raise _too_short(count)
    low, high = _FEWEST_SENTENCES, 2 * _FEWEST_SENTENCES
    while fits(text(high)):
        low, high = high, 2 * high
        if prose and low > len(prose):
            raise InputError(f"the text of {len(prose)} sentences does not fill the context; give a longer --text")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text(middle)) else (low, middle)
    if prose and low > len(prose):
        raise InputError(f"the text of {len(prose)} sentences does not fill the context; give a longer --text")
    return Document(number, text(low), tuple(known))


def check_room(count: int, room: int, prose: Sequence[str] = (), seed: int = 0) -> None:
    """Raises InputError where ``room`` tokens are fewer than the words of the shortest first text and its question:
    without a tokenizer a word is at least a token, so that what is refused here could not have been met.
    """
    known, text = _draft(0, count, prose, seed)
    if len(f"{text(_FEWEST_SENTENCES)} {question(known[0][0])}".split()) > room:
        raise _too_short(count)


def _too_short(count: int) -> InputError:
    return InputError(
        f"the context does not hold {count} facts, a question and its answer; give a longer --context, or fewer "
        "--questions"
    )


def _draft(
    number: int, count: int, prose: Sequence[str], seed: int
) -> tuple[list[tuple[str, str]], Callable[[int], str]]:
    """The facts of a text, and the text of so many sentences: the same sentences however many are asked for."""
    rng = random.Random(f"long recall/{seed}/{number}")
    known = facts(rng, count)
    begin = rng.randrange(len(prose)) if prose else 0
    drawn: list[str] = []

    def text(sentences: int) -> str:
        while len(drawn) < sentences:
            drawn.append(prose[(begin + len(drawn)) % len(prose)] if prose else sentence(rng))
        return _with_facts(drawn[:sentences], known)

    return known, text


def _with_facts(sentences: Sequence[str], known: Sequence[tuple[str, str]]) -> str:
    after = [int(depth * len(sentences)) for depth in depths(len(known))]
    parts: list[str] = []
    begin = 0
    for place, fact in zip(after, known, strict=True):
        parts += [*sentences[begin:place], fact_sentence(*fact)]
        begin = place
    return " ".join([*parts, *sentences[begin:]])


def sentences_of(file: Path) -> list[str]:
    """The sentences of a text file, with white space folded. Raises InputError where it cannot be read or has few."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise InputError(f"--text {file}: {why}; give a text file") from error
    found = [part for part in _ENDS.split(" ".join(text.split())) if part]
    if len(found) < _FEWEST_SENTENCES:
        raise InputError(f"--text {file} has {len(found)} sentences; give a text that fills the context")
    return found
