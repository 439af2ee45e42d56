"""Streamed answers of an OpenAI-compatible server, with the time of every piece of text.

A request ends in exactly one :data:`Outcome`; only a stream with a finish reason and the closing ``[DONE]`` is ``ok``.
Nothing is tried twice: whoever counts latencies must see what the user would have seen.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import httpx

from quantwise.core.runtime import Ask
from quantwise.runtimes.event_stream import EventStream, NotEvents, ServerSaid, one_line
from quantwise.runtimes.lean_http import LeanHttp, NotHttp, Response
from quantwise.runtimes.llama_server import key_header, said
from quantwise.runtimes.openai_api import same_model
from quantwise.runtimes.server_address import chosen_model, http_client, split_url

Outcome = Literal[
    "ok", "refused", "overloaded", "error", "timeout", "broken", "malformed", "unfinished", "other_model", "not_sent"
]
"""``refused`` is status 4xx, ``overloaded`` 429, ``error`` 5xx or an error told within the stream, ``broken`` a lost
connection, ``unfinished`` a stream without finish reason or ``[DONE]``; ``not_sent`` is for whoever had no room for it.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

clock = time.perf_counter

_MOST_SAID = 1 << 16
_MOST_TOKENS = 1 << 40
_TEXTS = ("content", "reasoning_content", "reasoning")
_NO_ANSWER = ("abort", "error", "content_filter")


@dataclass(frozen=True, slots=True)
class Server:
    """One model behind a URL: ``root`` is its address without ``/v1``."""

    url: str
    root: str
    model: str


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request that is ready to be sent."""

    path: str
    body: bytes
    model: str


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came back. Times are seconds of :data:`clock`; None reads as unknown.

    ``pieces`` are the times at which text came (several tokens may share one), ``finished`` when the finish reason
    did. Tokens are as the server counts them. ``server_seconds`` are the seconds of (prefill, decode) that a
    llama-server tells, ``server_tokens`` the tokens computed in each.
    """

    outcome: Outcome
    sent: float
    ended: float
    error: str | None = None
    status: int | None = None
    text: str = ""
    pieces: tuple[float, ...] = ()
    finished: float | None = None
    finish: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    server_seconds: tuple[float, float] | None = None
    server_tokens: tuple[int, int] | None = None


