"""What is asked under load: the user's own items, or made-up text of about so many tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.item import Item, Message
from quantwise.core.runtime import Ask
from quantwise.load.generator import closed_loop
from quantwise.runtimes.lean_http import LeanHttp
from quantwise.runtimes.streaming import Server, Streamed, StreamRequest, stream, stream_request
from quantwise.tasks.built_in import built_in_task
from quantwise.tasks.prose import sentence

_FEW_WORDS = 32
"""Words of a first text, which any context holds."""


@dataclass(frozen=True, slots=True)
class Items:
    """Prompts from a file, asked in order and again from the front when they are used up."""

    asks: tuple[Ask, ...]

    def draw(self, first: int, count: int) -> list[Ask]:
        """``count`` asks from number ``first`` on."""
        return [self.asks[i % len(self.asks)] for i in range(first, first + count)]


MOST_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Made-up sentences, no two alike, so that no cache of prefixes helps; answers are as long as ``output_tokens``.

    ``words`` is how many words make ``input_tokens`` tokens of the first server, ends of a chat template included;
    None until that was asked. With ``chat`` they go to the chat endpoint.
    """

    input_tokens: int
    output_tokens: int
    seed: int = 0
    chat: bool = False
    words: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--input-tokens", self.input_tokens), ("--output-tokens", self.output_tokens)):
            if value > MOST_TOKENS:
                raise InputError(f"{name} {value} is more than any model reads or writes; give at most {MOST_TOKENS:,}")

    def draw(self, first: int, count: int) -> list[Ask]:
        """``count`` asks from number ``first`` on, the same for every server."""
        words = self.input_tokens if self.words is None else self.words
        return [self.of_words(words, f"{self.seed}:{i}") for i in range(first, first + count)]

    def of_words(self, words: int, seed: str) -> Ask:
        """An ask of so many words."""
        rng = random.Random(seed)
        text: list[str] = []
        while len(text) < words:
            text += sentence(rng).split()
        prompt = " ".join(text[:words])
        if self.chat:
            return Ask(messages=(Message("user", prompt),), max_tokens=self.output_tokens)
        return Ask(text=prompt, max_tokens=self.output_tokens)


Workload = Items | MadeUp


def read_items(spec: str, count: int, seed: int, output_tokens: int | None = None) -> Items:
    """Prompts of a built-in suite, or of a JSON Lines file with ``prompt`` or ``messages`` and, where given,
    ``max_tokens`` (64 otherwise). ``output_tokens``, where given, takes the place of ``max_tokens``.

    Raises InputError naming file, line, fault and what is allowed.
    """
    suite = built_in_task(spec)
    if suite is not None:
        asks = [_of_item(item) for item in suite.supply("certify", count, seed)]
    else:
        asks = [_of_line(Path(spec), number, line) for number, line in _lines(Path(spec))]
    if not asks:
        raise InputError(f'{spec}: no items; give one {{"prompt": "..."}} on each line')
    return Items(tuple(a if output_tokens is None else replace(a, max_tokens=output_tokens) for a in asks))


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{path}: {reason}; give a .jsonl file of prompts or the name of a suite") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _of_line(path: Path, number: int, line: str) -> Ask:
    allowed = 'write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: not JSON; {allowed}") from error
    prompt, turns = (record.get("prompt"), record.get("messages")) if isinstance(record, dict) else (None, None)
    if isinstance(prompt, str) == isinstance(turns, list) or turns == []:
        raise InputError(f"{path}:{number}: needs one of prompt and messages; {allowed}")
    most: Any = record.get("max_tokens", 64)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"{path}:{number}: max_tokens {most!r} is not a whole number above 0")
    if isinstance(prompt, str):
        return Ask(text=prompt, max_tokens=most)
    texts: list[tuple[Any, Any]] = [
        (t.get("role"), t.get("content")) if isinstance(t, dict) else (None, None) for t in turns or ()
    ]
    if not all(isinstance(role, str) and isinstance(content, str) for role, content in texts):
        raise InputError(f"{path}:{number}: a message lacks its role or content, which are texts; {allowed}")
    return Ask(messages=tuple(Message(role, content) for role, content in texts), max_tokens=most)


