"""Evidence: rows that were measured, and what a planner says before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["aa", "screen", "certify"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One item, one candidate, one repeat: a row of the evidence.

    ``score`` lies in [0, 1]; it is 0.0 for a failed or unparsable answer of a candidate, and ``finish`` says which.
    It is None only where nothing was measured. ``cluster`` names items that count as one. ``seconds`` is unknown
    (None) where the runtime's time would mislead. ``thinking_tokens`` are part of ``output_tokens``; ``output`` is the
    answer without them.
    """

    candidate: str
    stage: Stage
    task: str
    item: str
    repeat: int
    block: int
    score: float | None
    finish: str
    output: str
    cluster: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    error: str | None = None
    thinking_tokens: int | None = None


ANSWERED = ("stop", "length")
"""Ways in which a request ends with an answer: the model stopped, or was stopped at its cap of tokens."""
LOST = ("timeout", "crash")
"""Ways in which a request ends without an answer that somebody meant: what it would have been is unknown."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Baseline and candidate on one item (or one cluster): scores in [0, 1]."""

    item: str
    baseline: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What the planner says of a candidate's bytes at one site. Bytes; ``None`` reads as unknown."""

    candidate: str
    weights_bytes: int | None
    cache_bytes: int | None
    overhead_bytes: int | None
    limit_bytes: int | None
    fits: Literal["yes", "marginal", "no", "unknown"]
    fix: str | None = None

    @property
    def total_bytes(self) -> int | None:
        """Sum of the known terms, or None where one of them is unknown."""
        terms = (self.weights_bytes, self.cache_bytes, self.overhead_bytes)
        known = [t for t in terms if t is not None]
        return sum(known) if len(known) == len(terms) else None