class _Fault(Exception):
    """Why this is no answer."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome: Outcome = outcome


def find_server(url: str) -> Server:
    """The server behind a URL, and its model (the only one it names, or the one after ``#``).

    Raises InputError naming the URL where nothing there speaks this protocol, or several models are served.
    """
    root, wanted = split_url(url)
    with http_client(root, 15.0, 1) as http:
        return Server(url, root, chosen_model(http, root, wanted))


def streaming_client(server: Server) -> LeanHttp:
    """A client for :func:`stream`. QUANTWISE_API_KEY, where set, is sent as the bearer token."""
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
    return LeanHttp(server.root, headers | key_header(os.environ.get("QUANTWISE_API_KEY")))


def stream_request(ask: Ask, model: str, extra: dict[str, Any]) -> StreamRequest:
    """The greedy request for ``ask``: messages go to the chat endpoint, a text to the other; ``extra`` is added."""
    body: dict[str, Any] = {"model": model, "max_tokens": ask.max_tokens, "temperature": 0, "stream": True, **extra}
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.text is None:
        path = "/v1/chat/completions"
        body["messages"] = [{"role": m.role, "content": m.content} for m in ask.messages]
    else:
        path = "/v1/completions"
        body["prompt"] = ask.text
    return StreamRequest(path, json.dumps(body).encode(), model)


async def stream(http: LeanHttp, request: StreamRequest, limit_s: float) -> Streamed:
    """Send one request and read its answer to the end. It ends after ``limit_s`` seconds at the latest."""
    answer = _Answer(request.model, clock())
    try:
        async with asyncio.timeout(limit_s), http.post(request.path, request.body) as response:
            await _read(response, answer)
    except _Fault as fault:
        return answer.ended(fault.outcome, str(fault))
    except ServerSaid as error:
        return answer.ended("error", str(error))
    except NotEvents as error:
        return answer.ended("malformed", str(error))
    except TimeoutError:
        if not answer.done:
            return answer.ended("timeout", f"no end after {limit_s:g} s, {len(answer.pieces)} pieces of text came")
    except (OSError, EOFError) as error:
        if not answer.done:
            return answer.ended("broken", " ".join(str(error).split()) or type(error).__name__)
    except NotHttp as error:
        if not answer.done:
            return answer.ended("malformed", f"no HTTP: {error}")
    return answer.closed()


async def _read(response: Response, answer: _Answer) -> None:
    answer.status = status = response.status
    if not 200 <= status < 300:
        data = b""
        async for portion in response.portions():
            if len(data := data + portion) > _MOST_SAID:
                break
        kind: Outcome = "error" if status >= 500 else "overloaded" if status == 429 else "refused"
        raise _Fault(kind, said(httpx.Response(status, content=data)))
    form = response.headers.get("content-type", "")
    if not form.startswith("text/event-stream"):
        raise _Fault("malformed", f"no event stream but {form or 'an untyped body'}")
    events = EventStream()
    async for data in response.portions():
        at = clock()
        for event in events.feed(data):
            answer.take(event, at)


class _Answer:
    """An answer while it comes in."""

    def __init__(self, model: str, sent: float) -> None:
        self._model = model
        self._sent = sent
        self._at = sent
        self._texts: list[str] = []
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._finished: float | None = None
        self._finish: str | None = None
        self.status: int | None = None
        self.pieces: list[float] = []
        self.done = False

    def take(self, data: bytes, at: float) -> None:
        """One event that came at ``at``; raises _Fault where it is no part of an answer of this model."""
        if self.done:
            return
        self._at = at
        if data == b"[DONE]":
            self.done = True
            return
        try:
            self._chunk(json.loads(data), at)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
            raise _Fault("malformed", f"an event that cannot be read ({error}): {one_line(data)}") from error

    def _chunk(self, chunk: dict[str, Any], at: float) -> None:
        if error := chunk.get("error"):
            raise _Fault("error", one_line(str(error.get("message") if isinstance(error, dict) else error).encode()))
        told = chunk.get("model")
        if told and not same_model(self._model, str(told)):
            raise _Fault("other_model", f"asked for {self._model!r}, answered as {str(told)!r}")
        self._usage = dict(chunk.get("usage") or self._usage)
        self._timings = dict(chunk.get("timings") or self._timings)
        if not chunk.get("choices"):
            return
        choice = chunk["choices"][0]
        if text := _text(choice):
            self._texts.append(text)
            self.pieces.append(at)
        if (finish := choice.get("finish_reason")) is not None:
            if finish in _NO_ANSWER:
                raise _Fault("error", f"the server ended it with {finish!r}")
            self._finish, self._finished = str(finish), at

    def closed(self) -> Streamed:
        """The answer of a stream that ended by itself."""
        if self._finish is None:
            return self.ended("unfinished", f"the stream ended without a finish reason after {len(self.pieces)} pieces")
        return self.ended("ok", None) if self.done else self.ended("unfinished", "the stream ended without [DONE]")

    def ended(self, outcome: Outcome, error: str | None) -> Streamed:
        """Everything that is known of it now."""
        usage, timings = self._usage, self._timings
        details = usage.get("prompt_tokens_details")
        seconds = [_number(timings.get(key)) for key in ("prompt_ms", "predicted_ms")]
        tokens = [_whole(timings.get(key)) for key in ("prompt_n", "predicted_n")]
        return Streamed(
            outcome=outcome,
            sent=self._sent,
            ended=self._at if outcome == "ok" else clock(),
            error=error,
            status=self.status,
            text="".join(self._texts),
            pieces=tuple(self.pieces),
            finished=self._finished,
            finish=self._finish,
            prompt_tokens=_whole(usage.get("prompt_tokens")),
            output_tokens=_whole(usage.get("completion_tokens")),
            cached_tokens=_whole(details.get("cached_tokens")) if isinstance(details, dict) else None,
            server_seconds=None if None in seconds else (seconds[0] / 1000, seconds[1] / 1000),  # type: ignore[operator]
            server_tokens=None if None in tokens else (tokens[0], tokens[1]),  # type: ignore[arg-type]
        )


def _text(choice: dict[str, Any]) -> str:
    """The text that a chunk adds: of a completion, of a message, of its reasoning, or of a tool call."""
    delta = choice.get("delta") or {}
    told = "".join([choice.get("text") or "", *(delta.get(name) or "" for name in _TEXTS)])
    return told or "".join(
        str(call.get("function", {}).get("arguments") or "") for call in delta.get("tool_calls") or ()
    )


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
    return float(value) if known else None  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None
