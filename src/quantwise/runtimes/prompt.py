"""What a runtime of ours reads for an ask, what a chat endpoint is given of it, and where a choice begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from quantwise.core.runtime import Ask


def prompt_text(ask: Ask) -> tuple[str, bool]:
    """The text to tokenize, and whether its special tokens are already there.

    Messages without a rendering mean that the model has no chat template: it reads them as plain text, line after line.
    """
    if ask.text is not None:
        return ask.text, ask.rendered
    return "\n".join(m.content for m in ask.messages), False


def chat_fields(ask: Ask) -> dict[str, Any]:
    """What a chat endpoint is given: messages, tools, and what the server's own template is told beside them.

    ``chat_template_kwargs`` is the word of llama.cpp, vLLM and SGLang for it.
    """
    told = {"tools": list(ask.tools), "chat_template_kwargs": dict(ask.template_arguments)}
    turns = [{"role": m.role, "content": m.content} for m in ask.messages]
    return {"messages": turns} | {name: value for name, value in told.items() if value}


def align(prompt: Sequence[int], wholes: Sequence[Sequence[int]], opening: int | None) -> tuple[int, list[list[int]]]:
    """How many tokens all choices are conditioned on, and each choice's tokens with those before it.

    ``prompt`` is the tokenized prompt, ``wholes`` the tokenized prompt + choice texts. A tokenizer may merge the
    prompt's end with a choice's beginning, so the prompt's own token count can lie inside a token; the longest prefix
    that all of them share with the prompt never does, and it makes the sums of one item's choices comparable: each is
    the log-probability of everything after the same tokens. At least one token is left for each choice. Where nothing
    stands before the choices, the ``opening`` token does (what the tokenizer puts before a text, or else the token
    that ends one, as a document boundary); where there is none either, the count is 0 and the first token cannot be
    scored.
    """
    rows = [list(whole) for whole in wholes]
    columns = zip(prompt, *rows, strict=False)
    agreed = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    shared = min([agreed, *(len(row) - 1 for row in rows)])
    if shared < 1 and opening is not None and all(rows):
        return 1, [[opening, *row] for row in rows]
    return max(shared, 0), rows
