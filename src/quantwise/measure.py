"""Open sessions, ask items, yield measurements.

The bench keeps every arm loaded while they fit into memory together, and otherwise closes the one unused for longest. A
runtime that dies is started again once; what dies twice on the same block is recorded as crashes of that block's items.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from quantwise.chat import ChatTemplate, with_tools
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.decoding import GREEDY, Decoding, seed_of
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.evidence import ANSWERED, Measurement, Stage
from quantwise.core.item import Item
from quantwise.core.runtime import Ask, CacheUse, Footprint, PagedCache, Reply, Runtime, RuntimeOptions, Session
from quantwise.runtimes.thinking import answered
from quantwise.tasks import scorers

ItemSupply = Callable[[str, int], Sequence[Item]]
"""Task name and count to its first items, in the frozen order; fewer where the task has no more."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A candidate with its bytes, its runtime, and the way it is run and asked; ``seed`` is the question's.

    ``template_arguments`` are for a server that renders by its own template; those of ``template`` are in it.
    """

    candidate: Candidate
    artifact: Artifact
    runtime: Runtime
    options: RuntimeOptions
    template: ChatTemplate | None
    decoding: Decoding = GREEDY
    seed: int = 0
    template_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name


class Bench:
    """The open sessions. Use as a context manager; closing it ends every server it started."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        """``limit_bytes`` bounds what the open arms may hold together; None means no bound is known."""
        self._limit = limit_bytes
        self._open: OrderedDict[str, tuple[Arm, Session, ExitStack]] = OrderedDict()
        self._peak: dict[str, Footprint] = {}
        self._used: dict[str, CacheUse] = {}
        self._dequantized: set[str] = set()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            self.close(name)

    def close(self, name: str) -> None:
        """Close one arm, remembering what it occupied. Closing a closed arm does nothing."""
        held = self._open.pop(name, None)
        if held is not None:
            self._peak[name] = held[1].footprint()
            if isinstance(held[1], PagedCache):
                self._used[name] = held[1].cache_use()
            held[2].close()

    def session(self, arm: Arm) -> Session:
        """The arm's session, opened if it is not. Raises RuntimeFailure when it cannot be loaded."""
        if arm.name not in self._open:
            self.make_room(arm)
            stack = ExitStack()
            try:
                session = stack.enter_context(arm.runtime.open(arm.artifact, arm.options))
            except InputError as error:
                # It was there when the question was posed, so it is the place that changed and not the input.
                raise RuntimeFailure(str(error)) from error
            self._open[arm.name] = (arm, session, stack)
            # One that is gone already tells when it is asked.
            with suppress(RuntimeFailure):
                if session.footprint().executes == "dequantized":
                    self._dequantized.add(arm.name)
        self._open.move_to_end(arm.name)
        return self._open[arm.name][1]

    def footprint(self, name: str) -> Footprint | None:
        """What the arm occupies, or occupied when it was closed; None if it never ran."""
        return self._open[name][1].footprint() if name in self._open else self._peak.get(name)

    def cache_use(self, name: str) -> CacheUse | None:
        """What the arm's server has counted, or had when it was closed; None if it counts nothing or never ran."""
        if name not in self._open:
            return self._used.get(name)
        session = self._open[name][1]
        return session.cache_use() if isinstance(session, PagedCache) else None

    def make_room(self, arm: Arm) -> None:
        """Close the arms unused for longest until ``arm`` fits beside the others."""
        if self._limit is None:
            return
        while self._open and _held(arm, *(a for a, _, _ in self._open.values())) > self._limit:
            self.close(next(iter(self._open)))

    def ask(self, arm: Arm, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in the order of the asks; a runtime that dies over them is started again once, then they crash.

        Raises RuntimeFailure when it cannot be opened (any more): then it is gone, whatever was asked.
        """
        why = ""
        for _ in range(2):
            session = self.session(arm)
            try:
                return session.ask(asks)
            except RuntimeFailure as error:
                why = str(error)
                self._open.pop(arm.name)[2].close()
        return [Reply(finish="crash", error=why) for _ in asks]

    def block(
        self, arm: Arm, items: Sequence[Item], *, stage: Stage, task: str, block: int, repeat: int = 0
    ) -> list[Measurement]:
        """Ask one block of items of one task and score the replies, an item's repeats next to each other.

        What certifies is asked as often as the question says; a look before it asks once. A choice is asked once too,
        for it is not drawn.
        """
        times = arm.decoding.repeats if stage == "certify" else 1
        wanted = [(item, r) for item in items for r in range(1 if item.choices else times)]
        asks = [_ask(item, arm, repeat + r) for item, r in wanted]
        replies = self.ask(arm, asks)
        if arm.decoding.thinking_cap is not None:
            replies = self._without_thinking(arm, [item for item, _ in wanted], asks, replies)
        place = Measurement(arm.name, stage, task, "", repeat, block, None, "", "")
        return [
            _row(replace(place, repeat=repeat + r), item, reply, arm, arm.name not in self._dequantized)
            for (item, r), reply in zip(wanted, replies, strict=True)
        ]

    def _without_thinking(
        self, arm: Arm, items: Sequence[Item], asks: Sequence[Ask], replies: Sequence[Reply]
    ) -> list[Reply]:
        cap = arm.decoding.thinking_cap or 0
        count = self._counter(arm)
        return [
            reply if item.choices else answered(ask, reply, cap, item.stop, count)
            for item, ask, reply in zip(items, asks, replies, strict=True)
        ]

    def _counter(self, arm: Arm) -> Callable[[str], int] | None:
        """Counts the tokens of a text as the arm's own tokenizer does, where its session has one and is still open."""
        held = self._open.get(arm.name)
        tokenize = getattr(held[1], "tokenize", None) if held is not None else None
        if tokenize is None:
            return None

        def count(text: str) -> int:
            return len(tokenize(text)) - len(tokenize(""))

        return count


def why_lost(arm: Arm, error: RuntimeFailure) -> str:
    """Why a candidate goes no further. That somebody else's server is away says nothing of the candidate."""
    if arm.candidate.runtime == "openai" and arm.runtime.refuses(arm.artifact) is None:
        return f"UNKNOWN, because its server is away ({error}); run the same command when it answers again"
    return f"cannot be run: {error}"


def _held(*arms: Arm) -> int:
    return sum(arm.artifact.bytes or 0 for arm in arms)


def _ask(item: Item, arm: Arm, repeat: int) -> Ask:
    """One rendering for every runtime; without a template a server renders for itself, a file reads plain text.

    A stop text may well occur in what is thought, so a thinking model is only stopped after its answer.
    """
    how = arm.decoding
    shape = Ask(max_tokens=item.max_tokens, stop=item.stop, choices=item.choices)
    if how.thinking_cap is not None and not item.choices:
        shape = replace(shape, max_tokens=item.max_tokens + how.thinking_cap, stop=())
    if how.sampled and not item.choices:
        seed = seed_of(arm.seed, item.task, item.id, repeat)
        shape = replace(shape, temperature=how.temperature, top_p=how.top_p, seed=seed)
        shape = replace(shape, top_k=how.top_k, min_p=how.min_p)
    if item.prompt is not None:
        return replace(shape, text=item.prompt, rendered=False)
    tools = tuple(item.options["tools"]) if item.scorer == "tool_call" else ()
    if arm.template is not None:
        return replace(shape, text=arm.template.render(item.messages, tools=tools), rendered=True)
    if tools and arm.artifact.format != "server":
        # A model without a template reads plain text, and there is no other place for the functions.
        return replace(shape, messages=with_tools(item.messages, tools))
    return replace(shape, messages=item.messages, tools=tools, template_arguments=arm.template_arguments)


def _row(place: Measurement, item: Item, reply: Reply, arm: Arm, real: bool) -> Measurement:
    """``real`` is False where the session said that it expands weights, whatever was expected of the candidate."""
    timed = arm.candidate.computes_as_stored and real
    unanswered = arm.decoding.thinking_cap is not None and reply.finish == "length" and not reply.text
    if reply.finish not in ANSWERED:
        value, output = 0.0, reply.text
    elif item.choices:
        value = scorers.score_choice(item, reply.choice_logprobs)
        output = " ".join(f"{p:.4f}" for p in reply.choice_logprobs)
    else:
        value, output = 0.0 if unanswered else scorers.score(item, reply.text), reply.text
    return replace(
        place,
        item=item.id,
        score=value,
        finish=reply.finish,
        output=output,
        cluster=item.cluster,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=reply.output_tokens,
        seconds=reply.seconds if timed else None,
        first_token_seconds=reply.first_token_seconds if timed else None,
        error=reply.error,
        thinking_tokens=reply.thinking_tokens,
    )
