"""The plug point for runtimes: who executes an artifact's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from quantwise.core.artifact import Artifact
from quantwise.core.item import Message

# Weights as they are, read by a kernel for few bits, or expanded to 16 bit (or to a byte each) before they are computed
# with: then answers count, and times and memory are nobody's.
Executes = Literal["as stored", "packed", "dequantized"]
Finish = Literal["stop", "length", "timeout", "crash", "refused"]


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How an artifact is run; part of the question, because changing any of them may change the answers.

    All but ``retry_s``: the seconds for which an item is asked again of a server that somebody else runs, if that is
    busy, away or fails; 0 for not at all.
    """

    cache: str = "f16"
    context: int = 1024
    threads: int | None = None
    parallel: int = 8
    timeout_s: float = 120.0
    retry_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``text`` is the rendered prompt; a runtime that has to render itself is given ``messages`` instead.

    With ``choices`` nothing is generated: the reply carries the summed log-probability of each choice after the prompt.
    ``rendered`` says that ``text`` is complete, special tokens included, as a chat template
    leaves it; where it is False the tokenizer adds what it adds by default (a beginning-of-sequence token).
    Decoding is greedy at ``temperature`` 0; else the answer is drawn, by ``seed``, from what ``top_k``, ``top_p`` and
    ``min_p`` leave as `core.decoding` has it, and what is asked beside it changes nothing but rounding. With
    ``messages`` go ``tools``, what the server's own template is to show of functions that can be called, and
    ``template_arguments``, what it is told besides.
    """

    text: str | None = None
    messages: tuple[Message, ...] = ()
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    rendered: bool = True
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. ``None`` reads as unknown, never as zero.

    ``seconds`` is wall time from the request's start to its end; ``first_token_seconds`` likewise to its first token.
    ``choice_logprobs`` are natural logarithms, in the order of the choices. A failed request has a ``finish`` of
    ``timeout``, ``crash`` or ``refused`` and says why in ``error``; the ``error`` of an answered one says what went
    wrong before it was. ``thinking`` is what a server parted from the answer by itself; ``thinking_tokens`` are part of
    ``output_tokens``.
    """

    text: str = ""
    finish: Finish = "stop"
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    choice_logprobs: tuple[float, ...] = ()
    error: str | None = None
    thinking: str | None = None
    thinking_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a running artifact occupies, as measured or as its runtime reports; ``None`` where nobody knows.

    ``executes`` says how its weights are computed with, where the runtime tells.
    """

    weights_bytes: int | None = None
    cache_bytes: int | None = None
    compute_bytes: int | None = None
    peak_process_bytes: int | None = None
    executes: Executes | None = None


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a server's own counters say of its paged cache since the session was opened; ``None`` is not told.

    It has ``blocks`` of ``block_tokens`` tokens for requests; ``most_blocks_seen`` were in use at once when it was
    looked at, which is now and then. ``prefix_cache_hit_rate`` is the share of prompt tokens that were found in the
    cache where ``prefix_caching`` is on; ``preemptions`` counts requests put back for lack of blocks and then computed
    again.
    """

    blocks: int | None = None
    block_tokens: int | None = None
    most_blocks_seen: int | None = None
    prefix_caching: bool | None = None
    prefix_cache_hit_rate: float | None = None
    preemptions: int | None = None


class Session(Protocol):
    """An artifact loaded and ready. Requests given together may be batched; replies come in the order of the asks."""

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer every ask; a request that fails is a Reply that says so, never an exception that loses the others.

        Raises RuntimeFailure only when the runtime itself is gone.
        """
        ...

    def footprint(self) -> Footprint:
        """What it occupies now."""
        ...


@runtime_checkable
class Distributions(Protocol):
    """A session that also tells next-token distributions, for divergence. Not every runtime can."""

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """For each position of the tokenized ``text`` but the last: token id to log-probability, ``top`` of them."""
        ...


@runtime_checkable
class PagedCache(Protocol):
    """A session whose server counts the blocks of its cache."""

    def cache_use(self) -> CacheUse:
        """What it has counted so far."""
        ...


class Runtime(Protocol):
    """One place where artifacts run."""

    @property
    def name(self) -> str:
        """The name after ``@`` in a candidate."""
        ...

    def version(self) -> str:
        """Build of the runtime, as it goes into the question."""
        ...

    def refuses(self, artifact: Artifact) -> str | None:
        """The reason why this runtime cannot load the artifact, or None."""
        ...

    def open(self, artifact: Artifact, options: RuntimeOptions) -> AbstractContextManager[Session]:
        """Load the artifact. Raises RuntimeFailure when it cannot."""
        ...