def _of_item(item: Item) -> Ask:
    messages = item.messages or (Message("user", item.text),)
    return Ask(messages=messages, max_tokens=item.max_tokens, stop=item.stop)


@dataclass(frozen=True, slots=True)
class Asker:
    """Makes requests as one server understands them. ``notes`` say what it does not understand."""

    server: Server
    extra: dict[str, Any]
    notes: tuple[str, ...] = ()

    def requests(self, asks: Sequence[Ask]) -> list[StreamRequest]:
        """Requests that are ready to be sent."""
        return [stream_request(ask, self.server.model, self.extra) for ask in asks]


async def find_asker(server: Server, http: LeanHttp, workload: Workload, limit_s: float) -> Asker:
    """Find out what the server understands, by asking: counting tokens, and answers that go on to the last token.

    Raises RuntimeFailure with the server's word where it answers in no way.
    """
    usage: dict[str, Any] = {"stream_options": {"include_usage": True}}
    endless: dict[str, Any] = {"ignore_eos": True} if isinstance(workload, MadeUp) else {}
    ask = workload.of_words(_FEW_WORDS, f"{workload.seed}:first") if isinstance(workload, MadeUp) else workload.asks[0]
    ask = replace(ask, max_tokens=2)
    word: str | None = None
    for extra, lost in (
        (usage | endless, ()),
        (usage, ("it does not know ignore_eos: answers may be shorter than asked",)),
        ({}, ("it does not know stream_options: tokens are not counted, and what needs them is unknown",)),
    ):
        found = await stream(http, stream_request(ask, server.model, extra), limit_s)
        if found.outcome == "ok":
            told = () if found.output_tokens is not None else ("it does not count tokens: what needs them is unknown",)
            return Asker(server, extra, lost or told)
        word = word or found.error
        if found.outcome != "refused":
            break
    raise RuntimeFailure(f"{server.url} does not answer: {word}; mend the server, or ask otherwise (--chat, --items)")


async def measured_words(workload: MadeUp, asker: Asker, http: LeanHttp, limit_s: float) -> MadeUp:
    """The workload with the words that make its tokens on this server, by the length of a short text and of one that is
    about right. Where the server does not count, a word is taken for a token.
    """

    async def tokens(words: int) -> int | None:
        ask = replace(workload.of_words(words, f"{workload.seed}:ruler"), max_tokens=1)
        return (await stream(http, asker.requests([ask])[0], limit_s)).prompt_tokens

    if not (few := await tokens(_FEW_WORDS)):
        return workload
    guess = max(1, round(_FEW_WORDS * workload.input_tokens / few))
    found = await tokens(guess)
    if found is None or found == few:
        return replace(workload, words=guess)
    per_token = (guess - _FEW_WORDS) / (found - few)
    return replace(workload, words=max(1, round(guess + (workload.input_tokens - found) * per_token)))


async def warm_up(asker: Asker, http: LeanHttp, workload: Workload, count: int, limit_s: float) -> tuple[Streamed, ...]:
    """``count`` requests, four at a time, of which nothing is counted; made-up ones are not asked again later.

    Raises RuntimeFailure where not one of them was answered.
    """
    if count == 0:
        return ()
    asks = workload.draw(-1 - count, count)
    block = await closed_loop(http, asker.requests(asks), min(4, count), limit_s, limit_s)
    answers = tuple(answer.streamed for answer in block.answers)
    if not any(a.outcome == "ok" for a in answers):
        word = answers[0].error
        raise RuntimeFailure(f"{asker.server.url} answered none of {count} requests before the load began: {word}")
    return answers
