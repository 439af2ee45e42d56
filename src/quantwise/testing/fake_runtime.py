"""A runtime for tests only: it knows the right answers and gets a chosen share of them wrong, by a seed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from quantwise.core.artifact import Artifact
from quantwise.core.errors import RuntimeFailure
from quantwise.core.runtime import Ask, Finish, Footprint, Reply, RuntimeOptions

WRONG = "this is not the answer"


@dataclass(frozen=True, slots=True)
class FakeRuntime:
    """Answers ``right(ask)``, except for a share of the asks that depends on where the artifact lies.

    ``shared_errors`` is the share that every artifact gets wrong alike (hard items), ``errors[location]`` what that
    artifact gets wrong besides; ``timeouts`` and ``crashes`` are shares too, also by location. Whether an ask is hit
    depends on the seed, the location and the prompt alone, so the same ask always fares the same; at a temperature also
    on the ask's own seed, but for hard items. After ``dies_after`` asks the session raises RuntimeFailure. With
    choices, ``right`` returns the right choice's text.
    """

    right: Callable[[Ask], str]
    errors: Mapping[str, float] = field(default_factory=dict)
    shared_errors: float = 0.0
    timeouts: Mapping[str, float] = field(default_factory=dict)
    crashes: Mapping[str, float] = field(default_factory=dict)
    dies_after: int | None = None
    delay_s: float = 0.0
    seed: int = 0
    name: str = "fake"

    def version(self) -> str:
        """It never changes."""
        return "fake 1"

    def refuses(self, artifact: Artifact) -> str | None:
        """It takes everything but a location that says otherwise."""
        return "this artifact is for being refused" if artifact.location.endswith("refused") else None

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[FakeSession]:
        """A session. Raises RuntimeFailure for what it refuses."""
        if (reason := self.refuses(artifact)) is not None:
            raise RuntimeFailure(reason)
        yield FakeSession(self, artifact.location, options)


class FakeSession:
    """Scripted answers, and next-token distributions over four tokens that differ more the more errors there are."""

    def __init__(self, runtime: FakeRuntime, location: str, options: RuntimeOptions) -> None:
        self._runtime = runtime
        self._location = location
        self._options = options
        self._asked = 0

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order."""
        replies = [self._answer(ask) for ask in asks]
        self._asked += len(asks)
        if self._runtime.dies_after is not None and self._asked > self._runtime.dies_after:
            raise RuntimeFailure("the fake runtime died, as it was told to")
        return replies

    def footprint(self) -> Footprint:
        """Made-up bytes."""
        return Footprint(weights_bytes=1000, cache_bytes=200, compute_bytes=30, peak_process_bytes=1300)

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """One position per pair of neighbouring words."""
        noise = self._runtime.errors.get(self._location, 0.0)
        out = []
        for position in range(len(text.split()) - 1):
            sizes = [1.0 + self._draw("p", text, position, token) for token in range(4)]
            sizes = [s * (1 + noise * self._draw(self._location, text, position, t)) for t, s in enumerate(sizes)]
            logprobs = {token: math.log(size / sum(sizes)) for token, size in enumerate(sizes)}
            out.append(dict(sorted(logprobs.items(), key=lambda kv: -kv[1])[:top]))
        return out

    def _answer(self, ask: Ask) -> Reply:
        runtime, here = self._runtime, self._location
        prompt = ask.text if ask.text is not None else "\n".join(m.content for m in ask.messages)
        time.sleep(runtime.delay_s)
        if runtime.delay_s > self._options.timeout_s or self._draw("t", here, prompt) < runtime.timeouts.get(here, 0.0):
            return Reply(finish="timeout", seconds=self._options.timeout_s, error="too slow, as told")
        if self._draw("c", here, prompt) < runtime.crashes.get(here, 0.0):
            return Reply(finish="crash", error="crashed, as told")
        if len(prompt.split()) > self._options.context:
            return Reply(finish="refused", error="longer than the context")
        hard = self._draw("shared", prompt) < runtime.shared_errors
        lot = (ask.seed,) if ask.temperature > 0 else ()
        wrong = hard or self._draw("e", here, prompt, *lot) < runtime.errors.get(here, 0.0)
        right, tokens = runtime.right(ask), len(prompt.split())
        if ask.choices:
            picked = min((c for c in ask.choices if c != right), default=right) if wrong else right
            logprobs = tuple(math.log(0.7 if c == picked else 0.3 / len(ask.choices)) for c in ask.choices)
            return Reply(prompt_tokens=tokens, seconds=runtime.delay_s, choice_logprobs=logprobs)
        words = (WRONG if wrong else right).split(" ")
        text = " ".join(words[: ask.max_tokens])
        for stop in ask.stop:
            text = text.split(stop)[0]
        finish: Finish = "length" if len(words) > ask.max_tokens else "stop"
        return Reply(text, finish, tokens, min(len(words), ask.max_tokens), runtime.delay_s, runtime.delay_s)

    def _draw(self, *what: object) -> float:
        """A uniform number in [0, 1) that depends on the seed and ``what`` alone."""
        digest = hashlib.blake2b(repr((self._runtime.seed, *what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
