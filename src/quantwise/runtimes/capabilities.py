"""What an OpenAI-compatible server can do, found out by asking it once, and what is missing for it.

A field that a server does not know it may refuse, or silently ignore; so each answer is looked at for what was asked
for: a JSON Schema that only one unlikely object keeps, a call of a tool by its name, the same text from the same seed
and another from another one. True and False are findings, None is unknown (the server was busy, failed, or its answer
allows no conclusion).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import httpx

from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.llama_server import UNREADABLE, checked
from quantwise.runtimes.server_metrics import counts_cache
from quantwise.runtimes.whole_answer import whole

_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
_SCHEMA = {
    "type": "object",
    "properties": {"bird": {"type": "string", "enum": ["quantwise-7"]}},
    "required": ["bird"],
    "additionalProperties": False,
}
_SATISFIES = '{"bird":"quantwise-7"}'
_TOOL = {
    "type": "function",
    "function": {
        "name": "name_bird",
        "description": "Name a bird.",
        "parameters": {"type": "object", "properties": {"bird": {"type": "string"}}, "required": ["bird"]},
    },
}
_SEEDS = (11, 11, 12, 13)
_TOLD = ("max_model_len", "quantization", "root", "owned_by")
_MOST_BYTES, _MOST_SECONDS = 4 * 1024 * 1024, 60.0
"""Of one answer, from its first byte: a few tokens and a page of counters stay far below."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Findings by name. ``told`` is what ``/v1/models`` says of the model, ``unclear`` why something is unknown,
    ``refused`` what the server said where it refused to be asked."""

    chat: bool | None = None
    completions: bool | None = None
    usage: bool | None = None
    log_probabilities: bool | None = None
    scores_given_text: bool | None = None
    distributions: bool | None = None
    json_schema: bool | None = None
    seeds: bool | None = None
    tools: bool | None = None
    streaming: bool | None = None
    metrics: bool | None = None
    cache_counters: bool | None = None
    told: dict[str, Any] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the store keeps it, with the sentences on what is missing."""
        return asdict(self) | {"missing": missing(self)}


@runtime_checkable
class TellsCapabilities(Protocol):
    """A session with a server whose abilities have to be found out."""

    def capabilities(self) -> dict[str, Any]:
        """`Capabilities.to_json` of the server; it never fails: what is not found out is unknown."""
        ...


_WITHOUT = {
    "chat": "no chat endpoint: tasks of conversations are refused",
    "completions": "no endpoint for rendered prompts: tasks of plain texts are refused",
    "usage": "no token counts: output lengths are unknown",
    "log_probabilities": "no log-probabilities",
    "scores_given_text": "no scores of given text: tasks of choices are refused",
    "distributions": "no distributions by token id: divergence is unknown",
    "json_schema": "no JSON Schema: the form of answers is up to the model",
    "seeds": "no seeds: sampled answers cannot be had again",
    "tools": "no tool calls",
    "streaming": "no streaming: the time to the first token is unknown",
    "metrics": "no /metrics: cache hits and preemptions are unknown",
    "cache_counters": "its /metrics tells nothing of its cache: cache hits and preemptions are unknown",
}


def missing(found: Capabilities) -> list[str]:
    """What the server cannot do, each with what follows from it; then what could not be found out."""
    names = [name for name in _WITHOUT if name != "cache_counters" or found.metrics]
    lacks = [_WITHOUT[name] for name in names if getattr(found, name) is False]
    if found.tools is False and "tools" in found.refused:  # mostly a flag that the server was started without
        lacks[lacks.index(_WITHOUT["tools"])] += f" ({found.refused['tools']})"
    unknown = [name.replace("_", " ") for name in names if getattr(found, name) is None]
    return lacks + ([f"not found out: {', '.join(unknown)}"] if unknown else [])


def probe(http: httpx.Client, model: str, *, native: bool) -> Capabilities:
    """Ask for each once. ``native``: of a llama-server's own interface it is known that it tells log-probabilities by
    token id and scores what is given to it.
    """
    found: dict[str, bool | None] = {"distributions": True, "scores_given_text": True} if native else {}
    refused: dict[str, str] = {}
    ask = _Asking(http, model)
    names = {f.name for f in fields(Capabilities)} - {"told", "unclear", "refused", *found}
    for name in sorted(names):
        look: Callable[[], bool | None] = getattr(ask, name)
        try:
            found[name] = look()
        except Refused as error:
            found[name] = False
            refused[name] = str(error)
        except (httpx.HTTPError, *UNREADABLE) as error:
            found[name] = None
            ask.unclear[name] = " ".join(f"{type(error).__name__} {error}".split())[:200]
    return Capabilities(**found, told=_model_entry(http, model), unclear=ask.unclear, refused=refused)


