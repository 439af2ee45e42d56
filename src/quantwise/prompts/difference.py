"""Two runtimes read the same conversations: do they read the same tokens, and if not, what is the likely reason?

Where both tell token ids, these are compared. Where one only counts, counts are: they show a token too many or a turn
that is lost, and nothing that keeps the length. The reason is a guess from what was put in, left out or exchanged
between the beginning and the end that the two have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from quantwise.core.prompt_tokens import PromptTokens
from quantwise.prompts.probes import PLAIN, SPACES, SYSTEM, UNICODE, USER, WITH_SYSTEM

Compared = Literal["token ids", "counts", "nothing"]
_SHOWN = 60
_RUN = 4
"""Token ids in a row that two tokenizations of one text share if they are of one vocabulary."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``differs`` is one line on what differs and why, or None; ``compared`` says by what it was looked for."""

    compared: Compared
    differs: str | None = None


def doubled_beginning(told: Mapping[str, PromptTokens]) -> str | None:
    """One line where a prompt begins with one special token twice, whatever other runtimes read; else None."""
    for name, prompt in told.items():
        ids = prompt.ids or ()
        blank = bool(prompt.pieces) and not prompt.pieces[0].strip(_SPACES)
        if len(ids) > 1 and ids[0] == ids[1] and not blank:
            return (
                f"{_of(name)} begins with {_shown(prompt, 0, 1)} twice: the template writes it and the tokenizer adds "
                "it; take it out of the one or switch it off in the other (tokenizer.ggml.add_bos_token, add_bos_token)"
            )
    return None


def disagreement(told: Mapping[str, PromptTokens]) -> str | None:
    """One line where a server reads another number of tokens when it is asked than it tells beforehand; else None."""
    for name, prompt in told.items():
        if prompt.ids is not None and prompt.count is not None and len(prompt.ids) != prompt.count:
            return (
                f"{_of(name)} has {len(prompt.ids)} tokens by {prompt.source}, and its chat endpoint reads "
                f"{prompt.count}: something between template and model changes the conversation (a proxy, a setting)"
            )
    return None


def compare(theirs: Mapping[str, PromptTokens], ours: Mapping[str, PromptTokens], rendered: bool = False) -> Finding:
    """Compare probe by probe; ``theirs`` are those of the arm that ``ours`` is compared with.

    ``rendered``: ours is a server by URL, and its conversations were sent as texts that our template made of them.
    """
    names = [name for name in ours if name in theirs]
    for name in names:
        mine, other = ours[name], theirs[name]
        if mine.refused is not None and _answered(other):
            return Finding(_by(theirs, ours), f"{_of(name)} is refused here ({mine.refused}) and accepted by the other")
        if other.refused is not None and _answered(mine):
            return Finding(
                _by(theirs, ours), f"{_of(name)} is accepted here and refused by the other ({other.refused})"
            )
    names = [name for name in names if _by_of(theirs[name], ours[name]) != "nothing"]
    for name in names:
        mine, other = ours[name], theirs[name]
        if mine.ids is not None and other.ids is not None and mine.ids != other.ids:
            return Finding(_by(theirs, ours), f"{_of(name)} differs {_place(name, other, mine)}")
    offsets = {name: _size(ours[name]) - _size(theirs[name]) for name in names}
    if any(offsets.values()):
        return Finding(_by(theirs, ours), _by_counts(offsets, theirs, ours, rendered))
    return Finding(_by(theirs, ours))


def _answered(prompt: PromptTokens) -> bool:
    return prompt.refused is None and (prompt.ids is not None or prompt.count is not None)


def _by(theirs: Mapping[str, PromptTokens], ours: Mapping[str, PromptTokens]) -> Compared:
    """By what they were compared: the weakest of what the probes allowed that both read."""
    found = {_by_of(theirs[name], ours[name]) for name in ours if name in theirs}
    return "counts" if "counts" in found else "token ids" if "token ids" in found else "nothing"


def _by_of(theirs: PromptTokens, ours: PromptTokens) -> Compared:
    if not (_answered(theirs) and _answered(ours)):
        return "nothing"
    return "token ids" if theirs.ids is not None and ours.ids is not None else "counts"


def _size(prompt: PromptTokens) -> int:
    return len(prompt.ids) if prompt.ids is not None else prompt.count or 0


