"""Signs on an answer that no scorer looks for: it refuses, or it has changed the script it is written in.

Both are found by fixed rules, the same for every arm, and err alike on all of them; so a difference between arms means
something even where a single sign is wrong.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from quantwise.core.endpoint import Endpoint
from quantwise.core.evidence import ANSWERED, Measurement

_LOOKED_AT = 240  # characters: a refusal is said at once
_REFUSES = re.compile(
    r"\b(?:"
    r"i(?:'|’)?m (?:sorry|afraid)[^.!?\n]{0,60}(?:can(?:no|')?t|unable|not able|won(?:'|’)t)"
    r"|i (?:can ?not|can(?:'|’)t|am unable to|am not able to|won(?:'|’)t|must decline|have to decline)"
    r"|(?:i(?:'|’)m|i am) (?:unable|not able|not allowed|not permitted) to"
    r"|as an ai\b[^.!?\n]{0,80}(?:can(?:no|')?t|unable|not able|don(?:'|’)t)"
    r"|(?:es )?tut mir leid[^.!?\n]{0,60}(?:kann|darf)|ich (?:kann|darf) (?:dabei |das |dir |ihnen )?nicht"
    r"|lo siento[^.!?\n]{0,60}no puedo|no puedo (?:ayudar|hacer|proporcionar|responder)"
    r"|(?:je suis )?d[ée]sol[ée]e?[^.!?\n]{0,60}ne (?:peux|puis) pas|je ne (?:peux|puis) pas"
    r")|(?:抱歉|对不起|很遗憾)[^。！？\n]{0,30}(?:不能|无法)|我(?:不能|无法)",
    re.IGNORECASE,
)
_SHARE, _LETTERS = 0.2, 2
# The log-probabilities that stand for the answer to a choice, which nobody wrote.
_CHOSEN = re.compile(r"-?(?:\d+\.\d{4}|inf|nan)(?: -?(?:\d+\.\d{4}|inf|nan))+")
_SAME = {"CJK": "HAN", "HIRAGANA": "KANA", "KATAKANA": "KANA", "BOPOMOFO": "HAN"}


def written(row: Measurement) -> bool:
    """Whether a row holds an answer that the model wrote, and not what it gave to choices; lost ones hold none."""
    chosen = row.output_tokens is None and _CHOSEN.fullmatch(row.output) is not None
    return row.finish in ANSWERED and not chosen


def shows(row: Measurement, endpoint: Endpoint, asked: Mapping[str, str]) -> bool:
    """Whether an answer was written and has the sign; ``asked`` is item id to prompt and target as one text."""
    if not written(row):
        return False
    if endpoint == "non_termination":
        return row.finish == "length"
    return refuses(row.output) if endpoint == "refusal" else switches_script(row.output, asked.get(row.item, ""))


def asked_texts(asked: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Item id to what its answer may be written in, out of its prompt and its target."""
    return {item: f"{prompt}\n{target}" for item, (prompt, target) in asked.items()}


def refuses(answer: str) -> bool:
    """Whether the beginning of an answer says, in one of a few languages, that it will not be given."""
    return _REFUSES.search(answer[:_LOOKED_AT]) is not None


def switches_script(answer: str, asked: str) -> bool:
    """Whether a fifth or more of an answer's letters, at least two, are of scripts that ``asked`` has none of.

    ``asked`` is the prompt with its target. English that becomes German is not seen: both are written in Latin letters.
    """
    letters = scripts(answer)
    expected = scripts(asked)
    # Japanese and Chinese share the Han characters, and a Japanese text may be written without any.
    if "KANA" in expected:
        expected["HAN"] += 1
    strange = sum(count for script, count in letters.items() if script not in expected)
    return bool(expected) and strange >= max(_LETTERS, _SHARE * sum(letters.values()))


def scripts(text: str) -> Counter[str]:
    """Letters of a text by script: the first word of a character's Unicode name (LATIN, CYRILLIC, HAN, KANA ...)."""
    found: Counter[str] = Counter()
    for letter in text:
        if letter.isascii():
            found["LATIN"] += letter.isalpha()
        elif letter.isalpha():
            word = unicodedata.name(letter, "").partition(" ")[0]
            # Letters of formulas and circled ones are used beside any script.
            if word and word not in (
                "MATHEMATICAL",
                "CIRCLED",
                "FULLWIDTH",
                "MODIFIER",
                "MICRO",
                "FEMININE",
                "MASCULINE",
            ):
                found[_SAME.get(word, word)] += 1
    return +found
