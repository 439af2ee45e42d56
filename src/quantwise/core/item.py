"""What is asked: an item of a task, and how its answer is to be scored."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
ScorerName = Literal[
    "exact", "contains", "regex", "numeric", "json_schema", "json_equal", "choice", "code", "tool_call"
]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its target; exactly one of ``prompt`` (raw text) and ``messages`` (a conversation) is given.

    ``target`` is what the scorer compares with: a text, a number, a JSON value, or the index of the right choice.
    ``options`` are the scorer's own (a JSON Schema, a pattern, test inputs). ``cluster`` names items that share a
    passage or a template and must be counted as one.
    """

    id: str
    task: str
    target: Any
    scorer: ScorerName
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    choices: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    max_tokens: int = 64
    stop: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The question as plain text, without a chat template."""
        return self.prompt if self.prompt is not None else "\n".join(m.content for m in self.messages)


def fingerprint(text: str) -> str:
    """Hash of a prompt after folding case, width and white space: equal prompts collide, whatever their typography."""
    folded = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()
