"""What a runtime really reads when it is asked, the only place where two renderings can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from quantwise.core.runtime import Ask


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """The prompt of one ask as its runtime reads it. ``None`` reads as unknown.

    ``ids`` are token ids in order, ``pieces`` their texts (empty where they are not told), ``count`` how many tokens
    the runtime says that it read when it was really asked, which need not be the number of ids that another endpoint
    tells. ``source`` names who told it; ``refused`` says why the runtime takes no such prompt.
    """

    ids: tuple[int, ...] | None = None
    pieces: tuple[str, ...] = ()
    count: int | None = None
    source: str = ""
    refused: str | None = None


@runtime_checkable
class TellsPrompts(Protocol):
    """A session that tells what it reads. Not every runtime can, and one that can may tell counts only."""

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """The prompt of ``ask``; its ``choices`` and its limit of tokens do not matter.

        Raises RuntimeFailure where the runtime failed over it.
        """
        ...