class _Asking:
    """One method for each capability; a method that returns has looked at an answer, one that raises has none."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        self._http = http
        self._model = model
        self.unclear: dict[str, str] = {}

    def chat(self) -> bool:
        return isinstance(self._chat()["choices"][0]["message"], dict)

    def completions(self) -> bool:
        return isinstance(self._post(_TEXT, {"prompt": "One, two,"})["choices"][0]["text"], str)

    def usage(self) -> bool:
        try:
            got = self._chat()
        except Refused:
            got = self._post(_TEXT, {"prompt": "One, two,"})
        usage = got.get("usage")
        return isinstance(usage, dict) and all(
            type(usage.get(k)) is int for k in ("prompt_tokens", "completion_tokens")
        )

    def log_probabilities(self) -> bool:
        told = self._chat(logprobs=True, top_logprobs=2)["choices"][0].get("logprobs")
        content = told.get("content") if isinstance(told, dict) else None
        return isinstance(content, list) and bool(content) and isinstance(content[0].get("logprob"), int | float)

    def scores_given_text(self) -> bool:
        told = self._post(_TEXT, {"prompt": "One, two,", "echo": True, "logprobs": 1})["choices"][0]
        values = (told.get("logprobs") or {}).get("token_logprobs") or []
        return str(told.get("text", "")).startswith("One, two,") and len(values) > 2

    def distributions(self) -> bool:
        """As vLLM tells them: the likeliest tokens by id for each token that was read, itself among them."""
        asked = {"prompt": "One, two,", "prompt_logprobs": 1, "return_token_ids": True}
        told = self._post(_TEXT, asked)["choices"][0]
        ids, places = told.get("prompt_token_ids"), told.get("prompt_logprobs")
        if not ids or not places or len(ids) != len(places):
            return False
        return len(ids) > 1 and all(str(read) in place for read, place in zip(ids[1:], places[1:], strict=True))

    def json_schema(self) -> bool | None:
        """The one object that satisfies it. White space is free, and a small model may go on with it until it is cut
        off: then what was begun tells, if it names the property that nobody but the schema did.
        """
        wanted = {"type": "json_schema", "json_schema": {"name": "bird", "strict": True, "schema": _SCHEMA}}
        choice = self._chat(48, response_format=wanted)["choices"][0]
        text = "".join((choice["message"].get("content") or "").split())
        if choice.get("finish_reason") == "length" and _SATISFIES.startswith(text):
            return True if text.startswith('{"bird"') else None
        return bool(text == _SATISFIES)

    def seeds(self) -> bool | None:
        """The same text from the same seed, another one from another; all alike tells nothing."""
        texts = [self._chat(16, temperature=1.0, seed=seed)["choices"][0]["message"]["content"] for seed in _SEEDS]
        if texts[0] != texts[1]:
            return False
        return True if len(set(texts)) > 1 else None

    def tools(self) -> bool | None:
        """Asked as items are, with the choice left to the model; where it calls nothing, whether the tools reached it.

        ``tool_choice`` comes last: Ollama 0.32 ignores it (its issue 17921), LM Studio answers "required" with nothing
        (lmstudio-bug-tracker 1904), llama.cpp and vLLM from 0.8.3 on force a call, and vLLM then needs no
        ``--enable-auto-tool-choice``, without which it refuses every item. SGLang calls with ``--tool-call-parser``.
        """
        turns: dict[str, Any] = {"messages": [{"role": "user", "content": "Call name_bird for the gull."}]}
        shown = turns | {"tools": [_TOOL]}
        got = self._chat(64, **shown)
        if _calls(got):
            return True
        with_tools, without = _prompt_tokens(got), _prompt_tokens(self._chat(**turns))
        if with_tools is not None and with_tools == without:
            return False
        try:
            if _calls(self._chat(64, **shown, tool_choice="required")):
                return True
        except Refused:
            pass
        self.unclear["tools"] = "it takes tools, and the model called none"
        return None

    def streaming(self) -> bool:
        response = _whole(self._http, "POST", _CHAT, self._body(4) | {"stream": True})
        if response.is_error:
            checked(response)
        events = [e.removeprefix("data:").strip() for e in response.text.splitlines() if e.startswith("data:")]
        return len(events) > 1 and events[-1] == "[DONE]" and all("choices" in json.loads(e) for e in events[:-1])

    def metrics(self) -> bool:
        """Prometheus' text format; a page that happens to lie there is none."""
        response = _whole(self._http, "GET", "/metrics")
        return response.is_success and any(line.startswith("# TYPE ") for line in response.text.splitlines())

    def cache_counters(self) -> bool:
        """Of what vLLM counts; a llama-server counts tokens and requests only."""
        response = _whole(self._http, "GET", "/metrics")
        return response.is_success and counts_cache(response.text)

    def _chat(self, most: int = 2, **fields: Any) -> dict[str, Any]:
        return self._post(_CHAT, self._body(most) | fields)

    def _body(self, most: int) -> dict[str, Any]:
        turn = {"role": "user", "content": "Name three birds of the harbour."}
        return {"model": self._model, "messages": [turn], "max_tokens": most, "temperature": 0}

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = {"model": self._model, "max_tokens": 2, "temperature": 0} | body
        return checked(_whole(self._http, "POST", path, asked))


def _calls(got: dict[str, Any]) -> bool:
    """Whether the tool is called by its name, with an object as its arguments."""
    calls = got["choices"][0]["message"].get("tool_calls")
    called = calls[0]["function"] if calls else {}
    return called.get("name") == "name_bird" and isinstance(json.loads(called["arguments"]), dict)


def _prompt_tokens(got: dict[str, Any]) -> int | None:
    usage = got.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int else None


def _whole(http: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """The response with its body, read to the end or to the end of a stream of events, as `whole` does.

    It has to end within `_MOST_BYTES` and `_MOST_SECONDS`: who ignores ``max_tokens`` may stream for ever.
    """
    with http.stream(method, path, json=body) as response:
        return whole(response, time.monotonic() + _MOST_SECONDS, _MOST_BYTES, b"data: [DONE]")


def _model_entry(http: httpx.Client, model: str) -> dict[str, Any]:
    """What ``/v1/models`` says of the model, of the fields that several servers give and llama.cpp's ``meta``."""
    try:
        entries = checked(_whole(http, "GET", "/v1/models"))["data"]
        entry = next(e for e in entries if e.get("id") == model)
    except (httpx.HTTPError, Refused, StopIteration, *UNREADABLE):
        return {}
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    plain = {k: entry[k] for k in _TOLD if isinstance(entry.get(k), str | int)}
    return plain | {k: v for k, v in meta.items() if isinstance(v, str | int)}
