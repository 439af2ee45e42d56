"""What an OpenAI-compatible server reads for a prompt: token ids where it tells them, else how many there were.

The server is really asked, for one token. vLLM then returns the ids that it read (``return_token_ids``); its
``/tokenize`` also tells their texts, of messages rendered by its own template. Everybody else counts at best
(``usage.prompt_tokens``). A server that knows none of these fields and refuses them is asked without.
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from typing import Any

import httpx

from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.llama_server import UNREADABLE, checked
from quantwise.runtimes.prompt import chat_fields


def prompt_tokens(http: httpx.Client, model: str, ask: Ask) -> PromptTokens:
    """As in `TellsPrompts`. Raises what httpx raises, and what reading an answer raises that cannot be read."""
    path, body = _request(model, ask)
    try:
        got = _asked(http, path, body)
    except Refused as error:
        return PromptTokens(refused=str(error))
    count = _count(got)
    read = _ids(got.get("prompt_token_ids")) or _ids(got["choices"][0].get("prompt_token_ids"))
    told, pieces = _tokenized(http, model, ask)
    if read is not None:
        return PromptTokens(read, pieces if told == read else (), count, "prompt_token_ids")
    # What another endpoint tells is believed where it agrees with what was read.
    if told is not None and count in (None, len(told)):
        return PromptTokens(told, pieces, count, "/tokenize")
    # A count that leaves out what was cached says nothing of the prompt; asked again, it is another.
    if count is None or _count(_asked(http, path, body)) != count:
        return PromptTokens()
    return PromptTokens(count=count, source="usage.prompt_tokens")


def _request(model: str, ask: Ask) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0, "stream": False}
    if ask.text is None:
        return "/v1/chat/completions", body | chat_fields(ask)
    extra = {"add_special_tokens": False} if ask.rendered else {}
    return "/v1/completions", body | {"prompt": ask.text} | extra


def _asked(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return checked(http.post(path, json=body | {"return_token_ids": True}))
    except Refused:
        return checked(http.post(path, json=body))


def _tokenized(http: httpx.Client, model: str, ask: Ask) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Ids and their texts by vLLM's ``/tokenize``; (None, ()) where there is none that understands this."""
    what: dict[str, Any] = {**chat_fields(ask), "add_generation_prompt": True}
    if ask.text is not None:
        what = {"prompt": ask.text, "add_special_tokens": not ask.rendered}
    try:
        got = checked(http.post("/tokenize", json={"model": model, "return_token_strs": True} | what))
    except (httpx.HTTPError, Refused, *UNREADABLE):
        return None, ()
    ids, pieces = _ids(got.get("tokens")), got.get("token_strs")
    fits = ids is not None and isinstance(pieces, list) and len(pieces) == len(ids)
    return ids, tuple(map(str, pieces)) if fits and pieces else ()


def _ids(value: object) -> tuple[int, ...] | None:
    known = isinstance(value, list) and value and all(type(i) is int for i in value)
    return tuple(value) if known and isinstance(value, list) else None


def _count(got: dict[str, Any]) -> int | None:
    usage = got.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and count > 0 else None
