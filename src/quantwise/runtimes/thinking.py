"""What a reasoning model thinks, parted from its answer: only the answer is ever scored.

Models write their thinking before the answer, between tags (``<think>`` ... ``</think>`` of DeepSeek-R1 and Qwen3, and
two other spellings); many chat templates open the tag themselves, so that an answer may hold the closing one alone.
Servers may part the two and send the thinking by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from quantwise.core.runtime import Ask, Reply

_NAMES = "think|thinking|reasoning"
_OPENS = re.compile(rf"\s*<({_NAMES})>")
_OPENED = re.compile(rf"<({_NAMES})>\s*\Z")
_CLOSES = re.compile(rf"</({_NAMES})>\s*")


def opened(prompt: str | None) -> bool:
    """Whether a rendered prompt ends inside of the thinking."""
    return prompt is not None and _OPENED.search(prompt) is not None


def parted(text: str, inside: bool) -> tuple[str, str | None]:
    """(thinking, answer) of an output; the answer is None where the thinking has no end.

    ``inside`` says that the prompt had opened the thinking. Where neither it nor the text opens it all of it is the
    answer, which may well speak of a closing tag; what the text opens only the tag of the same name closes.
    """
    begins = _OPENS.match(text)
    if begins is None and not inside:
        return "", text
    names = {begins[1]} if begins is not None else set(_NAMES.split("|"))
    ends = next((tag for tag in _CLOSES.finditer(text) if tag[1] in names), None)
    if ends is not None:
        return text[begins.end() if begins else 0 : ends.start()], text[ends.end() :]
    return text[begins.end() if begins else 0 :], None


def answered(ask: Ask, reply: Reply, cap: int, stops: tuple[str, ...], count: Callable[[str], int] | None) -> Reply:
    """The reply with the answer alone, cut at the first of ``stops``, and the tokens that were thought before it.

    Thinking that has no end, or is longer than ``cap`` tokens, leaves no answer: then the text is empty and the finish
    is ``length``. ``count`` counts the tokens of a text, where the runtime can; where neither it nor the server tells,
    ``thinking_tokens`` is None and only the length of the whole bounds the thinking. Where a server renders by itself
    nobody knows whether its template opened the thinking, so what stands before a closing tag, or all of an output that
    was cut off without one, is taken for thinking. A request that failed is returned as it is.
    """
    if reply.finish not in ("stop", "length"):
        return reply
    thought: str
    answer: str | None
    if reply.thinking is not None:
        thought, answer = reply.thinking, None if reply.finish == "length" and not reply.text.strip() else reply.text
    else:
        unseen = ask.text is None and (reply.finish == "length" or _CLOSES.search(reply.text) is not None)
        thought, answer = parted(reply.text, opened(ask.text) or unseen)
    tokens = reply.thinking_tokens
    if not tokens:
        tokens = 0 if not thought else count(thought) if count is not None else None
    if answer is None or (tokens is not None and tokens > cap):
        return replace(reply, text="", finish="length", thinking_tokens=tokens)
    ends = [at for stop in stops if (at := answer.find(stop)) >= 0]
    if ends:
        return replace(reply, text=answer[: min(ends)], finish="stop", thinking_tokens=tokens)
    return replace(reply, text=answer, thinking_tokens=tokens)