def _place(name: str, theirs: PromptTokens, ours: PromptTokens) -> str:
    """Where two lists of ids first differ, what stands there, and why that may be."""
    a, b = theirs.ids or (), ours.ids or ()
    if not _one_vocabulary(a, b):
        return f"from token {_begin(a, b)} on, and nothing is alike: another tokenizer, or another vocabulary"
    begin = _begin(a, b)
    end = _begin(a[begin:][::-1], b[begin:][::-1])
    gone, come = (begin, len(a) - end), (begin, len(b) - end)
    said = {"gone": _text(theirs, *gone), "come": _text(ours, *come)}
    here = _shown(ours, *come) if come[1] > begin else "nothing"
    there = _shown(theirs, *gone) if gone[1] > begin else "nothing"
    reason = _reason(name, gone, come, said, b)
    return f"at token {begin}: {here} where the other reads {there}; likely {reason}"


def _reason(
    name: str, gone: tuple[int, int], come: tuple[int, int], said: Mapping[str, str], ours: Sequence[int]
) -> str:
    begin = gone[0]
    left_out, put_in = gone[1] - begin, come[1] - begin
    blank = said["gone"].strip(_SPACES) == said["come"].strip(_SPACES)
    if not left_out and put_in == 1 and begin <= 1 and ours[0] == ours[min(1, len(ours) - 1)]:
        return "a beginning token that comes twice"
    if not left_out and put_in == 1 and begin == 0:
        return "a beginning token that the other does not have"
    if not put_in and left_out == 1 and begin == 0:
        return "a lost beginning token"
    # Probes are looked at in order, so that what only this one holds is at fault where it is the first to differ.
    if name == WITH_SYSTEM and left_out > put_in and _word(SYSTEM) not in said["come"]:
        return "a lost system turn"
    if name == SPACES or (blank and (said["gone"] or said["come"])):
        return "white space that one of them takes off or adds"
    if put_in and not left_out and name not in (WITH_SYSTEM, PLAIN):
        return "a system prompt that is added by default" if put_in > 2 else "a token that is added"
    if left_out and not put_in:
        return "something that is left out"
    return "another template"


def _by_counts(
    offsets: Mapping[str, int], theirs: Mapping[str, PromptTokens], ours: Mapping[str, PromptTokens], rendered: bool
) -> str:
    name = next(name for name, offset in offsets.items() if offset)
    counted = f"{_of(name)} has {_size(ours[name])} tokens where the other reads {_size(theirs[name])}"
    chats = {n: o for n, o in offsets.items() if n != PLAIN}
    alone = [o for n, o in chats.items() if n != WITH_SYSTEM]
    with_system = chats.get(WITH_SYSTEM, 0)
    lengths = {o - chats.get(USER, 0) for n, o in chats.items() if n == UNICODE}
    if lengths and lengths != {0}:
        reason = "another tokenizer, since the difference grows with the text"
    elif set(offsets.values()) == {1}:
        reason = "a beginning token that comes twice, or that only one of them has"
    elif set(offsets.values()) == {-1}:
        reason = "a lost beginning token"
    elif rendered and chats and min(chats.values()) > 1:
        reason = (
            "its own template, which this server seems to put around texts too; name servers alone, without MODEL, "
            "recipes and files, so that messages go to its chat endpoint"
        )
    elif with_system < 0 and not any(alone):
        reason = "a lost system turn"
    elif not with_system and alone and min(alone) > 0:
        reason = "a system prompt that is added by default"
    else:
        reason = "another template"
    return f"{counted}; likely {reason} (only counts could be compared)"


_SPACES = " \t\r\n\u2581ĠĊ"
"""White space, also as byte-level and sentencepiece vocabularies write it."""


def _begin(a: Sequence[int], b: Sequence[int]) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


def _one_vocabulary(a: Sequence[int], b: Sequence[int]) -> bool:
    runs = [{tuple(ids[i : i + _RUN]) for i in range(len(ids) - _RUN + 1)} for ids in (a, b)]
    return bool(runs[0] & runs[1]) or min(len(a), len(b)) < 2 * _RUN


def _text(prompt: PromptTokens, begin: int, end: int) -> str:
    """Pieces together, without blanks, so that a word is found however it was cut; empty where they are not told."""
    joined = "".join(prompt.pieces[begin:end])
    return _word(joined) or joined


def _word(text: str) -> str:
    return "".join(letter for letter in text if letter not in _SPACES)


def _shown(prompt: PromptTokens, begin: int, end: int) -> str:
    """Tokens as text, or as ids where their texts are not told."""
    if prompt.pieces:
        text = "".join(prompt.pieces[begin:end])
        return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
    ids = (prompt.ids or ())[begin:end]
    return "ids " + ", ".join(map(str, ids[:8])) + (" …" if len(ids) > 8 else "")


def _of(name: str) -> str:
    return f"the prompt of {name}"
